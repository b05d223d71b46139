//! EDDA-style: cross entropy on a picture and on two occlusions of it that its own explanation chooses.
//!
//! `loss = CE(x, y) + keep · CE(x_keep, y) + drop · KL(uniform ‖ p(x_drop))`: with the non-salient part occluded the
//! class should stay, with the salient part occluded nothing should be recognised. x is a random view, explained as it
//! is seen; `explain.mask_rule` says which pixels are salient. Before `exp_epochs` it is plain cross entropy.
//!
//! Source: the idea of EDDA (arXiv 2105.14162), of which the abstract was read. Unknown, and therefore ours: the target
//! of x_drop (uniform), both weights, the mixing, and the share of salient pixels. 0.6 is what a leftover in the
//! released ExCon code hints at. So this is EDDA-*style*. Cost: 10 units a picture to SupCon's 6.

use super::views::{classified, value};
use super::{Batch, Needs, Recipe, Step, Trains, black};
use crate::augment::View;
use crate::config::{EddaConfig, TrainConfig};
use crate::dataset::Dataset;
use crate::explain::{ExplainConfig, argmax, kept, occlude, saliency};
use crate::network::{Network, NormMode};
use crate::{Result, loss};
use candle_core::Tensor;

/// The recipe.
pub(super) struct EddaStyle {
    view: View,
    weights: EddaConfig,
    explain: ExplainConfig,
    exp_epochs: usize,
    fill: [f32; 3],
}

impl EddaStyle {
    pub fn new(config: &TrainConfig, data: &Dataset) -> Self {
        Self {
            view: View::Random(config.views.clone()),
            weights: config.edda,
            explain: config.explain,
            exp_epochs: config.exp_epochs,
            fill: config.explain.fill.colour(black(data)),
        }
    }

    /// x, x_keep and x_drop, one after the other.
    fn occlusions(&self, network: &Network, batch: &Batch) -> Result<Tensor> {
        let x = &batch.first;
        let (_, height, width, _) = x.dims4()?;
        let maps = saliency(network, &self.explain, x, &batch.labels)?.maps;
        let kept =
            |map: &excon_edge::saliency::Map| kept(&map.upsample(width, height).normalised(), self.explain.mask_rule);
        let salient: Vec<Vec<bool>> = maps.iter().map(kept).collect();
        let rest: Vec<Vec<bool>> = salient.iter().map(|keep| keep.iter().map(|k| !k).collect()).collect();
        Ok(Tensor::cat(&[x.clone(), occlude(x, &salient, self.fill)?, occlude(x, &rest, self.fill)?], 0)?)
    }
}

impl Recipe for EddaStyle {
    fn needs(&self, _: usize) -> Needs {
        Needs { second: None, ..Needs::two(self.view.clone()) }
    }

    fn trains(&self, _: usize) -> Trains {
        Trains::Together
    }

    fn step(&mut self, network: &Network, batch: &Batch) -> Result<Step> {
        let occludes = batch.epoch >= self.exp_epochs;
        let rows = if occludes { self.occlusions(network, batch)? } else { batch.first.clone() };
        let logits = network.forward(&rows, NormMode::Train, &[network.graph().logits])?.remove(0);
        let (n, labels) = (batch.labels.len(), &batch.labels);
        let part = |at: usize| logits.narrow(0, at * n, n);
        let whole = part(0)?;
        let classified = classified(&whole, labels)?;
        let mut loss = loss::cross_entropy(&whole, labels)?;
        let cross_entropy = Some(value(&loss)?);
        let mut passes = None;
        if occludes {
            let (keep, drop) = (part(1)?, part(2)?);
            loss = (loss + (loss::cross_entropy(&keep, labels)? * self.weights.keep)?)?;
            loss = (loss + (from_uniform(&drop)? * self.weights.drop)?)?;
            passes = Some(argmax(&keep.detach())?.iter().zip(labels).map(|(p, l)| p == l).collect());
        }
        Ok(Step { loss, contrastive: None, cross_entropy, classified, passes })
    }
}

/// Mean over the rows of `KL(uniform ‖ softmax(logits))`: 0 where nothing is preferred.
fn from_uniform(logits: &Tensor) -> Result<Tensor> {
    let (rows, classes) = logits.dims2()?;
    let even = vec![1.0 / classes as f64; rows * classes];
    Ok((loss::soft_cross_entropy(logits, &even)? - (classes as f64).ln())?)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use candle_core::Device;

    #[test]
    fn the_divergence_from_uniform_is_its_definition() {
        let z = [[1.0f64, -2.0, 0.5], [0.3, 0.3, 0.3]];
        let got = from_uniform(&Tensor::new(&z, &Device::Cpu).unwrap()).unwrap().to_scalar::<f64>().unwrap();
        let sum: f64 = z[0].iter().map(|v| v.exp()).sum();
        let third = 1.0 / 3.0;
        let want: f64 = z[0].iter().map(|v| third * (third / (v.exp() / sum)).ln()).sum::<f64>() / 2.0;
        assert!((got - want).abs() < 1e-12, "{got} {want}");
    }
}
