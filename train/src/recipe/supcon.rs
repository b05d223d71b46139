//! SupCon: supervised contrastive learning on two random views; with `joint`, the classifier's cross entropy on both
//! views reaches the encoder too, else the classifier learns on frozen features after each epoch.
//!
//! Source: Khosla et al., arXiv 2004.11362, in the form of the released ExCon code (the L_out loss, all rows anchors);
//! `joint` is ours. Unknown: nothing in the step; the ExCon paper's settings of this baseline. Cost: the unit of
//! `docs/recipes.md`, 6 forward passes a picture.

use super::views::{Views, contrast};
use super::{Batch, Contrast, Needs, Recipe, Step, Trains};
use crate::Result;
use crate::augment::View;
use crate::config::TrainConfig;
use crate::network::Network;

/// The recipe.
pub(super) struct Supcon {
    contrast: Contrast,
    view: View,
}

impl Supcon {
    pub fn new(config: &TrainConfig) -> Self {
        Self { contrast: Contrast::of(config), view: View::Random(config.views.clone()) }
    }

    /// With another kind of view.
    pub fn with_view(config: &TrainConfig, view: View) -> Self {
        Self { view, ..Self::new(config) }
    }
}

impl Recipe for Supcon {
    fn needs(&self, _: usize) -> Needs {
        Needs::two(self.view.clone())
    }

    fn trains(&self, _: usize) -> Trains {
        self.contrast.trains()
    }

    fn step(&mut self, network: &Network, batch: &Batch) -> Result<Step> {
        let labels = batch.labels.repeat(2);
        contrast(network, &self.contrast, Views::new(&[&batch.second, &batch.first], &labels))
    }
}
