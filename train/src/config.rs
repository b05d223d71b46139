//! The settings of a training run: one TOML document, every key checked, defaults by recipe and mode.
//!
//! Precedence: defaults of the recipe and mode < file < overrides (flags). A key that does not exist is refused with the
//! nearest one that does. What a run used is written whole into its `run.json`.

mod methods;
mod name;
mod reading;

pub use methods::{ComposeConfig, EddaConfig, HybridConfig, MixupConfig, QueueConfig, SamplerConfig};
pub use name::RecipeName;

use crate::augment::RandomView;
use crate::dataset::OpenOptions;
use crate::explain::{ExplainConfig, MaskRule};
use crate::loss::{Background, SupCon};
use crate::network::Stem;
use crate::optimizer::SgdConfig;
use crate::schedule::Schedule;
use crate::{Error, Result};
use reading::{choice, difference, explain_error, given, merge};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;
use toml::{Table, Value};

/// Whose explanation trains the network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    /// The exact class-activation map that the board will show, in eval mode.
    Device,
    /// As the released ExCon code: Grad-CAM inside the network, train-mode batch norm.
    Paper,
}

/// Which epoch's weights a run keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Select {
    /// Most accurate on the fit half of validation; of equals the one with the lower NLL.
    Best,
    /// The last one.
    Last,
}

/// Where a training's steps run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Device {
    /// The processor.
    #[default]
    Cpu,
    /// The first NVIDIA graphics card; needs a build with the feature `cuda`.
    Cuda,
}

impl Device {
    /// What a build without the graphics card says.
    #[cfg(not(feature = "cuda"))]
    pub(crate) fn not_built_in() -> Error {
        let reason = "this program was built without CUDA. Build it with `cargo build --release --features cuda` \
                      (no CUDA toolkit is needed for that), or use --device cpu";
        Error::Setting { name: "device".into(), reason: reason.into() }
    }
}

/// Numbers of maps and of convolutions on the graphics card; master weights, sums and statistics are always `f32`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Precision {
    /// `bf16` maps and weights.
    #[default]
    Bf16,
    /// `f32` maps; convolutions and linear layers may round their inputs to TF32.
    Tf32,
    /// `f32` throughout.
    F32,
}

/// Everything a run is made from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrainConfig {
    /// Method.
    pub recipe: RecipeName,
    /// Whose explanation trains the network.
    pub mode: Mode,
    /// Whether the classifier's cross entropy on both views also reaches the encoder.
    pub joint: bool,
    /// `trashnet`, or the path of a data set.
    pub data: String,
    /// Side that pictures are resized to; the data set's own when absent.
    pub image_size: Option<usize>,
    /// Only the first so many classes.
    pub classes: Option<usize>,
    /// Share of train held out where the data set has no validation split, in 0..1.
    pub validation: f64,
    /// Network by name, such as `resnet8`.
    pub network: String,
    /// First convolution.
    pub stem: Stem,
    /// Outputs of the projection head.
    pub projection: usize,
    /// Passes over train; of `supcon-two-stage`, the first half for the encoder and the second for the classifier.
    pub epochs: usize,
    /// Pictures in a step.
    pub batch: usize,
    /// Base learning rate.
    pub learning_rate: f64,
    /// Seed of everything random.
    pub seed: u64,
    /// Where the steps run. No part of what the run is: it may be resumed elsewhere.
    #[serde(default)]
    pub device: Device,
    /// Precision on the graphics card; of no effect on the processor.
    #[serde(default)]
    pub precision: Precision,
    /// Weights to start from: a run folder or a `.safetensors` file.
    pub init: Option<PathBuf>,
    /// The first so many stages (the stem is one) keep their weights.
    pub freeze: usize,
    /// Which epoch's weights are kept.
    pub select: Select,
    /// Checkpoints of so many last epochs are kept while a run is under way, at least 1.
    #[serde(default = "one")]
    pub keep: usize,
    /// Whether the linear head is refitted to convergence on the frozen features at the end.
    pub refit_head: bool,
    /// Weight of the classifier's cross entropy when joint.
    pub cross_entropy_weight: f64,
    /// Treatment of masked pictures that fail the label-consistency test.
    pub background: Background,
    /// First epoch (from 1) with explanations; before it, the same without them.
    pub exp_epochs: usize,
    /// View 1 is the clean picture, nothing is explained: the recipe `control`.
    pub view1_unmasked: bool,
    /// Masked views are flipped with probability 0.5.
    pub flip_on_masked: bool,
    /// SGD.
    pub optimizer: SgdConfig,
    /// Learning rate over the epochs.
    pub schedule: Schedule,
    /// Random views of the encoder's steps.
    pub views: RandomView,
    /// Random views of the classifier's own pass, when not joint.
    pub classifier_views: RandomView,
    /// Constants of the contrastive loss.
    pub contrast: SupCon,
    /// How pictures are explained and masked.
    pub explain: ExplainConfig,
    /// How often a class is drawn.
    #[serde(default)]
    pub sampler: SamplerConfig,
    /// Momentum encoder and queue of `leoclr`.
    #[serde(default)]
    pub queue: QueueConfig,
    /// Weights of `edda-style`.
    #[serde(default)]
    pub edda: EddaConfig,
    /// Fading of `hybrid`.
    #[serde(default)]
    pub hybrid: HybridConfig,
    /// Backgrounds of `background-mixup`.
    #[serde(default)]
    pub mixup: MixupConfig,
    /// Views of `crop-and-mix`.
    #[serde(default)]
    pub compose: ComposeConfig,
}

/// What settings of a run that was made before there was a choice mean.
fn one() -> usize {
    1
}

impl TrainConfig {
    /// Defaults of a recipe in a mode. `device`: joint, short runs. `paper`: the released ExCon commands' values, with the
    /// learning rate for their batch of 256; of `leoclr` those of MoCo v2.
    pub fn defaults(recipe: RecipeName, mode: Mode) -> Self {
        let paper = mode == Mode::Paper;
        let base = match recipe {
            RecipeName::CrossEntropy | RecipeName::EddaStyle => RandomView::crop_and_flip(),
            _ => RandomView::contrastive(),
        };
        let scale = if paper { base.scale } else { (0.4, 1.0) };
        let config = Self {
            recipe,
            mode,
            joint: recipe.joint().unwrap_or(!paper),
            data: "trashnet".into(),
            image_size: None,
            classes: None,
            validation: 0.1,
            network: "resnet8".into(),
            stem: if paper { Stem::Stride1 } else { Stem::Stride2 },
            projection: 128,
            epochs: if paper { 200 } else { 40 },
            batch: if paper { 256 } else { 64 },
            learning_rate: if paper { 0.5 } else { 0.05 },
            seed: 1,
            device: Device::Cpu,
            precision: Precision::Bf16,
            init: None,
            freeze: 0,
            select: Select::Best,
            keep: 1,
            refit_head: true,
            cross_entropy_weight: 1.0,
            background: Background::Off,
            exp_epochs: 0,
            view1_unmasked: false,
            flip_on_masked: false,
            optimizer: SgdConfig { momentum: 0.9, weight_decay: 1e-4, nesterov: false },
            schedule: Schedule::default(),
            views: RandomView { scale, ..base },
            classifier_views: RandomView { scale, ..RandomView::crop_and_flip() },
            contrast: SupCon::default(),
            explain: if paper { ExplainConfig::paper() } else { ExplainConfig::device() },
            sampler: SamplerConfig::default(),
            queue: if paper { QueueConfig::paper() } else { QueueConfig::default() },
            edda: EddaConfig::default(),
            hybrid: HybridConfig::default(),
            mixup: MixupConfig::default(),
            compose: ComposeConfig::default(),
        };
        match recipe {
            // As many epochs for the encoder as the other methods have.
            RecipeName::SupconTwoStage => Self { epochs: 2 * config.epochs, ..config },
            RecipeName::ExconB => Self { background: Background::Negatives, ..config },
            RecipeName::Control => Self { view1_unmasked: true, ..config },
            RecipeName::Leoclr if paper => Self { learning_rate: 0.03, ..config },
            RecipeName::EddaStyle => {
                Self { explain: ExplainConfig { mask_rule: MaskRule::Top(0.6), ..config.explain }, ..config }
            }
            RecipeName::Hybrid => Self { sampler: SamplerConfig { power: 0.0 }, ..config },
            RecipeName::BackgroundMixup => {
                Self { explain: ExplainConfig { cam_relu: true, ..config.explain }, ..config }
            }
            RecipeName::MultiLabel => Self { refit_head: false, ..config },
            _ => config,
        }
    }

    /// The configuration of a file's text (if any) with overrides on top; keys of `overrides` as in the file. Defaults
    /// follow the recipe and mode that come out. `jitter = false` in a view turns the colour jitter off.
    ///
    /// # Errors
    /// On TOML that does not parse, unknown keys (with the nearest known one) and values out of range.
    pub fn resolve(text: Option<&str>, overrides: &Table) -> Result<Self> {
        let given = given(text, overrides)?;
        let recipe = choice(&given, "recipe", RecipeName::Excon)?;
        let mode = choice(&given, "mode", Mode::Device)?;
        Self::defaults(recipe, mode).changed(&given)
    }

    /// These settings with those of a file's text and of `overrides` in place of their own, as [`Self::resolve`] reads
    /// them.
    ///
    /// # Errors
    /// As [`Self::resolve`].
    pub fn with(&self, text: Option<&str>, overrides: &Table) -> Result<Self> {
        self.changed(&given(text, overrides)?)
    }

    fn changed(&self, given: &Table) -> Result<Self> {
        let mut all = Table::try_from(self).map_err(|e| fail("configuration", e.to_string()))?;
        merge(&mut all, given);
        let config: Self = Value::Table(all).try_into().map_err(|e: toml::de::Error| explain_error(e.message()))?;
        config.check()?;
        Ok(config)
    }

    /// The first setting that differs between these and `other`: its key as in the file, then both values (`not set`
    /// where there is none).
    pub fn difference(&self, other: &Self) -> Option<(String, String, String)> {
        let tables = (Table::try_from(self).ok()?, Table::try_from(other).ok()?);
        difference("", &tables.0, &tables.1)
    }

    /// Checks what types cannot.
    ///
    /// # Errors
    /// Naming the first setting that is out of range.
    pub fn check(&self) -> Result<()> {
        let positive = [
            ("epochs", self.epochs as f64),
            ("batch", self.batch as f64),
            ("projection", self.projection as f64),
            ("keep", self.keep as f64),
            ("learning_rate", self.learning_rate),
            ("image_size", self.image_size.unwrap_or(1) as f64),
            ("classes", self.classes.map_or(2.0, |c| c as f64 - 1.0)),
        ];
        if let Some((name, _)) = positive.iter().find(|(_, v)| !(*v > 0.0 && v.is_finite())) {
            let least = if *name == "classes" { "at least 2" } else { "positive" };
            return Err(fail(name, format!("must be {least}")));
        }
        if !(self.cross_entropy_weight >= 0.0 && self.cross_entropy_weight.is_finite()) {
            return Err(fail("cross_entropy_weight", "must be at least 0".into()));
        }
        if !(0.0..1.0).contains(&self.validation) {
            return Err(fail("validation", format!("{} is not in 0..1", self.validation)));
        }
        let decay = self.optimizer.weight_decay;
        if !(0.0..1.0).contains(&self.optimizer.momentum) || decay < 0.0 || !decay.is_finite() {
            return Err(fail("optimizer", "momentum must be in 0..1 and weight_decay at least 0".into()));
        }
        self.check_recipe()?;
        if !(self.contrast.temperature > 0.0 && self.contrast.base > 0.0) {
            return Err(fail("contrast", "temperature and base must be positive".into()));
        }
        self.explain.check()?;
        self.views.check()?;
        self.classifier_views.check()?;
        methods::check(self)?;
        self.schedule.check(self.epochs)
    }

    /// Checks that the settings are those of the recipe and not of another.
    fn check_recipe(&self) -> Result<()> {
        let name = self.recipe.as_str();
        match (self.recipe.joint(), self.joint) {
            (Some(true), false) => {
                return Err(fail("joint", format!("`{name}` always trains its classifier in the encoder's step")));
            }
            (Some(false), true) => return Err(fail("joint", format!("`{name}` trains its encoder without it"))),
            _ => {}
        }
        match self.recipe {
            RecipeName::ExconB if self.background == Background::Off => {
                Err(fail("background", "`off` is the recipe `excon`; use `negatives` or `class`".into()))
            }
            RecipeName::Control if !self.view1_unmasked => {
                Err(fail("view1_unmasked", "`false` is the recipe `excon`; `control` leaves view 1 unmasked".into()))
            }
            RecipeName::SupconTwoStage if self.epochs < 2 => {
                Err(fail("epochs", format!("`{name}` needs at least 2, one for each stage")))
            }
            RecipeName::MultiLabel if self.refit_head => {
                Err(fail("refit_head", format!("the refit knows one class per picture; `{name}` needs false")))
            }
            RecipeName::MultiLabel if self.sampler.power < 1.0 => {
                Err(fail("sampler.power", format!("a picture of `{name}` has no single class to be drawn by")))
            }
            _ => Ok(()),
        }
    }

    /// How the data set is opened.
    pub fn open_options(&self) -> OpenOptions {
        let Self { image_size, seed, validation, classes, .. } = *self;
        OpenOptions { image_size, seed, validation, classes }
    }

    /// One line that names the method fully, such as `excon (device, joint)`.
    pub fn title(&self) -> String {
        let mode = if self.mode == Mode::Device { "device" } else { "paper" };
        let joint = self.recipe.joint().is_none().then_some(if self.joint { "joint" } else { "pure" });
        let parts: Vec<&str> = self.recipe.explains().then_some(mode).into_iter().chain(joint).collect();
        match parts[..] {
            [] => self.recipe.as_str().into(),
            _ => format!("{} ({})", self.recipe.as_str(), parts.join(", ")),
        }
    }
}

fn fail(name: &str, reason: String) -> Error {
    Error::Setting { name: name.into(), reason }
}

#[cfg(test)]
mod tests;
