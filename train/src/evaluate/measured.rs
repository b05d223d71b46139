//! Accuracy and calibration of labelled logits, before and after temperature scaling, each figure with its interval.

use crate::Result;
use excon_edge::probability::{Intervals, Metrics, softmax_rows};
use serde::{Deserialize, Serialize};

/// What the probabilities of a set of pictures are worth.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Measured {
    /// After scaling by the temperature.
    pub metrics: Metrics,
    /// 95 % bootstrap intervals of `metrics`, figure by figure.
    pub intervals: Intervals,
    /// Before scaling: at temperature 1. Accuracies are the same.
    pub unscaled: Metrics,
    /// 95 % bootstrap intervals of `unscaled`.
    pub unscaled_intervals: Intervals,
}

impl Measured {
    /// Measures `labels.len() × classes` logits.
    ///
    /// # Errors
    /// When sizes disagree, there is no picture, or a logit is not finite.
    pub fn of(logits: &[f32], classes: usize, labels: &[usize], temperature: f64) -> Result<Self> {
        let at = |temperature: f64| -> Result<(Metrics, Intervals)> {
            let rows = softmax_rows(logits, classes, temperature);
            Ok((Metrics::measure(&rows, classes, labels)?, Intervals::measure(&rows, classes, labels)?))
        };
        let (unscaled, unscaled_intervals) = at(1.0)?;
        let (metrics, intervals) =
            if temperature == 1.0 { (unscaled.clone(), unscaled_intervals) } else { at(temperature)? };
        Ok(Self { metrics, intervals, unscaled, unscaled_intervals })
    }
}
