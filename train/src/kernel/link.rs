//! The links of a chain: what each reads, computes and adds.

use super::conv::Convolution;
use excon_edge::kernel::{Clip, Isa};

/// Where a link reads from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// The chain's input.
    Entry,
    /// The output of an earlier link.
    Link(usize),
}

/// Convolution, batch norm with the batch's statistics, then the residual and the activation, where there are such.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Link {
    /// What the convolution reads.
    pub input: Source,
    /// What is added after the norm.
    pub residual: Option<Source>,
    /// What ends the link.
    pub clip: Clip,
    /// Whether each channel has a window of its own; inputs and outputs are then equal.
    pub depthwise: bool,
    /// Input channels.
    pub inputs: usize,
    /// Output channels.
    pub outputs: usize,
    /// Kernel side.
    pub kernel: usize,
    /// Stride in both directions.
    pub stride: usize,
    /// Zero padding on every side.
    pub padding: usize,
}

impl Link {
    /// Numbers of the convolution's weights.
    pub(super) fn weights(&self) -> usize {
        self.fan_in() * self.outputs * self.kernel * self.kernel
    }

    /// Input channels that an output channel sees.
    pub(super) fn fan_in(&self) -> usize {
        if self.depthwise { 1 } else { self.inputs }
    }

    /// Its convolution's geometry.
    pub(super) fn convolution(&self, isa: Isa) -> Convolution {
        Convolution { stride: self.stride, padding: self.padding, depthwise: self.depthwise, isa }
    }

    /// Numbers of all parameters: convolution weights, norm weights, norm biases.
    pub(super) fn parameters(&self) -> usize {
        self.weights() + 2 * self.outputs
    }
}
