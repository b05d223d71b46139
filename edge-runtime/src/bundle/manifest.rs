//! `manifest.json`: the one schema of a bundle. Unknown fields are refused.

use super::{CALIBRATION, GOLDEN, MAX_TOTAL, MODEL, REFERENCE};
use crate::image::Preprocess;
use crate::probability::{Abstention, Conformal, Refinement, Scaling};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// Schema identifier written into every manifest.
pub const SCHEMA: &str = "excon.bundle/2";

/// The manifest of a bundle.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// Always [`SCHEMA`].
    pub schema: String,
    /// Model name.
    pub name: String,
    /// Version counter; a board refuses to go back.
    pub version: u64,
    /// Target the model was lowered for, such as `cpu`.
    pub target: String,
    /// Numeric form of the convolutions.
    pub precision: Precision,
    /// Class names, in the order of the logits.
    pub labels: Vec<String>,
    /// From picture to input.
    pub preprocess: Preprocess,
    /// Shapes of the network.
    pub network: NetworkShapes,
    /// Constants re-fitted on the engine that will run.
    pub calibration: Calibration,
    /// The shift monitor's promise and how its reference was made.
    pub shift: ShiftContract,
    /// Budgets the conversion was held to, and what was measured.
    pub budget: Vec<BudgetItem>,
    /// Where the model comes from.
    pub provenance: Provenance,
    /// Every other member of the bundle by name.
    pub files: BTreeMap<String, FileEntry>,
}

impl Manifest {
    /// Checks every field that a reader relies on; the error names the field.
    ///
    /// # Errors
    /// A sentence fragment, when a value is missing, out of range or contradicts another.
    pub fn validate(&self) -> Result<(), String> {
        let text = |s: &str, most: usize| !s.is_empty() && s.len() <= most && !s.chars().any(char::is_control);
        let demand = |holds: bool, reason: &str| if holds { Ok(()) } else { Err(reason.to_string()) };
        demand(self.schema == SCHEMA, &format!("schema must be {SCHEMA}"))?;
        demand(text(&self.name, 128) && text(&self.target, 64), "name or target is empty or too long")?;

        let unique = self.labels.iter().collect::<BTreeSet<_>>().len() == self.labels.len();
        let named = self.labels.iter().all(|l| text(l, 256));
        demand(unique && named && (2..=100_000).contains(&self.labels.len()), "labels must be two or more, distinct")?;

        self.preprocess.validate().map_err(|e| e.to_string())?;
        let size = self.preprocess.size;
        demand(self.network.input == [3, size, size], "network.input must be 3 x preprocess.size x preprocess.size")?;
        let outputs = self.network.logits_name == "logits" && self.network.features_name == "features";
        demand(outputs, "network.logits_name must be logits and network.features_name features")?;
        demand(self.network.features.iter().all(|&d| d > 0), "network.features must be positive")?;

        self.calibration.validate(self.labels.len()).map_err(|reason| format!("calibration: {reason}"))?;
        let shift = &self.shift;
        demand(shift.mean_time_between_false_alarms > 1.0, "shift.mean_time_between_false_alarms must exceed 1")?;
        demand(shift.autocorrelation_time >= 1.0, "shift.autocorrelation_time must be at least 1")?;
        let measured = |b: &BudgetItem| b.allowed.is_finite() && b.measured.is_finite();
        demand(self.budget.iter().all(measured), "budget must be finite")?;
        self.validate_files()
    }

    fn validate_files(&self) -> Result<(), String> {
        let known = [MODEL, REFERENCE, GOLDEN, CALIBRATION];
        if let Some(name) = self.files.keys().find(|n| !known.contains(&n.as_str())) {
            return Err(format!("files: `{}` is no member of a bundle", name.escape_debug()));
        }
        if let Some(name) = [MODEL, REFERENCE, GOLDEN].into_iter().find(|n| !self.files.contains_key(*n)) {
            return Err(format!("files: {name} is missing"));
        }
        let hex = |s: &str| s.len() == 64 && s.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        if let Some((name, _)) = self.files.iter().find(|(_, f)| !hex(&f.sha256)) {
            return Err(format!("files: the digest of {name} is malformed"));
        }
        let total = self.files.values().try_fold(0u64, |n, f| n.checked_add(f.size));
        match total {
            Some(total) if total <= MAX_TOTAL => Ok(()),
            _ => Err(format!("files: together they are larger than {MAX_TOTAL} bytes")),
        }
    }
}

/// Numeric form of a network's convolutions; the head is always f32.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// 32-bit float.
    Float,
    /// Signed 8-bit integers, explicit quantize–dequantize pairs.
    Int8,
    /// The same, with some layers in 32-bit float.
    Mixed,
}

/// Shapes as they stand in the manifest: channels, height, width.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NetworkShapes {
    /// Input of one picture.
    pub input: [usize; 3],
    /// Last feature map.
    pub features: [usize; 3],
    /// ONNX name of the input.
    pub input_name: String,
    /// ONNX name of the logits.
    pub logits_name: String,
    /// ONNX name of the last feature map.
    pub features_name: String,
}

/// Constants fitted on held-out pictures with the engine that will run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Calibration {
    /// Softmax temperature, positive; 1 means none was needed.
    pub temperature: f64,
    /// What comes behind the temperature.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refinement: Option<Refinement>,
    /// Engine the constants were fitted on.
    pub engine: String,
    /// Pictures used for temperature and refinement.
    pub pictures: usize,
    /// Prediction sets.
    pub conformal: Option<Conformal>,
    /// When an answer is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub abstention: Option<Abstention>,
    /// Largest completeness residual `|mean(CAM) + b − logit| / (1 + |logit|)` seen while fitting.
    pub completeness_residual: f64,
}

impl Calibration {
    /// From logits to probabilities.
    pub fn scaling(&self) -> Scaling {
        Scaling { temperature: self.temperature, refinement: self.refinement.clone() }
    }

    /// Checks the constants of a network of so many classes.
    ///
    /// # Errors
    /// A sentence fragment that names what is out of range.
    pub fn validate(&self, classes: usize) -> Result<(), String> {
        self.scaling().validate(classes)?;
        if !self.completeness_residual.is_finite() {
            return Err("completeness_residual must be finite".into());
        }
        let conformal = self.conformal.as_ref().map_or(Ok(()), |c| c.validate(classes));
        conformal.map_err(|needs| format!("conformal needs {needs}"))?;
        self.abstention.as_ref().map_or(Ok(()), Abstention::validate)
    }
}

/// The promise of the shift monitor.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ShiftContract {
    /// Mean effective frames between false alarms that is promised, at least.
    pub mean_time_between_false_alarms: f64,
    /// Kept reference frames.
    pub reference_frames: usize,
    /// Integrated autocorrelation time of the reference, raw frames; 1 when declared independent.
    pub autocorrelation_time: f64,
    /// Whether the reference pictures were declared independent of each other.
    pub independent: bool,
    /// One frame in so many is also run masked, for the consistency channels; 0 means never.
    pub masked_every: usize,
}

/// One budget and its outcome.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BudgetItem {
    /// What is bounded, such as `accuracy loss`.
    pub name: String,
    /// Largest allowed value.
    pub allowed: f64,
    /// Measured value.
    pub measured: f64,
    /// Pictures it was measured on.
    pub pictures: usize,
    /// Whether it holds.
    pub met: bool,
}

/// Where a model comes from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Provenance {
    /// Recipe, such as `excon (device, joint)`.
    pub recipe: String,
    /// Network, such as `resnet8`.
    pub network: String,
    /// Data set name and digest.
    pub data: String,
    /// Training seed.
    pub seed: u64,
    /// Version of the tool that sealed it.
    pub tool: String,
}

/// Size and digest of one member.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileEntry {
    /// Bytes.
    pub size: u64,
    /// SHA-256, lower-case hex.
    pub sha256: String,
}
