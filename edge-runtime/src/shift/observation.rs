//! What the monitor says about a frame: a state, the evidence per channel, the alarm that stands.

use super::channel::{Channel, Family};
use super::sensor::SensorFault;
use serde::{Deserialize, Serialize};

/// What a frame finds the device in, the gravest first: sensor fault, engine fault, shift, slow, watching, healthy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Nothing unusual.
    Healthy,
    /// Evidence has passed √N on its way to N.
    Watching,
    /// An alarm rings, or rang and is not answered.
    Shift,
    /// The frame is no picture of the world; it entered nothing.
    SensorFault,
    /// The engine's self-test failed on the frame: map, head and logits do not fit together. It entered nothing.
    EngineFault,
    /// The frame took longer than its budget.
    Slow,
}

impl State {
    /// Words for people.
    pub fn words(self) -> &'static str {
        match self {
            Self::Healthy => "healthy",
            Self::Watching => "watching",
            Self::Shift => "shift",
            Self::SensorFault => "sensor fault",
            Self::EngineFault => "engine fault",
            Self::Slow => "slow",
        }
    }
}

/// An alarm and what rang.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Alarm {
    /// The family with the largest share of the evidence.
    pub family: Family,
    /// That family's channels, the largest share first, until 90 % of its evidence is named.
    pub channels: Vec<Channel>,
    /// Effective frame that rang, counted from 1 since the start.
    pub frame: u64,
    /// The same in raw frames.
    pub raw_frame: u64,
}

/// What an acknowledgement answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answered {
    /// The alarm that stood.
    pub alarm: Option<Alarm>,
    /// Families that gave a notice instead of an alarm.
    pub notices: Vec<Family>,
    /// Whether the notice of slow drift stood.
    pub slow_drift: bool,
}

impl Answered {
    /// Whether there was nothing to answer.
    pub fn is_nothing(&self) -> bool {
        self.alarm.is_none() && self.notices.is_empty() && !self.slow_drift
    }
}

/// One channel as it stands.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ChannelReading {
    /// Which channel; serialised by its stable name.
    pub channel: Channel,
    /// Its family.
    pub family: Family,
    /// Its share of the evidence; 0 = shown only.
    pub weight: f64,
    /// Smoothed rank of this frame's score; None when the frame was not scored here.
    pub p: Option<f64>,
    /// Natural log of the channel's R; −∞ (`null` in JSON) at the start.
    pub log_r: f64,
    /// Part of Σ w R that is this channel's, in 0..1.
    pub share: f64,
}

/// What the monitor says about one frame.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Observation {
    /// State after this frame.
    pub state: State,
    /// Natural log of R, averaged over the channels that may ring; −∞ (`null` in JSON) at the start.
    pub log_r: f64,
    /// Natural log of N, where it rings.
    pub log_limit: f64,
    /// Effective frames so far, this one included.
    pub effective_frames: u64,
    /// Raw frames so far, this one included.
    pub raw_frames: u64,
    /// Whether this frame entered the counters.
    pub kept: bool,
    /// What is wrong with the frame itself.
    pub fault: Option<SensorFault>,
    /// Every tracked channel.
    pub channels: Vec<ChannelReading>,
    /// The alarm that stands, ringing since its frame.
    pub alarm: Option<Alarm>,
    /// Families switched to notice whose own evidence has reached N.
    pub notices: Vec<Family>,
    /// Whether the fixed-reference detector has seen slow drift and nobody has answered: a notice, outside the promise.
    pub slow_drift: bool,
    /// The completeness residual, when it failed the engine's self-test on this frame.
    pub self_test_failed: Option<f64>,
}
