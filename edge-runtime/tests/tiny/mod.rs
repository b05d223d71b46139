//! A tiny network and a tiny bundle for tests, shared by the unit tests and the tests of the command.
#![allow(dead_code, missing_docs, clippy::unwrap_used)]

mod bundle;
mod onnx;

pub use bundle::*;
pub use onnx::*;
