//! What a network is worth on a split: accuracy, calibration, faithfulness and completeness of its explanations, in two
//! passes; more of explanations and embeddings on a sample; and what is left of it on attacked and corrupted pictures.
//!
//! Works on any [`Engine`], so that a trained network, an exported file and a sealed bundle are measured by one path.

mod attack;
mod corrupted;
mod embedding;
mod engine;
mod explanation;
mod logistic;
mod measured;
mod multi_label;
mod probe;
pub mod refit;

#[cfg(all(test, feature = "cuda"))]
pub(crate) use attack::Target;
pub use attack::{Attack, Attacked, WhiteBox, attacked};
pub use corrupted::{Cell, Corrupted, Means, Origin, Regenerated, SEVERITIES, Source, corrupted};
pub use embedding::{Embedding, embeddings};
pub use engine::{NetworkEngine, open};
pub use explanation::{Explanations, Occlusion, explanations, spread};
pub use measured::Measured;
pub(crate) use multi_label::exact_matches;
pub use multi_label::{LabelFigures, LabelPrecision, average_precision, evaluate_labels};
pub use probe::{NEIGHBOURS, Probe, probe};

use crate::augment::{View, ViewSeed, render};
use crate::dataset::{Dataset, Split};
use crate::network::{Network, NormMode};
use crate::{Error, Result};
use candle_core::{Device, Tensor};
use excon_edge::engine::{Engine, NO_MAP};
use excon_edge::image::{Picture, Preprocess};
use excon_edge::probability::{Bin, Estimate, Scaling, argmax, log_softmax, reliability};
use excon_edge::saliency::{
    Faithfulness, LinearHead, Localised, class_activation_map, completeness_residual, confidences, localise,
};
use serde::{Deserialize, Serialize};
use std::time::Instant;

/// Pictures per call of an engine.
const BATCH: usize = 64;
/// Share of the pixels that stays when faithfulness is measured, as in the released evaluation.
pub const KEPT: f64 = 0.15;

/// Bins of the reliability diagrams, those of the ECE.
const BINS: usize = 15;

/// Figures of one network on one split.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Evaluation {
    /// Name of the engine that was measured.
    pub engine: String,
    /// How the probabilities were scaled.
    #[serde(flatten)]
    pub scaling: Scaling,
    /// Accuracy and calibration, with intervals, before and after scaling.
    #[serde(flatten)]
    pub measured: Measured,
    /// Accuracy of each class, in the order of the labels; `null` without pictures.
    pub accuracy_of: Vec<Option<f64>>,
    /// Reliability diagrams: bins before scaling, then after.
    pub reliability: [Vec<Bin>; 2],
    /// Why nothing is said of maps; `null` where the network has them.
    #[serde(default)]
    pub no_map: Option<String>,
    /// Drop and increase of the predicted class when only the most salient pixels stay; `null` without maps.
    pub faithfulness: Option<Faithfulness>,
    /// Whether the maps find the objects, where the data set has boxes around them.
    pub localisation: Option<Localisation>,
    /// Largest `|mean(CAM) + b − logit| / (1 + |logit|)` over pictures, for the predicted class.
    pub completeness_residual: f64,
    /// Seconds, faithfulness included.
    pub seconds: f64,
    /// `n × classes`, before scaling.
    #[serde(skip)]
    pub logits: Vec<f32>,
}

/// How the maps of the labelled classes find the objects, over the pictures that have a box.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Localisation {
    /// Pictures with a box.
    pub count: usize,
    /// Share of a map's positive evidence inside the box.
    pub energy: Estimate,
    /// Share of the pictures whose map has its largest value inside the box.
    pub pointing: Estimate,
    /// Mean share of the picture inside the box: what a flat map or a random point reaches.
    pub area: f64,
}

impl Localisation {
    fn of(found: &[Localised]) -> Option<Self> {
        let energies: Vec<f64> = found.iter().map(|l| l.energy).collect();
        let hits: Vec<bool> = found.iter().map(|l| l.hit).collect();
        Some(Self {
            count: found.len(),
            energy: Estimate::mean(&energies, [0.0, 1.0])?,
            pointing: Estimate::share(&hits)?,
            area: found.iter().map(|l| l.area).sum::<f64>() / found.len() as f64,
        })
    }
}

/// Measures an engine on a split. `head` is the engine's linear head; `scaling` gives the probabilities.
///
/// # Errors
/// When the split is empty or does not fit the engine, or the engine fails.
pub fn evaluate(
    engine: &dyn Engine,
    head: &LinearHead,
    split: &Split,
    preprocess: &Preprocess,
    scaling: &Scaling,
) -> Result<Evaluation> {
    let started = Instant::now();
    let shapes = engine.shapes();
    let classes = shapes.classes;
    require(split, classes)?;
    let [_, rows, columns] = shapes.input;
    let mut logits = Vec::with_capacity(split.len() * classes);
    let mut residual = 0f64;
    let (mut whole, mut masked, mut found) = (Vec::new(), Vec::new(), Vec::new());
    for indices in (0..split.len()).collect::<Vec<_>>().chunks(BATCH) {
        let images = planar(split, indices, preprocess);
        let out = engine.run(&images)?;
        let each = shapes.features.iter().product::<usize>();
        let pictures = out.features.chunks_exact(each).zip(out.logits.chunks_exact(classes));
        for ((features, row), &i) in pictures.zip(indices) {
            let class = argmax(row);
            let map = class_activation_map(features, shapes.features, head, class);
            let gap = completeness_residual(&map, head, class, row[class]);
            residual = if gap.is_nan() { f64::INFINITY } else { residual.max(gap) };
            if let (true, Some(object)) = (shapes.explains(), split.object(i)) {
                let map = class_activation_map(features, shapes.features, head, split.labels[i]);
                found.extend(localise(&map.upsample(columns, rows), object));
            }
        }
        if shapes.explains() {
            let (p, q) = confidences(engine, head, &images, &out, KEPT)?;
            whole.extend(p);
            masked.extend(q);
        }
        logits.extend_from_slice(&out.logits);
    }
    let scaled = scaling.rows(&logits, classes);
    let bins = |rows: &[f64]| reliability(rows, classes, &split.labels, BINS);
    Ok(Evaluation {
        engine: engine.name().into(),
        scaling: scaling.clone(),
        measured: Measured::of(&logits, classes, &split.labels, scaling)?,
        accuracy_of: accuracy_of(&scaled, classes, &split.labels),
        reliability: [bins(&Scaling::default().rows(&logits, classes)), bins(&scaled)],
        no_map: (!shapes.explains()).then(|| NO_MAP.into()),
        faithfulness: shapes.explains().then(|| Faithfulness::of(&whole, &masked)).transpose()?,
        localisation: Localisation::of(&found),
        completeness_residual: residual,
        seconds: started.elapsed().as_secs_f64(),
        logits,
    })
}

/// Share of right answers of each class; none for a class without pictures.
fn accuracy_of(probabilities: &[f64], classes: usize, labels: &[usize]) -> Vec<Option<f64>> {
    let mut tally = vec![(0usize, 0usize); classes];
    for (row, &label) in probabilities.chunks_exact(classes).zip(labels) {
        tally[label].0 += usize::from(argmax(row) == label);
        tally[label].1 += 1;
    }
    tally.into_iter().map(|(hits, count)| (count > 0).then(|| hits as f64 / count as f64)).collect()
}

/// Refuses an empty split, and one with other classes than the network's.
fn require(split: &Split, classes: usize) -> Result<()> {
    if split.is_empty() || split.labels.iter().any(|&l| l >= classes) {
        let reason = format!("it holds {} pictures, and the network knows {classes} classes", split.len());
        return Err(Error::Setting { name: "data".into(), reason });
    }
    Ok(())
}

/// Logits of every picture of a split, `n × classes`.
///
/// # Errors
/// When the engine fails.
pub fn logits(engine: &dyn Engine, split: &Split, preprocess: &Preprocess) -> Result<Vec<f32>> {
    let mut logits = Vec::with_capacity(split.len() * engine.shapes().classes);
    for indices in (0..split.len()).collect::<Vec<_>>().chunks(BATCH) {
        logits.extend(engine.run(&planar(split, indices, preprocess))?.logits);
    }
    Ok(logits)
}

/// Pictures of a split as an engine takes them: planar, normalised, at the size of `preprocess`.
pub fn planar(split: &Split, indices: &[usize], preprocess: &Preprocess) -> Vec<f32> {
    let mut images = Vec::with_capacity(indices.len() * 3 * preprocess.size * preprocess.size);
    for &i in indices {
        let picture = Picture { width: split.size, height: split.size, rgb: split.picture(i).to_vec() };
        preprocess.normalise(&preprocess.resize(&picture), &mut images);
    }
    images
}

/// Figures of the trainer's own network on a split.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Validation {
    /// Accuracy, 0..1; of whole sets where pictures have sets of labels.
    pub accuracy: f64,
    /// Mean negative log-likelihood, nats; of single labels where pictures have sets of them.
    pub nll: f64,
    /// Mean average precision, where pictures have sets of labels.
    pub map: Option<f64>,
}

/// Figures of the trainer's own network on a split, in eval mode.
pub(crate) fn validate(network: &Network, data: &Dataset, split: &Split) -> Result<Validation> {
    let classes = data.labels.len();
    let mut logits = Vec::with_capacity(split.len() * classes);
    for indices in (0..split.len()).collect::<Vec<_>>().chunks(BATCH) {
        let images = standard(split, indices, data)?;
        let rows = network.infer(&images, NormMode::Eval, &[network.graph().logits])?.remove(0);
        logits.extend(rows.flatten_all()?.to_vec1::<f32>()?);
    }
    Ok(Validation::of(&logits, data, split))
}

impl Validation {
    /// Of logits, a row for each picture of the split, at least one.
    pub fn of(logits: &[f32], data: &Dataset, split: &Split) -> Self {
        if data.is_multi_label() {
            let figures = LabelFigures::of(logits, &data.labels, &split.sets);
            return Self { accuracy: figures.exact, nll: figures.nll, map: Some(figures.map) };
        }
        let (mut hits, mut nll) = (0usize, 0f64);
        for (row, &label) in logits.chunks_exact(data.labels.len()).zip(&split.labels) {
            hits += usize::from(argmax(row) == label);
            nll -= log_softmax(row, 1.0)[label];
        }
        let n = split.len() as f64;
        Self { accuracy: hits as f64 / n, nll: nll / n, map: None }
    }
}

/// Clean, normalised pictures, N × H × W × 3.
pub(crate) fn standard(split: &Split, indices: &[usize], data: &Dataset) -> Result<Tensor> {
    let seed = ViewSeed { seed: 0, epoch: 0, view: 0 };
    let values = render(split, indices, &View::Standard, data.mean, data.std, seed);
    Ok(Tensor::from_vec(values, (indices.len(), split.size, split.size, 3), &Device::Cpu)?)
}

#[cfg(test)]
mod tests;
