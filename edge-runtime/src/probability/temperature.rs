//! Temperature scaling: the one number that makes a network's confidence honest without changing its answers.
//!
//! The mean negative log-likelihood is convex in the inverse temperature β, so its derivative
//! `mean(E_p[z] − z_y)` has one root, found by Newton's method kept inside a shrinking bracket.

use super::{check_rows, log_softmax};
use crate::{Error, Result};
use serde::{Deserialize, Serialize};

/// Temperatures that a fit may return. Beyond them data do not determine it (such as every picture right).
const RANGE: (f64, f64) = (0.05, 20.0);

/// Outcome of a temperature fit.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TemperatureFit {
    /// The temperature to use; 1 when the fit was refused.
    pub temperature: f64,
    /// Mean negative log-likelihood at temperature 1, nats.
    pub nll_before: f64,
    /// The same at `temperature`.
    pub nll_after: f64,
    /// Why the fit was refused and 1 kept.
    pub refused: Option<String>,
}

/// The temperature that minimises the negative log-likelihood of `labels`; see [`fit_temperature_reported`].
///
/// # Errors
/// As [`fit_temperature_reported`].
pub fn fit_temperature<T: Copy + Into<f64>>(logits: &[T], classes: usize, labels: &[usize]) -> Result<f64> {
    Ok(fit_temperature_reported(logits, classes, labels)?.temperature)
}

/// Fits the temperature on `labels.len() × classes` logits. Keeps 1, and says why, when the likelihood has no best
/// temperature between 0.05 and 20 or does not gain.
///
/// # Errors
/// [`Error::Data`] when sizes disagree, there is no row, a label is no class, or a logit is not finite.
pub fn fit_temperature_reported<T: Copy + Into<f64>>(
    logits: &[T],
    classes: usize,
    labels: &[usize],
) -> Result<TemperatureFit> {
    check_rows("temperature", logits.len(), classes, labels)?;
    let logits: Vec<f64> = logits.iter().map(|z| (*z).into()).collect();
    if let Some(at) = logits.iter().position(|z| !z.is_finite()) {
        let reason = format!("a logit of row {} is not finite", at / classes);
        return Err(Error::Data { what: "temperature", reason });
    }
    let nll_before = nll(&logits, classes, labels, 1.0);
    let keep =
        |reason: String| TemperatureFit { temperature: 1.0, nll_before, nll_after: nll_before, refused: Some(reason) };

    let (mut low, mut high) = (1.0 / RANGE.1, 1.0 / RANGE.0);
    if slope(&logits, classes, labels, low).0 >= 0.0 || slope(&logits, classes, labels, high).0 <= 0.0 {
        return Ok(keep(format!("no best temperature lies between {} and {}", RANGE.0, RANGE.1)));
    }
    let mut beta = 1.0;
    for _ in 0..200 {
        let (first, second) = slope(&logits, classes, labels, beta);
        if first > 0.0 {
            high = beta
        } else {
            low = beta
        }
        let newton = beta - first / second;
        let next = if newton > low && newton < high { newton } else { (low + high) / 2.0 };
        let step = (next - beta).abs();
        beta = next;
        if step <= 1e-13 * beta {
            break;
        }
    }
    let temperature = 1.0 / beta;
    let nll_after = nll(&logits, classes, labels, temperature);
    if nll_after >= nll_before {
        return Ok(keep("the likelihood does not gain".into()));
    }
    Ok(TemperatureFit { temperature, nll_before, nll_after, refused: None })
}

fn nll(logits: &[f64], classes: usize, labels: &[usize], temperature: f64) -> f64 {
    let rows = logits.chunks_exact(classes).zip(labels);
    rows.map(|(row, label)| -log_softmax(row, temperature)[*label]).sum::<f64>() / labels.len() as f64
}

/// First and second derivative of the mean negative log-likelihood by the inverse temperature.
fn slope(logits: &[f64], classes: usize, labels: &[usize], beta: f64) -> (f64, f64) {
    let (mut first, mut second) = (0.0, 0.0);
    for (row, label) in logits.chunks_exact(classes).zip(labels) {
        let top = row.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let (mut total, mut mean, mut square) = (0.0, 0.0, 0.0);
        for z in row {
            let (z, weight) = (z - top, ((z - top) * beta).exp());
            total += weight;
            mean += weight * z;
            square += weight * z * z;
        }
        mean /= total;
        first += mean - (row[*label] - top);
        second += square / total - mean * mean;
    }
    (first / labels.len() as f64, second / labels.len() as f64)
}
