//! What quantization cost: accuracy, calibration and agreement of two engines on the same pictures, held to a budget.
//!
//! Each side uses the temperature that was fitted for it, on other pictures. A budget is judged with a 95 % interval of
//! the paired difference, so that "met by luck" and "too few pictures to tell" are said and not hidden.

use crate::fold::{Folded, LayerId};
use crate::onnx::pb::{ModelProto, NodeProto};
use crate::onnx::unshaped;
use crate::probe::Probe;
use crate::{Error, Result, export};
use excon_edge::bundle::BudgetItem;
use excon_edge::probability::{Metrics, Scaling, Z95, argmax};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

/// Resamples behind the interval of an ECE difference.
const RESAMPLES: usize = 400;

/// Two engines on the same pictures.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Comparison {
    /// Split the pictures are from, in words.
    pub split: String,
    /// The float network, probabilities at its own temperature.
    pub float: Metrics,
    /// Temperature of the float network.
    pub float_temperature: f64,
    /// The int8 network, probabilities at its own temperature.
    pub int8: Metrics,
    /// Temperature of the int8 network.
    pub int8_temperature: f64,
    /// Share of pictures with the same predicted class, 0..1.
    pub agreement: f64,
    /// Float accuracy − int8 accuracy.
    pub accuracy_loss: Difference,
    /// Int8 ECE − float ECE (15 equal-width bins).
    pub ece_loss: Difference,
}

/// A measured difference and its 95 % interval. Positive is worse for int8.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Difference {
    /// As measured.
    pub value: f64,
    /// Lower limit.
    pub lower: f64,
    /// Upper limit.
    pub upper: f64,
}

/// Largest losses allowed, as fractions (0.005 is half a point).
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Allowed {
    /// Accuracy.
    pub accuracy_loss: f64,
    /// Expected calibration error.
    pub ece_loss: f64,
}

impl Default for Allowed {
    fn default() -> Self {
        Self { accuracy_loss: 0.005, ece_loss: 0.002 }
    }
}

/// What can be said about a budget.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// The whole interval lies within the budget.
    Met,
    /// The whole interval lies beyond it.
    NotMet,
    /// The budget lies inside the interval.
    TooFewPictures,
}

impl Verdict {
    /// Words for people.
    pub fn words(self) -> &'static str {
        match self {
            Self::Met => "met",
            Self::NotMet => "not met",
            Self::TooFewPictures => "too few pictures to tell",
        }
    }
}

/// One budget, as it goes to the bundle, with what is known about it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BudgetLine {
    /// Name, allowed and measured value, pictures. `met` only compares the two values.
    pub item: BudgetItem,
    /// 95 % interval of the measured value.
    pub interval: [f64; 2],
    /// What the interval allows to say.
    pub verdict: Verdict,
}

/// Logits of one engine and the calibration fitted for it.
#[derive(Debug, Clone, Copy)]
pub struct Side<'a> {
    /// `n × classes`.
    pub logits: &'a [f32],
    /// From logits to probabilities.
    pub scaling: &'a Scaling,
}

/// Compares two engines on labelled pictures; `seed` draws the resamples.
///
/// # Errors
/// When sizes disagree, there is no picture, or an engine gave a value that is not finite.
pub fn compare(
    split: &str,
    float: Side,
    int8: Side,
    classes: usize,
    labels: &[usize],
    seed: u64,
) -> Result<Comparison> {
    if let Some(side) = [float, int8].iter().find(|s| s.logits.iter().any(|v| !v.is_finite())) {
        let which = if std::ptr::eq(side.logits, float.logits) { "float" } else { "int8" };
        return Err(Error::Engine { reason: format!("the {which} model gave logits that are not finite") });
    }
    let probabilities = |s: Side| s.scaling.rows(s.logits, classes.max(1));
    let (p, q) = (probabilities(float), probabilities(int8));
    let (float_metrics, int8_metrics) =
        (Metrics::measure(&p, classes, labels)?, Metrics::measure(&q, classes, labels)?);
    let answers = |x: &[f64]| -> Vec<usize> { x.chunks_exact(classes).map(argmax).collect() };
    let (a, b) = (answers(&p), answers(&q));
    let same = a.iter().zip(&b).filter(|(x, y)| x == y).count();
    let accuracy_loss = paired_accuracy(&a, &b, labels);
    let ece_loss = resampled_ece(&p, &q, classes, labels, int8_metrics.ece - float_metrics.ece, seed)?;
    Ok(Comparison {
        split: split.into(),
        float: float_metrics,
        float_temperature: float.scaling.temperature,
        int8: int8_metrics,
        int8_temperature: int8.scaling.temperature,
        agreement: same as f64 / labels.len() as f64,
        accuracy_loss,
        ece_loss,
    })
}

/// Paired difference of two accuracies. With b pictures right only in float and c right only in int8 it is (b − c) / n,
/// with variance (b + c − (b − c)² / n) / n². The interval is never narrower than 3 / n (the rule of three): without a
/// single discordant picture a rate up to that cannot be excluded.
fn paired_accuracy(float: &[usize], int8: &[usize], labels: &[usize]) -> Difference {
    let n = labels.len() as f64;
    let only = |x: &[usize], y: &[usize]| (0..labels.len()).filter(|&i| x[i] == labels[i] && y[i] != labels[i]).count();
    let (b, c) = (only(float, int8) as f64, only(int8, float) as f64);
    let value = (b - c) / n;
    let half = (Z95 * (b + c - (b - c) * (b - c) / n).max(0.0).sqrt() / n).max(3.0 / n);
    Difference { value, lower: value - half, upper: value + half }
}

/// Percentile interval of the ECE difference over pictures drawn with replacement, both engines on the same draw.
fn resampled_ece(p: &[f64], q: &[f64], classes: usize, labels: &[usize], value: f64, seed: u64) -> Result<Difference> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let n = labels.len();
    // ECE of a resample is biased upwards by its repeats, on both sides alike: the difference is centred on the median.
    let mut differences = Vec::with_capacity(RESAMPLES);
    for _ in 0..RESAMPLES {
        let draw: Vec<usize> = (0..n).map(|_| rng.random_range(0..n)).collect();
        let rows =
            |x: &[f64]| -> Vec<f64> { draw.iter().flat_map(|&i| &x[i * classes..][..classes]).copied().collect() };
        let drawn: Vec<usize> = draw.iter().map(|&i| labels[i]).collect();
        let ece = |x: &[f64]| Metrics::measure(&rows(x), classes, &drawn).map(|m| m.ece);
        differences.push(ece(q)? - ece(p)?);
    }
    differences.sort_by(f64::total_cmp);
    let at = |share: f64| differences[((RESAMPLES - 1) as f64 * share).round() as usize];
    let middle = at(0.5);
    Ok(Difference { value, lower: value + at(0.025) - middle, upper: value + at(0.975) - middle })
}

/// Holds a comparison against what is allowed.
pub fn budget(comparison: &Comparison, allowed: &Allowed) -> Vec<BudgetLine> {
    let pictures = comparison.int8.count;
    [
        ("accuracy loss", allowed.accuracy_loss, comparison.accuracy_loss),
        ("ECE loss", allowed.ece_loss, comparison.ece_loss),
    ]
    .map(|(name, allowed, d)| {
        let verdict = match () {
            () if d.upper <= allowed => Verdict::Met,
            () if d.lower > allowed => Verdict::NotMet,
            () => Verdict::TooFewPictures,
        };
        let item = BudgetItem { name: name.into(), allowed, measured: d.value, pictures, met: d.value <= allowed };
        BudgetLine { item, interval: [d.lower, d.upper], verdict }
    })
    .into()
}

/// How much noise quantization leaves in one map.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LayerError {
    /// The layer's node.
    pub layer: String,
    /// 10 · log10(Σ float² / Σ (float − int8)²), errors of earlier layers included; absent where both are equal.
    pub signal_to_noise_db: Option<f64>,
}

/// Signal-to-noise ratio of every map between the float and the int8 model, over pictures (planar, normalised), in the
/// network's order.
///
/// # Errors
/// When an engine fails.
pub fn layer_errors(network: &Folded, int8: &ModelProto, images: &[f32]) -> Result<Vec<LayerError>> {
    let maps = maps_of(network);
    let look = |model: &ModelProto| -> Result<Look> {
        let probe = Probe::new(&watched(model, &maps), network.input_shape())?;
        Ok(Box::new(move |image| probe.run(image)))
    };
    noise(&maps, images, network.input_shape(), [look(&export::float(network, &[]))?, look(int8)?])
}

/// A layer and the value that its map has in a model, float or quantized.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamedMap {
    /// The layer's node.
    pub layer: String,
    /// The value.
    pub value: String,
}

/// The maps of a network, in its order.
pub fn maps_of(network: &Folded) -> Vec<NamedMap> {
    let named =
        |id: LayerId| NamedMap { layer: network.layers[id].name.clone(), value: export::value_name(network, id) };
    export::maps(network).into_iter().filter(|&id| id != 0).map(named).collect()
}

/// The maps of a model that this crate wrote, by the names that it gives to nodes and values.
pub fn maps_in(model: &ModelProto) -> Vec<NamedMap> {
    let map = |node: &NodeProto| {
        let value = node.output.first()?;
        let layer = match value.strip_suffix(".output") {
            Some(layer) if !matches!(node.op_type.as_str(), "Flatten" | "Gemm") => layer,
            None if value == export::FEATURES => {
                let (before, inside) = (node.input.first()?, &node.name);
                before.strip_suffix(".before_relu").or(inside.strip_suffix(".dequantize")).unwrap_or(inside)
            }
            _ => return None,
        };
        (layer != export::INPUT).then(|| NamedMap { layer: layer.into(), value: value.clone() })
    };
    model.graph.iter().flat_map(|graph| &graph.node).filter_map(map).collect()
}

/// A model that gives maps and nothing else.
pub fn watched(model: &ModelProto, maps: &[NamedMap]) -> ModelProto {
    let mut watched = model.clone();
    if let Some(graph) = &mut watched.graph {
        graph.output = maps.iter().map(|map| unshaped(&map.value)).collect();
    }
    watched
}

/// What computes maps of a picture (planar, normalised).
pub type Look = Box<dyn Fn(&[f32]) -> Result<Vec<Vec<f32>>>>;

/// Signal-to-noise ratio of maps that `a` and `b` compute from one picture of the shape `input`, over all of `images`.
///
/// # Errors
/// When one of the two fails, or their maps have other sizes.
pub fn noise(maps: &[NamedMap], images: &[f32], input: [usize; 3], [a, b]: [Look; 2]) -> Result<Vec<LayerError>> {
    let mut sums = vec![(0.0f64, 0.0f64); maps.len()];
    for image in images.chunks_exact(input.iter().product::<usize>().max(1)) {
        let (a, b) = (a(image)?, b(image)?);
        for ((sum, map), (a, b)) in sums.iter_mut().zip(maps).zip(a.iter().zip(&b)) {
            if a.len() != b.len() {
                let reason = format!("its map has {} values in one of the two and {} in the other", a.len(), b.len());
                return Err(Error::Network { node: map.layer.clone(), reason });
            }
            sum.0 += a.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>();
            sum.1 += a.iter().zip(b).map(|(x, y)| (f64::from(*x) - f64::from(*y)).powi(2)).sum::<f64>();
        }
    }
    let ratio = |(map, (signal, noise)): (&NamedMap, (f64, f64))| LayerError {
        layer: map.layer.clone(),
        signal_to_noise_db: (noise > 0.0 && signal > 0.0).then(|| 10.0 * (signal / noise).log10()),
    };
    Ok(maps.iter().zip(sums).map(ratio).collect())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// `n` pictures of two classes with the float logit gap `gap`; int8 gets the first `wrong` wrong.
    fn case(n: usize, wrong: usize) -> (Vec<f32>, Vec<f32>, Vec<usize>) {
        let labels: Vec<usize> = (0..n).map(|i| i % 2).collect();
        let row = |i: usize, right: bool| {
            if (i.is_multiple_of(2)) == right { [1.0 + (i % 7) as f32, 0.0] } else { [0.0, 1.0] }
        };
        let float = (0..n).flat_map(|i| row(i, i % 5 > 0)).collect();
        let int8 = (0..n).flat_map(|i| row(i, i % 5 > 0 && i >= wrong)).collect();
        (float, int8, labels)
    }

    fn judge(n: usize, wrong: usize) -> (Comparison, Vec<BudgetLine>) {
        let (float, int8, labels) = case(n, wrong);
        let plain = Scaling::default();
        let side = |logits| Side { logits, scaling: &plain };
        let c = compare("made up", side(&float), side(&int8), 2, &labels, 7).unwrap();
        let b = budget(&c, &Allowed::default());
        (c, b)
    }

    #[test]
    fn equal_engines_meet_the_budget_only_on_enough_pictures() {
        let (c, b) = judge(2000, 0);
        assert_eq!((c.agreement, c.accuracy_loss.value, c.ece_loss.value), (1.0, 0.0, 0.0));
        assert!(b.iter().all(|l| l.verdict == Verdict::Met && l.item.met && l.item.pictures == 2000), "{b:?}");
        let (_, b) = judge(100, 0);
        assert!(b[0].item.met);
        assert_eq!(b[0].verdict, Verdict::TooFewPictures);
    }

    #[test]
    fn a_real_loss_is_not_met() {
        let (c, b) = judge(1000, 100);
        assert!((c.accuracy_loss.value - 0.08).abs() < 1e-12, "every fifth was wrong already");
        assert!((c.agreement - 0.92).abs() < 1e-12);
        assert_eq!(b[0].verdict, Verdict::NotMet);
        assert!(!b[0].item.met && b[0].interval[0] > 0.005);
    }

    #[test]
    fn not_a_number_is_an_error() {
        let (float, mut int8, labels) = case(10, 0);
        int8[3] = f32::NAN;
        let plain = Scaling::default();
        let side = |logits| Side { logits, scaling: &plain };
        let error = compare("x", side(&float), side(&int8), 2, &labels, 7).unwrap_err().to_string();
        assert!(error.contains("int8"), "{error}");
        assert!(compare("x", side(&float), side(&float), 2, &labels[1..], 7).is_err());
    }
}
