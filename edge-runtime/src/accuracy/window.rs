//! The frames that the estimate is about: at most the last 1,000 effective ones, as sums of blocks of a hundred.
//!
//! It never grows, knows no pictures, and comes back from a file bit for bit. An alarm begins it anew: an estimate under
//! an alarm is about what is seen since, not about a mixture with what was before.

use super::model::{AccuracyModel, Sums};
use crate::shift::FrameScores;
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;

/// Frames of a window, at most.
pub const WINDOW: u64 = 1_000;
/// Frames of a block: with each full one, the oldest is forgotten.
pub const BLOCK: u64 = 100;

/// See the module's first paragraph.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AccuracyWindow {
    /// Threshold of the model that the sums were made with.
    model: Option<f64>,
    /// Frames taken since the beginning.
    taken: u64,
    /// Oldest first; the last may be open.
    blocks: VecDeque<Sums>,
}

impl AccuracyWindow {
    /// Takes an effective frame; false for one that lacks a score.
    pub fn take(&mut self, model: Option<&AccuracyModel>, scores: &FrameScores) -> bool {
        let Some(frame) = Sums::of(model, scores) else { return false };
        let fits = self.blocks.back().is_none_or(|block| block.scores.len() == frame.scores.len());
        let threshold = model.map(AccuracyModel::threshold);
        if self.model != threshold || !fits {
            self.restart();
        }
        self.model = threshold;
        if self.blocks.back().is_none_or(|block| block.frames >= BLOCK) {
            if self.blocks.len() as u64 == WINDOW / BLOCK {
                self.blocks.pop_front();
            }
            self.blocks.push_back(Sums::default());
        }
        if let Some(open) = self.blocks.back_mut() {
            open.add(&frame);
        }
        self.taken += 1;
        true
    }

    /// Begins anew.
    pub fn restart(&mut self) {
        self.blocks.clear();
    }

    /// Sums over the window; none with a model that the window was not made with.
    pub fn sums(&self, model: Option<&AccuracyModel>) -> Sums {
        let mut sums = Sums::default();
        if self.model == model.map(AccuracyModel::threshold) {
            self.blocks.iter().for_each(|block| sums.add(block));
        }
        sums
    }

    /// Number of the latest frame, counted from 1 since the beginning; 0 before the first.
    pub fn latest(&self) -> u64 {
        self.taken
    }

    /// Number of the window's first frame.
    pub fn first(&self) -> u64 {
        self.taken + 1 - self.blocks.iter().map(|block| block.frames).sum::<u64>()
    }
}
