//! A network as data: maps, and fused steps that read and write them. Generic over the [`Format`] of its numbers, so that
//! float and int8 share the graph, its checks and the fusion of sums.

mod check;
mod describe;

use super::{Clip, Isa};
pub(super) use check::MAX_ARENA;
pub(super) use describe::describe;
use std::fmt::Debug;

/// The numbers of a network.
pub trait Format: Debug + Copy + PartialEq {
    /// What the numbers of a map mean.
    type Codes: Debug + Copy + PartialEq;
    /// One weight of a convolution.
    type Weight: Debug + Copy + PartialEq;
    /// What its weights are multiplied by.
    type Scales: Debug + Clone + PartialEq;

    /// Checks the meaning of a map's numbers.
    ///
    /// # Errors
    /// A sentence fragment with what does not fit.
    fn check_codes(codes: &Self::Codes) -> Result<(), String>;

    /// Checks the numbers of a step whose shapes fit.
    ///
    /// # Errors
    /// A sentence fragment with what does not fit.
    fn check_numbers(step: &Step<Self>, maps: &[Map<Self>]) -> Result<(), String>;
}

/// A map.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Map<F: Format> {
    /// Channels.
    pub channels: usize,
    /// Rows.
    pub height: usize,
    /// Columns.
    pub width: usize,
    /// What its numbers mean.
    pub codes: F::Codes,
}

impl<F: Format> Map<F> {
    /// Rows (0) or columns (1).
    pub(super) fn side(&self, side: usize) -> usize {
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

    /// Rows (0) or columns (1) under the window at output position `at` that lie on a map of `size`; dilation 1.
    pub(super) fn inside(&self, at: usize, side: usize, size: usize) -> std::ops::Range<usize> {
        let start = at * self.stride[side];
        let end = (start + self.kernel[side]).saturating_sub(self.before[side]);
        start.saturating_sub(self.before[side])..end.min(size)
    }
}

/// A convolution with what follows it.
#[derive(Debug, Clone, PartialEq)]
pub struct Conv<F: Format> {
    /// Map it reads.
    pub input: MapId,
    /// Map it writes.
    pub output: MapId,
    /// `outputs × inputs/groups × rows × columns`.
    pub weight: Vec<F::Weight>,
    /// In int8 one for each output channel; zero points are 0.
    pub weight_scale: F::Scales,
    /// One for each output channel.
    pub bias: Vec<f32>,
    /// Geometry.
    pub window: Window,
    /// Groups of channels; both channel counts are multiples.
    pub groups: usize,
    /// Activation at the end: behind the residual sum where there is one.
    pub clip: Clip,
    /// A map added before the end.
    pub residual: Option<Residual<F>>,
}

impl<F: Format> Conv<F> {
    /// Whether each channel has a window of its own.
    pub(super) fn is_depthwise(&self, maps: &[Map<F>]) -> bool {
        self.groups > 1 && self.groups == maps[self.input].channels && self.groups == maps[self.output].channels
    }
}

/// The sum at the end of a residual block.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Residual<F: Format> {
    /// The other summand; as large as the output.
    pub map: MapId,
    /// Codes that the convolution is rounded to before the sum, and the activation before that rounding.
    pub between: Option<(F::Codes, Clip)>,
}

/// One step of a network.
#[derive(Debug, Clone, PartialEq)]
pub enum Step<F: Format> {
    /// Convolution, residual sum, activation.
    Conv(Conv<F>),
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

impl<F: Format> Step<F> {
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

/// A network: map 0 is the input, each step writes one more map, the last feature map is pooled and classified. Or a part
/// of a network of both precisions, which is given maps and hands maps on.
#[derive(Debug, Clone, PartialEq)]
pub struct Graph<F: Format> {
    /// All maps.
    pub maps: Vec<Map<F>>,
    /// Steps in the order of execution; each writes a map of its own.
    pub steps: Vec<Step<F>>,
    /// How many maps are given, the first ones; 1 for a whole network.
    pub given: usize,
    /// Maps handed on beside the last one; none for a whole network.
    pub handed: Vec<MapId>,
    /// The last feature map; where there is no classifier, the last one that is handed on.
    pub features: MapId,
    /// The classifier; without classes in a part that does not end in it.
    pub head: Head,
}

impl<F: Format> Graph<F> {
    /// Makes each sum one step with the convolution before it, where nothing else reads that convolution.
    pub fn fuse(&mut self) {
        let mut readers = vec![0usize; self.maps.len()];
        self.steps.iter().flat_map(Step::inputs).chain(self.results()).for_each(|m| readers[m] += 1);
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

    /// Maps that are given out, in their order.
    pub(super) fn results(&self) -> impl Iterator<Item = MapId> {
        self.handed.iter().copied().chain([self.features])
    }

    /// Values of some maps together.
    pub(super) fn values(&self, maps: impl Iterator<Item = MapId>) -> usize {
        maps.map(|m| self.maps[m].channels * self.maps[m].height * self.maps[m].width).sum()
    }

    /// For each map the position of the last step that reads it; what is given out is read behind all of them.
    pub(super) fn last_reads(&self) -> Vec<usize> {
        let mut last = vec![0; self.maps.len()];
        for (at, step) in self.steps.iter().enumerate() {
            step.inputs().into_iter().for_each(|m| last[m] = at);
        }
        self.results().for_each(|m| last[m] = usize::MAX);
        last
    }
}

/// A network ready to run. Threads may share it.
pub trait Executor: Send + Sync {
    /// Runs one picture (planar, normalised) to logits and the last map (planar, in int8 dequantized). Equal inputs give
    /// equal bits. A part of a network reads the maps it is given one behind the other from `image`, and writes those it
    /// hands on to `features` likewise.
    ///
    /// # Panics
    /// When a slice has not the size that the graph says.
    fn run(&self, image: &[f32], logits: &mut [f32], features: &mut [f32]);

    /// The instruction set it was made for.
    fn isa(&self) -> Isa;

    /// What its steps are, in the order of [`Executor::time`]: taking in the picture, each fused step, the classifier.
    fn steps(&self) -> Vec<StepDescription>;

    /// Runs one picture and lowers each step's `seconds` to what it took, where that is less.
    ///
    /// # Panics
    /// When a slice has not the size that the graph says.
    fn time(&self, image: &[f32], seconds: &mut [f64]);
}

/// A step of a network, for a profile.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StepDescription {
    /// Such as `conv 3×3/2 16→32 to 16×16, sum`.
    pub name: String,
    /// Multiplications.
    pub products: u64,
}
