//! Cross entropy on one random view: the plain classifier every other method is compared with.
//!
//! Source: common practice; views are the released ExCon code's for its classifier. Unknown: which settings of this
//! baseline the ExCon paper used (the released script does not run). Cost: 3 units a picture to SupCon's 6.

use super::views::{classified, value};
use super::{Batch, Needs, Recipe, Step, Trains};
use crate::augment::View;
use crate::config::TrainConfig;
use crate::network::{Network, NormMode};
use crate::{Result, loss};

/// The recipe.
pub(super) struct CrossEntropy {
    view: View,
}

impl CrossEntropy {
    pub fn new(config: &TrainConfig) -> Self {
        Self { view: View::Random(config.views.clone()) }
    }
}

impl Recipe for CrossEntropy {
    fn needs(&self, _: usize) -> Needs {
        Needs { second: None, ..Needs::two(self.view.clone()) }
    }

    fn trains(&self, _: usize) -> Trains {
        Trains::Together
    }

    fn step(&mut self, network: &Network, batch: &Batch) -> Result<Step> {
        let logits = network.forward(&batch.first, NormMode::Train, &[network.graph().logits])?.remove(0);
        let classified = classified(&logits, &batch.labels)?;
        let loss = loss::cross_entropy(&logits, &batch.labels)?;
        let cross_entropy = Some(value(&loss)?);
        Ok(Step { loss, contrastive: None, cross_entropy, classified, passes: None })
    }
}
