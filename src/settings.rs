//! Training settings from the command line: file < `EXCON_*` environment < flag.
//!
//! Flags become the keys of the configuration file; the trainer's library checks them, so that a wrong value is refused
//! in the same words wherever it was written.

use crate::failure::{Failure, Result};
use clap::Args;
use excon_train::config::{RecipeName, TrainConfig};
use std::collections::BTreeMap;
use std::path::PathBuf;
use toml::{Table, Value};

/// Flags of `excon train`.
#[derive(Debug, Args)]
pub struct Flags {
    /// Settings file in TOML; every key of a run's `run.json` is allowed
    #[arg(long, value_name = "FILE.toml", env = "EXCON_CONFIG", hide_env_values = true)]
    config: Option<PathBuf>,
    /// `trashnet`, class folders (with pairs.csv), pictures with labels.csv, CIFAR-10/100 (binary) or Tiny ImageNet, as a
    /// folder or .tar.gz
    #[arg(long, value_name = "PATH", env = "EXCON_DATA", hide_env_values = true)]
    data: Option<String>,
    /// Training method; `--help` lists them [default: excon]
    #[arg(long, value_name = "NAME", env = "EXCON_RECIPE", hide_env_values = true, long_help = recipes())]
    recipe: Option<String>,
    /// Whose explanation trains the network: device (the map the board shows) or paper [default: device]
    #[arg(long, env = "EXCON_MODE", hide_env_values = true)]
    mode: Option<String>,
    /// Let the classifier's cross entropy reach the encoder too [default: true in device mode]
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true", require_equals = true,
        env = "EXCON_JOINT", hide_env_values = true)]
    joint: Option<bool>,
    /// resnet8, resnet20, resnet32, resnet56, resnet18, resnet34, resnet50, or mobilenetv2 with a width, as in
    /// mobilenetv2-0.5 [default: resnet8]
    #[arg(long, value_name = "NAME", env = "EXCON_NETWORK", hide_env_values = true)]
    network: Option<String>,
    /// First convolution: stride1, stride2 or imagenet [default: stride2 in device mode]
    #[arg(long, env = "EXCON_STEM", hide_env_values = true)]
    stem: Option<String>,
    /// Passes over the training pictures [default: 40 in device mode]
    #[arg(long, value_name = "N", env = "EXCON_EPOCHS", hide_env_values = true)]
    epochs: Option<u32>,
    /// Pictures in a step [default: 64 in device mode]
    #[arg(long, value_name = "N", env = "EXCON_BATCH", hide_env_values = true)]
    batch: Option<u32>,
    /// Base learning rate [default: 0.05 in device mode]
    #[arg(long, value_name = "RATE", env = "EXCON_LR", hide_env_values = true)]
    lr: Option<f64>,
    /// Seed of everything random; the same seed repeats a run exactly on one machine [default: 1]
    #[arg(long, value_name = "S", env = "EXCON_SEED", hide_env_values = true)]
    seed: Option<u32>,
    /// Where the steps run: cpu or cuda, the first NVIDIA graphics card [default: cpu]
    #[arg(long, value_name = "NAME", env = "EXCON_DEVICE", hide_env_values = true)]
    device: Option<String>,
    /// Precision on the graphics card: bf16, tf32 or f32 [default: bf16]
    #[arg(long, value_name = "NAME", env = "EXCON_PRECISION", hide_env_values = true)]
    precision: Option<String>,
    /// Side that pictures are resized to [default: the data set's own, else 64]
    #[arg(long, value_name = "PIXELS", env = "EXCON_IMAGE_SIZE", hide_env_values = true)]
    image_size: Option<u32>,
    /// Only the first so many classes
    #[arg(long, value_name = "N", env = "EXCON_CLASSES", hide_env_values = true)]
    classes: Option<u32>,
    /// Share of train held out where there is no validation split [default: 0.1]
    #[arg(long, value_name = "SHARE", env = "EXCON_VALIDATION", hide_env_values = true)]
    validation: Option<f64>,
    /// Start from these weights: a run folder or a .safetensors file
    #[arg(long, value_name = "RUN|FILE", env = "EXCON_INIT", hide_env_values = true)]
    init: Option<PathBuf>,
    /// Keep the first so many stages as they are (the stem is one) [default: 0]
    #[arg(long, value_name = "N", env = "EXCON_FREEZE", hide_env_values = true)]
    freeze: Option<u32>,
    /// Keep the checkpoints of the last so many epochs, in RUN/checkpoints where it is more than one [default: 1]
    #[arg(long, value_name = "N", env = "EXCON_KEEP", hide_env_values = true)]
    keep: Option<u32>,
    /// Any other setting, as in the file: --set explain.explainer_bn=train --set exp_epochs=50
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
}

/// The methods, a line each.
fn recipes() -> String {
    let width = RecipeName::ALL.iter().map(|name| name.as_str().len()).max().unwrap_or(0);
    let line = |name: &RecipeName| format!("  {:width$}  {}", name.as_str(), name.about());
    let lines: Vec<String> = RecipeName::ALL.iter().map(line).collect();
    format!("Training method [default: excon]; docs/recipes.md says where each comes from:\n{}", lines.join("\n"))
}

impl Flags {
    /// The settings that come out: over the defaults, or over those of the run that is resumed.
    pub fn resolve(&self, resumed: Option<&TrainConfig>) -> Result<TrainConfig> {
        let text = self.config.as_ref().map(|path| {
            std::fs::read_to_string(path).map_err(|source| excon_edge::Error::Read { path: path.clone(), source })
        });
        let overrides = self.overrides()?;
        let text = text.transpose()?;
        let config = match resumed {
            Some(run) => run.with(text.as_deref(), &overrides),
            None => TrainConfig::resolve(text.as_deref(), &overrides),
        };
        config.map_err(|e| {
            let mut failure = Failure::from(e);
            if let Some(path) = &self.config {
                failure.message += &format!(" (settings from {} and the flags)", path.display());
            }
            failure
        })
    }

    fn overrides(&self) -> Result<Table> {
        let mut table = Table::new();
        let mut put = |key: &str, value: Option<Value>| {
            if let Some(value) = value {
                table.insert(key.into(), value);
            }
        };
        let whole = |v: Option<u32>| v.map(|v| Value::Integer(v.into()));
        let word = |v: &Option<String>| v.clone().map(Value::String);
        put("data", word(&self.data));
        put("recipe", word(&self.recipe));
        put("mode", word(&self.mode));
        put("joint", self.joint.map(Value::Boolean));
        put("network", word(&self.network));
        put("stem", word(&self.stem));
        put("epochs", whole(self.epochs));
        put("batch", whole(self.batch));
        put("learning_rate", self.lr.map(Value::Float));
        put("seed", whole(self.seed));
        put("device", word(&self.device));
        put("precision", word(&self.precision));
        put("image_size", whole(self.image_size));
        put("classes", whole(self.classes));
        put("validation", self.validation.map(Value::Float));
        put("init", self.init.as_ref().map(|p| Value::String(p.display().to_string())));
        put("freeze", whole(self.freeze));
        put("keep", whole(self.keep));
        for setting in &self.set {
            nest(&mut table, setting)?;
        }
        Ok(table)
    }
}

/// Settings as `a.b` keys with their values, as people read them.
pub fn flat(config: &TrainConfig) -> BTreeMap<String, String> {
    fn walk(prefix: &str, table: &Table, out: &mut BTreeMap<String, String>) {
        for (key, value) in table {
            match value {
                Value::Table(inner) => walk(&format!("{prefix}{key}."), inner, out),
                value => drop(out.insert(format!("{prefix}{key}"), plain(value))),
            }
        }
    }
    let mut out = BTreeMap::new();
    if let Ok(table) = Table::try_from(config) {
        walk("", &table, &mut out);
    }
    out
}

/// A value without quotes, and without the digits that only a wider float has.
fn plain(value: &Value) -> String {
    match value {
        Value::String(word) => word.clone(),
        Value::Float(v) if f64::from(*v as f32) == *v => (*v as f32).to_string(),
        Value::Array(all) => all.iter().map(plain).collect::<Vec<_>>().join(", "),
        other => other.to_string(),
    }
}

/// Puts `a.b=value` where it belongs. A value that is no TOML is a word.
fn nest(table: &mut Table, setting: &str) -> Result<()> {
    let wrong = || Failure::usage(format!("--set {setting}: write KEY=VALUE, such as --set exp_epochs=50"));
    let (key, value) = setting.split_once('=').ok_or_else(wrong)?;
    let value = format!("value = {value}").parse::<Table>().ok().and_then(|mut t| t.remove("value"));
    let value = value.unwrap_or_else(|| Value::String(setting[key.len() + 1..].trim().into()));
    let mut place = table;
    let mut parts: Vec<&str> = key.trim().split('.').collect();
    let last = parts.pop().filter(|l| !l.is_empty()).ok_or_else(wrong)?;
    for part in parts {
        let inner = place.entry(part).or_insert_with(|| Value::Table(Table::new()));
        place = inner.as_table_mut().ok_or_else(wrong)?;
    }
    place.insert(last.into(), value);
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn settings_nest_and_words_need_no_quotes() {
        let mut table = Table::new();
        for setting in ["explain.bn=train", "exp_epochs=50", "explain.threshold = 0.6", "note=a=b"] {
            nest(&mut table, setting).unwrap();
        }
        let wanted = "exp_epochs = 50\nnote = 'a=b'\n[explain]\nbn = 'train'\nthreshold = 0.6";
        assert_eq!(table, wanted.parse::<Table>().unwrap());
    }

    #[test]
    fn settings_are_told_flat_and_short() {
        let told = flat(&TrainConfig::resolve(None, &Table::new()).unwrap());
        let of = |key: &str| told.get(key).map(String::as_str);
        assert_eq!(of("views.scale"), Some("0.4, 1"));
        assert_eq!((of("recipe"), of("views.jitter.hue")), (Some("excon"), Some("0.1")));
        assert_eq!(of("learning_rate"), Some("0.05"));
    }

    #[test]
    fn settings_that_make_no_sense_are_usage_errors() {
        for setting in ["epochs", "=3", "a.=3", "exp_epochs.deeper=1"] {
            let mut table: Table = "exp_epochs = 1".parse().unwrap();
            assert_eq!(nest(&mut table, setting).unwrap_err().code, crate::failure::USAGE, "{setting}");
        }
    }
}
