//! What one picture costs in each form on the machine at hand, so that int8 or mixed is written only where it pays.

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
    /// The mixed form, where layers had to stay float.
    #[serde(default)]
    pub mixed_microseconds: Option<f64>,
    /// Runs of each.
    pub runs: usize,
}

impl Timing {
    /// Runs the engines by turns on one normalised picture.
    ///
    /// # Errors
    /// When an engine fails.
    pub fn measure(float: &dyn Engine, int8: &dyn Engine, mixed: Option<&dyn Engine>, image: &[f32]) -> Result<Self> {
        let engines: Vec<&dyn Engine> = [float, int8].into_iter().chain(mixed).collect();
        // The first runs fill caches.
        engines.iter().try_for_each(|engine| engine.run(image).map(drop))?;
        let (mut least, mut runs) = (vec![f64::INFINITY; engines.len()], 0);
        let begun = Instant::now();
        while runs < RUNS.start || runs < RUNS.end && begun.elapsed() < BUDGET {
            for (least, engine) in least.iter_mut().zip(&engines) {
                let begun = Instant::now();
                engine.run(image)?;
                *least = least.min(begun.elapsed().as_secs_f64() * 1e6);
            }
            runs += 1;
        }
        let mixed_microseconds = least.get(2).copied();
        Ok(Self { float_microseconds: least[0], int8_microseconds: least[1], mixed_microseconds, runs })
    }
}
