//! From a trained network to what a board runs: export, fold, quantize, compare, fit, seal. [`convert()`] does all of it.

mod choose;
pub mod compare;
mod convert;
pub mod equalise;
mod error;
pub mod export;
mod feeding;
pub mod fold;
pub mod import;
mod leakage;
pub mod looks;
mod mixed;
pub mod onnx;
pub mod peer;
pub mod probe;
pub mod quantize;
pub mod range;
mod report;
pub mod seal;
pub mod select;
mod source;
mod target;
mod timing;
pub mod weights;

pub use convert::{Options, Step, compare_on, convert};
pub use error::{Error, Result};
pub use feeding::Feeding;
pub use mixed::{KeptFloat, MixedReport};
pub use report::{Conversion, ConversionReport, RangeReport, SCHEMA};
pub use source::{Source, relabelled};
pub use target::{Choice, Target};
pub use timing::Timing;
