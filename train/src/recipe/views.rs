//! The forward pass and loss that every contrastive method ends with.

use super::{Contrast, Step};
use crate::Result;
use crate::explain::argmax;
use crate::loss::{self, Background};
use crate::network::{Network, NormMode};
use candle_core::Tensor;

/// Rows of one contrastive step, in the order of the batch that the network sees.
pub(super) struct Views<'a> {
    /// Equally long views of the same pictures.
    pub views: &'a [&'a Tensor],
    /// One per row of all views: which rows are positives of each other.
    pub labels: &'a [usize],
    /// Distribution over the classes of each row, where it is more than its label: for the cross entropy.
    pub targets: Option<Vec<f64>>,
    /// Masked pictures that failed, which follow twice, and what is done with them.
    pub background: Option<(&'a Tensor, Background)>,
}

impl<'a> Views<'a> {
    /// Views whose every row has its picture's label; `labels` holds those of one view per view.
    pub fn new(views: &'a [&'a Tensor], labels: &'a [usize]) -> Self {
        Self { views, labels, targets: None, background: None }
    }
}

/// One train-mode pass over all views and the background twice, then the contrastive loss on the projections and, when
/// joint, the classifier's cross entropy on the real rows.
pub(super) fn contrast(network: &Network, settings: &Contrast, of: Views) -> Result<Step> {
    let graph = network.graph();
    let background = of.background.map(|(rows, _)| rows);
    let parts: Vec<&Tensor> = of.views.iter().copied().chain(background).chain(background).collect();
    let rows = Tensor::cat(&parts, 0)?;
    let mut fetch = vec![graph.projection];
    fetch.extend(settings.joint.map(|_| graph.logits));
    let out = network.forward(&rows, NormMode::Train, &fetch)?;

    let treatment = of.background.map_or(Background::Off, |(_, treatment)| treatment);
    let supcon = settings.supcon.loss(&out[0], of.labels, treatment)?.loss;
    let contrastive = Some(value(&supcon)?);
    let Some(weight) = settings.joint else {
        return Ok(Step { loss: supcon, contrastive, cross_entropy: None, classified: (0, 0), passes: None });
    };
    let logits = out[1].narrow(0, 0, of.labels.len())?;
    let classified = classified(&logits, of.labels)?;
    let entropy = match of.targets {
        Some(targets) => loss::soft_cross_entropy(&logits, &targets)?,
        None => loss::cross_entropy(&logits, of.labels)?,
    };
    let cross_entropy = Some(value(&entropy)?);
    Ok(Step { loss: (supcon + (entropy * weight)?)?, contrastive, cross_entropy, classified, passes: None })
}

/// A scalar.
pub(super) fn value(scalar: &Tensor) -> Result<f64> {
    Ok(f64::from(scalar.to_scalar::<f32>()?))
}

/// How many rows of logits there are, and how many are largest at their label.
pub(super) fn classified(logits: &Tensor, labels: &[usize]) -> Result<(usize, usize)> {
    let hits = argmax(&logits.detach())?.iter().zip(labels).filter(|(p, l)| p == l).count();
    Ok((labels.len(), hits))
}
