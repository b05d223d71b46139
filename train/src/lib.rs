//! Trains ExCon classifiers: datasets, views, networks, recipes, the training loop, evaluation.

pub mod augment;
pub mod checkpoint;
pub mod config;
pub mod corruption;
#[cfg(feature = "cuda")]
mod cuda;
pub mod dataset;
mod error;
pub mod evaluate;
pub mod explain;
pub mod fetch;
#[cfg(test)]
mod golden;
pub mod kernel;
mod log;
pub mod loss;
pub mod network;
pub mod npy;
pub mod optimizer;
pub mod recipe;
pub mod schedule;
pub mod trainer;

pub use error::{Error, Result};
