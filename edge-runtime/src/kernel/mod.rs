//! Instruction sets and vectors: what every numeric kernel of the toolkit stands on.
//!
//! A float kernel is written once, generic over [`Vector`], and [`dispatch`] instantiates it for each instruction set, so
//! the AVX-512 code is the text that the tests run with AVX2 and with plain arrays. The set is chosen at run time by
//! [`active`]; the variable `EXCON_ISA` overrides it. [`graph`] describes a whole network; [`float`] runs one in f32,
//! [`int8`] one in codes, by kernels that are written once over a trait of their own, [`mixed`] one of both by turns.

mod buffer;
mod clip;
pub mod float;
pub mod graph;
pub mod int8;
mod isa;
pub mod mixed;
mod vector;

pub use clip::Clip;
pub use isa::{Isa, Kernel, active, dispatch, note};
pub use vector::{Portable, Vector};
