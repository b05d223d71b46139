//! The forward pass and loss that every two-view method ends with.

use super::{Contrast, Step};
use crate::Result;
use crate::explain::argmax;
use crate::loss::{self, Background};
use crate::network::{Network, NormMode};
use candle_core::Tensor;

/// One train-mode pass over view 1, view 2 and the background twice, then the contrastive loss on the projections and,
/// when joint, the classifier's cross entropy on the real rows.
pub(super) fn contrast(
    network: &Network,
    settings: &Contrast,
    views: [&Tensor; 2],
    background: Option<&Tensor>,
    treatment: Background,
    labels: &[usize],
) -> Result<Step> {
    let graph = network.graph();
    let parts: Vec<&Tensor> = views.into_iter().chain(background).chain(background).collect();
    let rows = Tensor::cat(&parts, 0)?;
    let mut fetch = vec![graph.projection];
    fetch.extend(settings.joint.map(|_| graph.logits));
    let out = network.forward(&rows, NormMode::Train, &fetch)?;

    let supcon = settings.supcon.loss(&out[0], labels, treatment)?.loss;
    let contrastive = Some(f64::from(supcon.to_scalar::<f32>()?));
    let Some(weight) = settings.joint else {
        return Ok(Step { loss: supcon, contrastive, cross_entropy: None, classified: (0, 0), explained: None });
    };
    let twice = [labels, labels].concat();
    let logits = out[1].narrow(0, 0, twice.len())?;
    let hits = argmax(&logits)?.iter().zip(&twice).filter(|(p, l)| p == l).count();
    let entropy = loss::cross_entropy(&logits, &twice)?;
    let cross_entropy = Some(f64::from(entropy.to_scalar::<f32>()?));
    let loss = (supcon + (entropy * weight)?)?;
    Ok(Step { loss, contrastive, cross_entropy, classified: (twice.len(), hits), explained: None })
}
