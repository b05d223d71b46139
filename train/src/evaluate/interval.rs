//! Bootstrap intervals: how far accuracy and calibration error would move with other pictures of the same kind.
//!
//! Pictures are drawn anew with replacement. The calibration error of a resample is larger than that of the sample, on
//! average, because gaps of both signs count; the interval is therefore the resamples' central 95 % moved so that their
//! mean lies on the measured value, and cut to 0..1. Where every answer is right, or every one wrong, resamples of the
//! accuracy cannot differ: its interval is then the exact one of Clopper and Pearson.

use excon_edge::probability::argmax;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

/// Resamples behind an interval.
pub const RESAMPLES: usize = 1000;
/// Bins of the calibration error, as in [`excon_edge::probability::Metrics::ece`].
const BINS: usize = 15;
/// Seed of the resamples: an interval is the same each time.
const SEED: u64 = 95;

/// 95 % intervals, lower then upper limit, fractions.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Intervals {
    /// Of the accuracy.
    pub accuracy: [f64; 2],
    /// Of the calibration error, 15 right-closed bins of equal width.
    pub ece: [f64; 2],
}

impl Intervals {
    /// Intervals of `labels.len() × classes` probabilities; both are 0..1 when there is no picture.
    pub fn of(probabilities: &[f64], classes: usize, labels: &[usize]) -> Self {
        let scored: Vec<(bool, f64, usize)> = probabilities
            .chunks_exact(classes.max(1))
            .zip(labels)
            .map(|(row, &label)| {
                let answer = argmax(row);
                (answer == label, row[answer], bin(row[answer]))
            })
            .collect();
        let n = scored.len();
        if n == 0 {
            return Self { accuracy: [0.0, 1.0], ece: [0.0, 1.0] };
        }
        let mut rng = ChaCha8Rng::seed_from_u64(SEED);
        let resamples: Vec<(f64, f64)> =
            (0..RESAMPLES).map(|_| figures((0..n).map(|_| scored[rng.random_range(0..n)]))).collect();
        let measured = figures(scored.iter().copied());
        // P(no miss in n) = 2.5 % at this accuracy.
        let all_alike = 0.025f64.powf(1.0 / n as f64);
        let accuracy = match scored.iter().filter(|s| s.0).count() {
            0 => [0.0, 1.0 - all_alike],
            hits if hits == n => [all_alike, 1.0],
            _ => central(measured.0, resamples.iter().map(|r| r.0).collect()),
        };
        Self { accuracy, ece: central(measured.1, resamples.iter().map(|r| r.1).collect()) }
    }
}

fn bin(confidence: f64) -> usize {
    let upper = |i: usize| (i + 1) as f64 * (1.0 / BINS as f64);
    (0..BINS - 1).find(|&i| confidence <= upper(i)).unwrap_or(BINS - 1)
}

/// Accuracy and calibration error.
fn figures(scored: impl ExactSizeIterator<Item = (bool, f64, usize)>) -> (f64, f64) {
    let n = scored.len() as f64;
    let (mut hits, mut gaps) = (0usize, [0f64; BINS]);
    for (right, confidence, bin) in scored {
        hits += usize::from(right);
        gaps[bin] += f64::from(u8::from(right)) - confidence;
    }
    (hits as f64 / n, gaps.iter().map(|g| g.abs()).sum::<f64>() / n)
}

/// The central 95 % of the resamples, moved so that their mean is the measured value.
fn central(measured: f64, mut resamples: Vec<f64>) -> [f64; 2] {
    resamples.sort_by(f64::total_cmp);
    let shift = measured - resamples.iter().sum::<f64>() / resamples.len() as f64;
    let at = |q: f64| (resamples[(q * (resamples.len() - 1) as f64).round() as usize] + shift).clamp(0.0, 1.0);
    [at(0.025), at(0.975)]
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use excon_edge::probability::{Metrics, softmax_rows};

    /// Probabilities of three classes with labels that follow them, so that they are calibrated.
    fn drawn(n: usize, seed: u64) -> (Vec<f64>, Vec<usize>) {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let logits: Vec<f32> = (0..n * 3).map(|_| rng.random_range(-2.0..2.0)).collect();
        let rows = softmax_rows(&logits, 3, 1.0);
        let label = |row: &[f64]| {
            let u: f64 = rng.random();
            if u < row[0] { 0 } else { 1 + usize::from(u >= row[0] + row[1]) }
        };
        let labels = rows.chunks_exact(3).map(label).collect();
        (rows, labels)
    }

    #[test]
    fn the_figures_are_those_of_the_metrics() {
        let (rows, labels) = drawn(300, 1);
        let metrics = Metrics::measure(&rows, 3, &labels).unwrap();
        let scored: Vec<_> = rows
            .chunks_exact(3)
            .zip(&labels)
            .map(|(row, &label)| (argmax(row) == label, row[argmax(row)], bin(row[argmax(row)])))
            .collect();
        let (accuracy, ece) = figures(scored.into_iter());
        assert!((accuracy - metrics.accuracy).abs() < 1e-12 && (ece - metrics.ece).abs() < 1e-12);
        // The edges belong to the lower bin.
        assert_eq!([1.0 / 15.0, 0.0667, 1.0].map(bin), [0, 1, 14]);
    }

    #[test]
    fn ninety_five_of_a_hundred_intervals_hold_the_true_accuracy() {
        // The expected accuracy of a calibrated set is its mean confidence; 100,000 rows give it within 0.002.
        let (rows, _) = drawn(100_000, 2);
        let truth = rows.chunks_exact(3).map(|row| row[argmax(row)]).sum::<f64>() / 100_000.0;
        let holds = |seed: u64| {
            let (rows, labels) = drawn(200, 100 + seed);
            let [low, high] = Intervals::of(&rows, 3, &labels).accuracy;
            low <= truth && truth <= high
        };
        let held = (0..100).filter(|&seed| holds(seed)).count();
        assert!((88..=100).contains(&held), "{held}");
    }

    #[test]
    fn intervals_hold_the_measured_value_narrow_with_pictures_and_repeat() {
        let width = |n| {
            let (rows, labels) = drawn(n, 3);
            let metrics = Metrics::measure(&rows, 3, &labels).unwrap();
            let i = Intervals::of(&rows, 3, &labels);
            assert_eq!(i, Intervals::of(&rows, 3, &labels));
            assert!(i.accuracy[0] < metrics.accuracy && metrics.accuracy < i.accuracy[1]);
            assert!(i.ece[0] < metrics.ece && metrics.ece < i.ece[1]);
            (i.accuracy[1] - i.accuracy[0], i.ece[1] - i.ece[0])
        };
        let (few, many) = (width(100), width(1600));
        // Four times as narrow, about.
        assert!((3.0..5.5).contains(&(few.0 / many.0)), "{few:?} {many:?}");
        assert!(few.1 > 2.0 * many.1);
        assert_eq!(Intervals::of(&[], 3, &[]).accuracy, [0.0, 1.0]);
    }

    #[test]
    fn all_wrong_or_all_right_is_no_certainty() {
        // Clopper and Pearson, 0 and 20 of 20: 0.1684 and 0.8316.
        let rows = [0.7, 0.2, 0.1].repeat(20);
        let wrong = Intervals::of(&rows, 3, &[1; 20]).accuracy;
        let right = Intervals::of(&rows, 3, &[0; 20]).accuracy;
        assert!(wrong[0] == 0.0 && (wrong[1] - 0.1684).abs() < 1e-4, "{wrong:?}");
        assert!(right[1] == 1.0 && (right[0] - 0.8316).abs() < 1e-4, "{right:?}");
    }
}
