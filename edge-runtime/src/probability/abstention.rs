//! Selective prediction: the confidence below which a network had better say that it does not know.
//!
//! The threshold is the lowest whose risk, the error rate among the answers that remain, stays within a target with 95 %
//! confidence over the calibration pictures (Geifman and El-Yaniv 2017, arXiv 1705.08500, algorithm SGR): each
//! of the ⌈log₂ n⌉ thresholds of a binary search is held to an exact binomial limit at its share of the 5 %.

use super::upper_limit;
use crate::{Error, Result};
use serde::{Deserialize, Serialize};

/// Probability that the risk is above the target after all.
const DOUBT: f64 = 0.05;

/// When to answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Abstention {
    /// Error rate that answers may have, in 0..1.
    pub risk: f64,
    /// Least confidence of an answer.
    pub confidence: f64,
    /// Share of the calibration pictures that are answered.
    pub answered: f64,
    /// Error rate among those.
    pub error: f64,
    /// Calibration pictures behind the threshold.
    pub pictures: usize,
}

impl Abstention {
    /// Fits the threshold to the confidences of answers that were right or not.
    ///
    /// # Errors
    /// [`Error::Data`] when the risk is not inside 0..1, sizes disagree, a confidence is not a number, or no threshold
    /// keeps the target: there are too few pictures, or the most confident answers are wrong too often.
    pub fn fit(confidences: &[f64], right: &[bool], risk: f64) -> Result<Self> {
        let refuse = |reason: String| Err(Error::Data { what: "abstention", reason });
        let n = confidences.len();
        if !(risk > 0.0 && risk < 1.0) {
            return refuse(format!("the risk is {risk}, use a value inside 0..1"));
        }
        if n == 0 || right.len() != n || confidences.iter().any(|c| c.is_nan()) {
            return refuse(format!("{n} confidences for {} answers", right.len()));
        }
        let mut order: Vec<usize> = (0..n).collect();
        order.sort_by(|&a, &b| confidences[b].total_cmp(&confidences[a]));
        // Answers and errors at the threshold of the k-th most confident picture, all equal ones with it.
        let at = |k: usize| {
            let threshold = confidences[order[k]];
            let answered = order.partition_point(|&i| confidences[i] >= threshold);
            let wrong = order[..answered].iter().filter(|&&i| !right[i]).count();
            (threshold, answered, wrong)
        };
        let rounds = (n as f64).log2().ceil().max(1.0);
        let (mut low, mut high, mut found) = (0, n, None);
        for _ in 0..rounds as usize {
            let middle = (low + high) / 2;
            if middle >= n || low >= high {
                break;
            }
            let (threshold, answered, wrong) = at(middle);
            if upper_limit(wrong, answered, DOUBT / rounds) <= risk {
                found = Some((threshold, answered, wrong));
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        let Some((confidence, answered, wrong)) = found else {
            return refuse(format!("no confidence keeps the errors of {n} pictures within {risk} for certain"));
        };
        let share = |count: usize, of: usize| count as f64 / of as f64;
        Ok(Self { risk, confidence, answered: share(answered, n), error: share(wrong, answered), pictures: n })
    }

    /// Whether an answer of this confidence is none.
    pub fn abstains(&self, confidence: f64) -> bool {
        confidence < self.confidence
    }

    pub(crate) fn validate(&self) -> std::result::Result<(), String> {
        let share = |x: f64| (0.0..=1.0).contains(&x);
        let holds =
            self.risk > 0.0 && self.risk < 1.0 && [self.confidence, self.answered, self.error].map(share) == [true; 3];
        if holds { Ok(()) } else { Err("abstention needs a risk inside 0..1 and shares".into()) }
    }
}
