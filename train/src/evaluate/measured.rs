//! Accuracy and calibration of labelled logits, before and after scaling, each figure with its interval.

use crate::Result;
use excon_edge::probability::{Intervals, Metrics, Scaling};
use serde::{Deserialize, Serialize};

/// What the probabilities of a set of pictures are worth.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Measured {
    /// After scaling.
    pub metrics: Metrics,
    /// 95 % bootstrap intervals of `metrics`, figure by figure.
    pub intervals: Intervals,
    /// Before scaling: at temperature 1. Accuracies are those after it, unless the scaling is more than a temperature.
    pub unscaled: Metrics,
    /// 95 % bootstrap intervals of `unscaled`.
    pub unscaled_intervals: Intervals,
}

impl Measured {
    /// Measures `labels.len() × classes` logits.
    ///
    /// # Errors
    /// When sizes disagree, there is no picture, or a logit is not finite.
    pub fn of(logits: &[f32], classes: usize, labels: &[usize], scaling: &Scaling) -> Result<Self> {
        let at = |scaling: &Scaling| -> Result<(Metrics, Intervals)> {
            let rows = scaling.rows(logits, classes);
            Ok((Metrics::measure(&rows, classes, labels)?, Intervals::measure(&rows, classes, labels)?))
        };
        let plain = Scaling::default();
        let (unscaled, unscaled_intervals) = at(&plain)?;
        let (metrics, intervals) =
            if *scaling == plain { (unscaled.clone(), unscaled_intervals) } else { at(scaling)? };
        Ok(Self { metrics, intervals, unscaled, unscaled_intervals })
    }
}
