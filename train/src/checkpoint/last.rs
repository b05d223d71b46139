//! `last.safetensors`: all that a training needs to go on after its last finished epoch, bit for bit.
//!
//! One file, so that one rename changes it: weights, running statistics and momentum of both optimizers, what the
//! recipe carries, the best weights where they are of an earlier epoch, and in its metadata the settings and every
//! epoch's record. Randomness is keyed by (seed, purpose, epoch, picture), so no generator has a state to save. The file
//! is written before the first epoch and removed when the run is finished: where it lies, a run is unfinished. Settings
//! and records are TOML inside, whose numbers are read back exactly.

use super::{State, WEIGHTS_LIMIT, hex, parse_weights, read_bounded, refuse};
use crate::config::TrainConfig;
use crate::dataset::Dataset;
use crate::trainer::EpochRecord;
use crate::{Error, Result};
use candle_core::Tensor;
use safetensors::SafeTensors;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::collections::HashMap;
use std::path::Path;

/// Name of the file in a run folder.
pub const NAME: &str = "last.safetensors";
/// Schema identifier in its metadata.
const SCHEMA: &str = "excon.last/1";
/// Keys of the metadata.
const PROGRESS: &str = "progress";
const SHA256: &str = "sha256";
/// Prefixes of the tensors' names.
const NETWORK: &str = "network.";
const ENCODER: &str = "encoder.";
const CLASSIFIER: &str = "classifier.";
const RECIPE: &str = "recipe.";
const BEST: &str = "best.";

/// How far a training is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Progress {
    /// Always `excon.last/1`.
    schema: String,
    /// Digest of the data set.
    pub data_digest: String,
    /// Seconds of training so far.
    pub seconds: f64,
    /// Settings of the run.
    pub config: TrainConfig,
    /// One per finished epoch.
    pub records: Vec<EpochRecord>,
}

impl Progress {
    /// The progress of a run by `config` on the data with this digest.
    pub fn new(config: &TrainConfig, data_digest: &str, seconds: f64, records: &[EpochRecord]) -> Self {
        let (config, records) = (config.clone(), records.to_vec());
        Self { schema: SCHEMA.into(), data_digest: data_digest.into(), seconds, config, records }
    }

    /// Position in `records` of the epoch whose weights are kept; none before the first epoch.
    pub fn best(&self) -> Option<usize> {
        self.records.iter().rposition(|r| r.best)
    }
}

/// A training between two epochs.
#[derive(Debug, Clone)]
pub struct Last {
    /// How far it is.
    pub progress: Progress,
    /// Weights and running statistics.
    pub network: State,
    /// Momentum of the encoder's optimizer.
    pub encoder: State,
    /// Momentum of the classifier's own optimizer, empty where it has none.
    pub classifier: State,
    /// What the recipe carries, empty for most.
    pub recipe: State,
    /// The weights that the run keeps; none before the first epoch that counts.
    pub best: Option<State>,
}

impl Last {
    /// The checkpoint in a run folder; none where no training is unfinished there.
    ///
    /// # Errors
    /// [`Error::Checkpoint`] naming the file when it is truncated, damaged or of another version.
    pub fn find(folder: &Path) -> Result<Option<Self>> {
        let path = folder.join(NAME);
        if !path.exists() {
            return Ok(None);
        }
        let bytes = read_bounded(&path, WEIGHTS_LIMIT)?;
        let (_, header) = SafeTensors::read_metadata(&bytes).map_err(|e| refuse(&path, e.to_string()))?;
        let lacks = |key: &str| refuse(&path, format!("its metadata lacks {key}"));
        let text = |key: &str| header.metadata().as_ref().and_then(|m| m.get(key)).ok_or_else(|| lacks(key));
        let tensors = parse_weights(&path, &bytes)?;
        if digest(text(PROGRESS)?, &tensors)? != *text(SHA256)? {
            return Err(refuse(&path, "its digest is not that of its content (damaged)".into()));
        }
        let progress: Progress = toml::from_str(text(PROGRESS)?).map_err(|e| refuse(&path, e.message().into()))?;
        if progress.schema != SCHEMA {
            return Err(refuse(&path, format!("schema is {:?}, this version reads {SCHEMA:?}", progress.schema)));
        }
        let part = |prefix: &str| -> State {
            let named =
                |(name, tensor): (&String, &Tensor)| Some((name.strip_prefix(prefix)?.to_string(), tensor.clone()));
            tensors.iter().filter_map(named).collect()
        };
        let network = part(NETWORK);
        let best = progress.best().map(|at| match at + 1 == progress.records.len() {
            true => network.clone(),
            false => part(BEST),
        });
        let (encoder, classifier, recipe) = (part(ENCODER), part(CLASSIFIER), part(RECIPE));
        Ok(Some(Self { encoder, classifier, recipe, network, best, progress }))
    }

    /// The file's content. `best` is left out where it is the network's own state, that of the last epoch.
    pub(super) fn bytes(&self) -> Result<Vec<u8>> {
        let wrong = |reason: String| refuse(Path::new(NAME), reason);
        let text = toml::to_string(&self.progress).map_err(|e| wrong(e.to_string()))?;
        let mut tensors = State::new();
        let mut add = |prefix: &str, state: &State| {
            tensors.extend(state.iter().map(|(name, tensor)| (format!("{prefix}{name}"), tensor.clone())));
        };
        add(NETWORK, &self.network);
        add(ENCODER, &self.encoder);
        add(CLASSIFIER, &self.classifier);
        add(RECIPE, &self.recipe);
        if let (Some(at), Some(best)) = (self.progress.best(), &self.best)
            && at + 1 < self.progress.records.len()
        {
            add(BEST, best);
        }
        let sha256 = digest(&text, &tensors)?;
        let metadata = HashMap::from([(PROGRESS.to_string(), text), (SHA256.to_string(), sha256)]);
        super::weights_bytes(&tensors, Some(metadata))
    }

    /// Refuses to go on with other settings or other pictures. The path of the data may differ: its content may not.
    ///
    /// # Errors
    /// [`Error::Setting`] naming the first setting that differs, or [`Error::Dataset`].
    pub fn check(&self, config: &TrainConfig, data: &Dataset) -> Result<()> {
        same(&self.progress.config, &self.progress.data_digest, config, data)
    }
}

/// Whether `config` on `data` is the run with these settings and this digest. Where the data lie, which device trains and
/// how many checkpoints are kept may differ.
pub(crate) fn same(of: &TrainConfig, data_digest: &str, config: &TrainConfig, data: &Dataset) -> Result<()> {
    let TrainConfig { device, precision, keep, .. } = *config;
    let moved = TrainConfig { data: config.data.clone(), device, precision, keep, ..of.clone() };
    if let Some((name, was, is)) = moved.difference(config) {
        let reason =
            format!("the run was begun with {was}, now it is {is}. Resume with the settings it was begun with");
        return Err(Error::Setting { name, reason });
    }
    if data.digest != data_digest {
        let reason = "it does not hold the pictures that the run was begun with. Resume with the same data".to_string();
        return Err(Error::Dataset { path: config.data.clone().into(), reason });
    }
    Ok(())
}

/// SHA-256 over the text and every tensor's name and values.
fn digest(text: &str, tensors: &State) -> Result<String> {
    let mut hash = Sha256::new();
    hash.update(text);
    for (name, tensor) in tensors {
        hash.update(name);
        let values = tensor.flatten_all()?.to_vec1::<f32>()?;
        values.iter().for_each(|v| hash.update(v.to_le_bytes()));
    }
    Ok(hex(&hash.finalize()))
}
