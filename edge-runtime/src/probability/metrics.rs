//! Accuracy, calibration and ranking measures of a labelled set of probabilities.
//!
//! Confidence is the largest probability of a row, the answer its first argmax. Bin edges are `i · (1/bins)` in f64.

use super::argmax;
use super::rows::Rows;
use crate::Result;
use serde::{Deserialize, Serialize};

/// Measures over one labelled set. Fractions, not percent.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Metrics {
    /// Pictures behind the figures.
    pub count: usize,
    /// Share of right answers.
    pub accuracy: f64,
    /// Share of pictures whose label is among the five largest probabilities (of equal ones, the lower class first).
    pub top5: f64,
    /// Mean over the classes that occur of the share of right answers in the class.
    pub macro_accuracy: f64,
    /// Expected calibration error: 15 bins of equal width, right-closed.
    pub ece: f64,
    /// The same with 10 bins, left-closed, as netcal computes it.
    pub ece10: f64,
    /// The same with 15 bins of equally many pictures.
    pub ece_mass: f64,
    /// Mean over classes of the calibration error of `p_c` for "is class c", 15 bins of equal width, right-closed.
    pub classwise_ece: f64,
    /// Mean negative log-likelihood, nats. A probability of 0 counts as the smallest positive one.
    pub nll: f64,
    /// Brier score, summed over classes: 0..=2.
    pub brier: f64,
    /// Area under the ROC curve of confidence for correctness; none when all answers are right, or all wrong.
    pub auroc: Option<f64>,
    /// Area under the risk–coverage curve: mean over k of the error rate among the k most confident.
    pub aurc: f64,
}

/// One bin of a reliability diagram.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Bin {
    /// Lower edge, excluded (but for the first bin).
    pub lower: f64,
    /// Upper edge, included.
    pub upper: f64,
    /// Pictures in it.
    pub count: usize,
    /// Their mean confidence; 0 when there is none.
    pub confidence: f64,
    /// Their share of right answers; 0 when there is none.
    pub accuracy: f64,
}

/// Which end of a bin belongs to it.
#[derive(Clone, Copy)]
pub(super) enum Closed {
    Left,
    Right,
}

impl Metrics {
    /// Measures `labels.len() × classes` probabilities.
    ///
    /// # Errors
    /// [`crate::Error::Data`] when sizes disagree, there is no row, a label is no class, or a row is no distribution (entries
    /// in 0..=1, sum within 1e-3 of 1).
    pub fn measure(probabilities: &[f64], classes: usize, labels: &[usize]) -> Result<Metrics> {
        Ok(Rows::checked(probabilities, classes, labels)?.figures(&vec![1; labels.len()]))
    }
}

/// The reliability diagram: `bins` right-closed bins of equal width over 0..=1, empty ones included.
pub fn reliability(probabilities: &[f64], classes: usize, labels: &[usize], bins: usize) -> Vec<Bin> {
    if classes == 0 || bins == 0 {
        return Vec::new();
    }
    let mut table: Vec<Bin> = (0..bins)
        .map(|i| Bin { lower: edge(i, bins), upper: edge(i + 1, bins), count: 0, confidence: 0.0, accuracy: 0.0 })
        .collect();
    for (row, label) in probabilities.chunks_exact(classes).zip(labels) {
        let best = argmax(row);
        let bin = &mut table[bin_index(row[best], bins, Closed::Right)];
        bin.count += 1;
        bin.confidence += row[best];
        bin.accuracy += f64::from(u8::from(best == *label));
    }
    for bin in table.iter_mut().filter(|b| b.count > 0) {
        bin.confidence /= bin.count as f64;
        bin.accuracy /= bin.count as f64;
    }
    table
}

/// The bin of equal width over 0..=1 that a confidence lies in.
pub(super) fn bin_index(confidence: f64, bins: usize, closed: Closed) -> usize {
    let upper = |i: usize| edge(i + 1, bins);
    // A first guess by division; the edges themselves decide.
    let mut index = ((confidence * bins as f64) as usize).min(bins - 1);
    let beyond = |i: usize| match closed {
        Closed::Left => upper(i) <= confidence,
        Closed::Right => upper(i) < confidence,
    };
    while index > 0 && !beyond(index - 1) {
        index -= 1;
    }
    while index < bins - 1 && beyond(index) {
        index += 1;
    }
    index
}

fn edge(i: usize, bins: usize) -> f64 {
    if i == bins { 1.0 } else { i as f64 * (1.0 / bins as f64) }
}
