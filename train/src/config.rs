//! The settings of a training run: one TOML document, every key checked, defaults by recipe and mode.
//!
//! Precedence: defaults of the recipe and mode < file < overrides (flags). A key that does not exist is refused with the
//! nearest one that does. What a run used is written whole into its `run.json`.

use crate::augment::RandomView;
use crate::explain::ExplainConfig;
use crate::loss::{Background, SupCon};
use crate::network::Stem;
use crate::optimizer::SgdConfig;
use crate::recipe::RecipeName;
use crate::schedule::Schedule;
use crate::{Error, Result};
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
    /// Passes over train.
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
    /// Whether the linear head is refitted to convergence on the frozen features at the end.
    pub refit_head: bool,
    /// Weight of the classifier's cross entropy when joint.
    pub cross_entropy_weight: f64,
    /// Treatment of masked pictures that fail the label-consistency test.
    pub background: Background,
    /// First epoch (from 1) with explanations; plain SupCon before.
    pub exp_epochs: usize,
    /// Control: view 1 is the clean picture, nothing is explained.
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
}

impl TrainConfig {
    /// Defaults of a recipe in a mode. `device`: joint, short runs. `paper`: the released commands' values, with the
    /// learning rate for their batch of 256.
    pub fn defaults(recipe: RecipeName, mode: Mode) -> Self {
        let paper = mode == Mode::Paper;
        let contrastive = recipe != RecipeName::CrossEntropy;
        let base = if contrastive { RandomView::contrastive() } else { RandomView::crop_and_flip() };
        let scale = if paper { base.scale } else { (0.4, 1.0) };
        Self {
            recipe,
            mode,
            joint: !paper || !contrastive,
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
            refit_head: true,
            cross_entropy_weight: 1.0,
            background: if recipe == RecipeName::ExconB { Background::Negatives } else { Background::Off },
            exp_epochs: 0,
            view1_unmasked: false,
            flip_on_masked: false,
            optimizer: SgdConfig { momentum: 0.9, weight_decay: 1e-4, nesterov: false },
            schedule: Schedule::default(),
            views: RandomView { scale, ..base },
            classifier_views: RandomView { scale, ..RandomView::crop_and_flip() },
            contrast: SupCon::default(),
            explain: if paper { ExplainConfig::paper() } else { ExplainConfig::device() },
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
        if self.recipe == RecipeName::ExconB && self.background == Background::Off {
            return Err(fail("background", "`off` is the recipe `excon`; use `negatives` or `class`".into()));
        }
        if !(self.contrast.temperature > 0.0 && self.contrast.base > 0.0) {
            return Err(fail("contrast", "temperature and base must be positive".into()));
        }
        self.explain.check()?;
        self.views.check()?;
        self.classifier_views.check()?;
        self.schedule.check(self.epochs)
    }

    /// One line that names the method fully, such as `excon (device, joint)`.
    pub fn title(&self) -> String {
        let mode = if self.mode == Mode::Device { "device" } else { "paper" };
        match self.recipe {
            RecipeName::CrossEntropy => "cross-entropy".into(),
            RecipeName::Supcon => format!("supcon ({})", if self.joint { "joint" } else { "pure" }),
            other => format!("{} ({mode}, {})", other.as_str(), if self.joint { "joint" } else { "pure" }),
        }
    }
}

fn fail(name: &str, reason: String) -> Error {
    Error::Setting { name: name.into(), reason }
}

/// A file's text with overrides on top.
fn given(text: Option<&str>, overrides: &Table) -> Result<Table> {
    let parse = |e: toml::de::Error| fail("configuration", e.to_string().trim_end().to_string());
    let mut given: Table = text.unwrap_or("").parse().map_err(parse)?;
    merge(&mut given, overrides);
    Ok(given)
}

fn difference(prefix: &str, a: &Table, b: &Table) -> Option<(String, String, String)> {
    let keys: std::collections::BTreeSet<&String> = a.keys().chain(b.keys()).collect();
    keys.into_iter().find_map(|key| match (a.get(key), b.get(key)) {
        (Some(Value::Table(a)), Some(Value::Table(b))) => difference(&format!("{prefix}{key}."), a, b),
        (a, b) if a == b => None,
        (a, b) => {
            let said = |v: Option<&Value>| v.map_or("not set".into(), Value::to_string);
            Some((format!("{prefix}{key}"), said(a), said(b)))
        }
    })
}

/// Puts `over` onto `base`: tables key by key, other values replaced; `false` in place of a table removes it.
fn merge(base: &mut Table, over: &Table) {
    for (key, value) in over {
        match (base.get_mut(key), value) {
            (Some(Value::Table(old)), Value::Table(new)) if is_choice(key) => *old = new.clone(),
            (Some(Value::Table(old)), Value::Table(new)) => merge(old, new),
            (Some(Value::Table(_)), Value::Boolean(false)) => {
                base.remove(key);
            }
            _ => {
                base.insert(key.clone(), value.clone());
            }
        }
    }
}

/// Keys whose table holds one alternative, so that a new one replaces the old.
fn is_choice(key: &str) -> bool {
    matches!(key, "mask_rule" | "decay")
}

/// A top-level key that decides about defaults.
fn choice<T: serde::de::DeserializeOwned>(given: &Table, key: &str, default: T) -> Result<T> {
    let Some(value) = given.get(key) else { return Ok(default) };
    value.clone().try_into().map_err(|e: toml::de::Error| {
        let Error::Setting { reason, .. } = explain_error(e.message()) else { return fail(key, e.to_string()) };
        fail(key, reason)
    })
}

/// Turns serde's "unknown …, expected one of …" into a message with the nearest alternative.
fn explain_error(message: &str) -> Error {
    let message = message.lines().next().unwrap_or(message);
    let mut quoted = message.split('`').skip(1).step_by(2);
    let (Some(given), true) = (quoted.next(), message.starts_with("unknown")) else {
        return fail("configuration", message.to_string());
    };
    let known: Vec<&str> = quoted.collect();
    let bare = |name: &str| name.replace(['-', '_'], "");
    let distance = |known: &str| strsim::damerau_levenshtein(&bare(given), &bare(known));
    let nearest = known.iter().map(|k| (distance(k), k)).min_by_key(|(d, _)| *d);
    let hint = match nearest {
        Some((distance, key)) if distance <= 2.max(given.len() / 3) => format!("did you mean `{key}`?"),
        _ => format!("known are {}", known.join(", ")),
    };
    fail(given, format!("`{given}` is not known; {hint}"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::explain::{CamLayer, MaskRule};

    fn resolve(text: &str) -> Result<TrainConfig> {
        TrainConfig::resolve(Some(text), &Table::new())
    }

    #[test]
    fn defaults_follow_recipe_and_mode_and_survive_a_round_trip() {
        for recipe in RecipeName::ALL {
            for mode in [Mode::Device, Mode::Paper] {
                let config = TrainConfig::defaults(recipe, mode);
                config.check().unwrap();
                let text = toml::to_string(&config).unwrap();
                assert_eq!(resolve(&text).unwrap(), config);
                let json = serde_json::to_string(&config).unwrap();
                assert_eq!(serde_json::from_str::<TrainConfig>(&json).unwrap(), config);
            }
        }
        let paper = resolve("mode = 'paper'").unwrap();
        assert_eq!((paper.explain.cam_layer, paper.joint, paper.epochs), (CamLayer::Paper, false, 200));
        assert_eq!(resolve("recipe = 'excon-b'").unwrap().background, Background::Negatives);
    }

    #[test]
    fn overrides_win_and_tables_merge() {
        let over: Table = "epochs = 3\n[explain]\nmask_rule = { top = 0.15 }".parse().unwrap();
        let text = "epochs = 9\nbatch = 32\n[explain]\ncam_relu = true\n[views]\njitter = false";
        let config = TrainConfig::resolve(Some(text), &over).unwrap();
        assert_eq!((config.epochs, config.batch), (3, 32));
        assert!(config.explain.cam_relu && config.views.jitter.is_none());
        assert_eq!(config.explain.mask_rule, MaskRule::Top(0.15));
    }

    #[test]
    fn the_first_difference_is_named_with_both_values() {
        let base = resolve("").unwrap();
        assert_eq!(base.difference(&base.clone()), None);
        let over = |text: &str| base.with(Some(text), &Table::new()).unwrap();
        assert_eq!(base.with(None, &Table::new()).unwrap(), base);
        let said = |text: &str| base.difference(&over(text)).map(|(key, a, b)| format!("{key} {a} {b}"));
        assert_eq!(said("epochs = 7").unwrap(), "epochs 40 7");
        assert_eq!(said("[explain]\ncam_relu = true").unwrap(), "explain.cam_relu false true");
        assert_eq!(said("classes = 4").unwrap(), "classes not set 4");
        assert!(said("[views]\njitter = false").unwrap().starts_with("views.jitter"));
        assert!(base.with(Some("epoch = 3"), &Table::new()).unwrap_err().to_string().contains("`epochs`"));
    }

    #[test]
    fn unknown_names_get_the_nearest() {
        let message = |text: &str| resolve(text).unwrap_err().to_string();
        assert!(message("epoch = 3").contains("`epochs`"), "{}", message("epoch = 3"));
        assert!(message("[explain]\ncam_rely = true").contains("`cam_relu`"));
        assert!(message("recipe = 'exconb'").contains("`excon-b`"), "{}", message("recipe = 'exconb'"));
        assert!(message("epochs = ").contains("configuration"));
    }

    #[test]
    fn values_out_of_range_name_the_setting() {
        for (text, name) in [
            ("epochs = 0", "epochs"),
            ("learning_rate = -1.0", "learning_rate"),
            ("recipe = 'excon-b'\nbackground = 'off'", "background"),
            ("[explain]\nmask_rule = { value = 1.5 }", "mask_rule"),
            ("[contrast]\ntemperature = 0.0", "contrast"),
            ("validation = 1.0", "validation"),
        ] {
            assert!(resolve(text).unwrap_err().to_string().contains(name), "{text}");
        }
    }
}
