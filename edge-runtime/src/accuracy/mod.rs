//! How often the network is right now: estimated without labels, sharper with a few.
//!
//! Every effective frame enters a `window`; the `model`, fitted beside the shift reference, turns its sums into an
//! interval, or abstains where the frames look like nothing that it was fitted on. `labels` that come for some of the
//! frames take over where they say more. Promise: over the declared family, and over what is no stranger than it, the
//! accuracy on the window's frames lies in the interval 95 times out of 100. It is an estimate, no guarantee: confidence
//! that stays while answers turn wrong is seen by labels alone.

mod fitting;
mod labels;
mod model;
mod window;

#[cfg(test)]
pub(crate) mod tests;

pub use fitting::{Outcome, Shifted};
pub use labels::{Bounded, Labelled, Labels, Observed, REMEMBERED, parse_csv};
pub use model::{AccuracyModel, Estimators, Sums};
pub use window::{AccuracyWindow, BLOCK, WINDOW};

use crate::predictor::Prediction;
use crate::shift::{Alarm, Family, FrameScores};
use serde::{Deserialize, Serialize};

/// Frames below which nothing is said.
pub const FEWEST_FRAMES: u64 = 100;

/// What a watch remembers for the estimate.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tally {
    /// Sums of the latest frames.
    pub window: AccuracyWindow,
    /// Frames that labels may come for.
    pub labels: Labels,
}

/// Where accuracy stands against what it was on healthy pictures.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Change {
    /// The healthy accuracy is within the interval.
    Unchanged,
    /// The whole interval lies below it.
    Lower,
    /// The whole interval lies above it.
    Higher,
}

/// Accuracy now.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "status", rename_all = "snake_case")]
pub enum Accuracy {
    /// An interval.
    Estimate(AccuracyEstimate),
    /// Nothing can be said.
    Abstain {
        /// Frames in the window.
        frames: u64,
        /// Why, in words.
        reason: String,
    },
}

/// Accuracy over the frames of the window, each value in 0..1.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct AccuracyEstimate {
    /// The estimate.
    pub value: f64,
    /// Lower end of its 95 % interval.
    pub low: f64,
    /// Upper end.
    pub high: f64,
    /// Frames in the window.
    pub frames: u64,
    /// Those among them whose labels it rests on; 0 when it rests on confidence alone.
    pub labelled: usize,
    /// Accuracy on healthy pictures; none where the bundle brings no model.
    pub healthy: Option<f64>,
    /// Against the healthy one.
    pub change: Option<Change>,
    /// Each estimate without labels; none where that one abstains.
    pub estimators: Option<Estimators>,
    /// Why the estimate without labels abstains or is not believed, in words.
    pub note: Option<String>,
}

impl Tally {
    /// Takes an effective frame; `name` is what a label will call it.
    pub fn take(&mut self, model: Option<&AccuracyModel>, name: &str, prediction: &Prediction, scores: &FrameScores) {
        if self.window.take(model, scores) {
            self.labels.remember(name, self.window.latest(), prediction);
        }
    }

    /// Accuracy as it stands. Of an estimate by confidence and one by labels the narrower is told; where they contradict
    /// each other, that by labels, which believes no confidence.
    pub fn accuracy(&self, model: Option<&AccuracyModel>) -> Accuracy {
        let sums = self.window.sums(model);
        let frames = sums.frames;
        if frames < FEWEST_FRAMES {
            let reason = format!("{frames} effective frames so far, {FEWEST_FRAMES} are needed");
            return Accuracy::Abstain { frames, reason };
        }
        let free = label_free(model, &sums);
        let healthy = model.map(AccuracyModel::healthy);
        let told = |Bounded { value, low, high }, labelled, estimators, note| {
            let change = healthy.map(|healthy| match () {
                () if high < healthy => Change::Lower,
                () if low > healthy => Change::Higher,
                () => Change::Unchanged,
            });
            Accuracy::Estimate(AccuracyEstimate {
                value,
                low,
                high,
                frames,
                labelled,
                healthy,
                change,
                estimators,
                note,
            })
        };
        match (free, self.labels.powered(&sums, self.window.first())) {
            (Err(reason), None) => Accuracy::Abstain { frames, reason },
            (Err(reason), Some((by_labels, count))) => told(by_labels, count, None, Some(reason)),
            (Ok((free, estimators)), None) => told(free, 0, Some(estimators), None),
            (Ok((free, estimators)), Some((by_labels, count))) => {
                let apart = free.high < by_labels.low || by_labels.high < free.low;
                if apart {
                    let note = "labels contradict what confidence says".to_string();
                    told(by_labels, count, Some(estimators), Some(note))
                } else if by_labels.high - by_labels.low < free.high - free.low {
                    told(by_labels, count, Some(estimators), None)
                } else {
                    told(free, 0, Some(estimators), None)
                }
            }
        }
    }
}

/// The estimate by confidence, or why there is none.
fn label_free(model: Option<&AccuracyModel>, sums: &Sums) -> Result<(Bounded, Estimators), String> {
    let model = model.ok_or("this bundle brings no accuracy estimate; convert it anew")?;
    if let Some(channel) = model.outside(sums) {
        let channel = channel.name().replace('_', " ");
        return Err(format!("the frames are unlike all that it was fitted on ({channel})"));
    }
    let estimators = model.estimators(sums);
    let value = estimators.told;
    let [low, high] = model.interval(Estimators::COUNT - 1, value, sums);
    Ok((Bounded { value, low, high }, estimators))
}

impl Accuracy {
    /// The estimate, when there is one.
    pub fn estimate(&self) -> Option<&AccuracyEstimate> {
        match self {
            Self::Estimate(estimate) => Some(estimate),
            Self::Abstain { .. } => None,
        }
    }

    /// Frames in the window.
    pub fn frames(&self) -> u64 {
        match self {
            Self::Estimate(estimate) => estimate.frames,
            Self::Abstain { frames, .. } => *frames,
        }
    }

    /// For people: `83.1 % (79.0 to 87.2 %), by confidence over 1,000 frames; 85.2 % when healthy`.
    pub fn words(&self) -> String {
        let e = match self {
            Self::Estimate(estimate) => estimate,
            Self::Abstain { reason, .. } => return format!("abstains: {reason}"),
        };
        let AccuracyEstimate { value, low, high, frames, labelled, .. } = e;
        let by = match labelled {
            0 => "by confidence".to_string(),
            count => format!("by {count} labels"),
        };
        let healthy = e.healthy.map_or(String::new(), |h| format!("; {:.1} % when healthy", 100.0 * h));
        let note = e.note.as_ref().map_or(String::new(), |note| format!("; {note}"));
        format!(
            "{:.1} % ({:.1} to {:.1} %), {by} over {frames} frames{healthy}{note}",
            100.0 * value,
            100.0 * low,
            100.0 * high
        )
    }

    /// What an alarm means for the answers, in a sentence.
    pub fn under(&self, alarm: &Alarm) -> String {
        let what = match alarm.family {
            Family::InputChanged => "the input changed",
            Family::NetworkUnsure => "the network is less sure",
            Family::ExplanationInconsistent => "the explanations changed",
        };
        match self.estimate().and_then(|e| Some((e.change?, e))) {
            Some((Change::Unchanged, _)) => format!("{what}; the accuracy estimate did not: {}", self.words()),
            Some((Change::Lower, _)) => format!("{what}, and fewer answers are right: {}", self.words()),
            Some((Change::Higher, _)) => format!("{what}, and more answers are right: {}", self.words()),
            None => format!("{what}; what it does to accuracy is not known: {}", self.words()),
        }
    }
}
