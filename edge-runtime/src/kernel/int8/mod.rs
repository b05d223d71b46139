//! Fused int8 kernels: a whole quantized network as a list of steps over packed weights and a static arena.
//!
//! The arithmetic is fixed, and every instruction set gives the same bits. A map holds codes `q` that stand for
//! `(q − zero) · scale`; `x = q − zero` is the *centred* code.
//! - A convolution sums `a = Σ x·w` in i32, exactly; outside the map `x` is 0.
//! - `y = f32(a) · m + b` with `m = s_x·s_w/s_y` and `b = bias/s_y`, each computed in f64 and rounded to f32 once;
//!   product and sum round separately, there is no fused multiply-add.
//! - `x_y = round(clamp(y, low − zero, high − zero))`, half to even. An activation's clip, quantized, narrows the limits.
//! - A sum is `y = x_1·(s_1/s_y) + x_2·(s_2/s_y)`, rounded likewise. Where a sum reads a convolution that nothing else
//!   reads, both are one step; the value between is still rounded to a code of its own scale if the file says so.
//! - Max pooling takes the largest code and requantizes as ONNX does: `round(x·s_x / s_y)`.
//!
//! [`mod@reference`] says the same once more in plain loops and is what the vector code is tested against.

mod check;
mod dense;
mod depthwise;
mod dot;
mod elementwise;
mod end;
mod network;
pub mod reference;
mod sets;
#[cfg(test)]
mod tests;
mod winograd;

use super::buffer;
use super::graph::{self, MapId, Window};
use crate::kernel::Clip;
pub use network::build;

/// What the codes of a map mean.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Codes {
    /// Step between codes; positive.
    pub scale: f32,
    /// The code of 0.0.
    pub zero: i32,
    /// Signed codes are −128..=127, unsigned ones 0..=255.
    pub signed: bool,
}

impl Codes {
    /// Lowest and highest centred code.
    pub fn range(&self) -> (f32, f32) {
        let (low, high) = if self.signed { (-128, 127) } else { (0, 255) };
        ((low - self.zero) as f32, (high - self.zero) as f32)
    }

    /// Lowest and highest centred code behind an activation: rounding keeps order, so clipping codes is clipping values.
    pub fn limits(&self, clip: Clip) -> (f32, f32) {
        (self.quantize(clip.low), self.quantize(clip.high))
    }

    /// ONNX QuantizeLinear, as centred code: divides, rounds half to even, saturates. NaN gives the lowest.
    pub fn quantize(&self, value: f32) -> f32 {
        let (low, high) = self.range();
        round((value / self.scale).max(low).min(high))
    }
}

/// Rounds half to even. Exact for |v| below 2²²: adding 1.5·2²³ leaves no fraction bits. Not `round_ties_even`, which is
/// a library call where the compiler target has no such instruction.
#[inline(always)]
fn round(v: f32) -> f32 {
    const MAGIC: f32 = 12_582_912.0;
    (v + MAGIC) - MAGIC
}

/// Numbers of a quantized network: maps of codes, signed bytes as weights.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Int8;

/// A quantized map.
pub type Map = graph::Map<Int8>;
/// A quantized convolution; zero points of weights are 0.
pub type Conv = graph::Conv<Int8>;
/// One step of a quantized network.
pub type Step = graph::Step<Int8>;
/// A quantized network.
pub type Graph = graph::Graph<Int8>;

/// The constants of one convolution's end, as the module's first paragraph defines them.
#[derive(Debug, Clone, PartialEq)]
struct Requantize {
    /// `m` and `b` of each output channel.
    scale: Vec<f32>,
    bias: Vec<f32>,
    /// Limits of the code between and the factor that brings it to the output's scale.
    between: Option<(f32, f32, f32)>,
    /// Factor of the residual.
    residual: f32,
    low: f32,
    high: f32,
}

impl Requantize {
    fn new(conv: &Conv, maps: &[Map]) -> Self {
        let (input, output) = (&maps[conv.input].codes, &maps[conv.output].codes);
        let between = conv.residual.and_then(|r| r.between);
        let first = f64::from(between.map_or(output.scale, |(codes, _)| codes.scale));
        let scale = conv.weight_scale.iter().map(|&w| (f64::from(input.scale) * f64::from(w) / first) as f32);
        let bias = conv.bias.iter().map(|&b| (f64::from(b) / first) as f32);
        let (low, high) = output.limits(conv.clip);
        Self {
            scale: scale.collect(),
            bias: bias.collect(),
            between: between.map(|(codes, clip)| {
                let (low, high) = codes.limits(clip);
                (low, high, ratio(&codes, output))
            }),
            residual: conv.residual.map_or(0.0, |r| ratio(&maps[r.map].codes, output)),
            low,
            high,
        }
    }
}

/// `s_from / s_to`, rounded once.
fn ratio(from: &Codes, to: &Codes) -> f32 {
    (f64::from(from.scale) / f64::from(to.scale)) as f32
}
