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

mod buffer;
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

use crate::kernel::Clip;
pub use network::{Executor, StepDescription, build};

/// Most values of all maps together that an arena is made for.
const MAX_ARENA: usize = 1 << 28;

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

/// A quantized map.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Map {
    /// Channels.
    pub channels: usize,
    /// Rows.
    pub height: usize,
    /// Columns.
    pub width: usize,
    /// What its codes mean.
    pub codes: Codes,
}

impl Map {
    /// Rows (0) or columns (1).
    fn side(&self, side: usize) -> usize {
        [self.height, self.width][side]
    }
}

/// Index into [`Graph::maps`].
pub type MapId = usize;

/// A window that slides over a map: kernel of a convolution or of a pool. Pairs are rows, columns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    /// Size.
    pub kernel: [usize; 2],
    /// Step.
    pub stride: [usize; 2],
    /// Distance of neighbouring taps.
    pub dilation: [usize; 2],
    /// Padding above and left.
    pub before: [usize; 2],
    /// Padding below and right.
    pub after: [usize; 2],
}

impl Window {
    /// Rows and columns of the result for a map of `height × width`; nothing where the window does not fit.
    pub fn output(&self, height: usize, width: usize) -> Option<[usize; 2]> {
        let side = |i: usize, size: usize| {
            let reach = self.dilation[i].checked_mul(self.kernel[i].checked_sub(1)?)? + 1;
            let room = (size + self.before[i] + self.after[i]).checked_sub(reach)?;
            Some(room.checked_div(self.stride[i])? + 1)
        };
        Some([side(0, height)?, side(1, width)?])
    }
}

/// A convolution with what follows it.
#[derive(Debug, Clone, PartialEq)]
pub struct Conv {
    /// Map it reads.
    pub input: MapId,
    /// Map it writes.
    pub output: MapId,
    /// `outputs × inputs/groups × rows × columns`, zero point 0.
    pub weight: Vec<i8>,
    /// One for each output channel.
    pub weight_scale: Vec<f32>,
    /// One for each output channel.
    pub bias: Vec<f32>,
    /// Geometry.
    pub window: Window,
    /// Groups of channels; both channel counts are multiples.
    pub groups: usize,
    /// Activation at the end: behind the residual sum where there is one.
    pub clip: Clip,
    /// A map added before the end.
    pub residual: Option<Residual>,
}

/// The sum at the end of a residual block.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Residual {
    /// The other summand; as large as the output.
    pub map: MapId,
    /// Codes that the convolution is rounded to before the sum, and the activation before that rounding.
    pub between: Option<(Codes, Clip)>,
}

/// One step of a network.
#[derive(Debug, Clone, PartialEq)]
pub enum Step {
    /// Convolution, requantization, residual sum, activation.
    Conv(Conv),
    /// Sum of two maps of one shape.
    Add {
        /// Summands.
        inputs: [MapId; 2],
        /// Map it writes.
        output: MapId,
        /// Activation behind the sum.
        clip: Clip,
    },
    /// Max pooling; padding never wins.
    MaxPool {
        /// Map it reads.
        input: MapId,
        /// Map it writes.
        output: MapId,
        /// Geometry; dilation 1.
        window: Window,
    },
}

impl Step {
    /// Maps it reads.
    pub fn inputs(&self) -> Vec<MapId> {
        match self {
            Self::Conv(c) => std::iter::once(c.input).chain(c.residual.map(|r| r.map)).collect(),
            Self::Add { inputs, .. } => inputs.to_vec(),
            Self::MaxPool { input, .. } => vec![*input],
        }
    }

    /// Map it writes.
    pub fn output(&self) -> MapId {
        match self {
            Self::Conv(c) => c.output,
            Self::Add { output, .. } | Self::MaxPool { output, .. } => *output,
        }
    }
}

/// The f32 classifier behind the global average of the last map.
#[derive(Debug, Clone, PartialEq)]
pub struct Head {
    /// `classes × channels`.
    pub weight: Vec<f32>,
    /// One for each class.
    pub bias: Vec<f32>,
}

/// A quantized network: map 0 is the input, each step writes one more map, the last feature map is pooled and classified.
#[derive(Debug, Clone, PartialEq)]
pub struct Graph {
    /// All maps.
    pub maps: Vec<Map>,
    /// Steps in the order of execution; each writes a map of its own.
    pub steps: Vec<Step>,
    /// The last feature map.
    pub features: MapId,
    /// The classifier.
    pub head: Head,
}

impl Graph {
    /// Makes each sum one step with the convolution before it, where nothing else reads that convolution.
    pub fn fuse(&mut self) {
        let mut readers = vec![0usize; self.maps.len()];
        self.steps.iter().flat_map(Step::inputs).chain([self.features]).for_each(|m| readers[m] += 1);
        while let Some((conv, sum)) = self.fusible(&readers) {
            let Step::Add { inputs, output, clip } = self.steps.remove(sum) else { return };
            if let Step::Conv(c) = &mut self.steps[conv] {
                let other = if inputs[0] == c.output { inputs[1] } else { inputs[0] };
                let between = Some((self.maps[c.output].codes, c.clip));
                c.residual = Some(Residual { map: other, between });
                (c.output, c.clip) = (output, clip);
            }
        }
    }

    /// Positions of a convolution and of the sum it can take in: the other summand must exist before it.
    fn fusible(&self, readers: &[usize]) -> Option<(usize, usize)> {
        let made = |map: MapId| self.steps.iter().position(|s| s.output() == map);
        self.steps.iter().enumerate().find_map(|(sum, step)| {
            let Step::Add { inputs, .. } = step else { return None };
            let [a, b] = inputs.map(made);
            let (last, first, map) = if a >= b { (a?, b, inputs[0]) } else { (b?, a, inputs[1]) };
            let fits = matches!(&self.steps[last], Step::Conv(c) if c.residual.is_none()) && readers[map] == 1;
            (fits && first.is_none_or(|f| f < last)).then_some((last, sum))
        })
    }
}

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
