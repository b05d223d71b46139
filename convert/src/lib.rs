//! From a trained network to what a board runs: export, fold, quantize, compare, fit, seal.

mod error;
pub mod export;
pub mod fold;
pub mod onnx;
pub mod probe;
pub mod quantize;
pub mod range;
pub mod select;
pub mod weights;

pub use error::{Error, Result};
