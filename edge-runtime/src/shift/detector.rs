//! One channel of the monitor: rank → normal score → bets on one or both tails.

use super::bet::{Tail, log_sum_exp, normal_score};
use super::channel::{Channel, Sides};
use super::rank::GrowingRank;

/// Evidence of one channel.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Detector {
    pub channel: Channel,
    pub rank: GrowingRank,
    /// Upper tail, and the lower one of a two-sided channel.
    pub tails: Vec<Tail>,
    /// log of the mean of R over tails and bets; −∞ while nothing was scored.
    pub log_r: f64,
    /// p-value of the last kept frame, if it was scored.
    pub p: Option<f64>,
}

impl Detector {
    pub fn new(channel: Channel, sorted: &[f64]) -> Self {
        let tails = match channel.sides() {
            Sides::Upper => 1,
            Sides::Both => 2,
        };
        let log_r = f64::NEG_INFINITY;
        Self { channel, rank: GrowingRank::new(sorted), tails: vec![Tail::default(); tails], log_r, p: None }
    }

    /// Ranks one score with the draw `u` and bets on it. Both tails share the draw.
    pub fn observe(&mut self, score: f64, u: f64) {
        let p = self.rank.rank(score, u);
        let z = normal_score(p);
        for (tail, sign) in self.tails.iter_mut().zip([1.0, -1.0]) {
            tail.update(sign * z);
        }
        self.p = Some(p);
        self.average();
    }

    /// Sets R to 0 and keeps the counters.
    pub fn reset(&mut self) {
        self.tails.fill(Tail::default());
        self.log_r = f64::NEG_INFINITY;
        self.p = None;
    }

    /// Recomputes the mean of R over the tails.
    pub fn average(&mut self) {
        self.log_r = match self.tails.as_slice() {
            [upper] => upper.log_mean(),
            tails => {
                let means: Vec<f64> = tails.iter().map(Tail::log_mean).collect();
                log_sum_exp(&means) - (means.len() as f64).ln()
            }
        };
    }
}
