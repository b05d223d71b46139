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

/// The chosen way with its model, and all trials.
#[derive(Debug, Clone)]
pub struct Selection {
    /// The winner.
    pub best: Trial,
    /// The float network that was quantized: the given one, or an equalised form of it. Biases as trained.
    pub network: Folded,
    /// The model by the winner.
    pub model: ModelProto,
    /// Every way that was tried, in that order.
    pub trials: Vec<Trial>,
}

/// A form of the network, and what calibration pictures showed of it.
struct Start {
    network: Folded,
    observed: Observed,
    /// By each of [`Method::ALL`] one for every map.
    scales: Vec<Vec<Option<f32>>>,
}

impl Start {
    fn new(network: Folded, calibration: &[f32]) -> Result<Self> {
        let observed = Observed::new(&network, calibration)?;
        let scales = Method::ALL.iter().map(|&method| observed.scales(&network, method)).collect();
        Ok(Self { network, observed, scales })
    }
}

/// A network with what calibration pictures showed of it, and held-back pictures to try ways on.
pub struct Ways {
    /// As trained, then with its channels equalised where they can be.
    starts: Vec<Start>,
    codes: Codes,
    labels: Vec<String>,
    images: Vec<f32>,
    classes: Vec<usize>,
    /// Float logits of the held-back pictures.
    float: Vec<f32>,
}

impl Ways {
    /// Ranges come from `calibration`, ways are tried on held-back pictures with their class indices. Pictures are planar
    /// and normalised.
    ///
    /// # Errors
    /// When there is no picture, sizes disagree, or an engine fails.
    pub fn new(
        network: &Folded,
        codes: Codes,
        labels: &[String],
        calibration: &[f32],
        (images, classes): (Vec<f32>, Vec<usize>),
    ) -> Result<Self> {
        let one = network.input_shape().iter().product::<usize>();
        let known = |&class: &usize| class < network.classes();
        if classes.is_empty() || images.len() != classes.len() * one || !classes.iter().all(known) {
            let reason = format!("{} values are no {} labelled pictures of {one}", images.len(), classes.len());
            return Err(Error::Pictures { data: "held-back calibration".into(), reason });
        }
        let mut starts = vec![Start::new(network.clone(), calibration)?];
        if let Some(equal) = equalised(network, &starts[0].observed) {
            starts.push(Start::new(equal, calibration)?);
        }
        let float = logits(&export::float(network, &[]), &images)?;
        Ok(Self { starts, codes, labels: labels.to_vec(), images, classes, float })
    }

    /// The network as it was trained.
    pub fn network(&self) -> &Folded {
        &self.starts[0].network
    }

    /// At most `limit` held-back pictures and their float logits.
    pub(crate) fn sample(&self, limit: usize) -> (&[f32], &[f32]) {
        let n = limit.min(self.classes.len());
        let part = |values: &[f32]| values.len() / self.classes.len() * n;
        (&self.images[..part(&self.images)], &self.float[..part(&self.float)])
    }

    /// The model by one way, with these convolutions in float.
    ///
    /// # Errors
    /// As [`quantize::mixed`].
    pub fn model(&self, way: &Trial, float: &BTreeSet<LayerId>) -> Result<ModelProto> {
        let Start { network, observed, scales } = &self.starts[usize::from(way.equalised)];
        let scales = Method::ALL.iter().zip(scales).find(|(method, _)| **method == way.method).map_or(&[][..], |s| s.1);
        if !way.bias_corrected {
            return quantize::mixed(network, scales, self.codes, float, &self.labels);
        }
        let mut corrected = bias_corrected(network, observed);
        float.iter().for_each(|&id| corrected.layers[id] = network.layers[id].clone());
        quantize::mixed(&corrected, scales, self.codes, float, &self.labels)
    }

    /// Builds and measures every way, with these convolutions in float.
    ///
    /// # Errors
    /// When an engine fails.
    pub fn select(&self, float: &BTreeSet<LayerId>) -> Result<Selection> {
        let attempt = |equalised: bool, method: Method, bias_corrected: bool| -> Result<(Trial, ModelProto)> {
            let (logit_error, agreement, nll, pictures) = (0.0, 0.0, 0.0, self.classes.len());
            let way = Trial { method, equalised, bias_corrected, logit_error, agreement, nll, pictures };
            let model = self.model(&way, float)?;
            Ok((measured(way, &self.float, &logits(&model, &self.images)?, &self.classes), model))
        };
        let (mut best, mut model) = attempt(false, Method::ALL[0], false)?;
        let mut trials = vec![best.clone()];
        let mut keep = |(trial, candidate): (Trial, ModelProto)| {
            trials.push(trial.clone());
            if trial.logit_error.total_cmp(&best.logit_error).then(trial.nll.total_cmp(&best.nll)).is_lt() {
                (best, model) = (trial, candidate);
            }
            (best.equalised, best.method)
        };
        let starts = [false, true].into_iter().take(self.starts.len());
        let mut winner = (false, Method::ALL[0]);
        for (equalised, method) in starts.flat_map(|e| Method::ALL.map(|method| (e, method))).skip(1) {
            winner = keep(attempt(equalised, method, false)?);
        }
        keep(attempt(winner.0, winner.1, true)?);
        let network = self.starts[usize::from(best.equalised)].network.clone();
        Ok(Selection { best, network, model, trials })
    }
}

/// Logits by the engine that will run the file.
pub(crate) fn logits(model: &ModelProto, images: &[f32]) -> Result<Vec<f32>> {
    Ok(engine::open(&onnx::encode(model), "model.onnx")?.run(images)?.logits)
}

/// Mean squared difference of two engines' logits.
pub(crate) fn squared_error(a: &[f32], b: &[f32]) -> f64 {
    let sum: f64 = a.iter().zip(b).map(|(a, b)| (f64::from(*a) - f64::from(*b)).powi(2)).sum();
    sum / a.len().max(1) as f64
}

/// A trial with its figures.
fn measured(way: Trial, float: &[f32], int8: &[f32], labels: &[usize]) -> Trial {
    let classes = float.len() / labels.len().max(1);
    let (mut agree, mut nll) = (0usize, 0.0);
    for ((f, q), &class) in float.chunks_exact(classes).zip(int8.chunks_exact(classes)).zip(labels) {
        agree += usize::from(argmax(f) == argmax(q));
        nll -= log_softmax(q, 1.0)[class];
    }
    let n = labels.len() as f64;
    Trial { logit_error: squared_error(float, int8), agreement: agree as f64 / n, nll: nll / n, ..way }
}
