//! SupCon: supervised contrastive learning on two random views.

use super::two_views::contrast;
use super::{Batch, Contrast, Needs, Recipe, Step};
use crate::Result;
use crate::loss::Background;
use crate::network::Network;

/// The SupCon recipe.
#[derive(Debug, Clone, Copy)]
pub struct Supcon {
    /// Constants of the step.
    pub contrast: Contrast,
}

impl Recipe for Supcon {
    fn needs(&self, _: usize) -> Needs {
        Needs { standard: false, random: 2 }
    }

    fn step(&self, network: &Network, batch: &Batch) -> Result<Step> {
        contrast(network, &self.contrast, [&batch.second, &batch.first], None, Background::Off, &batch.labels)
    }

    fn trains_classifier(&self) -> bool {
        self.contrast.joint.is_some()
    }
}
