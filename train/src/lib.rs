//! Trains ExCon classifiers: datasets, views, networks, recipes, the training loop, evaluation.

mod error;
pub mod network;

pub use error::{Error, Result};
