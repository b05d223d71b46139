//! Multi-label SupCon: pictures with sets of labels (`labels.csv`), one SupCon term for each label of each picture, and
//! binary cross entropy of every class.
//!
//! `loss = MulSupCon + cross_entropy_weight · BCE`, both on two random views. The network is the same; its classifier's
//! outputs are read through a sigmoid each. The best epoch is the one of the highest mean average precision; accuracies
//! are shares of pictures whose whole set is right at 0.5.
//!
//! Source: MulSupCon (Zhang and Wu, AAAI 2024, arXiv 2402.01613) on the rows of the batch, without its queue. MulCon's
//! label attention is not here. Unknown: how well it does outside of the papers' sets; the joint training is ours. What
//! such a run cannot do yet: be converted, attacked, corrupted, probed or calibrated; those are defined for one class per
//! picture and say so. Cost: SupCon's.

use super::views::value;
use super::{Batch, Needs, Recipe, Step, Trains};
use crate::Result;
use crate::augment::View;
use crate::config::TrainConfig;
use crate::dataset::Dataset;
use crate::evaluate::exact_matches;
use crate::loss::{self, SupCon};
use crate::network::{Network, NormMode};
use candle_core::Tensor;

/// The recipe.
pub(super) struct MultiLabel {
    supcon: SupCon,
    weight: f64,
    view: View,
    /// The labels of every training picture.
    sets: Vec<Vec<usize>>,
}

impl MultiLabel {
    pub fn new(config: &TrainConfig, data: &Dataset) -> Self {
        Self {
            supcon: config.contrast,
            weight: config.cross_entropy_weight,
            view: View::Random(config.views.clone()),
            sets: data.train.sets.clone(),
        }
    }
}

impl Recipe for MultiLabel {
    fn needs(&self, _: usize) -> Needs {
        Needs::two(self.view.clone())
    }

    fn trains(&self, _: usize) -> Trains {
        Trains::Together
    }

    fn step(&mut self, network: &Network, batch: &Batch) -> Result<Step> {
        let graph = network.graph();
        let rows = Tensor::cat(&[&batch.second, &batch.first], 0)?;
        let out = network.forward(&rows, NormMode::Train, &[graph.projection, graph.logits])?;
        let twice = batch.draws.iter().chain(&batch.draws);
        let sets: Vec<Vec<usize>> = twice.map(|draw| self.sets[draw.index].clone()).collect();
        let classes = graph.channels(graph.logits);
        let targets: Vec<f64> =
            sets.iter().flat_map(|set| (0..classes).map(|k| f64::from(u8::from(set.contains(&k))))).collect();
        let supcon = self.supcon.multi_label_loss(&out[0], &sets)?.loss;
        let entropy = loss::binary_cross_entropy(&out[1], &targets)?;
        let (contrastive, cross_entropy) = (Some(value(&supcon)?), Some(value(&entropy)?));
        let right = exact_matches(&out[1].detach().flatten_all()?.to_vec1()?, classes, &sets);
        let loss = (supcon + (entropy * self.weight)?)?;
        Ok(Step { loss, contrastive, cross_entropy, classified: (sets.len(), right), passes: None })
    }
}
