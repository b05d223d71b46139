//! The board itself: what a profile says about its kind, what is found on it, and what differs.
//!
//! Everything is read below a root that a test can replace; nothing is changed, but for one file that is written and
//! removed to see whether that works. Facts are facts: what cannot be read is absent, never guessed.

mod facts;
mod findings;
mod profile;

#[cfg(test)]
mod tests;

pub use facts::{Cpu, Facts, Library};
pub use findings::{Finding, Grade, findings};
pub use profile::{Gpu, Module, PowerMode, Profile, Release};
