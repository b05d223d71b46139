//! Bets on a p-value, and the restartable recursion that lets their evidence grow from any frame on.
//!
//! A uniform p becomes z = Φ⁻¹(1 − p); each δ bets L = exp(δ z − δ²/2), so that E L = 1 exactly. The lower tail bets on
//! −z. The recursion R ← (R + 1) L runs once per δ, in logarithms. There is no null bet (δ = 0): it rings by itself.

use statrs::function::erf::erfc_inv;

/// The strengths that are bet on. The small ones catch slow ramps; they are why one frame per 3 τ is kept, not per 2.
pub const DELTAS: [f64; 9] = [0.06, 0.12, 0.2, 0.35, 0.7, 1.0, 1.4, 2.0, 3.0];

/// Smallest distance of p to 0 and 1.
const CLIP: f64 = 1e-15;

/// log R above which adding 1 to R changes log R by less than half a unit in its last place.
const ADDED_ONE_VANISHES: f64 = 35.0;

/// z = Φ⁻¹(1 − p), p clipped at 1e-15.
pub fn normal_score(p: f64) -> f64 {
    std::f64::consts::SQRT_2 * erfc_inv(2.0 * p.clamp(CLIP, 1.0 - CLIP))
}

/// log of (R + 1) L, from log R and log L.
pub fn restart(log_r: f64, log_bet: f64) -> f64 {
    if log_r > ADDED_ONE_VANISHES { log_r + log_bet } else { log_r.exp().ln_1p() + log_bet }
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
    /// R itself, always `exp(log_r)`: used where it is in range, to spare the next step a logarithm's inverse.
    r: [f64; DELTAS.len()],
}

impl Default for Tail {
    fn default() -> Self {
        Self::from_log_r([f64::NEG_INFINITY; DELTAS.len()])
    }
}

impl Tail {
    /// One frame with normal score `z` (large = unusual in this tail).
    pub fn update(&mut self, z: f64) {
        for ((log_r, r), delta) in self.log_r.iter_mut().zip(&mut self.r).zip(DELTAS) {
            let restarted = if *log_r > ADDED_ONE_VANISHES { *log_r } else { r.ln_1p() };
            *log_r = restarted + delta * z - 0.5 * delta * delta;
            *r = log_r.exp();
        }
    }

    /// log of the mean of R over the bets.
    pub fn log_mean(&self) -> f64 {
        let sum: f64 = self.r.iter().sum();
        let in_range = sum > f64::MIN_POSITIVE && sum.is_finite();
        (if in_range { sum.ln() } else { log_sum_exp(&self.log_r) }) - (DELTAS.len() as f64).ln()
    }

    /// log R per bet.
    pub fn log_r(&self) -> &[f64; DELTAS.len()] {
        &self.log_r
    }

    pub(super) fn from_log_r(log_r: [f64; DELTAS.len()]) -> Self {
        Self { log_r, r: log_r.map(f64::exp) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The kept R and the plain logarithms agree from nothing to far beyond the range of floats, and back.
    #[test]
    fn kept_values_agree_with_plain_logarithms() {
        let mut tail = Tail::default();
        let mut plain = [f64::NEG_INFINITY; DELTAS.len()];
        for t in 0..2000 {
            let z = [0.3, -1.0, 7.9, -7.9][t / 100 % 4];
            tail.update(z);
            for (log_r, delta) in plain.iter_mut().zip(DELTAS) {
                *log_r = restart(*log_r, delta * z - 0.5 * delta * delta);
            }
            let mean = log_sum_exp(&plain) - (DELTAS.len() as f64).ln();
            assert!((tail.log_mean() - mean).abs() <= 1e-12 * mean.abs().max(1.0), "{t}: {} {mean}", tail.log_mean());
            assert_eq!(Tail::from_log_r(*tail.log_r()), tail);
        }
    }
}
