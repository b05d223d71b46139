//! InfoNCE against a queue (MoCo, arXiv 1911.05722, equation 1): tell a query's key from many others' keys.
//!
//! `L = Σ over key sets t of mean over rows i of −log [ exp(q_i·k_ti/τ) / (exp(q_i·k_ti/τ) + Σ_n exp(q_i·n/τ)) ]` with
//! unit queries q, keys k and queue entries n. Keys and queue are constants: only the queries get a gradient.

use super::attach;
use super::rows::UnitRows;
use crate::{Error, Result};
use candle_core::{DType, Tensor};

/// The loss of `queries` (B × D, not normalised, differentiable) with each of `keys` (B × D, unit rows) as positives and
/// `queue` (K × D, unit rows) as negatives.
///
/// # Errors
/// When shapes disagree, there is no key set, or the temperature is not positive.
pub fn info_nce(queries: &Tensor, keys: &[Tensor], queue: &Tensor, temperature: f64) -> Result<Tensor> {
    let fail = |name: &str, reason: String| Err(Error::Setting { name: name.into(), reason });
    let (rows, columns) = queries.dims2()?;
    if keys.is_empty() || rows == 0 || keys.iter().any(|k| k.dims() != [rows, columns]) || queue.dim(1)? != columns {
        return fail("keys", format!("keys and queue do not fit {rows} queries of {columns} numbers"));
    }
    if !(temperature > 0.0 && temperature.is_finite()) {
        return fail("queue.temperature", "must be positive".into());
    }
    let unit = UnitRows::of(queries)?;
    let queue = queue.to_dtype(DType::F64)?;
    let negative = (unit.z.matmul(&queue.t()?.contiguous()?)? / temperature)?.flatten_all()?.to_vec1::<f64>()?;
    let count = queue.dim(0)?;
    let scale = 1.0 / (rows as f64 * temperature);
    let mut slope = vec![0f64; rows * count];
    let mut gradient = Tensor::zeros((rows, columns), DType::F64, queries.device())?;
    let mut total = 0.0;
    for keys in keys {
        let keys = keys.detach().to_dtype(DType::F64)?;
        let positive = ((&unit.z * &keys)?.sum(1)? / temperature)?.to_vec1::<f64>()?;
        let mut pull = Vec::with_capacity(rows);
        for ((&p, row), slope) in positive.iter().zip(negative.chunks(count)).zip(slope.chunks_mut(count)) {
            let top = row.iter().copied().fold(p, f64::max);
            let sum = (p - top).exp() + row.iter().map(|n| (n - top).exp()).sum::<f64>();
            total += top + sum.ln() - p;
            pull.push(scale * ((p - top).exp() / sum - 1.0));
            slope.iter_mut().zip(row).for_each(|(s, n)| *s += scale * (n - top).exp() / sum);
        }
        let pull = Tensor::from_vec(pull, (rows, 1), queries.device())?;
        gradient = (gradient + keys.broadcast_mul(&pull)?)?;
    }
    let slope = Tensor::from_vec(slope, (rows, count), queries.device())?;
    let gradient = unit.through(&(gradient + slope.matmul(&queue)?)?)?;
    attach(queries, total / rows as f64, gradient)
}

/// Unit rows of a matrix, in its own type and detached: keys as [`info_nce`] takes them.
///
/// # Errors
/// When a tensor operation fails.
pub fn unit_rows(rows: &Tensor) -> Result<Tensor> {
    Ok(UnitRows::of(rows)?.z.to_dtype(rows.dtype())?)
}
