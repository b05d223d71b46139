//! Bets on a p-value, and the restartable recursion that lets their evidence grow from any frame on.
//!
//! A uniform p becomes z = Φ⁻¹(1 − p); each δ bets L = exp(δ z − δ²/2), so that E L = 1 exactly. The lower tail bets on
//! −z. The recursion R ← (R + 1) L runs once per δ, in logarithms. There is no null bet (δ = 0): it rings by itself.

use statrs::function::erf::erfc_inv;

/// The strengths that are bet on. The small ones catch slow ramps; they are why one frame per 3 τ is kept, not per 2.
pub const DELTAS: [f64; 9] = [0.06, 0.12, 0.2, 0.35, 0.7, 1.0, 1.4, 2.0, 3.0];

/// Smallest distance of p to 0 and 1.
const CLIP: f64 = 1e-15;

/// z = Φ⁻¹(1 − p), p clipped at 1e-15.
pub fn normal_score(p: f64) -> f64 {
    std::f64::consts::SQRT_2 * erfc_inv(2.0 * p.clamp(CLIP, 1.0 - CLIP))
}

/// log of (R + 1) L, from log R and log L.
pub fn restart(log_r: f64, log_bet: f64) -> f64 {
    // Above e^35 the added 1 is below half a unit in the last place of log R.
    if log_r > 35.0 { log_r + log_bet } else { log_r.exp().ln_1p() + log_bet }
}

/// log of the sum of exponentials; −∞ for none.
pub fn log_sum_exp(logs: &[f64]) -> f64 {
    let largest = logs.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    if largest.is_infinite() {
        return largest;
    }
    largest + logs.iter().map(|log| (log - largest).exp()).sum::<f64>().ln()
}

/// The nine recursions of one tail. Starts at R = 0.
#[derive(Debug, Clone, PartialEq)]
pub struct Tail {
    log_r: [f64; DELTAS.len()],
}

impl Default for Tail {
    fn default() -> Self {
        Self { log_r: [f64::NEG_INFINITY; DELTAS.len()] }
    }
}

impl Tail {
    /// One frame with normal score `z` (large = unusual in this tail).
    pub fn update(&mut self, z: f64) {
        for (log_r, delta) in self.log_r.iter_mut().zip(DELTAS) {
            *log_r = restart(*log_r, delta * z - 0.5 * delta * delta);
        }
    }

    /// log of the mean of R over the bets.
    pub fn log_mean(&self) -> f64 {
        log_sum_exp(&self.log_r) - (DELTAS.len() as f64).ln()
    }

    /// log R per bet.
    pub fn log_r(&self) -> &[f64; DELTAS.len()] {
        &self.log_r
    }

    pub(super) fn from_log_r(log_r: [f64; DELTAS.len()]) -> Self {
        Self { log_r }
    }
}
