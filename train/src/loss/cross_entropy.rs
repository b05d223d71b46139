//! Cross entropies of logits: with a class, with a distribution over classes, and of each class by itself.

use super::attach;
use crate::{Error, Result};
use candle_core::{DType, Tensor};

/// Mean over the rows of `−log softmax(logits)[label]`; `logits` is N × K, differentiable.
///
/// # Errors
/// When the number of labels is not N, a label is not below K, or N is 0.
pub fn cross_entropy(logits: &Tensor, labels: &[usize]) -> Result<Tensor> {
    let (rows, classes) = logits.dims2()?;
    if rows != labels.len() || labels.iter().any(|&l| l >= classes) {
        let reason = format!("{} labels below {classes} are needed for {rows} rows of logits, at least one", rows);
        return Err(Error::Setting { name: "labels".into(), reason });
    }
    soft_cross_entropy(logits, &one_hot(labels, classes))
}

/// One row of `classes` numbers per label: 1 at the label, else 0.
pub fn one_hot(labels: &[usize], classes: usize) -> Vec<f64> {
    let mut targets = vec![0.0; labels.len() * classes];
    labels.iter().enumerate().for_each(|(row, label)| targets[row * classes + label] = 1.0);
    targets
}

/// Mean over the rows of `−Σ_k t_k log softmax(logits)_k`, by a max-subtracted log-softmax; `logits` is N × K,
/// differentiable, `targets` N × K with rows that sum to 1.
///
/// # Errors
/// When there are not N × K targets, or N is 0.
pub fn soft_cross_entropy(logits: &Tensor, targets: &[f64]) -> Result<Tensor> {
    let (rows, classes) = logits.dims2()?;
    fits(rows, classes, targets.len())?;
    let values = logits.detach().to_dtype(DType::F64)?.flatten_all()?.to_vec1::<f64>()?;
    let mut gradient = Vec::with_capacity(values.len());
    let mut total = 0.0;
    for (row, target) in values.chunks_exact(classes).zip(targets.chunks_exact(classes)) {
        let top = row.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let sum: f64 = row.iter().map(|v| (v - top).exp()).sum();
        let log = top + sum.ln();
        total += row.iter().zip(target).filter(|(_, t)| **t != 0.0).map(|(v, t)| t * (log - v)).sum::<f64>();
        gradient.extend(row.iter().zip(target).map(|(v, t)| ((v - top).exp() / sum - t) / rows as f64));
    }
    attach(logits, total / rows as f64, Tensor::from_vec(gradient, (rows, classes), logits.device())?)
}

/// Mean over rows and classes of the binary cross entropy `log(1 + exp z) − t z`; `logits` is N × K, differentiable,
/// `targets` N × K in 0..=1.
///
/// # Errors
/// When there are not N × K targets, or N is 0.
pub fn binary_cross_entropy(logits: &Tensor, targets: &[f64]) -> Result<Tensor> {
    let (rows, classes) = logits.dims2()?;
    fits(rows, classes, targets.len())?;
    let values = logits.detach().to_dtype(DType::F64)?.flatten_all()?.to_vec1::<f64>()?;
    let count = values.len() as f64;
    let pairs = || values.iter().zip(targets);
    let total: f64 = pairs().map(|(z, t)| z.max(0.0) + (-z.abs()).exp().ln_1p() - t * z).sum();
    let gradient: Vec<f64> = pairs().map(|(z, t)| (1.0 / (1.0 + (-z).exp()) - t) / count).collect();
    attach(logits, total / count, Tensor::from_vec(gradient, (rows, classes), logits.device())?)
}

fn fits(rows: usize, classes: usize, targets: usize) -> Result<()> {
    if rows == 0 || targets != rows * classes {
        let reason = format!("{targets} targets do not fit {rows} rows of {classes} logits, at least one");
        return Err(Error::Setting { name: "labels".into(), reason });
    }
    Ok(())
}
