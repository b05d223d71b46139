//! Fitting the estimate: labelled frames, healthy and under the declared family, become a model.
//!
//! What is fitted honestly: each shift's misses are those of slopes that have not seen it, alone or in a pair; healthy
//! accuracy, confidence and threshold are means over all frames, and their own chance is part of every interval.

use super::model::{AccuracyModel, Estimators, Range, Sums, confidence};
use crate::shift::{Channel, Declared, FrameScores};
use crate::{Error, Result};

/// Healthy pictures, at least: a share of fewer is known to no better than 14 points.
const MINIMUM: usize = 50;
/// Smallest standard deviation that a mean is divided by.
const SMALLEST_DEVIATION: f64 = 1e-6;

/// A frame whose class is known.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// Its scores.
    pub scores: FrameScores,
    /// Whether the network named its class.
    pub right: bool,
}

/// Frames under a member of the declared family.
#[derive(Debug, Clone)]
pub struct Shifted {
    /// The shifts drawn, one or two.
    pub kinds: Vec<Declared>,
    /// The frames.
    pub frames: Vec<Outcome>,
}

/// A member of the family: its shifts, the share of right answers under it, its sums.
type Cell<'a> = (&'a [Declared], f64, Sums);

impl AccuracyModel {
    /// Fits the model on healthy frames and on the same kind of frames under members of the declared family.
    ///
    /// # Errors
    /// When there are fewer than 50 healthy frames, or none under a shift, or a frame has no confidence.
    pub fn fit(healthy: &[Outcome], family: &[Shifted]) -> Result<Self> {
        let refuse = |reason: String| Error::Data { what: "accuracy estimate", reason };
        if healthy.len() < MINIMUM || family.is_empty() || family.iter().any(|s| s.frames.is_empty()) {
            let reason = format!(
                "{} labelled pictures and {} shifts, at least {MINIMUM} and one are needed",
                healthy.len(),
                family.len()
            );
            return Err(refuse(reason));
        }
        let mut confidences = Vec::with_capacity(healthy.len());
        for outcome in healthy {
            confidences.push(confidence(&outcome.scores).ok_or_else(|| refuse("a confidence is missing".into()))?);
        }
        confidences.sort_by(f64::total_cmp);
        let accuracy = share(healthy);
        let below = ((1.0 - accuracy) * confidences.len() as f64).round() as usize;
        // Right for every healthy picture: then so is whoever is as sure as the least sure of them.
        let threshold = if below == 0 { confidences[0].next_down() } else { confidences[below - 1] };
        let mut model = Self {
            accuracy,
            confidence: confidences.iter().sum::<f64>() / confidences.len() as f64,
            threshold,
            slopes: [1.0, 1.0],
            pictures: healthy.len(),
            misses: Default::default(),
            scatter: Default::default(),
            ranges: ranges(healthy, family),
        };
        let cells: Vec<Cell> = family
            .iter()
            .map(|s| (&s.kinds[..], share(&s.frames), model.sums(s.frames.iter().map(|o| &o.scores))))
            .collect();
        for (kinds, truth, sums) in &cells {
            let others = cells.iter().filter(|(other, ..)| !other.iter().any(|kind| kinds.contains(kind)));
            let without = Self { slopes: model.slopes_over(others), ..model.clone() };
            for (misses, value) in model.misses.iter_mut().zip(without.estimators(sums).values()) {
                let off = (truth - value) / without.spread(value, sums);
                *misses = [misses[0].max(-off), misses[1].max(off)];
            }
        }
        model.slopes = model.slopes_over(cells.iter());
        model.scatter = model.scatter_over(healthy, family);
        Ok(model)
    }

    /// Least squares through the healthy point: change of accuracy by change of confidence, and by change of the share
    /// above the threshold; 1 where it never moved.
    fn slopes_over<'a>(&self, cells: impl Iterator<Item = &'a Cell<'a>>) -> [f64; 2] {
        let (mut products, mut squares) = ([0.0; 2], [0.0; 2]);
        for (_, truth, sums) in cells {
            let n = sums.frames as f64;
            let moved = [sums.confidence / n - self.confidence, sums.above as f64 / n - self.accuracy];
            for i in 0..2 {
                products[i] += moved[i] * (truth - self.accuracy);
                squares[i] += moved[i] * moved[i];
            }
        }
        std::array::from_fn(|i| if squares[i] > 0.0 { products[i] / squares[i] } else { 1.0 })
    }

    /// Variance of one frame's rightness less what it adds to each estimate, the mean over the family.
    fn scatter_over(&self, healthy: &[Outcome], family: &[Shifted]) -> [f64; Estimators::COUNT] {
        let cells = std::iter::once(healthy).chain(family.iter().map(|s| &s.frames[..]));
        let mut total = [0.0; Estimators::COUNT];
        for frames in cells {
            let off: Vec<[f64; Estimators::COUNT]> = frames
                .iter()
                .filter_map(|o| Some((f64::from(u8::from(o.right)), self.unbounded(&self.frame(&o.scores)?))))
                .map(|(right, values)| values.map(|value| right - value))
                .collect();
            let n = off.len().max(1) as f64;
            for (e, total) in total.iter_mut().enumerate() {
                let mean = off.iter().map(|off| off[e]).sum::<f64>() / n;
                *total += off.iter().map(|off| (off[e] - mean).powi(2)).sum::<f64>() / n;
            }
        }
        total.map(|sum| sum / (1 + family.len()) as f64)
    }
}

fn share(frames: &[Outcome]) -> f64 {
    frames.iter().filter(|o| o.right).count() as f64 / frames.len() as f64
}

/// Ranges of the means of the pixel statistics, residuals, directions and network scores that every frame has.
fn ranges(healthy: &[Outcome], family: &[Shifted]) -> Vec<Range> {
    let cells: Vec<&[Outcome]> = std::iter::once(healthy).chain(family.iter().map(|s| &s.frames[..])).collect();
    let range = |channel: Channel| {
        let (mut low, mut high, mut deviation) = (f64::INFINITY, f64::NEG_INFINITY, SMALLEST_DEVIATION);
        let mut first = None;
        for frames in &cells {
            let values: Option<Vec<f64>> = frames.iter().map(|o| o.scores.get(channel)).collect();
            let values = values?;
            let mean = values.iter().sum::<f64>() / values.len() as f64;
            let variance = values.iter().map(|v| (v - mean) * (v - mean)).sum::<f64>() / values.len() as f64;
            (low, high) = (low.min(mean), high.max(mean));
            deviation = deviation.max(variance.sqrt());
            // The healthy frames are the first.
            first.get_or_insert([mean, variance.sqrt().max(SMALLEST_DEVIATION)]);
        }
        let healthy = first?;
        let finite = [low, high, deviation, healthy[0], healthy[1]].iter().all(|v| v.is_finite());
        finite.then_some(Range { channel, low, high, deviation, healthy })
    };
    let network = [Channel::Confidence, Channel::Cosine];
    let channels = network.into_iter().chain(Channel::PIXELS).chain(Channel::RESIDUALS).chain(Channel::TOWARD);
    channels.filter_map(range).collect()
}
