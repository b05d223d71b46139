//! Networks of both precisions: most layers in int8, the few that 8 bits would spoil in float.
//!
//! A [`Graph`] of this format says of each map whether it is held in codes, and of each convolution whether its weights are
//! signed bytes. [`build`] cuts it into parts of one precision, each as large as the order of the steps allows,
//! and gives every part to the kernels of that precision: inside a part nothing is different from a whole network, and
//! its int8 is bit for bit that of [`int8`](crate::kernel::int8). Between parts maps lie planar in f32, which is exact for
//! codes: a dequantized code is quantized to itself.
//!
//! A step is int8 where everything it touches is in codes and its weights, if any, are bytes; every other step is float
//! and reads codes dequantized. A float step whose result is held in codes has it rounded by the next int8 part.

mod network;
mod split;
#[cfg(test)]
mod tests;

use super::graph::{self, Format, MapId};
use super::int8::{Codes, Int8};
pub use network::build;

/// Numbers of a mixed network.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Mixed;

impl Format for Mixed {
    /// None for a map of plain f32.
    type Codes = Option<Codes>;
    /// A signed byte as a number where there are scales.
    type Weight = f32;
    /// One for each output channel where the weights are signed bytes.
    type Scales = Option<Vec<f32>>;

    fn check_codes(codes: &Option<Codes>) -> Result<(), String> {
        codes.as_ref().map_or(Ok(()), Int8::check_codes)
    }

    fn check_numbers(step: &Step, maps: &[Map]) -> Result<(), String> {
        match step {
            Step::Conv(c) if c.residual.is_some() => Err("sums of mixed networks are steps of their own".into()),
            Step::Conv(c) if c.weight_scale.as_ref().is_some_and(|s| s.len() != maps[c.output].channels) => {
                Err("a convolution's weights do not fit".into())
            }
            _ => Ok(()),
        }
    }
}

/// A map.
pub type Map = graph::Map<Mixed>;
/// A convolution.
pub type Conv = graph::Conv<Mixed>;
/// One step.
pub type Step = graph::Step<Mixed>;
/// A network.
pub type Graph = graph::Graph<Mixed>;
