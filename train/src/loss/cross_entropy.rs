//! Mean cross entropy of logits, by a max-subtracted log-softmax.

use super::attach;
use crate::{Error, Result};
use candle_core::{DType, Tensor};

/// Mean over the rows of `−log softmax(logits)[label]`; `logits` is N × K, differentiable.
///
/// # Errors
/// When the number of labels is not N, a label is not below K, or N is 0.
pub fn cross_entropy(logits: &Tensor, labels: &[usize]) -> Result<Tensor> {
    let (rows, classes) = logits.dims2()?;
    if rows != labels.len() || rows == 0 || labels.iter().any(|&l| l >= classes) {
        let reason = format!("{} labels below {classes} are needed for {rows} rows of logits, at least one", rows);
        return Err(Error::Setting { name: "labels".into(), reason });
    }
    let values = logits.detach().to_dtype(DType::F64)?.flatten_all()?.to_vec1::<f64>()?;
    let mut gradient = Vec::with_capacity(values.len());
    let mut total = 0.0;
    for (row, &label) in values.chunks_exact(classes).zip(labels) {
        let top = row.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let sum: f64 = row.iter().map(|v| (v - top).exp()).sum();
        total += top + sum.ln() - row[label];
        gradient.extend(row.iter().enumerate().map(|(k, v)| {
            let hit = if k == label { 1.0 } else { 0.0 };
            ((v - top).exp() / sum - hit) / rows as f64
        }));
    }
    attach(logits, total / rows as f64, Tensor::from_vec(gradient, (rows, classes), logits.device())?)
}
