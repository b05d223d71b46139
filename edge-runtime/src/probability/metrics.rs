//! Accuracy, calibration and ranking measures of a labelled set of probabilities.
//!
//! Confidence is the largest probability of a row, the answer its first argmax. Bin edges are `i · (1/bins)` in f64.

use super::{argmax, check_rows};
use crate::{Error, Result};
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
    /// [`Error::Data`] when sizes disagree, there is no row, a label is no class, or a row is no distribution (entries
    /// in 0..=1, sum within 1e-3 of 1).
    pub fn measure(probabilities: &[f64], classes: usize, labels: &[usize]) -> Result<Metrics> {
        check_rows("metrics", probabilities.len(), classes, labels)?;
        for (index, row) in probabilities.chunks_exact(classes).enumerate() {
            let sum: f64 = row.iter().sum();
            if row.iter().any(|p| !(0.0..=1.0 + 1e-9).contains(p)) || (sum - 1.0).abs() > 1e-3 {
                let reason = format!("row {index} is no probability distribution (sum {sum})");
                return Err(Error::Data { what: "metrics", reason });
            }
        }
        let count = labels.len() as f64;
        let rows = || probabilities.chunks_exact(classes).zip(labels.iter().copied());
        let scored: Vec<(f64, bool)> = answers(probabilities, classes, labels);
        let right = scored.iter().filter(|s| s.1).count() as f64;
        let in_five = rows().filter(|(row, label)| rank(row, *label) < 5).count() as f64;
        let brier: f64 = rows()
            .flat_map(|(row, label)| {
                row.iter().enumerate().map(move |(c, p)| (p - f64::from(u8::from(c == label))).powi(2))
            })
            .sum();
        let classwise: f64 = (0..classes)
            .map(|class| {
                let pairs: Vec<_> = rows().map(|(row, label)| (row[class], label == class)).collect();
                calibration_error(&pairs, 15, Closed::Right)
            })
            .sum();
        Ok(Metrics {
            count: labels.len(),
            accuracy: right / count,
            top5: in_five / count,
            macro_accuracy: macro_accuracy(&scored, classes, labels),
            ece: calibration_error(&scored, 15, Closed::Right),
            ece10: calibration_error(&scored, 10, Closed::Left),
            ece_mass: calibration_error_equal_mass(&scored, 15),
            classwise_ece: classwise / classes as f64,
            nll: rows().map(|(row, label)| -row[label].max(f64::MIN_POSITIVE).ln()).sum::<f64>() / count,
            brier: brier / count,
            auroc: auroc(&scored),
            aurc: aurc(&scored),
        })
    }
}

/// The reliability diagram: `bins` right-closed bins of equal width over 0..=1, empty ones included.
pub fn reliability(probabilities: &[f64], classes: usize, labels: &[usize], bins: usize) -> Vec<Bin> {
    if classes == 0 || bins == 0 {
        return Vec::new();
    }
    bin(&answers(probabilities, classes, labels), bins, Closed::Right)
}

/// Confidence of each row and whether its answer is right.
fn answers(probabilities: &[f64], classes: usize, labels: &[usize]) -> Vec<(f64, bool)> {
    let row_of = |(row, label): (&[f64], &usize)| {
        let best = argmax(row);
        (row[best], best == *label)
    };
    probabilities.chunks_exact(classes).zip(labels).map(row_of).collect()
}

/// Classes with a larger probability than `label`, or an equal one and a lower index.
fn rank(row: &[f64], label: usize) -> usize {
    row.iter().enumerate().filter(|(c, p)| **p > row[label] || (**p == row[label] && *c < label)).count()
}

fn macro_accuracy(scored: &[(f64, bool)], classes: usize, labels: &[usize]) -> f64 {
    let mut tally = vec![(0usize, 0usize); classes];
    for ((_, right), label) in scored.iter().zip(labels) {
        tally[*label].0 += usize::from(*right);
        tally[*label].1 += 1;
    }
    let present: Vec<f64> = tally.iter().filter(|t| t.1 > 0).map(|t| t.0 as f64 / t.1 as f64).collect();
    present.iter().sum::<f64>() / present.len() as f64
}

fn bin(scored: &[(f64, bool)], bins: usize, closed: Closed) -> Vec<Bin> {
    let edge = |i: usize| if i == bins { 1.0 } else { i as f64 * (1.0 / bins as f64) };
    let mut table: Vec<Bin> = (0..bins)
        .map(|i| Bin { lower: edge(i), upper: edge(i + 1), count: 0, confidence: 0.0, accuracy: 0.0 })
        .collect();
    for (confidence, right) in scored {
        let index = match closed {
            Closed::Left => table.partition_point(|b| b.upper <= *confidence),
            Closed::Right => table.partition_point(|b| b.upper < *confidence),
        };
        let bin = &mut table[index.min(bins - 1)];
        bin.count += 1;
        bin.confidence += confidence;
        bin.accuracy += f64::from(u8::from(*right));
    }
    for bin in table.iter_mut().filter(|b| b.count > 0) {
        bin.confidence /= bin.count as f64;
        bin.accuracy /= bin.count as f64;
    }
    table
}

/// Σ (bin share) · |accuracy − confidence| over bins of equal width.
pub(super) fn calibration_error(scored: &[(f64, bool)], bins: usize, closed: Closed) -> f64 {
    let weighted = |b: &Bin| b.count as f64 * (b.accuracy - b.confidence).abs();
    bin(scored, bins, closed).iter().map(weighted).sum::<f64>() / scored.len() as f64
}

/// The same over bins of equally many pictures (stable order by confidence; the first bins get the surplus).
fn calibration_error_equal_mass(scored: &[(f64, bool)], bins: usize) -> f64 {
    let mut sorted = scored.to_vec();
    sorted.sort_by(|a, b| a.0.total_cmp(&b.0));
    let (size, surplus) = (sorted.len() / bins, sorted.len() % bins);
    let mut rest = sorted.as_slice();
    let mut sum = 0.0;
    for index in 0..bins {
        let (part, tail) = rest.split_at(size + usize::from(index < surplus));
        sum += part.iter().map(|(confidence, right)| f64::from(u8::from(*right)) - confidence).sum::<f64>().abs();
        rest = tail;
    }
    sum / scored.len() as f64
}

/// Mann–Whitney statistic, equal confidences counting half.
fn auroc(scored: &[(f64, bool)]) -> Option<f64> {
    let right = scored.iter().filter(|s| s.1).count() as f64;
    let wrong = scored.len() as f64 - right;
    let mut sorted = scored.to_vec();
    sorted.sort_by(|a, b| a.0.total_cmp(&b.0));
    let (mut wrong_below, mut wins) = (0.0, 0.0);
    for tied in sorted.chunk_by(|a, b| a.0 == b.0) {
        let tied_right = tied.iter().filter(|s| s.1).count() as f64;
        let tied_wrong = tied.len() as f64 - tied_right;
        wins += tied_right * (wrong_below + tied_wrong / 2.0);
        wrong_below += tied_wrong;
    }
    (right > 0.0 && wrong > 0.0).then(|| wins / (right * wrong))
}

/// Mean over k of the error rate among the k most confident; equal confidences share their errors evenly, so that the
/// order of the rows does not matter.
fn aurc(scored: &[(f64, bool)]) -> f64 {
    let mut sorted = scored.to_vec();
    sorted.sort_by(|a, b| b.0.total_cmp(&a.0));
    let (mut errors, mut seen, mut sum) = (0.0, 0.0, 0.0);
    for tied in sorted.chunk_by(|a, b| a.0 == b.0) {
        let share = tied.iter().filter(|s| !s.1).count() as f64 / tied.len() as f64;
        for _ in tied {
            errors += share;
            seen += 1.0;
            sum += errors / seen;
        }
    }
    sum / scored.len() as f64
}
