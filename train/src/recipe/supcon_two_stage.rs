//! Two-stage SupCon: the encoder for the first half of the epochs, then the classifier alone on frozen features.
//!
//! Source: Khosla et al., arXiv 2004.11362; `SupCon_ori` of the released ExCon code, E epochs of each, here `epochs` =
//! 2E. Ours: the learning-rate schedule runs anew for the second stage, and only its epochs can be the best one, since
//! the classifier is random before. Unknown: the settings of the second stage behind the ExCon paper's figures. Cost: 6
//! units a picture and encoder epoch, 1 a classifier epoch.

use super::supcon::Supcon;
use super::{Batch, Needs, Recipe, Step, Trains};
use crate::Result;
use crate::config::TrainConfig;
use crate::network::Network;

/// The recipe.
pub(super) struct TwoStage {
    supcon: Supcon,
    /// Epochs of the first stage.
    first: usize,
}

impl TwoStage {
    pub fn new(config: &TrainConfig) -> Self {
        Self { supcon: Supcon::new(config), first: config.epochs.div_ceil(2) }
    }
}

impl Recipe for TwoStage {
    fn needs(&self, epoch: usize) -> Needs {
        self.supcon.needs(epoch)
    }

    fn trains(&self, epoch: usize) -> Trains {
        if epoch <= self.first { Trains::Encoder } else { Trains::Classifier }
    }

    fn on_schedule(&self, epoch: usize, epochs: usize) -> (usize, usize) {
        if epoch <= self.first { (epoch, self.first) } else { (epoch - self.first, epochs - self.first) }
    }

    fn step(&mut self, network: &Network, batch: &Batch) -> Result<Step> {
        self.supcon.step(network, batch)
    }
}
