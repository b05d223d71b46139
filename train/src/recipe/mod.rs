//! Training methods: which views of a picture are needed, and what one encoder step does with them.
//!
//! One file per method, which says where the method comes from and what is unknown about it; chosen by name and
//! configured by [`crate::config::TrainConfig`]. A step computes a differentiable loss; the optimizer is the trainer's.
//! A method that carries state from step to step hands it over for the checkpoint, so that a resumed run is the same.

mod background_mixup;
mod classifier;
mod control;
mod crop_and_mix;
mod cross_entropy;
mod edda_style;
mod excon;
mod excon_b;
mod hybrid;
mod leoclr;
mod leoclr_supervised;
mod multi_label;
mod pairs;
mod supcon;
mod supcon_two_stage;
mod views;

pub use classifier::frozen_classifier_step;

use crate::augment::View;
use crate::config::{RecipeName, TrainConfig};
use crate::dataset::{Dataset, Split};
use crate::loss::SupCon;
use crate::network::Network;
use crate::{Error, Result};
use candle_core::Tensor;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;
use std::borrow::Cow;
use std::collections::BTreeMap;

/// One picture of an epoch's order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Draw {
    /// Position of the picture in train.
    pub index: usize,
    /// Key of the draw's randomness: the index, and where a sampler draws a picture again, another number.
    pub key: usize,
}

/// The views of a step; each draws from a stream of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Slot {
    /// R1 of the released ExCon code: view 2 of a contrastive step.
    First = 0,
    /// R2: view 1, or its backup.
    Second = 1,
    /// The classifier's own pass.
    Classifier = 2,
    /// The un-cropped view.
    Standard = 3,
    /// The class-balanced branch.
    Balanced = 4,
}

/// What is about to be rendered.
#[derive(Debug, Clone, Copy)]
pub struct Sample {
    /// The picture.
    pub draw: Draw,
    /// Which of its views.
    pub slot: Slot,
    /// Seed of the run.
    pub seed: u64,
    /// Epoch, from 1.
    pub epoch: usize,
}

/// Views of each picture that a step asks for.
#[derive(Debug, Clone)]
pub struct Needs {
    /// The un-cropped picture: S, or with its colours changed.
    pub standard: Option<View>,
    /// First random view.
    pub first: View,
    /// Second random view.
    pub second: Option<View>,
    /// A view of as many pictures of the class-balanced order.
    pub balanced: Option<View>,
}

impl Needs {
    /// Two random views.
    fn two(view: View) -> Self {
        Self { standard: None, first: view.clone(), second: Some(view), balanced: None }
    }
}

/// One batch: N × H × W × 3 normalised tensors and what belongs to their rows.
#[derive(Debug, Clone)]
pub struct Batch {
    /// Un-cropped pictures, where [`Needs`] asks for them.
    pub standard: Option<Tensor>,
    /// First random view.
    pub first: Tensor,
    /// Second random view; equal to `first` where only one is needed.
    pub second: Tensor,
    /// Class of each row.
    pub labels: Vec<usize>,
    /// The pictures of the rows.
    pub draws: Vec<Draw>,
    /// Pictures and classes of the class-balanced branch, where [`Needs`] asks for them.
    pub balanced: Option<(Tensor, Vec<usize>)>,
    /// Seed of the run.
    pub seed: u64,
    /// Epoch, from 1.
    pub epoch: usize,
}

impl Batch {
    fn uncropped(&self) -> Result<&Tensor> {
        self.standard.as_ref().ok_or_else(|| missing("the un-cropped pictures"))
    }
}

fn missing(what: &str) -> Error {
    Error::Setting { name: "batch".into(), reason: format!("{what} are missing") }
}

/// What one step yields.
#[derive(Debug)]
pub struct Step {
    /// Scalar to differentiate.
    pub loss: Tensor,
    /// Contrastive part, where there is one.
    pub contrastive: Option<f64>,
    /// Cross-entropy part, where there is one.
    pub cross_entropy: Option<f64>,
    /// Rows whose logits were compared with a label, and how many of them were right.
    pub classified: (usize, usize),
    /// Whether each masked picture is still recognised, where the step masked any.
    pub passes: Option<Vec<bool>>,
}

/// What an epoch trains. One run does not mix [`Trains::Together`] with the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trains {
    /// Encoder and classifier in one step.
    Together,
    /// The encoder, then the classifier on frozen features.
    InTurn,
    /// The encoder alone.
    Encoder,
    /// The classifier alone, on frozen features.
    Classifier,
}

impl Trains {
    /// [`Trains::Together`] if `joint`, else [`Trains::InTurn`].
    fn joint(joint: bool) -> Self {
        if joint { Self::Together } else { Self::InTurn }
    }

    /// Whether the encoder's steps are taken.
    pub fn encoder(self) -> bool {
        self != Self::Classifier
    }

    /// Whether the classifier has a pass of its own.
    pub fn own_pass(self) -> bool {
        matches!(self, Self::InTurn | Self::Classifier)
    }
}

/// Tensors by name, all `f32`: what a recipe adds to a checkpoint.
pub type RecipeState = BTreeMap<String, Tensor>;

/// A training method.
pub trait Recipe: Send + Sync {
    /// Views needed in this epoch (from 1).
    fn needs(&self, epoch: usize) -> Needs;

    /// What this epoch (from 1) trains.
    fn trains(&self, epoch: usize) -> Trains;

    /// Where an epoch (from 1, of `epochs`) lies on the learning-rate schedule: another such pair.
    fn on_schedule(&self, epoch: usize, epochs: usize) -> (usize, usize) {
        (epoch, epochs)
    }

    /// Called before an epoch's first step.
    ///
    /// # Errors
    /// When a tensor operation fails.
    fn begin(&mut self, _network: &Network, _data: &Dataset, _epoch: usize) -> Result<()> {
        Ok(())
    }

    /// The `size × size × 3` bytes that a view is rendered from.
    fn picture<'a>(&'a self, train: &'a Split, of: Sample) -> Cow<'a, [u8]> {
        Cow::Borrowed(train.picture(of.draw.index))
    }

    /// The loss of one batch.
    ///
    /// # Errors
    /// When the batch does not fit the network or a tensor operation fails.
    fn step(&mut self, network: &Network, batch: &Batch) -> Result<Step>;

    /// Called after the optimizer has moved the network.
    ///
    /// # Errors
    /// When a tensor operation fails.
    fn follow(&mut self, _network: &Network) -> Result<()> {
        Ok(())
    }

    /// What the recipe carries from epoch to epoch; empty for most.
    ///
    /// # Errors
    /// When a tensor operation fails.
    fn state(&self) -> Result<RecipeState> {
        Ok(RecipeState::new())
    }

    /// Takes over what [`Recipe::state`] gave; `network` is the one that is trained.
    ///
    /// # Errors
    /// When it is not the state of this recipe.
    fn load(&mut self, _network: &Network, state: &RecipeState) -> Result<()> {
        match state.keys().next() {
            Some(name) => {
                Err(Error::Graph { node: name.clone(), reason: "belongs to no part of this recipe's state".into() })
            }
            None => Ok(()),
        }
    }
}

/// The recipe a configuration names, for a data set.
///
/// # Errors
/// When its settings contradict each other, or the data lacks what it needs.
pub fn build(config: &TrainConfig, data: &Dataset) -> Result<Box<dyn Recipe>> {
    let name = config.recipe.as_str();
    if data.is_multi_label() != (config.recipe == RecipeName::MultiLabel) {
        let reason = match data.is_multi_label() {
            true => {
                format!("{name:?} needs one class per picture, and the data has sets of labels; use \"multi-label\"")
            }
            false => format!("{name:?} needs sets of labels: put labels.csv beside the pictures"),
        };
        return Err(Error::Setting { name: "recipe".into(), reason });
    }
    Ok(match config.recipe {
        RecipeName::CrossEntropy => Box::new(cross_entropy::CrossEntropy::new(config)),
        RecipeName::Supcon => Box::new(supcon::Supcon::new(config)),
        RecipeName::SupconTwoStage => Box::new(supcon_two_stage::TwoStage::new(config)),
        RecipeName::Excon => Box::new(excon::Excon::new(config, data)?),
        RecipeName::ExconB => Box::new(excon_b::build(config, data)?),
        RecipeName::Control => Box::new(control::build(config, data)?),
        RecipeName::Leoclr => Box::new(leoclr::Leoclr::new(config)),
        RecipeName::LeoclrSupervised => Box::new(leoclr_supervised::LeoclrSupervised::new(config)),
        RecipeName::EddaStyle => Box::new(edda_style::EddaStyle::new(config, data)),
        RecipeName::Hybrid => Box::new(hybrid::Hybrid::new(config)),
        RecipeName::BackgroundMixup => Box::new(background_mixup::BackgroundMixup::new(config)),
        RecipeName::CropAndMix => Box::new(crop_and_mix::build(config)),
        RecipeName::MultiLabel => Box::new(multi_label::MultiLabel::new(config, data)),
        RecipeName::Pairs => Box::new(pairs::ExternalPositives::new(config, data)?),
    })
}

/// A black pixel after the data set's normalisation.
fn black(data: &Dataset) -> [f32; 3] {
    std::array::from_fn(|c| -data.mean[c] / data.std[c])
}

/// Settings of the contrastive step that the methods share.
#[derive(Debug, Clone, Copy)]
struct Contrast {
    /// Constants of the loss.
    supcon: SupCon,
    /// Weight of the classifier's cross entropy on every view, which then also reaches the encoder; `None`: not joint.
    joint: Option<f64>,
}

impl Contrast {
    fn of(config: &TrainConfig) -> Self {
        Self { supcon: config.contrast, joint: config.joint.then_some(config.cross_entropy_weight) }
    }

    fn trains(&self) -> Trains {
        Trains::joint(self.joint.is_some())
    }
}

/// Streams of randomness that must not collide.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Purpose {
    /// Initial weights.
    Weights = 1,
    /// Order of the pictures in an epoch.
    Order = 2,
    /// Flips of masked views.
    MaskedFlip = 3,
    /// Order of the class-balanced branch.
    Balanced = 4,
    /// The queue's first keys.
    Queue = 5,
    /// Whose background a picture gets, and whether.
    Background = 6,
    /// Which of a picture's positives is taken.
    Positive = 7,
    /// Where an attack starts.
    Attack = 16,
    /// Noise of a corruption that is measured.
    Corruption = 17,
}

/// The generator of one purpose, epoch and picture.
pub(crate) fn stream(seed: u64, purpose: Purpose, epoch: usize, index: usize) -> ChaCha8Rng {
    let mut key = [0u8; 32];
    for (bytes, word) in key.chunks_exact_mut(8).zip([seed, purpose as u64, epoch as u64, index as u64]) {
        bytes.copy_from_slice(&word.to_le_bytes());
    }
    ChaCha8Rng::from_seed(key)
}

#[cfg(test)]
mod tests;
