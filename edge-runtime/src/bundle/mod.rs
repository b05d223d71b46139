//! The bundle `NAME.excon`: everything a board needs, in one reproducible, verified file.

mod manifest;

pub use manifest::*;
