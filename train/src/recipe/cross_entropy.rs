//! Cross entropy on one random view: the plain classifier every other method is compared with.

use super::{Batch, Needs, Recipe, Step};
use crate::Result;
use crate::explain::argmax;
use crate::loss;
use crate::network::{Network, NormMode};

/// The cross-entropy recipe.
#[derive(Debug, Clone, Copy)]
pub struct CrossEntropy;

impl Recipe for CrossEntropy {
    fn needs(&self, _: usize) -> Needs {
        Needs { standard: false, random: 1 }
    }

    fn step(&self, network: &Network, batch: &Batch) -> Result<Step> {
        let logits = network.forward(&batch.first, NormMode::Train, &[network.graph().logits])?.remove(0);
        let hits = argmax(&logits)?.iter().zip(&batch.labels).filter(|(p, l)| p == l).count();
        let loss = loss::cross_entropy(&logits, &batch.labels)?;
        let value = f64::from(loss.to_scalar::<f32>()?);
        let classified = (batch.labels.len(), hits);
        Ok(Step { loss, contrastive: None, cross_entropy: Some(value), classified, explained: None })
    }

    fn trains_classifier(&self) -> bool {
        true
    }
}
