//! The shift alarm: scores of a frame, the reference they are ranked against, bets, the monitor.
//!
//! Promise, marginal over the draw of the reference: with no shift, P(a false alarm within t effective frames) ≤ t/N.
//! One frame flows through [`sensor`] check → [`thinning`] → [`ScoreModel::scores`] → growing-reference [`rank`] →
//! normal-score [`bet`]s → restartable detector per bet, tail and channel → weighted average → alarm at R ≥ N. All of
//! it but the scores is [`Monitor::observe`]. Nothing here reads labels, and nothing is tuned on the stream under test.

pub mod autocorrelation;
pub mod bet;
mod channel;
mod contract;
mod declared;
mod detector;
mod directions;
pub mod drift;
mod looks;
mod matrix;
mod monitor;
mod observation;
mod pixels;
mod projections;
mod promise;
pub mod rank;
pub mod reference;
mod scores;
pub mod sensor;
mod state;
mod tensors;
pub mod thinning;
mod weights;

#[cfg(test)]
mod tests;

pub use channel::{Channel, Family, Sides};
pub use contract::Contract;
pub use declared::Declared;
pub use directions::Directions;
pub use looks::{FRAMES as LOOKED_AT, Likeness, Look, Looks};
pub use monitor::Monitor;
pub use observation::{Alarm, Answered, ChannelReading, Observation, State};
pub use pixels::PixelStatistics;
pub use projections::Projections;
pub use promise::Promise;
pub use reference::{Problem, Reference, ReferenceOptions};
pub use scores::{ClassMeans, FrameInput, FrameScores, MaskedPass, ScoreModel};
pub use sensor::SensorFault;
pub(crate) use tensors::take;
pub use tensors::{Tensors, from_bytes, to_bytes};
pub use weights::Weights;
