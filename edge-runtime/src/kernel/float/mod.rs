//! Fused f32 kernels: a whole float network as a list of steps over packed weights and one static arena.
//!
//! Maps lie pixel by pixel (NHWC), channels padded to whole vectors, with a halo of zeros where a window needs one; a
//! picture that only dense convolutions read stays planar. A convolution ends with its bias, the residual sum and the
//! activation before anything is stored. Kernels are written once over [`Vector`](crate::kernel::Vector): `dense` for
//! any window, `winograd` for 3 × 3 at stride 1 where that is faster, `depthwise` for a window a channel.
//!
//! The arithmetic: `y = clip(Σ x·w + bias + residual)` in f32, the residual's other summand clipped before where the file
//! says so. The order of a sum depends on the shape and the instruction set, never on other pictures; results of two sets
//! differ by rounding. NaN passes. [`mod@reference`] says the same in plain loops and is what the tests compare with.

mod dense;
mod depthwise;
mod elementwise;
mod end;
mod layout;
mod network;
pub mod reference;
#[cfg(test)]
mod tests;
mod winograd;

use super::buffer;
use super::graph::{self, Format, Head, MapId, Window};
pub use network::build;

/// Numbers of a float network: f32 in maps and weights.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Float;

impl Format for Float {
    type Codes = ();
    type Weight = f32;
    type Scales = ();

    fn check_codes((): &()) -> Result<(), String> {
        Ok(())
    }

    fn check_numbers(_: &Step, _: &[Map]) -> Result<(), String> {
        Ok(())
    }
}

/// A map of f32.
pub type Map = graph::Map<Float>;
/// A float convolution.
pub type Conv = graph::Conv<Float>;
/// One step of a float network.
pub type Step = graph::Step<Float>;
/// A float network.
pub type Graph = graph::Graph<Float>;
