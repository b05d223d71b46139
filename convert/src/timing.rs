//! What one picture costs in float and in int8 on the machine at hand, so that int8 is written only where it pays.

use crate::Result;
use excon_edge::engine::Engine;
use serde::{Deserialize, Serialize};
use std::time::{Duration, Instant};

/// Runs of each form: at least, and at most.
const RUNS: std::ops::Range<usize> = 5..100;
/// Time after which no further runs begin.
const BUDGET: Duration = Duration::from_millis(400);

/// Microseconds of one picture alone: the fastest of alternating runs, so that other work on the machine shows little.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Timing {
    /// The float form.
    pub float_microseconds: f64,
    /// The int8 form.
    pub int8_microseconds: f64,
    /// Runs of each.
    pub runs: usize,
}

impl Timing {
    /// Runs both engines by turns on one normalised picture.
    ///
    /// # Errors
    /// When an engine fails.
    pub fn measure(float: &dyn Engine, int8: &dyn Engine, image: &[f32]) -> Result<Self> {
        let time = |engine: &dyn Engine| -> Result<f64> {
            let begun = Instant::now();
            engine.run(image)?;
            Ok(begun.elapsed().as_secs_f64() * 1e6)
        };
        // The first runs fill caches.
        time(float)?;
        time(int8)?;
        let begun = Instant::now();
        let mut least = Self { float_microseconds: f64::INFINITY, int8_microseconds: f64::INFINITY, runs: 0 };
        while least.runs < RUNS.start || least.runs < RUNS.end && begun.elapsed() < BUDGET {
            least.float_microseconds = least.float_microseconds.min(time(float)?);
            least.int8_microseconds = least.int8_microseconds.min(time(int8)?);
            least.runs += 1;
        }
        Ok(least)
    }
}
