//! The rule for ranges that serves this network best, chosen by measurement on pictures the ranges were not taken from.
//!
//! Every rule of [`Method::ALL`] is built and run. The least mean squared error of the logits wins (it is finer than
//! agreement on few pictures); equal ones are told apart by the negative log-likelihood of the labels.

use crate::fold::Folded;
use crate::onnx::pb::ModelProto;
use crate::probe::Probe;
use crate::quantize::{self, Codes};
use crate::range::{Method, Observed};
use crate::{Error, Result, export};
use excon_edge::probability::{argmax, log_softmax};
use serde::{Deserialize, Serialize};

/// What one rule gave.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Trial {
    /// The rule.
    pub method: Method,
    /// Mean squared difference of int8 and float logits.
    pub logit_error: f64,
    /// Share of pictures with the same predicted class, 0..1.
    pub agreement: f64,
    /// Mean negative log-likelihood of the labels at temperature 1, nats.
    pub nll: f64,
    /// Pictures behind the figures.
    pub pictures: usize,
}

/// The chosen rule with its model, and all trials.
#[derive(Debug, Clone)]
pub struct Selection {
    /// The winner.
    pub method: Method,
    /// The int8 model by the winner.
    pub model: ModelProto,
    /// Every rule, in the order of [`Method::ALL`].
    pub trials: Vec<Trial>,
}

/// Builds and measures every rule on held-back pictures (planar, normalised) with their class indices.
///
/// # Errors
/// When there is no picture, sizes disagree, or an engine fails.
pub fn select(
    network: &Folded,
    observed: &Observed,
    codes: Codes,
    labels: &[String],
    images: &[f32],
    classes: &[usize],
) -> Result<Selection> {
    let one = network.input_shape().iter().product::<usize>();
    if classes.is_empty() || images.len() != classes.len() * one || classes.iter().any(|&c| c >= network.classes()) {
        let reason = format!("{} values are no {} labelled pictures of {one}", images.len(), classes.len());
        return Err(Error::Pictures { data: "held-back calibration".into(), reason });
    }
    let logits = |model: &ModelProto| {
        Probe::new(model, network.input_shape())?.run_all(images, |mut outputs| outputs.swap_remove(0))
    };
    let float = logits(&export::float(network, &[]))?;
    let mut trials = Vec::new();
    let mut best: Option<(Trial, ModelProto)> = None;
    for method in Method::ALL {
        let model = quantize::int8(network, &observed.scales(network, method), codes, labels)?;
        let trial = measure(method, &float, &logits(&model)?, classes);
        let wins = best
            .as_ref()
            .is_none_or(|(b, _)| trial.logit_error.total_cmp(&b.logit_error).then(trial.nll.total_cmp(&b.nll)).is_lt());
        trials.push(trial.clone());
        if wins {
            best = Some((trial, model));
        }
    }
    let (trial, model) =
        best.ok_or_else(|| Error::Rule { node: "range".into(), reason: "at least one rule is tried".into() })?;
    Ok(Selection { method: trial.method, model, trials })
}

fn measure(method: Method, float: &[Vec<f32>], int8: &[Vec<f32>], classes: &[usize]) -> Trial {
    let pictures = classes.len();
    let (mut error, mut values, mut agree, mut nll) = (0.0, 0usize, 0usize, 0.0);
    for ((f, q), &class) in float.iter().zip(int8).zip(classes) {
        error += f.iter().zip(q).map(|(a, b)| (f64::from(*a) - f64::from(*b)).powi(2)).sum::<f64>();
        values += f.len();
        agree += usize::from(argmax(f) == argmax(q));
        nll -= log_softmax(q, 1.0)[class];
    }
    let n = pictures as f64;
    Trial { method, logit_error: error / values.max(1) as f64, agreement: agree as f64 / n, nll: nll / n, pictures }
}
