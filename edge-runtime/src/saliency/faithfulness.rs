//! Faithfulness of the explanations: what happens to the predicted class when only the most salient pixels are left.
//!
//! For each picture: predicted class c, its probability p (softmax at temperature 1), the exact map of c enlarged to
//! the input, the top fraction of pixels kept and the rest set to the mean colour, and the probability q of c there.
//! These are hard masks by rank: the numbers are not comparable with those of soft Grad-CAM++ masks.

use super::{LinearHead, class_activation_map, keep_top, mask_normalised};
use crate::engine::{Engine, Outputs};
use crate::probability::{Estimate, argmax, softmax};
use crate::{Error, Result};
use serde::{Deserialize, Serialize};

/// Pictures per call of the engine.
pub(super) const BATCH: usize = 32;

/// Averages over pictures of p (whole picture) against q (salient part only), as fractions.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Faithfulness {
    /// Mean of `max(0, p − q) / p`; lower is better.
    pub drop: f64,
    /// Share of pictures with `q > p`; higher is better.
    pub increase: f64,
    /// Mean of `max(0, q − p) / p`.
    pub gain: f64,
    /// Share of pictures with `q < p`.
    pub decrease: f64,
    /// 95 % bootstrap interval of the drop.
    pub drop_interval: [f64; 2],
    /// The same of the increase.
    pub increase_interval: [f64; 2],
    /// Pictures behind the averages.
    pub count: usize,
}

impl Faithfulness {
    /// The averages from probabilities of the predicted class on whole and on masked pictures.
    ///
    /// # Errors
    /// [`Error::Data`] when there is none, the lengths differ, or a value lies outside 0..=1 (whole: 0 excluded).
    pub fn of(whole: &[f64], masked: &[f64]) -> Result<Self> {
        let refuse = |reason: String| Err(Error::Data { what: "faithfulness", reason });
        if whole.is_empty() || whole.len() != masked.len() {
            return refuse(format!("{} whole and {} masked pictures", whole.len(), masked.len()));
        }
        let pairs = || whole.iter().zip(masked);
        if let Some((p, q)) = pairs().find(|(p, q)| !(**p > 0.0 && **p <= 1.0 && (0.0..=1.0).contains(*q))) {
            return refuse(format!("probabilities {p} and {q} are out of range"));
        }
        let drops: Vec<f64> = pairs().map(|(p, q)| (p - q).max(0.0) / p).collect();
        let increases: Vec<bool> = pairs().map(|(p, q)| q > p).collect();
        let mean = |f: &dyn Fn(f64, f64) -> f64| pairs().map(|(p, q)| f(*p, *q)).sum::<f64>() / whole.len() as f64;
        let none = || Error::Data { what: "faithfulness", reason: "there is no picture".into() };
        let drop = Estimate::mean(&drops, [0.0, 1.0]).ok_or_else(none)?;
        let increase = Estimate::share(&increases).ok_or_else(none)?;
        Ok(Self {
            drop: drop.value,
            increase: increase.value,
            gain: mean(&|p, q| (q - p).max(0.0) / p),
            decrease: mean(&|p, q| f64::from(u8::from(q < p))),
            drop_interval: drop.interval,
            increase_interval: increase.interval,
            count: whole.len(),
        })
    }
}

/// Measures faithfulness of the exact map of the predicted class with `fraction` of the pixels kept (0.15 in ExCon's
/// evaluation). `images` are planar, normalised pictures (`n × C × H × W`).
///
/// # Errors
/// [`Error::Data`] when there is no picture, the fraction is outside 0..1, or the head does not fit the engine;
/// otherwise the engine's.
pub fn faithfulness(engine: &dyn Engine, head: &LinearHead, images: &[f32], fraction: f64) -> Result<Faithfulness> {
    let refuse = |reason: String| Err(Error::Data { what: "faithfulness", reason });
    let length: usize = engine.shapes().input.iter().product();
    if length == 0 || !images.len().is_multiple_of(length) {
        return refuse(format!("{} values are no whole number of pictures of {length}", images.len()));
    }
    let (mut whole, mut masked) = (Vec::new(), Vec::new());
    for batch in images.chunks(BATCH * length) {
        let (p, q) = confidences(engine, head, batch, &run(engine, batch)?, fraction)?;
        whole.extend(p);
        masked.extend(q);
    }
    Faithfulness::of(&whole, &masked)
}

/// The two lists that [`Faithfulness::of`] averages, for pictures whose `outputs` are known: the probability of the
/// predicted class on each whole picture, and on its most salient part.
///
/// # Errors
/// As [`faithfulness`].
pub fn confidences(
    engine: &dyn Engine,
    head: &LinearHead,
    images: &[f32],
    outputs: &Outputs,
    fraction: f64,
) -> Result<(Vec<f64>, Vec<f64>)> {
    let refuse = |reason: String| Err(Error::Data { what: "faithfulness", reason });
    let shapes = engine.shapes();
    let [_, rows, columns] = shapes.input;
    let area: usize = shapes.features.iter().product();
    if head.channels != shapes.features[0] || head.classes != shapes.classes {
        return refuse("the head does not fit the engine's shapes".into());
    }
    if !(0.0..=1.0).contains(&fraction) {
        return refuse(format!("fraction is {fraction}, use 0..=1"));
    }
    let mut salient = images.to_vec();
    let (mut whole, mut predicted) = (Vec::new(), Vec::new());
    let pictures = outputs.logits.chunks_exact(shapes.classes).zip(outputs.features.chunks_exact(area));
    for ((logits, features), image) in pictures.zip(salient.chunks_exact_mut(shapes.input.iter().product())) {
        let class = argmax(logits);
        let map = class_activation_map(features, shapes.features, head, class).upsample(columns, rows);
        mask_normalised(image, &keep_top(&map, fraction));
        whole.push(softmax(logits, 1.0)[class]);
        predicted.push(class);
    }
    let outputs = run(engine, &salient)?;
    let rows = outputs.logits.chunks_exact(shapes.classes);
    let masked = rows.zip(predicted).map(|(logits, class)| softmax(logits, 1.0)[class]).collect();
    Ok((whole, masked))
}

/// Runs the engine and holds it to its declared shapes.
pub(super) fn run(engine: &dyn Engine, images: &[f32]) -> Result<Outputs> {
    let shapes = engine.shapes();
    let count = images.len() / shapes.input.iter().product::<usize>();
    let outputs = engine.run(images)?;
    if outputs.logits.len() != count * shapes.classes
        || outputs.features.len() != count * shapes.features.iter().product::<usize>()
    {
        return Err(Error::Engine {
            engine: engine.name().into(),
            reason: "outputs do not have the declared shapes".into(),
        });
    }
    Ok(outputs)
}
