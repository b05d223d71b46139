//! Who may ring, and how much: the fixed share of the evidence that every channel has.

use super::channel::{Channel, Family};
use crate::{Error, Result};

/// Share of the evidence per channel: non-negative, summing to 1. A channel of weight 0 is scored and shown, but
/// cannot ring.
#[derive(Debug, Clone, PartialEq)]
pub struct Weights([f64; Channel::COUNT]);

impl Weights {
    /// Weights by channel index.
    ///
    /// # Errors
    /// When one is negative or not finite, or they do not sum to 1 within 1e-9.
    pub fn new(weights: [f64; Channel::COUNT]) -> Result<Self> {
        let valid = weights.iter().all(|w| w.is_finite() && *w >= 0.0);
        let sum: f64 = weights.iter().sum();
        if !valid || (sum - 1.0).abs() > 1e-9 {
            let reason = format!("they must be non-negative and sum to 1, they sum to {sum}");
            return Err(Error::Data { what: "channel weights", reason });
        }
        Ok(Self(weights))
    }

    /// Equal weights over the given channels, 0 for all others.
    ///
    /// # Errors
    /// When no channel is given.
    pub fn uniform(channels: &[Channel]) -> Result<Self> {
        let mut marked = [0.0; Channel::COUNT];
        for channel in channels {
            marked[channel.index()] = 1.0;
        }
        Self(marked).over(|_| true)
    }

    /// The share of one channel.
    pub fn get(&self, channel: Channel) -> f64 {
        self.0[channel.index()]
    }

    /// Shares in the order of [`Channel::ALL`].
    pub fn as_slice(&self) -> &[f64] {
        &self.0
    }

    /// The weights renormalised over the channels that exist. Only before a stream starts, never while it runs.
    pub(super) fn over(&self, exists: impl Fn(Channel) -> bool) -> Result<Self> {
        let mut kept = [0.0; Channel::COUNT];
        for channel in Channel::ALL.into_iter().filter(|&c| exists(c)) {
            kept[channel.index()] = self.get(channel);
        }
        let sum: f64 = kept.iter().sum();
        if sum <= 0.0 {
            let reason = "no channel with weight has a score".to_string();
            return Err(Error::Data { what: "channel weights", reason });
        }
        if (sum - 1.0).abs() > 1e-12 {
            kept.iter_mut().for_each(|w| *w /= sum);
        }
        Ok(Self(kept))
    }
}

impl Default for Weights {
    /// Half shared by the learned directions, half by network, pixel and residual channels; 0 for saliency and feature
    /// projections until they have shown their worth on a model.
    fn default() -> Self {
        let learned = |c: Channel| Channel::TOWARD.contains(&c);
        let shown = |c: Channel| c.family() == Family::ExplanationInconsistent || Channel::PROJECTIONS.contains(&c);
        let others = Channel::ALL.into_iter().filter(|&c| !learned(c) && !shown(c)).count() as f64;
        Self(Channel::ALL.map(|c| match c {
            c if learned(c) => 0.5 / Channel::TOWARD.len() as f64,
            c if shown(c) => 0.0,
            _ => 0.5 / others,
        }))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn default_weights_sum_to_one_and_leave_saliency_out() {
        let weights = Weights::default();
        assert!((weights.as_slice().iter().sum::<f64>() - 1.0).abs() < 1e-12);
        assert_eq!(weights.get(Channel::MaskedCosine), 0.0);
        assert!((weights.get(Channel::Cosine) - 0.5 / 17.0).abs() < 1e-15);
        assert!((weights.get(Channel::TowardHue) - 0.5 / 14.0).abs() < 1e-15);
    }

    #[test]
    fn bad_weights_are_refused() {
        assert!(Weights::new([0.1; Channel::COUNT]).is_err());
        assert!(Weights::new([f64::NAN; Channel::COUNT]).is_err());
        assert!(Weights::uniform(&[]).is_err());
    }
}
