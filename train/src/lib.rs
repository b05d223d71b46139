//! Trains ExCon classifiers: datasets, views, networks, recipes, the training loop, evaluation.

pub mod augment;
pub mod corruption;
pub mod dataset;
mod error;
pub mod kernel;
pub mod network;
pub mod optimizer;

pub use error::{Error, Result};
