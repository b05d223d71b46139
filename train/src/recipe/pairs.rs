//! External positives: SupCon whose view 1 is the picture and whose view 2 comes from a picture that some generator made
//! of it, read from disk as `pairs.csv` beside the pictures ([`Pairs`]).
//!
//! Of several positives one is drawn for each epoch; a picture without any is its own. A positive that lies between two
//! classes (`label`, `share`) counts for the contrastive loss as the class with the larger share, and for the classifier's
//! cross entropy, when joint, as both in their shares.
//!
//! Source: what counterfactual contrastive learning (positives by a causal generator) and Diff-Mix (arXiv 2403.19600,
//! translations between classes with mixed labels) need from a trainer. The generators are not here. Unknown: their
//! figures on our data; the counterfactual papers train without labels, this does not. Cost: SupCon's.

use super::views::{Views, contrast};
use super::{Batch, Contrast, Needs, Purpose, Recipe, Sample, Slot, Step, Trains, stream};
use crate::augment::View;
use crate::config::TrainConfig;
use crate::dataset::{Dataset, Pairs, Split};
use crate::loss::one_hot;
use crate::network::Network;
use crate::{Error, Result};
use rand::RngExt;
use std::borrow::Cow;
use std::sync::Arc;

/// The recipe.
pub(super) struct ExternalPositives {
    contrast: Contrast,
    view: View,
    pairs: Arc<Pairs>,
    classes: usize,
}

impl ExternalPositives {
    /// # Errors
    /// When the data has no pairs.
    pub fn new(config: &TrainConfig, data: &Dataset) -> Result<Self> {
        let Some(pairs) = data.pairs.clone() else {
            let reason = "\"pairs\" needs pairs.csv beside the pictures, with columns picture and positive".into();
            return Err(Error::Setting { name: "recipe".into(), reason });
        };
        let (contrast, view) = (Contrast::of(config), View::Random(config.views.clone()));
        Ok(Self { contrast, view, pairs, classes: data.labels.len() })
    }

    /// The positive of a picture in an epoch, if it has any.
    fn positive(&self, index: usize, seed: u64, epoch: usize, key: usize) -> Option<usize> {
        let all = &self.pairs.of[index];
        let drawn = |n: usize| stream(seed, Purpose::Positive, epoch, key).random_range(0..n as u64) as usize;
        (!all.is_empty()).then(|| all[drawn(all.len())])
    }
}

impl Recipe for ExternalPositives {
    fn needs(&self, _: usize) -> Needs {
        Needs::two(self.view.clone())
    }

    fn trains(&self, _: usize) -> Trains {
        self.contrast.trains()
    }

    fn picture<'a>(&'a self, train: &'a Split, of: Sample) -> Cow<'a, [u8]> {
        let Sample { draw, slot, seed, epoch } = of;
        let positive = self.positive(draw.index, seed, epoch, draw.key).filter(|_| slot == Slot::First);
        Cow::Borrowed(positive.map_or(train.picture(draw.index), |p| self.pairs.pictures.picture(p)))
    }

    fn step(&mut self, network: &Network, batch: &Batch) -> Result<Step> {
        let n = batch.labels.len();
        let mut labels = batch.labels.repeat(2);
        let mut targets = one_hot(&labels, self.classes);
        for (row, draw) in (n..).zip(&batch.draws) {
            let positive = self.positive(draw.index, batch.seed, batch.epoch, draw.key);
            if let Some((other, share)) = positive.and_then(|p| self.pairs.towards[p]) {
                targets[row * self.classes + labels[row]] -= share;
                targets[row * self.classes + other] += share;
                if share > 0.5 {
                    labels[row] = other;
                }
            }
        }
        let views = [&batch.second, &batch.first];
        contrast(network, &self.contrast, Views { targets: Some(targets), ..Views::new(&views, &labels) })
    }
}
