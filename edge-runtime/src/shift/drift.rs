//! Very slow drift: a fixed reference beside the growing one, which learns what creeps. A notice, outside the promise.
//!
//! Ranks among the fixed reference, p = (1 + #{r ≥ s}) / (n + 1), are padded by the Dvoretzky–Kiefer–Wolfowitz bound
//! √(ln(1/δ) / (2 n)), because a fixed reference is never quite the law of the stream. Bets are linear,
//! L = 1 + λ (p − ½), on the same restartable recursion; λ = 0 is left out, it would ring by itself.

use super::bet::{log_sum_exp, restart};
use super::channel::{Channel, Sides};

/// Slopes of the linear bets.
pub const SLOPES: [f64; 9] = [-0.2, -0.4, -0.7, -1.0, -1.2, -1.4, -1.6, -1.8, -1.999];
/// Probability that the padding is too small, per channel and tail.
pub const DELTA: f64 = 1e-3;

/// Padding for `n` reference frames.
pub fn padding(n: usize) -> f64 {
    ((1.0 / DELTA).ln() / (2.0 * n as f64)).sqrt()
}

/// (1 + #{r ≥ score}) / (n + 1) among sorted values.
pub fn upper_rank(sorted: &[f64], score: f64) -> f64 {
    let below = sorted.partition_point(|r| *r < score);
    (1 + sorted.len() - below) as f64 / (sorted.len() + 1) as f64
}

/// (1 + #{r ≤ score}) / (n + 1) among sorted values.
pub fn lower_rank(sorted: &[f64], score: f64) -> f64 {
    let at_or_below = sorted.partition_point(|r| *r <= score);
    (1 + at_or_below) as f64 / (sorted.len() + 1) as f64
}

/// log of the linear bet with slope `lambda`.
pub fn log_bet(p: f64, lambda: f64) -> f64 {
    (1.0 + lambda * (p - 0.5)).ln()
}

/// Fixed-reference evidence of one channel.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Drift {
    pub channel: Channel,
    /// log R per tail and slope.
    pub log_r: Vec<[f64; SLOPES.len()]>,
}

impl Drift {
    pub fn new(channel: Channel) -> Self {
        let tails = if channel.sides() == Sides::Both { 2 } else { 1 };
        Self { channel, log_r: vec![[f64::NEG_INFINITY; SLOPES.len()]; tails] }
    }

    /// Ranks one score among the sorted reference values and bets on it.
    pub fn observe(&mut self, sorted: &[f64], score: f64) {
        let padding = padding(sorted.len());
        let ranks = [upper_rank(sorted, score), lower_rank(sorted, score)];
        for (tail, rank) in self.log_r.iter_mut().zip(ranks) {
            let p = (rank + padding).min(1.0);
            for (log_r, lambda) in tail.iter_mut().zip(SLOPES) {
                *log_r = restart(*log_r, log_bet(p, lambda));
            }
        }
    }

    /// log of the mean of R over tails and slopes.
    pub fn log_mean(&self) -> f64 {
        let all = self.log_r.as_flattened();
        log_sum_exp(all) - (all.len() as f64).ln()
    }

    /// Sets R to 0.
    pub fn reset(&mut self) {
        self.log_r.fill([f64::NEG_INFINITY; SLOPES.len()]);
    }
}
