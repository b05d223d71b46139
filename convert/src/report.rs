//! What a conversion leaves: its files' bytes, and every figure of it (`excon.conversion/1`).

use crate::Target;
use crate::compare::{BudgetLine, Comparison, LayerError};
use crate::mixed::MixedReport;
use crate::select::Trial;
use crate::timing::Timing;
use excon_edge::bundle::{Bundle, Precision};
use excon_edge::fit::FitReport;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// Schema of [`ConversionReport`].
pub const SCHEMA: &str = "excon.conversion/1";

/// A finished conversion.
#[derive(Debug, Clone)]
pub struct Conversion {
    /// The file written.
    pub path: PathBuf,
    /// The float ONNX file's bytes, for comparisons.
    pub float: Vec<u8>,
    /// The bytes of the model that was written.
    pub model: Vec<u8>,
    /// The sealed bundle, where one was asked for.
    pub bundle: Option<Bundle>,
    /// In figures.
    pub report: ConversionReport,
}

/// A conversion in figures.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ConversionReport {
    /// Always [`SCHEMA`].
    pub schema: String,
    /// The file written.
    pub path: PathBuf,
    /// Its size, bytes.
    pub bytes: u64,
    /// SHA-256 of the bundle's manifest, which names all its members.
    pub digest: Option<String>,
    /// Target.
    pub target: Target,
    /// Numeric form that is written.
    pub precision: Precision,
    /// Network.
    pub network: String,
    /// Size of the float model, bytes.
    pub float_bytes: u64,
    /// Size of the written model, bytes.
    pub model_bytes: u64,
    /// The way that won, and every way's figures; none where float was asked for.
    pub range: Option<RangeReport>,
    /// Float against int8 on the rank half; none where float was asked for.
    pub comparison: Option<Comparison>,
    /// Budgets; none where float is written.
    pub budget: Vec<BudgetLine>,
    /// The mixed form and the layers it keeps in float; none where int8 keeps its budget or mixed was not looked for.
    #[serde(default)]
    pub mixed: Option<MixedReport>,
    /// All forms on the machine that converted; none where float was asked for.
    pub timing: Option<Timing>,
    /// Noise of every map; none where float was asked for.
    pub layers: Vec<LayerError>,
    /// Fitted constants; none for a model alone.
    pub fit: Option<FitReport>,
    /// What a reader should know.
    pub notes: Vec<String>,
    /// Seconds.
    pub seconds: f64,
}

/// How the network was quantized.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RangeReport {
    /// The winner.
    pub best: Trial,
    /// Pictures behind the ranges.
    pub pictures: usize,
    /// SHA-256 of those pictures, in their order.
    pub digest: String,
    /// Every way on other pictures.
    pub trials: Vec<Trial>,
}
