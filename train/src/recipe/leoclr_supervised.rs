//! The supervised form of LeOCLR: the whole picture with its colours changed and two random crops, in one SupCon loss.
//!
//! Source: the three views of arXiv 2403.06813; putting them into SupCon is ours. There is no momentum encoder and no
//! queue: the labels make the positives. Unknown: the paper has no supervised figures that were read. Cost: 9 units a
//! picture to SupCon's 6.

use super::views::{Views, contrast};
use super::{Batch, Contrast, Needs, Recipe, Step, Trains};
use crate::Result;
use crate::augment::View;
use crate::config::TrainConfig;
use crate::network::Network;

/// The recipe.
pub(super) struct LeoclrSupervised {
    contrast: Contrast,
    whole: View,
    crop: View,
}

impl LeoclrSupervised {
    pub fn new(config: &TrainConfig) -> Self {
        let (whole, crop) = (View::Random(config.views.uncropped()), View::Random(config.views.clone()));
        Self { contrast: Contrast::of(config), whole, crop }
    }
}

impl Recipe for LeoclrSupervised {
    fn needs(&self, _: usize) -> Needs {
        Needs { standard: Some(self.whole.clone()), ..Needs::two(self.crop.clone()) }
    }

    fn trains(&self, _: usize) -> Trains {
        self.contrast.trains()
    }

    fn step(&mut self, network: &Network, batch: &Batch) -> Result<Step> {
        let labels = batch.labels.repeat(3);
        let views = [batch.uncropped()?, &batch.first, &batch.second];
        contrast(network, &self.contrast, Views::new(&views, &labels))
    }
}
