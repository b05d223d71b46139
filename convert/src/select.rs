//! The way to quantize that serves this network best, chosen by measurement on pictures the ranges were not taken from.
//!
//! Every rule of [`Method::ALL`] is built and run, on the network as it was trained and with its channels equalised
//! ([`crate::equalise`]); then the best of them with corrected biases. The least mean squared error of the logits wins (it
//! is finer than agreement on few pictures); equal ones are told apart by the negative log-likelihood of the labels. Each is
//! run by the engine that will run the file, so what is chosen is best there.

use crate::equalise::{bias_corrected, equalised};
use crate::fold::{Folded, LayerId};
use crate::onnx::{self, pb::ModelProto};
use crate::quantize::{self, Codes};
use crate::range::{Method, Observed};
use crate::{Error, Result, export};
use excon_edge::engine;
use excon_edge::probability::{argmax, log_softmax};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// What one way gave.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Trial {
    /// The rule for ranges.
    pub method: Method,
    /// Whether channels were equalised.
    pub equalised: bool,
    /// Whether biases were corrected.
    pub bias_corrected: bool,
    /// Mean squared difference of int8 and float logits.
    pub logit_error: f64,
    /// Share of pictures with the same predicted class, 0..1.
    pub agreement: f64,
    /// Mean negative log-likelihood of the labels at temperature 1, nats.
    pub nll: f64,
    /// Pictures behind the figures.
    pub pictures: usize,
}

impl Trial {
    /// In words, such as `mse, channels equalised`.
    pub fn words(&self) -> String {
        let said = |on: bool, words: &str| if on { format!(", {words}") } else { String::new() };
        format!(
            "{}{}{}",
            self.method.name(),
            said(self.equalised, "channels equalised"),
            said(self.bias_corrected, "biases corrected")
        )
    }
}

/// The chosen way with its model and what that is made of, and all trials.
#[derive(Debug, Clone)]
pub struct Selection {
    /// The winner.
    pub best: Trial,
    /// The float network that was quantized: the given one, or an equalised form of it. Biases as trained.
    pub network: Folded,
    /// The same with the biases that int8 layers have.
    pub rounded: Folded,
    /// Symmetric scale of every map.
    pub scales: Vec<Option<f32>>,
    /// The int8 model by the winner.
    pub model: ModelProto,
    /// Every way that was tried, in that order.
    pub trials: Vec<Trial>,
}

impl Selection {
    /// The model by the winner with these convolutions in float.
    ///
    /// # Errors
    /// As [`quantize::mixed`].
    pub fn mixed(&self, codes: Codes, float: &BTreeSet<LayerId>, labels: &[String]) -> Result<ModelProto> {
        let mut network = self.rounded.clone();
        float.iter().for_each(|&id| network.layers[id] = self.network.layers[id].clone());
        quantize::mixed(&network, &self.scales, codes, float, labels)
    }
}

/// Builds and measures every way on held-back pictures with their class indices; ranges come from `calibration`. Pictures
/// are planar and normalised.
///
/// # Errors
/// When there is no picture, sizes disagree, or an engine fails.
pub fn select(
    network: &Folded,
    codes: Codes,
    labels: &[String],
    calibration: &[f32],
    images: &[f32],
    classes: &[usize],
) -> Result<Selection> {
    let one = network.input_shape().iter().product::<usize>();
    if classes.is_empty() || images.len() != classes.len() * one || classes.iter().any(|&c| c >= network.classes()) {
        let reason = format!("{} values are no {} labelled pictures of {one}", images.len(), classes.len());
        return Err(Error::Pictures { data: "held-back calibration".into(), reason });
    }
    let observed = Observed::new(network, calibration)?;
    let mut starts = vec![(network.clone(), observed)];
    if let Some(equal) = equalised(network, &starts[0].1) {
        let observed = Observed::new(&equal, calibration)?;
        starts.push((equal, observed));
    }
    let logits = |model: &ModelProto| -> Result<Vec<f32>> {
        let engine = engine::open(&onnx::encode(model), "model.onnx")?;
        Ok(engine.run(images)?.logits)
    };
    let float = logits(&export::float(network, &[]))?;
    let rounded = |start: usize, bias_corrected: bool| match (&starts[start], bias_corrected) {
        ((network, observed), true) => self::bias_corrected(network, observed),
        ((network, _), false) => network.clone(),
    };
    let scales = |start: usize, method: Method| starts[start].1.scales(&starts[start].0, method);
    let attempt = |start: usize, method: Method, bias_corrected: bool| -> Result<(Trial, ModelProto)> {
        let model = quantize::int8(&rounded(start, bias_corrected), &scales(start, method), codes, labels)?;
        let mut trial = measure(method, &float, &logits(&model)?, classes);
        (trial.equalised, trial.bias_corrected) = (start > 0, bias_corrected);
        Ok((trial, model))
    };
    let (mut best, mut model) = attempt(0, Method::ALL[0], false)?;
    let mut trials = vec![best.clone()];
    let mut keep = |(trial, candidate): (Trial, ModelProto)| {
        trials.push(trial.clone());
        if trial.logit_error.total_cmp(&best.logit_error).then(trial.nll.total_cmp(&best.nll)).is_lt() {
            (best, model) = (trial, candidate);
        }
        (usize::from(best.equalised), best.method)
    };
    let ways = (0..starts.len()).flat_map(|start| Method::ALL.map(|method| (start, method)));
    let mut winner = (0, Method::ALL[0]);
    for (start, method) in ways.skip(1) {
        winner = keep(attempt(start, method, false)?);
    }
    keep(attempt(winner.0, winner.1, true)?);
    let (rounded, scales) = (rounded(winner.0, best.bias_corrected), scales(winner.0, winner.1));
    let (network, _) = starts.swap_remove(winner.0);
    Ok(Selection { best, network, rounded, scales, model, trials })
}

/// Mean squared difference of two engines' logits.
pub(crate) fn squared_error(a: &[f32], b: &[f32]) -> f64 {
    let sum: f64 = a.iter().zip(b).map(|(a, b)| (f64::from(*a) - f64::from(*b)).powi(2)).sum();
    sum / a.len().max(1) as f64
}

fn measure(method: Method, float: &[f32], int8: &[f32], labels: &[usize]) -> Trial {
    let pictures = labels.len();
    let classes = float.len() / pictures.max(1);
    let (mut agree, mut nll) = (0usize, 0.0);
    for ((f, q), &class) in float.chunks_exact(classes).zip(int8.chunks_exact(classes)).zip(labels) {
        agree += usize::from(argmax(f) == argmax(q));
        nll -= log_softmax(q, 1.0)[class];
    }
    let n = pictures as f64;
    Trial {
        method,
        equalised: false,
        bias_corrected: false,
        logit_error: squared_error(float, int8),
        agreement: agree as f64 / n,
        nll: nll / n,
        pictures,
    }
}
