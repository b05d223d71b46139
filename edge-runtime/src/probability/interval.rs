//! Bootstrap intervals: how far a figure would move with other pictures of the same kind.
//!
//! Pictures are drawn anew with replacement, always by the same seeds, so that an interval is the same each time. The
//! calibration error of a resample is larger than that of the sample, on average, because gaps of both signs count; an
//! interval is therefore the resamples' central 95 % moved so that their mean lies on the measured value, and cut to the
//! figure's range. Where every answer is right, or every one wrong, resamples cannot differ: shares then get the exact
//! interval of Clopper and Pearson.

use super::metrics::Metrics;
use super::rows::Rows;
use crate::Result;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use statrs::distribution::{Beta, ContinuousCDF};

/// Standard errors of a two-sided interval that holds 95 % of what is normally distributed.
pub const Z95: f64 = 1.959_963_985;
/// Resamples behind an interval.
pub const RESAMPLES: usize = 1000;
/// Seed of the resamples.
const SEED: u64 = 95;

/// 95 % intervals, lower then upper limit, of the figures of [`Metrics`] with the same names.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Intervals {
    /// Of the accuracy.
    pub accuracy: [f64; 2],
    /// Of the top-5 accuracy.
    pub top5: [f64; 2],
    /// Of the macro accuracy. Where every answer is right or every one wrong, the limits are those of the accuracy,
    /// which are exact for classes of one size.
    pub macro_accuracy: [f64; 2],
    /// Of the calibration error, 15 bins.
    pub ece: [f64; 2],
    /// Of the one with 10 bins.
    pub ece10: [f64; 2],
    /// Of the one with bins of equally many pictures.
    pub ece_mass: [f64; 2],
    /// Of the classwise one.
    pub classwise_ece: [f64; 2],
    /// Of the negative log-likelihood, nats.
    pub nll: [f64; 2],
    /// Of the Brier score.
    pub brier: [f64; 2],
    /// Of the area under the ROC curve, over the resamples that have right and wrong answers; none where it has none.
    pub auroc: Option<[f64; 2]>,
    /// Of the area under the risk–coverage curve.
    pub aurc: [f64; 2],
}

/// A mean over pictures with its 95 % interval, lower then upper limit.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Estimate {
    /// The mean.
    pub value: f64,
    /// Its interval.
    pub interval: [f64; 2],
}

impl Intervals {
    /// Intervals of `labels.len() × classes` probabilities.
    ///
    /// # Errors
    /// As [`Metrics::measure`].
    pub fn measure(probabilities: &[f64], classes: usize, labels: &[usize]) -> Result<Self> {
        let rows = Rows::checked(probabilities, classes, labels)?;
        let n = rows.len();
        let measured = rows.figures(&vec![1; n]);
        let resample = |weights: &mut Vec<u32>, index| {
            weights.iter_mut().for_each(|w| *w = 0);
            draws(n, index).for_each(|i| weights[i] += 1);
            rows.figures(weights)
        };
        let resamples: Vec<Metrics> = (0..RESAMPLES).into_par_iter().map_init(|| vec![0u32; n], resample).collect();
        let of = |figure: fn(&Metrics) -> f64, most: f64| {
            central(figure(&measured), resamples.iter().map(figure).collect(), [0.0, most])
        };
        let share = |figure: fn(&Metrics) -> f64| exact(figure(&measured), n).unwrap_or_else(|| of(figure, 1.0));
        let accuracy = share(|m| m.accuracy);
        let alike = measured.accuracy == 0.0 || measured.accuracy == 1.0;
        let auroc =
            measured.auroc.map(|value| central(value, resamples.iter().filter_map(|m| m.auroc).collect(), [0.0, 1.0]));
        Ok(Self {
            accuracy,
            top5: share(|m| m.top5),
            macro_accuracy: if alike { accuracy } else { of(|m| m.macro_accuracy, 1.0) },
            ece: of(|m| m.ece, 1.0),
            ece10: of(|m| m.ece10, 1.0),
            ece_mass: of(|m| m.ece_mass, 1.0),
            classwise_ece: of(|m| m.classwise_ece, 1.0),
            nll: of(|m| m.nll, f64::INFINITY),
            brier: of(|m| m.brier, 2.0),
            auroc,
            aurc: of(|m| m.aurc, 1.0),
        })
    }
}

impl Estimate {
    /// The mean of a value per picture, which lies in `range`; none without pictures.
    pub fn mean(values: &[f64], range: [f64; 2]) -> Option<Self> {
        let n = values.len();
        let value = values.iter().sum::<f64>() / n as f64;
        let resample = |index| draws(n, index).map(|i| values[i]).sum::<f64>() / n as f64;
        let interval = || central(value, (0..RESAMPLES).into_par_iter().map(resample).collect(), range);
        (n > 0).then(|| Self { value, interval: interval() })
    }

    /// The share of pictures for which something holds; none without pictures.
    pub fn share(holds: &[bool]) -> Option<Self> {
        let values: Vec<f64> = holds.iter().map(|h| f64::from(u8::from(*h))).collect();
        let mut estimate = Self::mean(&values, [0.0, 1.0])?;
        if let Some(interval) = exact(estimate.value, values.len()) {
            estimate.interval = interval;
        }
        Some(estimate)
    }
}

/// 95 % interval of a share seen in `n` tries (Wilson 1927).
pub fn wilson(share: f64, n: usize) -> [f64; 2] {
    let (n, z2) = (n.max(1) as f64, Z95 * Z95);
    let centre = (share + z2 / (2.0 * n)) / (1.0 + z2 / n);
    let half = Z95 / (1.0 + z2 / n) * (share * (1.0 - share) / n + z2 / (4.0 * n * n)).sqrt();
    // At the ends rounding may put a limit beyond the share.
    [(centre - half).clamp(0.0, share), (centre + half).clamp(share, 1.0)]
}

/// Upper limit of the probability behind `count` hits of `of` tries, exceeded with probability at most `doubt`: one-sided,
/// exact (Clopper and Pearson).
pub fn upper_limit(count: usize, of: usize, doubt: f64) -> f64 {
    if count >= of {
        return 1.0;
    }
    let beta = Beta::new((count + 1) as f64, (of - count) as f64);
    beta.map_or(1.0, |beta| beta.inverse_cdf(1.0 - doubt))
}

/// Lower limit in the same sense.
pub fn lower_limit(count: usize, of: usize, doubt: f64) -> f64 {
    1.0 - upper_limit(of.saturating_sub(count), of, doubt)
}

/// Indices of one resample of `n` pictures.
fn draws(n: usize, index: usize) -> impl Iterator<Item = usize> {
    let mut rng = ChaCha8Rng::seed_from_u64(SEED);
    rng.set_stream(index as u64);
    (0..n).map(move |_| rng.random_range(0..n))
}

/// The interval of a share of `n` pictures that is none or all: beyond its limit, such a sample has probability 2.5 %.
fn exact(share: f64, n: usize) -> Option<[f64; 2]> {
    let all_alike = 0.025f64.powf(1.0 / n as f64);
    if share == 0.0 { Some([0.0, 1.0 - all_alike]) } else { (share == 1.0).then_some([all_alike, 1.0]) }
}

/// The central 95 % of the resamples, moved so that their mean is the measured value, within `range`.
fn central(measured: f64, mut resamples: Vec<f64>, [low, high]: [f64; 2]) -> [f64; 2] {
    if resamples.is_empty() {
        return [low, high];
    }
    resamples.sort_by(f64::total_cmp);
    let shift = measured - resamples.iter().sum::<f64>() / resamples.len() as f64;
    let at = |q: f64| (resamples[(q * (resamples.len() - 1) as f64).round() as usize] + shift).clamp(low, high);
    [at(0.025), at(0.975)]
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::probability::{argmax, softmax_rows};

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

    /// A weight is a repetition: figures of a resample are those of the rows written out.
    #[test]
    fn weighted_figures_are_those_of_repeated_rows() {
        for (n, index) in [(40, 0), (40, 1), (301, 2), (9, 3)] {
            let (rows, labels) = drawn(n, 5);
            let mut weights = vec![0; n];
            draws(n, index).for_each(|i| weights[i] += 1);
            let weighted = Rows::checked(&rows, 3, &labels).unwrap().figures(&weights);
            let (mut repeated, mut of) = (Vec::new(), Vec::new());
            for i in 0..n {
                for _ in 0..weights[i] {
                    repeated.extend_from_slice(&rows[3 * i..3 * i + 3]);
                    of.push(labels[i]);
                }
            }
            let plain = Metrics::measure(&repeated, 3, &of).unwrap();
            let list = |m: &Metrics| {
                [
                    m.accuracy,
                    m.top5,
                    m.macro_accuracy,
                    m.ece,
                    m.ece10,
                    m.ece_mass,
                    m.classwise_ece,
                    m.nll,
                    m.brier,
                    m.aurc,
                ]
            };
            assert_eq!((weighted.count, plain.count), (n, n));
            for (a, b) in list(&weighted).iter().zip(list(&plain)) {
                assert!((a - b).abs() < 1e-12, "{weighted:?} {plain:?}");
            }
            let gap = |a: f64, b: f64| (a - b).abs() < 1e-12;
            assert!(weighted.auroc.zip(plain.auroc).map_or(weighted.auroc == plain.auroc, |(a, b)| gap(a, b)));
        }
    }

    #[test]
    fn ninety_five_of_a_hundred_intervals_hold_the_truth() {
        // Expected values of a calibrated set follow from its probabilities; 100,000 rows give them within 0.002.
        let (rows, labels) = drawn(100_000, 2);
        let accuracy = rows.chunks_exact(3).map(|row| row[argmax(row)]).sum::<f64>() / 100_000.0;
        let large = Metrics::measure(&rows, 3, &labels).unwrap();
        let mut held = [0; 4];
        for seed in 0..100 {
            let (rows, labels) = drawn(200, 100 + seed);
            let i = Intervals::measure(&rows, 3, &labels).unwrap();
            let pairs = [
                (i.accuracy, accuracy),
                (i.nll, large.nll),
                (i.brier, large.brier),
                (i.auroc.unwrap(), large.auroc.unwrap()),
            ];
            for (held, ([low, high], truth)) in held.iter_mut().zip(pairs) {
                *held += usize::from(low <= truth && truth <= high);
            }
        }
        assert!(held.iter().all(|h| (87..=100).contains(h)), "{held:?}");
    }

    #[test]
    fn intervals_hold_the_measured_value_narrow_with_pictures_and_repeat() {
        let width = |n| {
            let (rows, labels) = drawn(n, 3);
            let m = Metrics::measure(&rows, 3, &labels).unwrap();
            let i = Intervals::measure(&rows, 3, &labels).unwrap();
            assert_eq!(i, Intervals::measure(&rows, 3, &labels).unwrap());
            let pairs = [
                (m.accuracy, i.accuracy),
                (m.macro_accuracy, i.macro_accuracy),
                (m.ece, i.ece),
                (m.ece10, i.ece10),
                (m.ece_mass, i.ece_mass),
                (m.classwise_ece, i.classwise_ece),
                (m.nll, i.nll),
                (m.brier, i.brier),
                (m.auroc.unwrap(), i.auroc.unwrap()),
                (m.aurc, i.aurc),
            ];
            assert!(pairs.iter().all(|(value, [low, high])| low < value && value < high), "{pairs:?}");
            // Three classes are always among the five largest.
            assert!(m.top5 == 1.0 && i.top5[1] == 1.0 && i.top5[0] < 1.0);
            (i.accuracy[1] - i.accuracy[0], i.ece[1] - i.ece[0])
        };
        let (few, many) = (width(100), width(1600));
        // Four times as narrow, about.
        assert!((3.0..5.5).contains(&(few.0 / many.0)), "{few:?} {many:?}");
        assert!(few.1 > 2.0 * many.1);
        assert!(Intervals::measure(&[], 3, &[]).is_err());
        assert_eq!(Estimate::mean(&[], [0.0, 1.0]), None);
    }

    #[test]
    fn all_wrong_or_all_right_is_no_certainty() {
        // Clopper and Pearson, 0 and 20 of 20: 0.1684 and 0.8316.
        let rows = [0.7, 0.2, 0.1].repeat(20);
        let wrong = Intervals::measure(&rows, 3, &[1; 20]).unwrap();
        let right = Intervals::measure(&rows, 3, &[0; 20]).unwrap();
        assert!(wrong.accuracy[0] == 0.0 && (wrong.accuracy[1] - 0.1684).abs() < 1e-4, "{wrong:?}");
        assert!(right.accuracy[1] == 1.0 && (right.accuracy[0] - 0.8316).abs() < 1e-4, "{right:?}");
        assert_eq!((right.macro_accuracy, right.auroc), (right.accuracy, None));
        assert_eq!(Estimate::share(&[true; 20]).unwrap().interval, right.accuracy);
        assert_eq!(Estimate::share(&[]), None);
    }

    #[test]
    fn a_mean_has_the_interval_of_its_standard_error() {
        let values: Vec<f64> = (0..400).map(|i| f64::from(i % 20)).collect();
        let e = Estimate::mean(&values, [0.0, 19.0]).unwrap();
        // Deviation of 0..=19 is √33.25; 1.96 standard errors are 0.565.
        assert_eq!(e.value, 9.5);
        assert!((e.interval[1] - e.interval[0] - 2.0 * 0.565).abs() < 0.08, "{e:?}");
        assert!(e.interval[0] < 9.5 && 9.5 < e.interval[1]);
    }
}
