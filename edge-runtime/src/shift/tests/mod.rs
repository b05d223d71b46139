//! Tests of the alarm: independent vectors, exact properties, the null battery, mutations, power, behaviour, state.

#![allow(clippy::unwrap_used)]

mod behaviour;
mod golden;
mod learned;
mod looks;
mod model;
mod mutation;
mod null;
mod power;
mod saved;
mod uniform;

use super::bet::normal_score;
use super::*;
use crate::image::Picture;
use crate::probability;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;

/// A uniform draw in (0, 1).
fn uniform(rng: &mut ChaCha8Rng) -> f64 {
    ((rng.next_u64() >> 11) as f64 + 0.5) / (1u64 << 53) as f64
}

/// A standard normal draw.
fn normal(rng: &mut ChaCha8Rng) -> f64 {
    normal_score(uniform(rng))
}

/// A stationary AR(1) series of unit variance.
struct Ar1 {
    rho: f64,
    value: f64,
}

impl Ar1 {
    fn new(rho: f64, rng: &mut ChaCha8Rng) -> Self {
        Self { rho, value: normal(rng) }
    }

    fn next(&mut self, rng: &mut ChaCha8Rng) -> f64 {
        self.value = self.rho * self.value + (1.0 - self.rho * self.rho).sqrt() * normal(rng);
        self.value
    }
}

/// Scores of one frame on some channels.
fn frame(values: &[(Channel, f64)]) -> FrameScores {
    let mut scores = FrameScores::empty();
    values.iter().for_each(|&(channel, value)| scores.set(channel, value));
    scores
}

/// Independent standard normal scores, moved by `shift`.
fn noise_frame(channels: &[Channel], shift: f64, rng: &mut ChaCha8Rng) -> FrameScores {
    let values: Vec<_> = channels.iter().map(|&c| (c, normal(rng) + shift)).collect();
    frame(&values)
}

/// Every channel that bets by default.
fn betting() -> Vec<Channel> {
    let weights = Weights::default();
    Channel::ALL.into_iter().filter(|&c| weights.get(c) > 0.0).collect()
}

/// A reference of frames declared independent, with equal weights over `channels`.
fn independent(frames: &[FrameScores], channels: &[Channel]) -> Reference {
    let weights = Weights::uniform(channels).unwrap();
    Reference::build(frames, &ReferenceOptions { independent: true, weights, problems: Vec::new() }).unwrap()
}

fn contract(mean_time: f64, seed: u64) -> Contract {
    Contract { mean_time_between_false_alarms: mean_time, seed, ..Contract::default() }
}

/// A picture no two seeds share.
fn picture(seed: u64) -> Picture {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut rgb = vec![0; 16 * 16 * 3];
    rng.fill_bytes(&mut rgb);
    Picture { width: 16, height: 16, rgb }
}

/// How many of `streams` rang. Each stream of each case has its own seed, so the count does not depend on threads and
/// no two cases share their draws.
fn count_alarms(case: &str, streams: u64, rings: impl Fn(&mut ChaCha8Rng) -> bool + Sync) -> u64 {
    let base = case.bytes().fold(0x5817u64, |hash, byte| hash.wrapping_mul(1_000_003) ^ u64::from(byte));
    let one = |stream| {
        let mut rng = ChaCha8Rng::seed_from_u64(base.wrapping_add(stream));
        u64::from(rings(&mut rng))
    };
    (0..streams).into_par_iter().map(one).sum()
}

/// One-sided upper 95 % Clopper–Pearson limit of a proportion.
fn upper_limit(rang: u64, streams: u64) -> f64 {
    probability::upper_limit(rang as usize, streams as usize, 0.05)
}

/// One-sided lower 95 % Clopper–Pearson limit.
fn lower_limit(rang: u64, streams: u64) -> f64 {
    probability::lower_limit(rang as usize, streams as usize, 0.05)
}
