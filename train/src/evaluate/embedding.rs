//! Embeddings of a split: one vector a picture, in eval mode.

use super::{BATCH, planar};
use crate::Result;
use crate::dataset::Split;
use crate::network::{Network, NormMode};
use candle_core::{D, Device, Tensor};
use excon_edge::image::Preprocess;

/// Which vector.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Embedding {
    /// What global average pooling gives: the vector that the linear head reads.
    Pooled,
    /// What the projection head makes of it, of length 1: the vector that the contrastive loss compares.
    Projection,
}

/// The embeddings of every picture of a split, `n × channels` in its order, and the number of channels.
///
/// # Errors
/// When the pictures do not fit the network.
pub fn embeddings(
    network: &Network,
    split: &Split,
    preprocess: &Preprocess,
    which: Embedding,
) -> Result<(Vec<f32>, usize)> {
    let graph = network.graph();
    let node = if which == Embedding::Pooled { graph.pooled } else { graph.projection };
    let channels = graph.channels(node);
    let mut values = Vec::with_capacity(split.len() * channels);
    for indices in (0..split.len()).collect::<Vec<_>>().chunks(BATCH) {
        let (n, side) = (indices.len(), preprocess.size);
        let images = Tensor::from_vec(planar(split, indices, preprocess), (n, 3, side, side), &Device::Cpu)?;
        let out = network.infer(&images.permute((0, 2, 3, 1))?.contiguous()?, NormMode::Eval, &[node])?.remove(0);
        let out = match which {
            Embedding::Pooled => out,
            Embedding::Projection => {
                // A zero vector stays one.
                let norm = out.sqr()?.sum_keepdim(D::Minus1)?.sqrt()?.maximum(1e-12)?;
                out.broadcast_div(&norm)?
            }
        };
        values.extend(out.flatten_all()?.to_vec1::<f32>()?);
    }
    Ok((values, channels))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::golden::{gap, network, tensors, values, whole};

    #[test]
    fn pooled_embeddings_are_the_reference_and_projections_have_length_one() {
        let f = tensors("network/batch");
        let rgb = f["image_u8"].permute((0, 2, 3, 1)).unwrap().flatten_all().unwrap().to_vec1().unwrap();
        let names = (0..12).map(|i| format!("{i}")).collect();
        let split = Split { size: 32, rgb, labels: whole(&f["label"]), names, ..Split::default() };
        let preprocess = Preprocess { size: 32, mean: [0.5071, 0.4867, 0.4408], std: [0.2675, 0.2565, 0.2761] };
        let network = network();
        let (pooled, channels) = embeddings(&network, &split, &preprocess, Embedding::Pooled).unwrap();
        assert_eq!((channels, pooled.len()), (64, 12 * 64));
        let own: Vec<f64> = pooled.iter().map(|v| f64::from(*v)).collect();
        assert!(gap(&own, &values(&tensors("network/eval_forward")["pooled"])) < 2e-5);
        let (projected, channels) = embeddings(&network, &split, &preprocess, Embedding::Projection).unwrap();
        for row in projected.chunks_exact(channels) {
            assert!((row.iter().map(|v| v * v).sum::<f32>() - 1.0).abs() < 1e-5);
        }
    }
}
