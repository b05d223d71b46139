//! The classifier's own pass after an encoder epoch, for methods that are not joint: cross entropy on frozen features.

use crate::explain::argmax;
use crate::network::{Network, NormMode};
use crate::{Error, Result, loss};
use candle_core::Tensor;

/// Loss of the linear classifier on `images` (N × H × W × 3) with the encoder frozen in eval mode, and the number of
/// right predictions. Its gradient reaches the classifier's weight and bias only.
///
/// # Errors
/// When the graph's classifier has no parameters, or a tensor operation fails.
pub fn frozen_classifier_step(network: &Network, images: &Tensor, labels: &[usize]) -> Result<(Tensor, usize)> {
    let graph = network.graph();
    let pooled = network.infer(images, NormMode::Eval, &[graph.pooled])?.remove(0).detach();
    let name = &graph.nodes[graph.logits].name;
    let parameters = network.parameters();
    let find = |part: &str| {
        let wanted = format!("{name}.{part}");
        let missing = || Error::Graph { node: name.clone(), reason: format!("has no {part}") };
        parameters.iter().find(|(n, _)| *n == wanted).map(|(_, v)| v.as_tensor().clone()).ok_or_else(missing)
    };
    let logits = pooled.matmul(&find("weight")?.t()?)?.broadcast_add(&find("bias")?)?;
    let hits = argmax(&logits.detach())?.iter().zip(labels).filter(|(p, l)| p == l).count();
    Ok((loss::cross_entropy(&logits, labels)?, hits))
}
