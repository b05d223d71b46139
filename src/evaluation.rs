//! What `excon evaluate` finds, as data: `excon.evaluation/1`, described key by key in `docs/evaluation.md`.
//!
//! The evaluation of a run on the whole test split is kept in the run folder, where `excon report` finds it. It names
//! the weights it was made with, so that it is never taken for that of others.

use crate::failure::{Failure, Result};
use excon_edge::file::replace;
use excon_train::evaluate::{Attacked, Corrupted, Evaluation, Explanations, Probe};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// Schema of the file.
pub const SCHEMA: &str = "excon.evaluation/1";
/// Name of the file in a run folder.
pub const NAME: &str = "evaluation.json";
/// Largest file that is read, bytes.
const LIMIT: u64 = 64 << 20;

/// One evaluation. Fractions are in 0..1, times in seconds.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Report {
    /// Always [`SCHEMA`].
    pub schema: String,
    /// Tool and version.
    pub tool: String,
    /// Run folder or bundle.
    pub model: PathBuf,
    /// SHA-256 of what was measured: the run's weights, or the bundle's manifest.
    pub model_digest: String,
    /// Name of the data set.
    pub data: String,
    /// Digest of the data set.
    pub data_digest: String,
    /// `test`, `validation` or `train`.
    pub split: String,
    /// Pictures that were asked for; `null` for the whole split.
    pub limit: Option<usize>,
    /// Seed of attacks and regenerated corruptions.
    pub seed: u64,
    /// Validation pictures the temperature was fitted on; 0 for the model's own, or 1 where there are too few.
    pub temperature_fitted_on: usize,
    /// Accuracy, calibration, drop and increase, boxes: over all pictures.
    pub evaluation: Evaluation,
    /// Deletion, insertion, occlusion: over a sample.
    pub explanations: Option<Explanations>,
    /// Under attack; `null` where not measured.
    pub attacks: Option<Vec<Attacked>>,
    /// Under corruption; `null` where not measured.
    pub corruptions: Option<Corrupted>,
    /// What a linear classifier and the nearest neighbours make of the features; `null` where not measured.
    pub probe: Option<Probe>,
}

impl Report {
    /// Reads a file.
    pub fn read(path: &Path) -> Result<Self> {
        let refuse = |reason: String| {
            Failure::input(format!("cannot use {}: {reason}. Make it with `excon evaluate`", path.display()))
        };
        let read = |source| Failure::from(excon_edge::Error::Read { path: path.into(), source });
        if std::fs::metadata(path).map_err(read)?.len() > LIMIT {
            return Err(refuse(format!("it is larger than {LIMIT} bytes")));
        }
        let text = std::fs::read_to_string(path).map_err(read)?;
        let report: Self = serde_json::from_str(&text).map_err(|e| refuse(e.to_string()))?;
        if report.schema != SCHEMA {
            return Err(refuse(format!("its schema is {:?}, this version reads {SCHEMA:?}", report.schema)));
        }
        Ok(report)
    }

    /// Writes a file.
    pub fn write(&self, path: &Path) -> Result<()> {
        Ok(replace(path, (serde_json::to_string_pretty(self)? + "\n").as_bytes())?)
    }

    /// Whether it covers a whole test split, as comparisons need it.
    pub fn is_whole_test(&self) -> bool {
        self.split == "test" && self.limit.is_none()
    }

    /// Takes over what an earlier evaluation of the same model on the same pictures measured and this one did not.
    pub fn keep(&mut self, earlier: Self) {
        let same = |r: &Self| {
            let e = &r.evaluation;
            (r.model_digest.clone(), r.data_digest.clone(), r.split.clone(), r.limit, r.seed, e.scaling.clone())
        };
        if same(self) == same(&earlier) {
            self.explanations = self.explanations.take().or(earlier.explanations);
            self.attacks = self.attacks.take().or(earlier.attacks);
            self.corruptions = self.corruptions.take().or(earlier.corruptions);
            self.probe = self.probe.or(earlier.probe);
        }
    }
}
