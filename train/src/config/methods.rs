//! Settings that belong to one method each, every one a table of its own with defaults.

use super::fail;
use crate::Result;
use serde::{Deserialize, Serialize};

/// `[queue]`: the momentum encoder and the queue of `leoclr`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct QueueConfig {
    /// Keys in the queue.
    pub length: usize,
    /// Share of its old self that the momentum encoder keeps in a step, 0 up to 1.
    pub momentum: f64,
    /// τ of the loss, positive.
    pub temperature: f64,
}

impl Default for QueueConfig {
    /// For short runs on a few thousand pictures: the queue stays younger than an epoch, and the encoder follows.
    fn default() -> Self {
        Self { length: 1024, momentum: 0.99, temperature: 0.2 }
    }
}

impl QueueConfig {
    /// The defaults of MoCo v2.
    pub fn paper() -> Self {
        Self { length: 65_536, momentum: 0.999, temperature: 0.2 }
    }
}

/// `[sampler]`: how often a class is drawn. Of `hybrid` it is the classifier's branch, else of every step.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SamplerConfig {
    /// A class of n pictures is drawn in proportion to n to this power, 0..=1: 1 is every picture once, 0 every class
    /// equally often, 0.5 between them.
    pub power: f64,
}

impl Default for SamplerConfig {
    fn default() -> Self {
        Self { power: 1.0 }
    }
}

/// `[edda]`: weights of the occluded pictures of `edda-style`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EddaConfig {
    /// Weight of the cross entropy on the picture whose non-salient part is occluded, at least 0.
    pub keep: f64,
    /// Weight of the divergence from even probabilities on the one whose salient part is occluded, at least 0.
    pub drop: f64,
}

impl Default for EddaConfig {
    fn default() -> Self {
        Self { keep: 1.0, drop: 1.0 }
    }
}

/// `[hybrid]`: how SupCon fades into cross entropy.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HybridConfig {
    /// SupCon's weight in epoch e of E is `1 − ((e − 1)/E)^power`; positive.
    pub power: f64,
}

impl Default for HybridConfig {
    fn default() -> Self {
        Self { power: 2.0 }
    }
}

/// `[mixup]`: the exchange of backgrounds of `background-mixup`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MixupConfig {
    /// Share of the pictures whose background is exchanged, in 0..=1.
    pub probability: f64,
    /// The object's box holds every pixel whose saliency is at least this, in 0..1.
    pub threshold: f32,
}

impl Default for MixupConfig {
    fn default() -> Self {
        Self { probability: 0.4, threshold: 0.2 }
    }
}

/// `[compose]`: the composed views of `crop-and-mix`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ComposeConfig {
    /// A composed view has so many cells on a side, 1 to 8, each a crop of its own.
    pub grid: usize,
    /// Share of the views that are composed, in 0..=1; the others are plain random crops.
    pub probability: f32,
}

impl Default for ComposeConfig {
    fn default() -> Self {
        Self { grid: 2, probability: 0.5 }
    }
}

/// Checks the tables.
pub(super) fn check(config: &super::TrainConfig) -> Result<()> {
    let super::TrainConfig { queue, sampler, edda, hybrid, mixup, compose, .. } = config;
    let inside = |v: f64| (0.0..=1.0).contains(&v);
    let weight = |v: f64| v >= 0.0 && v.is_finite();
    let positive = |v: f64| v > 0.0 && v.is_finite();
    let rules = [
        (queue.length > 0, "queue.length", "must be at least 1"),
        (inside(queue.momentum), "queue.momentum", "lies in 0..1"),
        (positive(queue.temperature), "queue.temperature", "must be positive"),
        (inside(sampler.power), "sampler.power", "lies in 0..1"),
        (weight(edda.keep), "edda.keep", "must be at least 0"),
        (weight(edda.drop), "edda.drop", "must be at least 0"),
        (positive(hybrid.power), "hybrid.power", "must be positive"),
        (inside(mixup.probability), "mixup.probability", "lies in 0..1"),
        ((0.0..1.0).contains(&mixup.threshold), "mixup.threshold", "lies in 0..1"),
        ((1..=8).contains(&compose.grid), "compose.grid", "lies in 1..8"),
        (inside(compose.probability.into()), "compose.probability", "lies in 0..1"),
    ];
    rules.into_iter().find(|(holds, ..)| !holds).map_or(Ok(()), |(_, name, reason)| Err(fail(name, reason.into())))
}
