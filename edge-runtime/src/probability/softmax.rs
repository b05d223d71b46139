//! Softmax with temperature, safe for any finite logits because the maximum is subtracted first.

/// Probabilities of one row of logits (f32 or f64) at a positive temperature: `exp(z/T) / Σ exp(z/T)`.
/// A logit that is not a number gives not-a-numbers; an empty row gives an empty one.
pub fn softmax<T: Copy + Into<f64>>(logits: &[T], temperature: f64) -> Vec<f64> {
    let top = maximum(logits);
    let mut values: Vec<f64> = logits.iter().map(|z| (((*z).into() - top) / temperature).exp()).collect();
    let sum: f64 = values.iter().sum();
    values.iter_mut().for_each(|v| *v /= sum);
    values
}

/// Natural logarithms of [`softmax`], without its underflow.
pub fn log_softmax<T: Copy + Into<f64>>(logits: &[T], temperature: f64) -> Vec<f64> {
    let top = maximum(logits);
    let scaled: Vec<f64> = logits.iter().map(|z| ((*z).into() - top) / temperature).collect();
    let log_sum = scaled.iter().map(|v| v.exp()).sum::<f64>().ln();
    scaled.into_iter().map(|v| v - log_sum).collect()
}

/// [`softmax`] of every row of `classes` logits.
///
/// # Panics
/// When `classes` is 0.
pub fn softmax_rows<T: Copy + Into<f64>>(logits: &[T], classes: usize, temperature: f64) -> Vec<f64> {
    logits.chunks_exact(classes).flat_map(|row| softmax(row, temperature)).collect()
}

/// Index of the largest value, the first of equal ones; 0 for an empty row.
pub fn argmax<T: Copy + Into<f64>>(row: &[T]) -> usize {
    let mut best = 0;
    for (index, value) in row.iter().enumerate() {
        if (*value).into() > row[best].into() {
            best = index;
        }
    }
    best
}

fn maximum<T: Copy + Into<f64>>(logits: &[T]) -> f64 {
    logits.iter().map(|z| (*z).into()).fold(f64::NEG_INFINITY, f64::max)
}
