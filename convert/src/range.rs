//! How far an activation may reach before it saturates: five ways to choose a symmetric range from pictures.
//!
//! Ranges are per tensor and symmetric, so only |x| matters: a map's values are counted in 2,048 equal
//! bins over `[0, max |x|]`; of every channel the mean and the largest |x| are kept too. All of it is exact and independent
//! of threads. Which way wins is decided elsewhere, by measuring the quantized network ([`crate::select`]).

use crate::export::{self, maps};
use crate::fold::{Folded, LayerOp};
use crate::onnx::pb::ModelProto;
use crate::probe::Probe;
use crate::{Error, Result};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

/// Bins of a histogram.
pub const BINS: usize = 2048;
/// Positive levels of a signed byte used symmetrically.
pub const LEVELS: usize = 127;
/// Channel means are summed in steps of 2⁻²⁴, so that the order of pictures does not matter.
const MEAN_STEPS: f64 = (1 << 24) as f64;
/// Quantized bins of the entropy rule.
const ENTROPY_BINS: usize = 128;
/// Points at which the squared error is taken inside one bin.
const POINTS: usize = 4;

/// A rule that turns a histogram into a range.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Method {
    /// The largest value seen.
    MinMax,
    /// 99.9 % of values lie inside.
    #[serde(rename = "percentile-99.9")]
    Percentile999,
    /// 99.99 % of values lie inside.
    #[serde(rename = "percentile-99.99")]
    Percentile9999,
    /// Least Kullback–Leibler divergence from the distribution to its clipped 128-bin form (Migacz, 2017).
    Entropy,
    /// Least mean squared error of quantize–dequantize.
    Mse,
}

impl Method {
    /// Every rule.
    pub const ALL: [Self; 5] = [Self::MinMax, Self::Percentile999, Self::Percentile9999, Self::Entropy, Self::Mse];

    /// Name as in reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::MinMax => "min-max",
            Self::Percentile999 => "percentile 99.9",
            Self::Percentile9999 => "percentile 99.99",
            Self::Entropy => "entropy",
            Self::Mse => "mse",
        }
    }
}

/// Counts of |x| in equal bins over `[0, largest]`.
#[derive(Debug, Clone, PartialEq)]
pub struct Histogram {
    largest: f32,
    counts: Vec<u64>,
    zeros: u64,
}

impl Histogram {
    /// An empty histogram up to `largest`, which must be finite and not negative.
    pub fn new(largest: f32) -> Self {
        Self { largest, counts: vec![0; BINS], zeros: 0 }
    }

    /// Counts values; those beyond `largest` go to the last bin.
    pub fn add(&mut self, values: &[f32]) {
        let per_bin = if self.largest > 0.0 { BINS as f32 / self.largest } else { 0.0 };
        for value in values {
            self.counts[((value.abs() * per_bin) as usize).min(BINS - 1)] += 1;
            self.zeros += u64::from(*value == 0.0);
        }
    }

    /// Adds another histogram over the same range.
    pub fn merge(&mut self, other: &Self) {
        self.counts.iter_mut().zip(&other.counts).for_each(|(a, b)| *a += b);
        self.zeros += other.zeros;
    }

    /// Width of one bin.
    pub fn width(&self) -> f32 {
        self.largest / BINS as f32
    }

    /// The range `t` of a rule: values are represented in `[-t, t]`. 0 when nothing but zeros was seen.
    pub fn threshold(&self, method: Method) -> f32 {
        if self.largest <= 0.0 || self.counts.iter().all(|&c| c == 0) {
            return 0.0;
        }
        match method {
            Method::MinMax => self.largest,
            Method::Percentile999 => self.percentile(0.999),
            Method::Percentile9999 => self.percentile(0.9999),
            Method::Entropy => self.best(ENTROPY_BINS, 4, |edge| self.divergence(edge)),
            Method::Mse => self.best(LEVELS / 2, 4, |edge| self.squared_error(edge)),
        }
    }

    fn percentile(&self, share: f64) -> f32 {
        let total: u64 = self.counts.iter().sum();
        let wanted = share * total as f64;
        let mut below = 0u64;
        for (bin, &count) in self.counts.iter().enumerate() {
            if (below + count) as f64 >= wanted && count > 0 {
                let inside = (wanted - below as f64) / count as f64;
                return ((bin as f64 + inside) * f64::from(self.largest) / BINS as f64) as f32;
            }
            below += count;
        }
        self.largest
    }

    /// The upper edge, among every `step`-th bin edge from `first`, with the least cost; the widest of equal ones.
    fn best(&self, first: usize, step: usize, cost: impl Fn(usize) -> f64) -> f32 {
        let (mut edge, mut least) = (BINS, f64::INFINITY);
        for candidate in (first..=BINS).rev().step_by(step) {
            let cost = cost(candidate);
            if cost < least {
                (edge, least) = (candidate, cost);
            }
        }
        edge as f32 * self.width()
    }

    /// KL divergence of the counts clipped at `edge` (what lies beyond joins the last bin) from the same bins merged into
    /// 128 and spread again over those that were not empty.
    fn divergence(&self, edge: usize) -> f64 {
        let kept = &self.counts[..edge];
        let total: u64 = self.counts.iter().sum();
        let beyond: u64 = self.counts[edge..].iter().sum();
        let inside = (total - beyond) as f64;
        if inside == 0.0 {
            return f64::INFINITY;
        }
        let mut divergence = 0.0;
        for group in 0..ENTROPY_BINS {
            let (start, end) = (group * edge / ENTROPY_BINS, (group + 1) * edge / ENTROPY_BINS);
            let bins = &kept[start..end];
            let filled = bins.iter().filter(|&&c| c > 0).count();
            // The last bin also stands for what was clipped; where it was empty it gets a vanishing share of q.
            let spread = bins.iter().sum::<u64>() as f64 / (filled.max(1) as f64 * inside);
            for (at, &count) in bins.iter().enumerate() {
                let clipped = if start + at + 1 == edge { beyond } else { 0 };
                let p = (count + clipped) as f64 / total as f64;
                if p > 0.0 {
                    let q = if count > 0 { spread } else { 1e-9 };
                    divergence += p * (p / q).ln();
                }
            }
        }
        divergence
    }

    /// Sum of squared differences between values and their quantized form with the range ending at `edge`.
    fn squared_error(&self, edge: usize) -> f64 {
        let range = edge as f64; // in bins
        let step = range / LEVELS as f64;
        let error = |x: f64| x - (x / step).round_ties_even().min(LEVELS as f64) * step;
        let bin_error = |bin: usize| {
            let at = |point: usize| error(bin as f64 + (point as f64 + 0.5) / POINTS as f64);
            (0..POINTS).map(|point| at(point) * at(point)).sum::<f64>() / POINTS as f64
        };
        let count = |(bin, &count): (usize, &u64)| if bin == 0 { count - self.zeros.min(count) } else { count };
        self.counts.iter().enumerate().map(|entry| count(entry) as f64 * bin_error(entry.0)).sum()
    }
}

/// What one map was seen to hold.
#[derive(Debug, Clone)]
pub struct Seen {
    histogram: Histogram,
    /// Largest |x| of every channel.
    pub largest: Vec<f32>,
    /// Mean of every channel.
    pub mean: Vec<f64>,
}

/// What the maps of a network were seen to hold.
#[derive(Debug, Clone)]
pub struct Observed {
    /// One a layer; none for layers that stay float.
    seen: Vec<Option<Seen>>,
}

impl Observed {
    /// Runs calibration pictures (planar, normalised, one after the other) through the float network, twice: once for the
    /// largest values and the means, once to count.
    ///
    /// # Errors
    /// When there is no picture, tract fails, or the network produces a value that is not finite.
    pub fn new(network: &Folded, images: &[f32]) -> Result<Self> {
        let one = network.input_shape().iter().product::<usize>();
        if images.is_empty() || one == 0 || !images.len().is_multiple_of(one) {
            let reason = format!("{} values are no pictures of {one}", images.len());
            return Err(Error::Pictures { data: "calibration".into(), reason });
        }
        let model: ModelProto = export::observed(network);
        let probe = Probe::new(&model, network.input_shape())?;
        // Outputs: logits, features, then the other maps; see `export::observed`.
        let inner: Vec<usize> = maps(network).into_iter().filter(|&id| id != 0 && id != network.features).collect();
        let order: Vec<usize> = std::iter::once(network.features).chain(inner).collect();
        let shape = |id: usize| network.layers[id].shape;
        let gathered = probe.fold(
            images,
            || order.iter().map(|&id| Channels::new(shape(id))).collect::<Vec<_>>(),
            |channels, outputs| channels.iter_mut().zip(&outputs[1..]).for_each(|(c, map)| c.add(map)),
            |mut a, b| {
                a.iter_mut().zip(&b).for_each(|(x, y)| x.merge(y));
                a
            },
        )?;
        let tops: Vec<f32> = gathered.iter().map(Channels::top).collect();
        if let Some(at) = tops.iter().position(|t| !t.is_finite()) {
            let reason = "computes values that are not finite on the calibration pictures; train again".into();
            return Err(Error::Network { node: network.layers[order[at]].name.clone(), reason });
        }
        let empty = || tops.iter().map(|&t| Histogram::new(t)).collect::<Vec<_>>();
        let counted = probe.fold(
            images,
            empty,
            |histograms, outputs| histograms.iter_mut().zip(&outputs[1..]).for_each(|(h, map)| h.add(map)),
            |mut a, b| {
                a.iter_mut().zip(&b).for_each(|(x, y)| x.merge(y));
                a
            },
        )?;
        let mut input = Channels::new(shape(0));
        images.chunks_exact(one).for_each(|image| input.add(image));
        let mut histogram = Histogram::new(input.top());
        histogram.add(images);
        let mut seen = vec![None; network.layers.len()];
        seen[0] = Some(input.seen(histogram));
        for ((id, histogram), channels) in order.into_iter().zip(counted).zip(gathered) {
            seen[id] = Some(channels.seen(histogram));
        }
        Ok(Self { seen })
    }

    /// What the map of a layer was seen to hold; `None` where it stays float.
    pub fn map(&self, layer: usize) -> Option<&Seen> {
        self.seen.get(layer)?.as_ref()
    }

    /// Scale (range / 127) of every map by one rule; `None` where a layer stays float. Max pooling only chooses among
    /// its input's levels, so it keeps its input's scale.
    pub fn scales(&self, network: &Folded, method: Method) -> Vec<Option<f32>> {
        let own: Vec<Option<f32>> = self
            .seen
            .par_iter()
            .map(|seen| seen.as_ref().map(|seen| scale_of(seen.histogram.threshold(method))))
            .collect();
        let mut scales: Vec<Option<f32>> = Vec::with_capacity(own.len());
        for (layer, own) in network.layers.iter().zip(own) {
            let inherits = matches!(layer.op, LayerOp::MaxPool { .. });
            scales.push(if inherits { layer.inputs.first().and_then(|&i| scales[i]) } else { own });
        }
        scales
    }
}

/// Gathers [`Seen`], but for the histogram.
#[derive(Debug, Clone)]
struct Channels {
    area: usize,
    largest: Vec<f32>,
    sums: Vec<i64>,
    pictures: u64,
}

impl Channels {
    fn new([channels, rows, columns]: [usize; 3]) -> Self {
        Self { area: (rows * columns).max(1), largest: vec![0.0; channels], sums: vec![0; channels], pictures: 0 }
    }

    /// Adds the map of one picture.
    fn add(&mut self, map: &[f32]) {
        for ((largest, sum), plane) in self.largest.iter_mut().zip(&mut self.sums).zip(map.chunks_exact(self.area)) {
            *largest = plane.iter().fold(*largest, |m, v| worst(m, v.abs()));
            let mean = plane.iter().map(|&v| f64::from(v)).sum::<f64>() / self.area as f64;
            *sum = sum.saturating_add((mean * MEAN_STEPS).round() as i64);
        }
        self.pictures += 1;
    }

    fn merge(&mut self, other: &Self) {
        self.largest.iter_mut().zip(&other.largest).for_each(|(a, b)| *a = worst(*a, *b));
        self.sums.iter_mut().zip(&other.sums).for_each(|(a, b)| *a = a.saturating_add(*b));
        self.pictures += other.pictures;
    }

    fn top(&self) -> f32 {
        self.largest.iter().fold(0.0, |m, &v| worst(m, v))
    }

    fn seen(self, histogram: Histogram) -> Seen {
        let per_picture = MEAN_STEPS * self.pictures.max(1) as f64;
        let mean = self.sums.iter().map(|&sum| sum as f64 / per_picture).collect();
        Seen { histogram, largest: self.largest, mean }
    }
}

/// The larger of two, or the one that is not a number.
fn worst(a: f32, b: f32) -> f32 {
    if a.is_nan() || a > b { a } else { b }
}

/// `range / 127`, never so small that a division by it overflows: a map of zeros has scale 1/127.
pub fn scale_of(range: f32) -> f32 {
    let scale = range / LEVELS as f32;
    if scale.is_normal() { scale } else { 1.0 / LEVELS as f32 }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    fn histogram(values: &[f32]) -> Histogram {
        let mut h = Histogram::new(values.iter().fold(0.0, |m: f32, v| m.max(v.abs())));
        h.add(values);
        h
    }

    #[test]
    fn zeros_give_a_usable_scale() {
        let h = histogram(&[0.0; 10]);
        for method in Method::ALL {
            assert_eq!(h.threshold(method), 0.0);
        }
        assert!(scale_of(0.0) > 0.0 && scale_of(f32::MIN_POSITIVE) > 0.0);
    }

    #[test]
    fn one_outlier_is_cut_by_all_but_min_max() {
        let mut values: Vec<f32> = (0..200_000).map(|i| (i % 1000) as f32 / 1000.0).collect();
        values.push(50.0);
        let h = histogram(&values);
        assert_eq!(h.threshold(Method::MinMax), 50.0);
        for method in [Method::Percentile999, Method::Percentile9999, Method::Entropy] {
            assert!(h.threshold(method) < 5.0, "{} {}", method.name(), h.threshold(method));
        }
        // The squared error of one value at 50 outweighs much rounding; the range shrinks only as far as that pays.
        assert!(h.threshold(Method::Mse) < 50.0);
    }

    #[test]
    fn mse_finds_the_least_true_error() {
        // Heavy-tailed values: compare with a search over exact errors.
        let values: Vec<f32> = (1..40_000).map(|i| (i as f32 / 40_000.0).powi(-1).ln().powf(1.7)).collect();
        let h = histogram(&values);
        let error = |range: f32| {
            let scale = range / 127.0;
            let once = |v: f32| f64::from(v - (v / scale).round_ties_even().min(127.0) * scale);
            values.iter().map(|&v| once(v) * once(v)).sum::<f64>()
        };
        let top = h.threshold(Method::MinMax);
        let best = (100..=1000).map(|i| error(top * i as f32 / 1000.0)).fold(f64::INFINITY, f64::min);
        assert!(error(h.threshold(Method::Mse)) <= 1.02 * best);
        assert!(best < 0.9 * error(top), "the case must reward clipping");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]
        #[test]
        fn thresholds_lie_in_the_observed_range(values in prop::collection::vec(-100f32..100.0, 1..500)) {
            let h = histogram(&values);
            let top = h.threshold(Method::MinMax);
            for method in Method::ALL {
                let t = h.threshold(method);
                prop_assert!(t >= 0.0 && t <= top * 1.00001, "{} {t} of {top}", method.name());
            }
        }
    }
}
