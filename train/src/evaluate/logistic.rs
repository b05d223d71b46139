//! Multinomial logistic regression with L2 on fixed features: L-BFGS in f64, no randomness.
//!
//! Features are standardised for the fit and the standardisation is folded into weight and bias afterwards. The L2
//! strength is the one with the lowest negative log-likelihood on held-out features.

use crate::{Error, Result};
use candle_core::{DType, Device, Tensor};
use std::collections::VecDeque;

/// Candidates for the L2 strength, per picture, on standardised features; strong to weak, each starting at the last.
const STRENGTHS: [f64; 9] = [1.0, 0.3, 0.1, 0.03, 0.01, 3e-3, 1e-3, 3e-4, 1e-4];
/// Pairs that L-BFGS remembers.
const MEMORY: usize = 10;
/// Iterations per strength, at most.
const ITERATIONS: usize = 200;
/// The fit has converged when the gradient's largest entry is below this.
const GRADIENT: f64 = 1e-6;

/// A fitted classifier of features as they are.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct LogisticRegression {
    /// `classes × channels`.
    pub weight: Vec<f32>,
    /// One per class.
    pub bias: Vec<f32>,
    /// Chosen L2 strength.
    pub l2: f64,
    /// Mean negative log-likelihood of the held-out features, nats.
    pub nll: f64,
}

impl LogisticRegression {
    /// Fits `train` (n × C, f64) with its labels, and chooses the strength on `held_out`.
    ///
    /// # Errors
    /// When labels do not fit the features or the classes.
    pub fn fit(train: &Tensor, labels: &[usize], classes: usize, held_out: (&Tensor, &[usize])) -> Result<Self> {
        let (mean, deviation) = moments(train)?;
        let scale = |x: &Tensor| -> Result<Tensor> { Ok(x.broadcast_sub(&mean)?.broadcast_div(&deviation)?) };
        let problem = Problem::new(scale(train)?, labels, classes)?;
        let held_out = Problem::new(scale(held_out.0)?, held_out.1, classes)?;
        let mut x = vec![0f64; problem.size()];
        let mut best: Option<(f64, f64, Vec<f64>)> = None;
        for l2 in STRENGTHS {
            x = problem.minimise(x, l2)?;
            let nll = held_out.loss(&x, 0.0)?.0;
            if best.as_ref().is_none_or(|(n, ..)| nll < *n) {
                best = Some((nll, l2, x.clone()));
            }
        }
        let (nll, l2, x) = best.unwrap_or((f64::INFINITY, STRENGTHS[0], x));
        let (mean, deviation) = (mean.flatten_all()?.to_vec1()?, deviation.flatten_all()?.to_vec1()?);
        let (weight, bias) = unfold(&x, classes, &mean, &deviation);
        Ok(Self { weight, bias, l2, nll })
    }
}

/// Mean and standard deviation of each column, 1 × C; a constant column gets deviation 1.
fn moments(x: &Tensor) -> Result<(Tensor, Tensor)> {
    let mean = x.mean_keepdim(0)?;
    let deviation = x.broadcast_sub(&mean)?.sqr()?.mean_keepdim(0)?.sqrt()?;
    let values: Vec<f64> = deviation.flatten_all()?.to_vec1()?;
    let values: Vec<f64> = values.into_iter().map(|v| if v > 1e-8 { v } else { 1.0 }).collect();
    let shape = deviation.shape().clone();
    Ok((mean, Tensor::from_vec(values, shape, &Device::Cpu)?))
}

/// Weight and bias for features as they are, from those for standardised ones (`K × (C + 1)`, bias last).
fn unfold(x: &[f64], classes: usize, mean: &[f64], deviation: &[f64]) -> (Vec<f32>, Vec<f32>) {
    let channels = mean.len();
    let mut weight = Vec::with_capacity(classes * channels);
    let mut bias = Vec::with_capacity(classes);
    for row in x.chunks_exact(channels + 1) {
        let raw: Vec<f64> = row[..channels].iter().zip(deviation).map(|(w, d)| w / d).collect();
        bias.push((row[channels] - raw.iter().zip(mean).map(|(w, m)| w * m).sum::<f64>()) as f32);
        weight.extend(raw.iter().map(|w| *w as f32));
    }
    (weight, bias)
}

/// Mean negative log-likelihood of a linear head plus `l2/2 · |W|²`; the bias is not penalised.
struct Problem {
    /// n × (C + 1): features and a column of ones.
    x: Tensor,
    transposed: Tensor,
    labels: Vec<usize>,
    classes: usize,
    channels: usize,
}

impl Problem {
    fn new(x: Tensor, labels: &[usize], classes: usize) -> Result<Self> {
        let (n, channels) = x.dims2()?;
        if n != labels.len() || labels.iter().any(|&l| l >= classes) {
            let reason = format!("{} labels below {classes} are needed for {n} rows", labels.len());
            return Err(Error::Setting { name: "labels".into(), reason });
        }
        let x = Tensor::cat(&[x, Tensor::ones((n, 1), DType::F64, &Device::Cpu)?], 1)?.contiguous()?;
        Ok(Self { transposed: x.t()?.contiguous()?, x, labels: labels.to_vec(), classes, channels })
    }

    fn size(&self) -> usize {
        self.classes * (self.channels + 1)
    }

    /// Value and gradient.
    fn loss(&self, w: &[f64], l2: f64) -> Result<(f64, Vec<f64>)> {
        let (n, k, columns) = (self.labels.len(), self.classes, self.channels + 1);
        let weight = Tensor::from_slice(w, (k, columns), &Device::Cpu)?;
        let mut z: Vec<f64> = self.x.matmul(&weight.t()?.contiguous()?)?.flatten_all()?.to_vec1()?;
        let mut value = 0.0;
        for (row, &label) in z.chunks_exact_mut(k).zip(&self.labels) {
            let top = row.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            value += top - row[label];
            row.iter_mut().for_each(|v| *v = (*v - top).exp());
            let sum: f64 = row.iter().sum();
            value += sum.ln();
            row.iter_mut().for_each(|v| *v /= sum * n as f64);
            row[label] -= 1.0 / n as f64;
        }
        let slope = Tensor::from_vec(z, (n, k), &Device::Cpu)?;
        let gradient = self.transposed.matmul(&slope)?.t()?.contiguous()?;
        let mut gradient: Vec<f64> = gradient.flatten_all()?.to_vec1()?;
        value /= n as f64;
        for (row, slope) in w.chunks_exact(columns).zip(gradient.chunks_exact_mut(columns)) {
            for (w, g) in row[..self.channels].iter().zip(slope) {
                value += 0.5 * l2 * w * w;
                *g += l2 * w;
            }
        }
        Ok((value, gradient))
    }

    /// The minimiser, by L-BFGS with backtracking; the objective is convex.
    fn minimise(&self, mut x: Vec<f64>, l2: f64) -> Result<Vec<f64>> {
        let (mut value, mut gradient) = self.loss(&x, l2)?;
        let mut pairs: VecDeque<(Vec<f64>, Vec<f64>)> = VecDeque::with_capacity(MEMORY);
        for _ in 0..ITERATIONS {
            if gradient.iter().all(|g| g.abs() < GRADIENT) {
                break;
            }
            let direction = descent(&gradient, &pairs);
            let slope = dot(&direction, &gradient);
            let mut step = if pairs.is_empty() { 1.0 / dot(&gradient, &gradient).sqrt().max(1.0) } else { 1.0 };
            let (next, next_value, next_gradient) = loop {
                let next: Vec<f64> = x.iter().zip(&direction).map(|(x, d)| x + step * d).collect();
                let (v, g) = self.loss(&next, l2)?;
                if v <= value + 1e-4 * step * slope {
                    break (next, v, g);
                }
                step *= 0.5;
                if step < 1e-12 {
                    return Ok(x); // No descent left in f64.
                }
            };
            let moved: Vec<f64> = next.iter().zip(&x).map(|(a, b)| a - b).collect();
            let turned: Vec<f64> = next_gradient.iter().zip(&gradient).map(|(a, b)| a - b).collect();
            if dot(&moved, &turned) > 1e-16 {
                if pairs.len() == MEMORY {
                    pairs.pop_front();
                }
                pairs.push_back((moved, turned));
            }
            (x, value, gradient) = (next, next_value, next_gradient);
        }
        Ok(x)
    }
}

/// The quasi-Newton direction, by the two-loop recursion.
fn descent(gradient: &[f64], pairs: &VecDeque<(Vec<f64>, Vec<f64>)>) -> Vec<f64> {
    let mut q: Vec<f64> = gradient.iter().map(|g| -g).collect();
    let mut alphas = Vec::with_capacity(pairs.len());
    for (s, y) in pairs.iter().rev() {
        let alpha = dot(s, &q) / dot(s, y);
        q.iter_mut().zip(y).for_each(|(q, y)| *q -= alpha * y);
        alphas.push(alpha);
    }
    if let Some((s, y)) = pairs.back() {
        let scale = dot(s, y) / dot(y, y);
        q.iter_mut().for_each(|q| *q *= scale);
    }
    for ((s, y), alpha) in pairs.iter().zip(alphas.into_iter().rev()) {
        let beta = dot(y, &q) / dot(s, y);
        q.iter_mut().zip(s).for_each(|(q, s)| *q += (alpha - beta) * s);
    }
    q
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(x, y)| x * y).sum()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use rand::{RngExt, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    fn problem(n: usize, channels: usize, classes: usize) -> Problem {
        let mut rng = ChaCha8Rng::seed_from_u64(5);
        let x: Vec<f64> = (0..n * channels).map(|_| rng.random_range(-1.0..1.0)).collect();
        let noisy = |row: &[f64], r: &mut ChaCha8Rng| usize::from(row[0] + r.random_range(-0.8..0.8) > 0.0);
        let labels: Vec<usize> =
            x.chunks(channels).map(|row| noisy(row, &mut rng) + usize::from(row[1] > 0.3) * (classes - 2)).collect();
        Problem::new(Tensor::from_vec(x, (n, channels), &Device::Cpu).unwrap(), &labels, classes).unwrap()
    }

    #[test]
    fn gradient_agrees_with_central_differences() {
        let p = problem(40, 3, 3);
        let w: Vec<f64> = (0..p.size()).map(|i| (i as f64 * 0.7).sin()).collect();
        let (_, gradient) = p.loss(&w, 0.1).unwrap();
        for i in 0..w.len() {
            let at = |d: f64| {
                let mut w = w.clone();
                w[i] += d;
                p.loss(&w, 0.1).unwrap().0
            };
            assert!((gradient[i] - (at(1e-5) - at(-1e-5)) / 2e-5).abs() < 1e-9);
        }
    }

    #[test]
    fn converges_to_the_stationary_point_from_anywhere() {
        let p = problem(200, 4, 3);
        let a = p.minimise(vec![0.0; p.size()], 0.01).unwrap();
        let b = p.minimise((0..p.size()).map(|i| (i as f64).cos()).collect(), 0.01).unwrap();
        assert!(p.loss(&a, 0.01).unwrap().1.iter().all(|g| g.abs() < 1e-5));
        let (a, b) = (p.loss(&a, 0.01).unwrap().0, p.loss(&b, 0.01).unwrap().0);
        assert!((a - b).abs() < 1e-8);
    }

    #[test]
    fn standardisation_folds_into_the_head() {
        let (weight, bias) = unfold(&[2.0, -1.0, 0.5, 0.0, 3.0, -2.0], 2, &[1.0, 10.0], &[0.5, 4.0]);
        let raw = [1.3f64, 6.0];
        for (k, row) in [[2.0, -1.0, 0.5], [0.0, 3.0, -2.0f64]].iter().enumerate() {
            let standard = row[0] * (raw[0] - 1.0) / 0.5 + row[1] * (raw[1] - 10.0) / 4.0 + row[2];
            let folded = f64::from(weight[2 * k]) * raw[0] + f64::from(weight[2 * k + 1]) * raw[1] + f64::from(bias[k]);
            assert!((standard - folded).abs() < 1e-5);
        }
    }
}
