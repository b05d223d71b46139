//! What all convolutions share: where a window stands on a stored map, and [`End`], what becomes of a finished sum.

use super::layout::Layout;
use super::{Conv, Window};
use crate::kernel::{Clip, Vector};

/// The memory a step works on. `output` stands for a map that overlaps none of the others.
#[derive(Clone, Copy)]
pub(super) struct Data {
    pub input: *const f32,
    /// Null where there is none.
    pub residual: *const f32,
    pub output: *mut f32,
    /// As much as the step asked for.
    pub scratch: *mut f32,
}

/// Residual sum and activation. The bias is what sums start at.
#[derive(Debug, Clone, Copy)]
pub(super) struct End {
    /// Before the residual is added, and at the end.
    between: Clip,
    clip: Clip,
}

impl End {
    pub fn new(conv: &Conv) -> Self {
        let between = conv.residual.and_then(|r| r.between).map_or(Clip::NONE, |(_, clip)| clip);
        Self { between, clip: conv.clip }
    }

    /// Finishes a vector that holds its bias and stores it.
    ///
    /// # Safety
    /// The processor must have the set of `V`; `to` must be writable for a vector, and `residual` readable if `RESIDUAL`.
    #[inline(always)]
    pub unsafe fn store<V: Vector, const RESIDUAL: bool>(&self, mut sum: V, residual: *const f32, to: *mut f32) {
        // SAFETY: vouched for by the caller.
        unsafe {
            if RESIDUAL {
                sum = clipped(sum, self.between).add(V::load(residual));
            }
            clipped(sum, self.clip).store(to);
        }
    }
}

/// NaN stays.
///
/// # Safety
/// The processor must have the set of `V`.
#[inline(always)]
pub(super) unsafe fn clipped<V: Vector>(value: V, clip: Clip) -> V {
    // SAFETY: vouched for by the caller.
    unsafe { V::splat(clip.high).min(V::splat(clip.low).max(value)) }
}

/// Where a window stands on a stored map.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place {
    pub window: Window,
    pub input: Layout,
    pub output: Layout,
    pub residual: Option<Layout>,
}

impl Place {
    pub fn new(window: Window, input: &Layout, output: &Layout, residual: Option<&Layout>) -> Self {
        Self { window, input: *input, output: *output, residual: residual.copied() }
    }

    /// Number under the window's first tap for an output pixel.
    #[inline(always)]
    pub fn start(&self, y: usize, x: usize) -> usize {
        let [top, left] = self.window.before;
        self.input.halo_at(y * self.window.stride[0], top, x * self.window.stride[1], left)
    }

    /// First number of an output pixel's residual; 0 where there is none.
    #[inline(always)]
    pub fn residual_at(&self, y: usize, x: usize) -> usize {
        self.residual.as_ref().map_or(0, |layout| layout.at(y, x))
    }

    /// Offset of a tap from the window's first one, for the first channel.
    pub fn tap(&self, y: usize, x: usize) -> usize {
        y * self.window.dilation[0] * self.input.row + x * self.window.dilation[1] * self.input.pixel
    }
}
