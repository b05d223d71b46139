//! What the demo found, as data: `report.json`, schema `excon.report/1`. Fractions are in 0..1, times in seconds.

use super::board::Watched;
use crate::failure::{Failure, Result};
use excon_convert::ConversionReport;
use excon_edge::engine::NO_MAP;
use excon_edge::probability::{Bin, Metrics, Scaling, argmax, wilson};
use excon_edge::saliency::Faithfulness;
use excon_train::evaluate::Evaluation;
use excon_train::trainer::EpochRecord;
use serde::Serialize;

/// Schema of `report.json`.
pub const SCHEMA: &str = "excon.report/1";

/// The report.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// Always [`SCHEMA`].
    pub schema: &'static str,
    /// Tool and version.
    pub tool: String,
    /// The command that made it.
    pub command: String,
    /// Seed of everything random.
    pub seed: u64,
    /// Whether this was the quick demo, which trains too briefly to be accurate.
    pub quick: bool,
    /// All of it.
    pub seconds: f64,
    /// By act.
    pub seconds_of: Acts,
    /// Data set.
    pub data: Data,
    /// Training.
    pub training: Training,
    /// The float network on test.
    pub float: Side,
    /// The int8 engine, as sealed, on test.
    pub int8: Side,
    /// Share of test pictures to which both give the same class.
    pub agreement: f64,
    /// Quantization, comparison on validation, fitted constants, the sealed file.
    pub conversion: ConversionReport,
    /// The stream.
    pub board: Watched,
}

/// Seconds of each act.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Acts {
    /// Training, validation and head refit included.
    pub train: f64,
    /// Export, quantization, fitting, sealing.
    pub convert: f64,
    /// Both test evaluations.
    pub evaluate: f64,
    /// Predictions with maps, and the stream.
    pub board: f64,
}

/// The data set.
#[derive(Debug, Clone, Serialize)]
pub struct Data {
    /// Its name.
    pub name: String,
    /// Digest of all its pictures and labels.
    pub digest: String,
    /// Class names.
    pub labels: Vec<String>,
    /// Training pictures.
    pub train: usize,
    /// Validation pictures.
    pub validation: usize,
    /// Test pictures.
    pub test: usize,
}

/// The training.
#[derive(Debug, Clone, Serialize)]
pub struct Training {
    /// Method in full, such as `excon (device, joint)`.
    pub recipe: String,
    /// Whether the classifier's cross entropy also reached the encoder.
    pub joint: bool,
    /// Network.
    pub network: String,
    /// Epoch whose weights were kept, by the fit half of validation.
    pub kept_epoch: usize,
    /// L2 strength of the refitted head; `null` where the trained one was kept.
    pub refit_l2: Option<f64>,
    /// Accuracy on the fit half of validation, after the refit.
    pub validation_accuracy: f64,
    /// Every epoch.
    pub epochs: Vec<EpochRecord>,
}

/// One form of the network on the test pictures.
#[derive(Debug, Clone, Serialize)]
pub struct Side {
    /// Engine.
    pub engine: String,
    /// With calibrated probabilities.
    #[serde(flatten)]
    pub metrics: Metrics,
    /// 95 % interval of the accuracy (Wilson).
    pub accuracy_interval: [f64; 2],
    /// Accuracy of each class, in the order of the labels; `null` without pictures.
    pub accuracy_of: Vec<Option<f64>>,
    /// How its logits become probabilities.
    #[serde(flatten)]
    pub scaling: Scaling,
    /// The same with temperature 1.
    pub unscaled: Metrics,
    /// Bins with temperature 1, and calibrated.
    pub reliability: [Vec<Bin>; 2],
    /// Whether the explained part of a picture carries its prediction (top 15 % of the map kept).
    pub explanation: Faithfulness,
    /// Largest `|mean(CAM) + bias − logit| / (1 + |logit|)`.
    pub completeness_residual: f64,
    /// Predicted class of each test picture.
    #[serde(skip)]
    pub predicted: Vec<usize>,
}

impl Side {
    /// From an evaluation on labelled pictures, of a network that has maps.
    pub fn new(e: Evaluation, classes: usize) -> Result<Self> {
        let predicted = e.scaling.rows(&e.logits, classes).chunks_exact(classes).map(argmax).collect();
        let explanation = e.faithfulness.ok_or_else(|| Failure::input(NO_MAP))?;
        Ok(Self {
            accuracy_interval: wilson(e.measured.metrics.accuracy, e.measured.metrics.count),
            accuracy_of: e.accuracy_of,
            unscaled: e.measured.unscaled,
            reliability: e.reliability,
            engine: e.engine,
            metrics: e.measured.metrics,
            scaling: e.scaling,
            explanation,
            completeness_residual: e.completeness_residual,
            predicted,
        })
    }
}
