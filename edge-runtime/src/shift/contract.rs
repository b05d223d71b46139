//! What a monitor is held to: N, budgets, and which families may ring.

use super::channel::Family;
use crate::bundle::ShiftContract;
use std::time::Duration;

/// What the monitor is held to.
#[derive(Debug, Clone, PartialEq)]
pub struct Contract {
    /// N: mean effective frames between false alarms, at least. 1,000,000 by default.
    pub mean_time_between_false_alarms: f64,
    /// Seed of the draws that smooth the ranks.
    pub seed: u64,
    /// Time one frame may take; over it the state is `slow`. None: no budget.
    pub latency_budget: Option<Duration>,
    /// Largest completeness residual before the engine's self-test fails.
    pub completeness_tolerance: f64,
    /// One effective frame in so many is worth a masked pass; 0 means none.
    pub masked_every: usize,
    /// Raw frames after which an alarm resets itself; None: only when acknowledged.
    pub recovery: Option<u64>,
    /// Families that give a notice instead of an alarm.
    pub notices: Vec<Family>,
}

impl Default for Contract {
    fn default() -> Self {
        Self {
            mean_time_between_false_alarms: 1e6,
            seed: 0,
            latency_budget: None,
            completeness_tolerance: 1e-4,
            masked_every: 16,
            recovery: None,
            notices: Vec::new(),
        }
    }
}

impl Contract {
    /// The contract a bundle's manifest states, with default budgets.
    pub fn of(manifest: &ShiftContract) -> Self {
        Self {
            mean_time_between_false_alarms: manifest.mean_time_between_false_alarms,
            masked_every: manifest.masked_every,
            ..Self::default()
        }
    }
}
