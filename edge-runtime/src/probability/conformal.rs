//! Split-conformal prediction sets: the classes that cannot be ruled out at a stated error rate.
//!
//! A score says how badly a class fits a row of probabilities. With the scores of the true classes of n exchangeable
//! calibration pictures and their conformal [`quantile`], the [`set`] of a new picture misses its class with
//! probability at most alpha, whatever the network. Nothing is forced in: a set may be empty.

use crate::{Error, Result};

/// Slack when a score is compared with the quantile, so that the rounding of a cumulative sum near 1 excludes nobody.
const SLACK: f64 = 1e-12;

/// LAC scores of every class: `1 − p`.
pub fn lac(probabilities: &[f64]) -> Vec<f64> {
    probabilities.iter().map(|p| 1.0 - p).collect()
}

/// APS scores of every class: the cumulative probability in descending order, including the class (equal ones: lower
/// class first). `u` in 0..1, drawn anew for each picture, subtracts `u · p` (randomised form: exact coverage,
/// smaller sets); `None` is the deterministic form.
pub fn aps(probabilities: &[f64], u: Option<f64>) -> Vec<f64> {
    raps(probabilities, u, 0.0, probabilities.len())
}

/// RAPS scores of every class: [`aps`] plus `penalty · max(0, rank − free)`, ranks counted from 1.
pub fn raps(probabilities: &[f64], u: Option<f64>, penalty: f64, free: usize) -> Vec<f64> {
    let mut order: Vec<usize> = (0..probabilities.len()).collect();
    order.sort_by(|a, b| probabilities[*b].total_cmp(&probabilities[*a]));
    let mut scores = vec![0.0; probabilities.len()];
    let mut sum = 0.0;
    for (index, class) in order.into_iter().enumerate() {
        let p = probabilities[class];
        sum += p;
        scores[class] = sum - u.unwrap_or(0.0) * p + penalty * (index + 1).saturating_sub(free) as f64;
    }
    scores
}

/// The `⌈(n + 1)(1 − alpha)⌉`-th smallest of the n calibration scores of the true classes.
///
/// # Errors
/// [`Error::Data`] when alpha is not inside 0..1, a score is not finite, or n is too small for alpha (the promise would
/// need every class in every set).
pub fn quantile(scores: &[f64], alpha: f64) -> Result<f64> {
    let refuse = |reason: String| Err(Error::Data { what: "conformal quantile", reason });
    if !(alpha > 0.0 && alpha < 1.0) {
        return refuse(format!("alpha is {alpha}, use a value inside 0..1"));
    }
    if scores.iter().any(|s| !s.is_finite()) {
        return refuse("a score is not finite".into());
    }
    // The tiny term keeps (n + 1)(1 − alpha) from rounding up across a whole number.
    let rank = ((scores.len() + 1) as f64 * (1.0 - alpha) - 1e-9).ceil().max(1.0) as usize;
    if rank > scores.len() {
        let needed = (1.0 / alpha - 1.0 - 1e-9).ceil();
        return refuse(format!("{} calibration pictures; alpha {alpha} needs at least {needed}", scores.len()));
    }
    let mut sorted = scores.to_vec();
    let (_, value, _) = sorted.select_nth_unstable_by(rank - 1, f64::total_cmp);
    Ok(*value)
}

/// The prediction set: classes whose score is at most the quantile, ascending.
pub fn set(scores: &[f64], quantile: f64) -> Vec<usize> {
    (0..scores.len()).filter(|class| within(scores[*class], quantile)).collect()
}

pub(super) fn within(score: f64, quantile: f64) -> bool {
    score <= quantile + SLACK
}
