//! From logits to honest probabilities: softmax, ways to calibrate and the choice among them, measures of accuracy and
//! calibration with their intervals, prediction sets, abstention.
//!
//! Pure functions on slices, f64 inside. Rows are pictures, columns classes, row-major; labels are class indices.

mod abstention;
mod choice;
pub mod conformal;
mod interval;
mod metrics;
mod rows;
mod scaling;
mod sets;
mod softmax;
mod temperature;
#[cfg(test)]
mod tests;
mod vector;
mod venn_abers;

pub use abstention::Abstention;
pub use choice::{Candidate, Choice, FEWEST, Method, choose};
pub use interval::{Estimate, Intervals, RESAMPLES, Z95, lower_limit, upper_limit, wilson};
pub use metrics::{Bin, Metrics, reliability};
pub use scaling::{Refinement, Scaling};
pub use sets::{Conformal, LabelledRows, Penalty, SetOptions, SetScore};
pub use softmax::{argmax, log_softmax, softmax, softmax_rows};
pub use temperature::{TemperatureFit, fit_temperature, fit_temperature_reported};
pub use vector::VectorScaling;
pub use venn_abers::VennAbers;

use crate::{Error, Result};

/// Checks that `values` is `labels.len() × classes` with at least one row and that every label names a class.
fn check_rows(what: &'static str, values: usize, classes: usize, labels: &[usize]) -> Result<()> {
    let refuse = |reason: String| Err(Error::Data { what, reason });
    if classes < 2 {
        return refuse(format!("{classes} classes; at least 2 are needed"));
    }
    if labels.is_empty() || labels.len().checked_mul(classes) != Some(values) {
        return refuse(format!("{values} values are not {} labelled rows of {classes}", labels.len()));
    }
    match labels.iter().find(|label| **label >= classes) {
        Some(label) => refuse(format!("label {label} is not below {classes}")),
        None => Ok(()),
    }
}
