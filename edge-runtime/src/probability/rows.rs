//! Labelled rows prepared once, so that every figure can be taken again with other weights.
//!
//! A weight says how often a picture counts: 1 for the measured set, the number of draws for a bootstrap resample. Both
//! therefore follow one definition of each figure. Whatever does not depend on the weights is computed in advance.

use super::metrics::{Closed, Metrics, bin_index};
use super::{argmax, check_rows};
use crate::{Error, Result};

/// Bins of the calibration errors.
const BINS: usize = 15;
/// Bins of the one that follows netcal.
const BINS_10: usize = 10;

/// One row by itself.
struct Row {
    confidence: f64,
    right: bool,
    in_five: bool,
    nll: f64,
    brier: f64,
    bin: usize,
    bin_10: usize,
}

/// See the module's first paragraphs.
pub(super) struct Rows<'a> {
    probabilities: &'a [f64],
    classes: usize,
    labels: &'a [usize],
    rows: Vec<Row>,
    /// Rows by ascending confidence, equal ones in their order.
    order: Vec<usize>,
    /// Probabilities above the first bin of the classwise error, as (class, bin), row after row: there are few.
    high: Vec<(usize, usize)>,
    /// Where the entries of each row begin in `high`, and the end.
    starts: Vec<usize>,
}

impl<'a> Rows<'a> {
    /// Prepares `labels.len() × classes` probabilities.
    ///
    /// # Errors
    /// [`Error::Data`] when sizes disagree, there is no row, a label is no class, or a row is no distribution.
    pub fn checked(probabilities: &'a [f64], classes: usize, labels: &'a [usize]) -> Result<Self> {
        check_rows("metrics", probabilities.len(), classes, labels)?;
        for (index, row) in probabilities.chunks_exact(classes).enumerate() {
            let sum: f64 = row.iter().sum();
            if row.iter().any(|p| !(0.0..=1.0 + 1e-9).contains(p)) || (sum - 1.0).abs() > 1e-3 {
                let reason = format!("row {index} is no probability distribution (sum {sum})");
                return Err(Error::Data { what: "metrics", reason });
            }
        }
        Ok(Self::new(probabilities, classes, labels))
    }

    fn new(probabilities: &'a [f64], classes: usize, labels: &'a [usize]) -> Self {
        let (mut high, mut starts) = (Vec::new(), vec![0]);
        let mut rows = Vec::with_capacity(labels.len());
        for (row, &label) in probabilities.chunks_exact(classes).zip(labels) {
            let best = argmax(row);
            let confidence = row[best];
            let square = |(class, p): (usize, &f64)| (p - f64::from(u8::from(class == label))).powi(2);
            rows.push(Row {
                confidence,
                right: best == label,
                in_five: rank(row, label) < 5,
                nll: -row[label].max(f64::MIN_POSITIVE).ln(),
                brier: row.iter().enumerate().map(square).sum(),
                bin: bin_index(confidence, BINS, Closed::Right),
                bin_10: bin_index(confidence, BINS_10, Closed::Left),
            });
            let bins = row.iter().enumerate().map(|(class, p)| (class, bin_index(*p, BINS, Closed::Right)));
            high.extend(bins.filter(|(_, bin)| *bin > 0));
            starts.push(high.len());
        }
        let mut order: Vec<usize> = (0..rows.len()).collect();
        order.sort_by(|a, b| rows[*a].confidence.total_cmp(&rows[*b].confidence));
        Self { probabilities, classes, labels, rows, order, high, starts }
    }

    /// Number of rows.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Every figure, with row `i` counted `weights[i]` times. At least one weight is not 0.
    pub fn figures(&self, weights: &[u32]) -> Metrics {
        let count: u64 = weights.iter().map(|w| u64::from(*w)).sum();
        let n = count as f64;
        let weighted = || self.rows.iter().zip(weights).map(|(row, w)| (row, f64::from(*w)));
        let share = |of: fn(&Row) -> bool| {
            let counted = self.rows.iter().zip(weights).filter(|(row, _)| of(row));
            counted.map(|(_, w)| u64::from(*w)).sum::<u64>() as f64 / n
        };
        let mean = |of: fn(&Row) -> f64| weighted().map(|(row, w)| w * of(row)).sum::<f64>() / n;
        let error = |bins: usize, bin: fn(&Row) -> usize| {
            let mut gaps = vec![0f64; bins];
            weighted().for_each(|(row, w)| gaps[bin(row)] += w * row.gap());
            gaps.iter().map(|gap| gap.abs()).sum::<f64>() / n
        };
        let (auroc, aurc) = self.ranking(weights);
        Metrics {
            count: count as usize,
            accuracy: share(|row| row.right),
            top5: share(|row| row.in_five),
            macro_accuracy: self.macro_accuracy(weights),
            ece: error(BINS, |row| row.bin),
            ece10: error(BINS_10, |row| row.bin_10),
            ece_mass: self.error_of_equal_mass(weights, count),
            classwise_ece: self.classwise_error(weights) / n,
            nll: mean(|row| row.nll),
            brier: mean(|row| row.brier),
            auroc,
            aurc,
        }
    }

    fn macro_accuracy(&self, weights: &[u32]) -> f64 {
        let mut tally = vec![(0u64, 0u64); self.classes];
        for ((row, label), w) in self.rows.iter().zip(self.labels).zip(weights) {
            tally[*label].0 += u64::from(*w) * u64::from(row.right);
            tally[*label].1 += u64::from(*w);
        }
        let present: Vec<f64> = tally.iter().filter(|t| t.1 > 0).map(|t| t.0 as f64 / t.1 as f64).collect();
        present.iter().sum::<f64>() / present.len() as f64
    }

    /// Bins of equally many pictures by ascending confidence; the first ones get the surplus.
    fn error_of_equal_mass(&self, weights: &[u32], count: u64) -> f64 {
        let room = |bin: u64| count / BINS as u64 + u64::from(bin < count % BINS as u64);
        let (mut bin, mut left, mut gap, mut sum) = (0, room(0), 0.0, 0.0);
        for &i in &self.order {
            let mut w = u64::from(weights[i]);
            while w > 0 {
                let taken = w.min(left);
                gap += taken as f64 * self.rows[i].gap();
                (w, left) = (w - taken, left - taken);
                if left == 0 {
                    sum += f64::abs(gap);
                    bin += 1;
                    (left, gap) = (room(bin), 0.0);
                }
            }
        }
        sum / count as f64
    }

    /// Mean over classes of Σ over bins of |Σ w (is the class − its probability)|.
    fn classwise_error(&self, weights: &[u32]) -> f64 {
        let classes = self.classes;
        // Gaps of all bins together, of which the higher bins are taken away: what is left is the first bin.
        let mut low = vec![0f64; classes];
        let mut gaps = vec![0f64; classes * BINS];
        for (i, row) in self.probabilities.chunks_exact(classes).enumerate().filter(|(i, _)| weights[*i] > 0) {
            let (w, label) = (f64::from(weights[i]), self.labels[i]);
            low.iter_mut().zip(row).for_each(|(low, p)| *low -= w * p);
            low[label] += w;
            for &(class, bin) in &self.high[self.starts[i]..self.starts[i + 1]] {
                gaps[class * BINS + bin] += w * (f64::from(u8::from(class == label)) - row[class]);
            }
        }
        let error = |(low, gaps): (f64, &[f64])| {
            (low - gaps.iter().sum::<f64>()).abs() + gaps.iter().map(|gap| gap.abs()).sum::<f64>()
        };
        low.into_iter().zip(gaps.chunks_exact(BINS)).map(error).sum::<f64>() / classes as f64
    }

    /// AUROC: Mann–Whitney statistic, equal confidences counting half; none when all answers are right, or all wrong.
    /// AURC: mean over k of the error rate among the k most confident; equal confidences share their errors evenly, so
    /// that the order of the rows does not matter.
    fn ranking(&self, weights: &[u32]) -> (Option<f64>, f64) {
        let mut tied: Vec<(u64, u64)> = Vec::new(); // wrong and right ones of each confidence, most confident first
        let mut last = f64::NAN;
        for &i in self.order.iter().rev().filter(|i| weights[**i] > 0) {
            let (row, w) = (&self.rows[i], u64::from(weights[i]));
            if row.confidence != last {
                tied.push((0, 0));
                last = row.confidence;
            }
            if let Some((wrong, right)) = tied.last_mut() {
                *if row.right { right } else { wrong } += w;
            }
        }
        let (mut errors, mut seen, mut risks) = (0.0, 0.0, 0.0);
        let (mut right_above, mut wins) = (0.0, 0.0);
        for &(wrong, right) in &tied {
            wins += wrong as f64 * (right_above + right as f64 / 2.0);
            right_above += right as f64;
            let share = wrong as f64 / (wrong + right) as f64;
            for _ in 0..wrong + right {
                errors += share;
                seen += 1.0;
                risks += errors / seen;
            }
        }
        let wrong = seen - right_above;
        ((right_above > 0.0 && wrong > 0.0).then(|| wins / (right_above * wrong)), risks / seen)
    }
}

impl Row {
    /// Correctness less confidence.
    fn gap(&self) -> f64 {
        f64::from(u8::from(self.right)) - self.confidence
    }
}

/// Classes with a larger probability than `label`, or an equal one and a lower index.
fn rank(row: &[f64], label: usize) -> usize {
    row.iter().enumerate().filter(|(c, p)| **p > row[label] || (**p == row[label] && *c < label)).count()
}
