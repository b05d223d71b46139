//! Vector scaling: a weight and an offset for every class, `softmax(w ∘ z + b)` (Guo et al. 2017, arXiv 1706.04599).
//!
//! The mean negative log-likelihood is convex in both. It is brought to its least by limited-memory BFGS (Nocedal and
//! Wright, algorithm 7.4) from w = 1, b = 0, without regularisation: whether the data bear so many numbers is for
//! held-out pictures to say.

use super::{check_rows, log_softmax};
use crate::Result;
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;

/// Steps at most.
const STEPS: usize = 500;
/// Pairs of differences that the direction is made from.
const MEMORY: usize = 10;
/// Largest component of the gradient at which the least counts as found.
const FLAT: f64 = 1e-9;
/// Weights and offsets beyond this are no calibration but a fit that has no least value.
const LARGEST: f64 = 1e6;

/// One weight and one offset a class. Offsets have mean 0: the likelihood leaves it open.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VectorScaling {
    /// One factor a class.
    pub weights: Vec<f64>,
    /// One offset a class, in units of a logit.
    pub biases: Vec<f64>,
}

impl VectorScaling {
    /// Fits `labels.len() × classes` finite logits.
    ///
    /// # Errors
    /// [`Error::Data`](crate::Error::Data) when sizes disagree, there is no row or a label is no class.
    pub fn fit(logits: &[f64], classes: usize, labels: &[usize]) -> Result<Self> {
        check_rows("vector scaling", logits.len(), classes, labels)?;
        let loss = |point: &[f64]| loss(logits, classes, labels, point);
        let start = [vec![1.0; classes], vec![0.0; classes]].concat();
        let mut weights = minimise(start, loss);
        let mut biases = weights.split_off(classes);
        let mean = biases.iter().sum::<f64>() / classes as f64;
        biases.iter_mut().for_each(|b| *b -= mean);
        Ok(Self { weights, biases })
    }

    /// `w ∘ z + b`.
    pub fn apply(&self, logits: &[f64]) -> Vec<f64> {
        logits.iter().zip(&self.weights).zip(&self.biases).map(|((z, w), b)| w * z + b).collect()
    }

    pub(super) fn validate(&self, classes: usize) -> std::result::Result<(), String> {
        let sound = |values: &[f64]| values.len() == classes && values.iter().all(|v| v.abs() <= LARGEST);
        let holds = sound(&self.weights) && sound(&self.biases);
        if holds { Ok(()) } else { Err(format!("vector scaling needs {classes} moderate weights and biases")) }
    }
}

/// Mean negative log-likelihood and its gradient at `point`, weights before offsets.
fn loss(logits: &[f64], classes: usize, labels: &[usize], point: &[f64]) -> (f64, Vec<f64>) {
    let (weights, biases) = point.split_at(classes);
    let (mut value, mut gradient) = (0.0, vec![0.0; 2 * classes]);
    let mut scaled = vec![0.0; classes];
    for (row, &label) in logits.chunks_exact(classes).zip(labels) {
        for class in 0..classes {
            scaled[class] = weights[class] * row[class] + biases[class];
        }
        let logs = log_softmax(&scaled, 1.0);
        value -= logs[label];
        for class in 0..classes {
            let slope = logs[class].exp() - f64::from(u8::from(class == label));
            gradient[class] += slope * row[class];
            gradient[classes + class] += slope;
        }
    }
    let n = labels.len() as f64;
    gradient.iter_mut().for_each(|g| *g /= n);
    (value / n, gradient)
}

/// The point of least value, from `point`; the best one reached where steps or rounding end the search.
fn minimise(mut point: Vec<f64>, loss: impl Fn(&[f64]) -> (f64, Vec<f64>)) -> Vec<f64> {
    let (mut value, mut gradient) = loss(&point);
    // Differences of points and of gradients, the newest last.
    let mut pairs: VecDeque<(Vec<f64>, Vec<f64>)> = VecDeque::new();
    for _ in 0..STEPS {
        if gradient.iter().all(|g| g.abs() <= FLAT) {
            break;
        }
        let direction = direction(&gradient, &pairs);
        let slope = dot(&direction, &gradient);
        let Some((next, reached, slopes)) = descend(&point, value, &direction, slope, &loss) else { break };
        let (moved, turned) = (minus(&next, &point), minus(&slopes, &gradient));
        if dot(&moved, &turned) > 0.0 {
            pairs.push_back((moved, turned));
            if pairs.len() > MEMORY {
                pairs.pop_front();
            }
        }
        (point, value, gradient) = (next, reached, slopes);
    }
    point
}

/// Minus the inverse Hessian, as the pairs know it, times the gradient: the two-loop recursion.
fn direction(gradient: &[f64], pairs: &VecDeque<(Vec<f64>, Vec<f64>)>) -> Vec<f64> {
    let mut q = gradient.to_vec();
    let mut alphas = Vec::with_capacity(pairs.len());
    for (moved, turned) in pairs.iter().rev() {
        let alpha = dot(moved, &q) / dot(moved, turned);
        add(&mut q, turned, -alpha);
        alphas.push(alpha);
    }
    let scale = pairs.back().map_or(1.0, |(moved, turned)| dot(moved, turned) / dot(turned, turned));
    q.iter_mut().for_each(|v| *v *= scale);
    for ((moved, turned), alpha) in pairs.iter().zip(alphas.into_iter().rev()) {
        let beta = dot(turned, &q) / dot(moved, turned);
        add(&mut q, moved, alpha - beta);
    }
    q.iter_mut().for_each(|v| *v = -*v);
    q
}

/// The first of ever shorter steps along a direction that gains enough (Armijo's rule), with value and gradient there.
fn descend(
    point: &[f64],
    value: f64,
    direction: &[f64],
    slope: f64,
    loss: &impl Fn(&[f64]) -> (f64, Vec<f64>),
) -> Option<(Vec<f64>, f64, Vec<f64>)> {
    let mut step = 1.0;
    for _ in 0..40 {
        let mut next = point.to_vec();
        add(&mut next, direction, step);
        let (reached, gradient) = loss(&next);
        if reached <= value + 1e-4 * step * slope {
            return Some((next, reached, gradient));
        }
        step *= 0.5;
    }
    None
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(x, y)| x * y).sum()
}

fn minus(a: &[f64], b: &[f64]) -> Vec<f64> {
    a.iter().zip(b).map(|(x, y)| x - y).collect()
}

fn add(to: &mut [f64], what: &[f64], times: f64) {
    to.iter_mut().zip(what).for_each(|(a, b)| *a += times * b);
}
