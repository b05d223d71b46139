//! The contract of ExCon on the edge: what a board does to a picture.
//!
//! decode → preprocess → engine → calibrated probabilities and class-activation map → scores → shift monitor.
//! Trainer, converter and boards tool all call this library, so a figure measured on a workstation is the figure a
//! board will show. It depends on no other room of the house, on no network and on no Python.

pub mod accuracy;
pub mod board;
pub mod bundle;
pub mod engine;
mod error;
pub mod file;
pub mod fit;
#[cfg(test)]
mod fixture;
pub mod image;
pub mod keeper;
pub mod kernel;
#[cfg(feature = "tract")]
pub mod opener;
pub mod page;
pub mod predictor;
pub mod probability;
pub mod refit;
pub mod saliency;
#[cfg(feature = "serve")]
pub mod serve;
pub mod session;
pub mod shadow;
pub mod shift;
pub mod slot;
pub mod source;
pub mod transfer;
pub mod unusual;

// Test helpers are shared with the tests of the command, which know this crate by its name.
#[cfg(test)]
extern crate self as excon_edge;
#[cfg(all(test, feature = "tract"))]
#[path = "../tests/tiny/mod.rs"]
mod tiny;

pub use error::{Error, Result};
