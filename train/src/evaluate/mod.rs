//! What a network is worth on a split: accuracy, calibration, faithfulness of its explanations, completeness; and what
//! is left of it on attacked and corrupted pictures.
//!
//! Works on any [`Engine`], so that a trained network, an exported file and a sealed bundle are measured by one path.

mod attack;
mod corrupted;
mod engine;
mod interval;
mod logistic;
mod multi_label;
mod probe;
pub mod refit;

pub use attack::{Attack, Attacked, attacked};
pub use corrupted::{Cell, Corrupted, Means, SEVERITIES, corrupted};
pub use engine::NetworkEngine;
pub use interval::{Intervals, RESAMPLES};
pub(crate) use multi_label::exact_matches;
pub use multi_label::{LabelFigures, LabelPrecision, average_precision, evaluate_labels};
pub use probe::{NEIGHBOURS, Probe, probe};

use crate::augment::{View, ViewSeed, render};
use crate::dataset::{Dataset, Split};
use crate::network::{Network, NormMode};
use crate::{Error, Result};
use candle_core::{Device, Tensor};
use excon_edge::engine::Engine;
use excon_edge::image::{Picture, Preprocess};
use excon_edge::probability::{Metrics, log_softmax, softmax_rows};
use excon_edge::saliency::{Faithfulness, LinearHead, class_activation_map, completeness_residual, faithfulness};
use serde::{Deserialize, Serialize};
use std::time::Instant;

/// Pictures per call of an engine.
const BATCH: usize = 64;
/// Share of the pixels that stays when faithfulness is measured, as in the released evaluation.
pub const KEPT: f64 = 0.15;

/// Figures of one network on one split.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Evaluation {
    /// Name of the engine that was measured.
    pub engine: String,
    /// Temperature the probabilities were scaled with.
    pub temperature: f64,
    /// Accuracy and calibration.
    pub metrics: Metrics,
    /// 95 % bootstrap intervals of accuracy and ECE.
    pub intervals: Intervals,
    /// Drop and increase of the predicted class when only the most salient pixels stay.
    pub faithfulness: Faithfulness,
    /// Largest `|mean(CAM) + b − logit| / (1 + |logit|)` over pictures, for the predicted class.
    pub completeness_residual: f64,
    /// Seconds, faithfulness included.
    pub seconds: f64,
    /// `n × classes`, before scaling.
    #[serde(skip)]
    pub logits: Vec<f32>,
}

/// Measures an engine on a split. `head` is the engine's linear head; `temperature` scales the probabilities.
///
/// # Errors
/// When the split is empty or does not fit the engine, or the engine fails.
pub fn evaluate(
    engine: &dyn Engine,
    head: &LinearHead,
    split: &Split,
    preprocess: &Preprocess,
    temperature: f64,
) -> Result<Evaluation> {
    let started = Instant::now();
    let shapes = engine.shapes();
    let classes = shapes.classes;
    if split.is_empty() || split.labels.iter().any(|&l| l >= classes) {
        let reason = format!("it holds {} pictures, and the network knows {classes} classes", split.len());
        return Err(Error::Setting { name: "data".into(), reason });
    }
    let mut logits = Vec::with_capacity(split.len() * classes);
    let mut residual = 0f64;
    let mut parts = Vec::new();
    for indices in (0..split.len()).collect::<Vec<_>>().chunks(BATCH) {
        let images = planar(split, indices, preprocess);
        let out = engine.run(&images)?;
        let each = shapes.features.iter().product::<usize>();
        for (features, row) in out.features.chunks_exact(each).zip(out.logits.chunks_exact(classes)) {
            let class = excon_edge::probability::argmax(row);
            let map = class_activation_map(features, shapes.features, head, class);
            let gap = completeness_residual(&map, head, class, row[class]);
            residual = if gap.is_nan() { f64::INFINITY } else { residual.max(gap) };
        }
        logits.extend_from_slice(&out.logits);
        parts.push(faithfulness(engine, head, &images, KEPT)?);
    }
    let probabilities = softmax_rows(&logits, classes, temperature);
    Ok(Evaluation {
        engine: engine.name().into(),
        temperature,
        metrics: Metrics::measure(&probabilities, classes, &split.labels)?,
        intervals: Intervals::of(&probabilities, classes, &split.labels),
        faithfulness: joined(&parts),
        completeness_residual: residual,
        seconds: started.elapsed().as_secs_f64(),
        logits,
    })
}

/// The averages over all pictures from those of parts.
fn joined(parts: &[Faithfulness]) -> Faithfulness {
    let count: usize = parts.iter().map(|p| p.count).sum();
    let mean =
        |value: fn(&Faithfulness) -> f64| parts.iter().map(|p| value(p) * p.count as f64).sum::<f64>() / count as f64;
    Faithfulness {
        drop: mean(|p| p.drop),
        increase: mean(|p| p.increase),
        gain: mean(|p| p.gain),
        decrease: mean(|p| p.decrease),
        count,
    }
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
fn planar(split: &Split, indices: &[usize], preprocess: &Preprocess) -> Vec<f32> {
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
            hits += usize::from(excon_edge::probability::argmax(row) == label);
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
