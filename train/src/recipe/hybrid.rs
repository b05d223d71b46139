//! Hybrid for long-tailed sets: SupCon on every picture once, fading into cross entropy on a class-balanced draw.
//!
//! `loss = α · SupCon + (1 − α) · CE` with `α = 1 − ((e − 1)/E)^power` in epoch e of E: features first, then the
//! classifier. Two branches on one encoder and one train-mode pass: two random views of the epoch's order through the
//! projection head, and one view of as many pictures of the class-balanced order (`[sampler]`) through the classifier.
//!
//! Source: Wang et al., CVPR 2021, arXiv 2103.14267 (its parabolic α and its two samplings, from a published
//! reproduction); the paper's prototype variant is not here. Unknown: how the paper samples exactly, and how it counts
//! epochs (α is 1 in our first). Cost: 9 units a picture to SupCon's 6.

use super::views::{classified, value};
use super::{Batch, Needs, Recipe, Step, Trains, missing};
use crate::Result;
use crate::augment::View;
use crate::config::TrainConfig;
use crate::loss::{self, Background, SupCon};
use crate::network::{Network, NormMode};
use candle_core::Tensor;

/// The recipe.
pub(super) struct Hybrid {
    supcon: SupCon,
    view: View,
    balanced: View,
    power: f64,
    epochs: usize,
}

impl Hybrid {
    pub fn new(config: &TrainConfig) -> Self {
        Self {
            supcon: config.contrast,
            view: View::Random(config.views.clone()),
            balanced: View::Random(config.classifier_views.clone()),
            power: config.hybrid.power,
            epochs: config.epochs,
        }
    }

    /// SupCon's weight α in an epoch (from 1).
    pub fn weight(&self, epoch: usize) -> f64 {
        1.0 - ((epoch - 1) as f64 / self.epochs as f64).powf(self.power)
    }
}

impl Recipe for Hybrid {
    fn needs(&self, _: usize) -> Needs {
        Needs { balanced: Some(self.balanced.clone()), ..Needs::two(self.view.clone()) }
    }

    fn trains(&self, _: usize) -> Trains {
        Trains::Together
    }

    fn step(&mut self, network: &Network, batch: &Batch) -> Result<Step> {
        let (images, balanced) = batch.balanced.as_ref().ok_or_else(|| missing("the class-balanced pictures"))?;
        let graph = network.graph();
        let rows = Tensor::cat(&[&batch.second, &batch.first, images], 0)?;
        let out = network.forward(&rows, NormMode::Train, &[graph.projection, graph.logits])?;
        let labels = batch.labels.repeat(2);
        let projections = out[0].narrow(0, 0, labels.len())?;
        let supcon = self.supcon.loss(&projections, &labels, Background::Off)?.loss;
        let logits = out[1].narrow(0, labels.len(), balanced.len())?;
        let entropy = loss::cross_entropy(&logits, balanced)?;
        let (contrastive, cross_entropy) = (Some(value(&supcon)?), Some(value(&entropy)?));
        let alpha = self.weight(batch.epoch);
        let loss = ((supcon * alpha)? + (entropy * (1.0 - alpha))?)?;
        Ok(Step { loss, contrastive, cross_entropy, classified: classified(&logits, balanced)?, passes: None })
    }
}
