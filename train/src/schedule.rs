//! Learning rates: cosine or step decay per epoch, with an optional linear warm-up per batch.
//!
//! Cosine: `η + (lr − η)(1 + cos(π e/E))/2` with `η = lr · 0.1³`, epochs e = 1..=E, so the last epoch runs at exactly η.
//! Warm-up: over the first epochs the rate rises per batch, linearly, to the cosine value at its end.

use crate::{Error, Result};
use serde::{Deserialize, Serialize};

/// Shape of the decay.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Decay {
    /// Half a cosine from the base rate to a thousandth of it.
    Cosine,
    /// Multiplied by `factor` after each of these epochs.
    Step {
        /// Epochs after which the rate drops.
        after: Vec<usize>,
        /// Factor of each drop, in 0..1.
        factor: f64,
    },
    /// No decay.
    Constant,
}

/// A learning-rate schedule.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Schedule {
    /// Shape of the decay.
    pub decay: Decay,
    /// Epochs of linear warm-up; 0 for none.
    pub warmup_epochs: usize,
    /// Rate of the very first batch when warming up.
    pub warmup_from: f64,
}

/// Share of the base rate that the cosine ends at.
const COSINE_FLOOR: f64 = 0.1 * 0.1 * 0.1;

impl Default for Schedule {
    fn default() -> Self {
        Self { decay: Decay::Cosine, warmup_epochs: 0, warmup_from: 0.01 }
    }
}

impl Schedule {
    /// Rate for batch `step` (from 0, of `steps` in an epoch) of `epoch` (from 1, of `epochs`), given the base rate.
    pub fn rate(&self, base: f64, epoch: usize, epochs: usize, step: usize, steps: usize) -> f64 {
        if (1..=self.warmup_epochs).contains(&epoch) {
            let target = self.decayed(base, self.warmup_epochs, epochs);
            let done = ((epoch - 1) * steps + step) as f64 / (self.warmup_epochs * steps) as f64;
            return self.warmup_from + done * (target - self.warmup_from);
        }
        self.decayed(base, epoch, epochs)
    }

    fn decayed(&self, base: f64, epoch: usize, epochs: usize) -> f64 {
        match &self.decay {
            Decay::Cosine => {
                let floor = base * COSINE_FLOOR;
                let phase = std::f64::consts::PI * epoch as f64 / epochs as f64;
                floor + (base - floor) * (1.0 + phase.cos()) / 2.0
            }
            Decay::Step { after, factor } => {
                let drops = after.iter().filter(|&&limit| epoch > limit).count();
                base * factor.powi(drops as i32)
            }
            Decay::Constant => base,
        }
    }

    /// Checks the settings against the number of epochs.
    ///
    /// # Errors
    /// When the warm-up is longer than the training or a rate or factor is out of range.
    pub fn check(&self, epochs: usize) -> Result<()> {
        let fail = |name: &str, reason: String| Err(Error::Setting { name: name.into(), reason });
        if self.warmup_epochs > epochs {
            return fail("schedule.warmup_epochs", format!("{} is more than the {epochs} epochs", self.warmup_epochs));
        }
        if !(self.warmup_from >= 0.0 && self.warmup_from.is_finite()) {
            return fail("schedule.warmup_from", "must be a finite rate, at least 0".into());
        }
        match self.decay {
            Decay::Step { factor, .. } if !(factor > 0.0 && factor <= 1.0) => {
                fail("schedule.decay.step.factor", format!("{factor} is not in 0..1"))
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use candle_core::Device;

    fn column(name: &str) -> Vec<f64> {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/fixtures/schedule/lr.safetensors");
        candle_core::safetensors::load(path, &Device::Cpu).unwrap()[name].to_vec1().unwrap()
    }

    #[test]
    fn cosine_matches_reference() {
        let plain = Schedule::default();
        for (epoch, want) in column("cosine_E200_lr0.5_epochs_0_to_200").iter().enumerate() {
            assert!((plain.rate(0.5, epoch, 200, 0, 1) - want).abs() < 1e-12, "epoch {epoch}");
        }
        for (i, want) in column("cosine_short").iter().enumerate() {
            assert!((plain.rate(0.1, i + 1, 30, 0, 1) - want).abs() < 1e-12, "epoch {}", i + 1);
        }
        assert!((plain.rate(0.5, 200, 200, 0, 1) - 5e-4).abs() < 1e-15);
    }

    #[test]
    fn warmup_rises_to_the_cosine() {
        let schedule = Schedule { warmup_epochs: 10, ..Schedule::default() };
        for (i, want) in column("warmup_10_epochs_4_batches").iter().enumerate() {
            assert!((schedule.rate(0.5, i / 4 + 1, 200, i % 4, 4) - want).abs() < 1e-12, "batch {i}");
        }
        let after = Schedule::default().rate(0.5, 11, 200, 0, 4);
        assert_eq!(schedule.rate(0.5, 11, 200, 0, 4), after);
    }

    #[test]
    fn steps_match_reference() {
        let decay = Decay::Step { after: vec![350, 400, 450], factor: 0.1 };
        let schedule = Schedule { decay, ..Schedule::default() };
        for (i, want) in column("step_decay_lr0.2_epochs_1_to_500").iter().enumerate() {
            assert!((schedule.rate(0.2, i + 1, 500, 0, 1) - want).abs() < 1e-12, "epoch {}", i + 1);
        }
    }

    #[test]
    fn refuses_nonsense() {
        assert!(Schedule { warmup_epochs: 11, ..Schedule::default() }.check(10).is_err());
        let decay = Decay::Step { after: vec![], factor: 2.0 };
        assert!(Schedule { decay, ..Schedule::default() }.check(10).is_err());
        assert!(Schedule::default().check(1).is_ok());
    }
}
