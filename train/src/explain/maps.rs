//! The two maps: exact class activation from the last feature map, and Grad-CAM at any node. Both signed, no ReLU.

use super::argmax;
use crate::network::{Network, NodeId, NormMode};
use crate::{Error, Result};
use candle_core::Tensor;
use excon_edge::saliency::{LinearHead, Map};
use rayon::prelude::*;

/// `CAM(y, x) = Σ_k W[class, k] · features[y, x, k]`, one class per picture; `features` is N × H × W × C.
///
/// The same numbers as [`excon_edge::saliency::class_activation_map`], read in the trainer's channel-last layout.
///
/// # Errors
/// When shapes do not agree with the head.
pub fn class_activation_maps(features: &Tensor, head: &LinearHead, classes: &[usize]) -> Result<Vec<Map>> {
    let (n, height, width, channels) = features.dims4()?;
    if channels != head.channels || n != classes.len() || classes.iter().any(|&c| c >= head.classes) {
        let reason = format!("maps of {n} pictures and {channels} channels do not fit the linear head");
        return Err(Error::Setting { name: "class activation map".into(), reason });
    }
    let values = features.flatten_all()?.to_vec1::<f32>()?;
    let of = |(image, &class): (&[f32], &usize)| {
        let weight = &head.weight[class * channels..(class + 1) * channels];
        let values = image.chunks_exact(channels).map(|pixel| dot(weight, pixel)).collect();
        Map { width, height, values }
    };
    Ok(values.par_chunks(height * width * channels).zip(classes).map(of).collect())
}

/// Grad-CAM at `layer` and the predicted classes: `M = Σ_k mean(∂logit/∂A_k) · A_k`.
///
/// `target` chooses the explained classes given the predicted ones. One gradient of the batch's summed target logits is
/// taken, so with batch statistics it holds cross-image terms, as in the released code.
///
/// # Errors
/// When the targets do not fit the batch, or a tensor operation fails.
pub fn grad_cam(
    network: &Network,
    images: &Tensor,
    norm: NormMode,
    layer: NodeId,
    target: impl FnOnce(&[usize]) -> Vec<usize>,
) -> Result<(Vec<Map>, Vec<usize>)> {
    let graph = network.graph();
    let (activation, out) = network.forward_from_leaf(images, norm, layer, &[graph.logits])?;
    let predicted = argmax(&out[0])?;
    let (n, classes) = out[0].dims2()?;
    let targets = target(&predicted);
    if targets.len() != n || targets.iter().any(|&t| t >= classes) {
        let reason = format!("{} targets for {n} pictures and {classes} classes", targets.len());
        return Err(Error::Setting { name: "explained class".into(), reason });
    }
    let mut chosen = vec![0f32; n * classes];
    targets.iter().enumerate().for_each(|(i, &t)| chosen[i * classes + t] = 1.0);
    let chosen = Tensor::from_vec(chosen, (n, classes), out[0].device())?;
    let grads = (&out[0] * chosen)?.sum_all()?.backward()?;
    let name = &graph.nodes[layer].name;
    let missing = || Error::Graph { node: name.clone(), reason: "the logits do not depend on it".into() };
    let gradient = grads.get(activation.as_tensor()).ok_or_else(missing)?;

    let (_, height, width, channels) = activation.dims4()?;
    let gradient = gradient.contiguous()?.flatten_all()?.to_vec1::<f32>()?;
    let values = activation.as_tensor().flatten_all()?.to_vec1::<f32>()?;
    let each = height * width * channels;
    let of = |(image, gradient): (&[f32], &[f32])| {
        let mut weight = vec![0f64; channels];
        for pixel in gradient.chunks_exact(channels) {
            weight.iter_mut().zip(pixel).for_each(|(w, g)| *w += f64::from(*g));
        }
        let weight: Vec<f32> = weight.iter().map(|w| (w / (height * width) as f64) as f32).collect();
        Map { width, height, values: image.chunks_exact(channels).map(|pixel| dot(&weight, pixel)).collect() }
    };
    Ok((values.par_chunks(each).zip(gradient.par_chunks(each)).map(of).collect(), predicted))
}

/// Inner product with an f64 accumulator.
fn dot(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).map(|(x, y)| f64::from(*x) * f64::from(*y)).sum::<f64>() as f32
}
