//! Losses with closed-form gradients: supervised contrastive with an optional background or sets of labels, InfoNCE
//! against a queue, and cross entropies.
//!
//! All are scalars of one matrix, computed in f64 whatever the matrix's type. Value and gradient come from one pass on
//! the host; the gradient is attached to the tensor graph, so that `backward` continues into the network.

mod cross_entropy;
mod info_nce;
mod multi_label;
mod rows;
mod supcon;

pub use cross_entropy::{binary_cross_entropy, cross_entropy, one_hot, soft_cross_entropy};
pub use info_nce::{info_nce, unit_rows};
pub use supcon::{Background, SupCon, SupConLoss};

use crate::Result;
use candle_core::{CpuStorage, CustomOp1, DType, Layout, Shape, Tensor};

/// A scalar function of a tensor whose value and gradient are already known.
struct Known {
    value: f64,
    /// Gradient by the argument, same shape and type as the argument.
    gradient: Tensor,
}

impl CustomOp1 for Known {
    fn name(&self) -> &'static str {
        "loss"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, _: &Layout) -> candle_core::Result<(CpuStorage, Shape)> {
        let scalar = match storage {
            CpuStorage::F64(_) => CpuStorage::F64(vec![self.value]),
            _ => CpuStorage::F32(vec![self.value as f32]),
        };
        Ok((scalar, Shape::from(())))
    }

    fn bwd(&self, _: &Tensor, _: &Tensor, grad: &Tensor) -> candle_core::Result<Option<Tensor>> {
        Ok(Some(self.gradient.broadcast_mul(grad)?))
    }
}

/// Attaches a known value and gradient (`rows × columns`, f64) to the graph behind `argument`.
fn attach(argument: &Tensor, value: f64, gradient: Tensor) -> Result<Tensor> {
    let dtype = if argument.dtype() == DType::F64 { DType::F64 } else { DType::F32 };
    let gradient = gradient.detach().to_dtype(dtype)?;
    Ok(argument.contiguous()?.apply_op1(Known { value, gradient })?)
}

#[cfg(test)]
mod tests;
