//! Training methods: which views of a picture are needed, and what one encoder step does with them.
//!
//! One file per method, chosen by name and configured by [`crate::config::TrainConfig`]. A step computes a
//! differentiable loss and touches nothing but the network's running statistics; the optimizer is the trainer's.

mod classifier;
mod cross_entropy;
mod excon;
mod excon_b;
mod supcon;
mod two_views;

pub use classifier::frozen_classifier_step;
pub use cross_entropy::CrossEntropy;
pub use excon::Excon;
pub use supcon::Supcon;

use crate::Result;
use crate::config::TrainConfig;
use crate::explain::Explained;
use crate::loss::SupCon;
use crate::network::Network;
use candle_core::Tensor;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;
use serde::{Deserialize, Serialize};

/// The methods by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RecipeName {
    /// Cross entropy on one random crop.
    CrossEntropy,
    /// Supervised contrastive learning on two random crops.
    Supcon,
    /// ExCon: view 1 is the picture masked by its explanation, where the network still recognises it.
    Excon,
    /// ExConB: ExCon with unrecognised masked pictures as background.
    ExconB,
}

impl RecipeName {
    /// Every name, in the order of presentation.
    pub const ALL: [Self; 4] = [Self::CrossEntropy, Self::Supcon, Self::Excon, Self::ExconB];

    /// The name as commands and files write it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::CrossEntropy => "cross-entropy",
            Self::Supcon => "supcon",
            Self::Excon => "excon",
            Self::ExconB => "excon-b",
        }
    }
}

/// Views of each picture that a step asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Needs {
    /// The clean picture S.
    pub standard: bool,
    /// Number of independent random views, 1 or 2.
    pub random: usize,
}

/// One batch: N × H × W × 3 normalised tensors and what belongs to their rows.
#[derive(Debug, Clone)]
pub struct Batch {
    /// Clean pictures S, where [`Needs`] asks for them.
    pub standard: Option<Tensor>,
    /// First random view (R1 of the released code): view 2 of a contrastive step.
    pub first: Tensor,
    /// Second random view (R2): view 1, or its backup. Equal to `first` where only one is needed.
    pub second: Tensor,
    /// Class of each row.
    pub labels: Vec<usize>,
    /// Position of each row's picture in its split: keys of per-picture randomness.
    pub indices: Vec<usize>,
    /// Seed of the run.
    pub seed: u64,
    /// Epoch, from 1.
    pub epoch: usize,
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
    /// The explanations, where the step made any.
    pub explained: Option<Explained>,
}

/// A training method.
pub trait Recipe: Send + Sync {
    /// Views needed in this epoch (from 1).
    fn needs(&self, epoch: usize) -> Needs;
    /// The loss of one batch.
    ///
    /// # Errors
    /// When the batch does not fit the network or a tensor operation fails.
    fn step(&self, network: &Network, batch: &Batch) -> Result<Step>;
    /// Whether the classifier learns in the encoder's step; if not, it is trained after each epoch on frozen features.
    fn trains_classifier(&self) -> bool;
}

/// The recipe a configuration names. `black` is a black pixel after normalisation.
///
/// # Errors
/// When its settings contradict each other.
pub fn build(config: &TrainConfig, black: [f32; 3]) -> Result<Box<dyn Recipe>> {
    let contrast = Contrast { supcon: config.contrast, joint: config.joint.then_some(config.cross_entropy_weight) };
    Ok(match config.recipe {
        RecipeName::CrossEntropy => Box::new(CrossEntropy),
        RecipeName::Supcon => Box::new(Supcon { contrast }),
        RecipeName::Excon => Box::new(Excon::new(config, contrast, black)?),
        RecipeName::ExconB => Box::new(excon_b::build(config, contrast, black)?),
    })
}

/// Settings of the contrastive step that the methods share.
#[derive(Debug, Clone, Copy)]
pub struct Contrast {
    /// Constants of the loss.
    pub supcon: SupCon,
    /// Weight of the classifier's cross entropy on both views, which then also reaches the encoder; `None`: not joint.
    pub joint: Option<f64>,
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
