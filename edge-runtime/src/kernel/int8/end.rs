//! What all convolutions share: where a window stands on a stored map, and [`End`], which turns sums into codes.

use super::buffer::Buffer;
use super::dot::{Code, Dot};
use super::network::Layout;
use super::{Codes, Conv, Map, Requantize, Window};

/// A form of convolution that only some sets, or some shapes, have.
pub(super) trait Special<D: Dot>: Send + Sync {
    /// Numbers of scratch memory it needs.
    fn scratch(&self) -> usize {
        0
    }
    /// # Safety
    /// The processor must have the set; the data must be that of the layouts it was made for.
    unsafe fn run(&self, data: Data<'_, D>);
}

/// The memory a step works on. `output` stands for a whole arena map that nothing else refers to.
pub(super) struct Data<'a, D: Dot> {
    pub input: &'a [D::Code],
    pub residual: Option<&'a [D::Code]>,
    pub output: *mut D::Code,
    /// As much as the step's [`Special::scratch`] asked for.
    pub scratch: *mut i32,
}

impl<D: Dot> Clone for Data<'_, D> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<D: Dot> Copy for Data<'_, D> {}

/// Where channel `channel` of a block of `vectors` lies when sums are to be stored together: vector, and lane in it.
/// Storing packs sums of 32 bits pairwise within 128 bits, which this order undoes.
pub(super) fn packed(channel: usize, vectors: usize) -> (usize, usize) {
    let quarter = 4 * vectors;
    (channel % quarter / 4, channel / quarter * 4 + channel % 4)
}

/// Stored forms of 0 and of two centred codes.
pub(super) fn stored_limits<D: Dot>(codes: &Codes, ends: [f32; 2]) -> [i32; 3] {
    let zero = D::Code::shift(codes);
    [zero, zero + ends[0] as i32, zero + ends[1] as i32]
}

/// From sums to codes: requantization, residual, activation. Its channels lie in slots, in the order of the sums.
pub(super) struct End {
    scale: Buffer<f32>,
    bias: Buffer<f32>,
    between: Option<(f32, f32, f32)>,
    residual: f32,
    /// Stored form of the residual's 0.
    residual_shift: f32,
    /// Stored forms of 0 and of the ends of the output.
    limits: [i32; 3],
}

impl End {
    /// `channels` says which channel is in each slot, if any; `unit` is what one product counts in the sums.
    pub fn new<D: Dot>(conv: &Conv, maps: &[Map], channels: &[Option<usize>], unit: f32) -> Self {
        let r = Requantize::new(conv, maps);
        let slots = |values: &[f32], factor: f32| {
            let mut buffer = Buffer::new(channels.len(), 0.0);
            let all = buffer.values().iter_mut().zip(channels);
            all.for_each(|(to, channel)| *to = channel.map_or(0.0, |c| values[c] * factor));
            buffer
        };
        Self {
            scale: slots(&r.scale, unit),
            bias: slots(&r.bias, 1.0),
            between: r.between,
            residual: r.residual,
            residual_shift: conv.residual.map_or(0, |x| D::Code::shift(&maps[x.map].codes)) as f32,
            limits: stored_limits::<D>(&maps[conv.output].codes, [r.low, r.high]),
        }
    }

    /// The slots of channels in their own order, for sums that are stored vector by vector.
    pub fn in_order<D: Dot>(channels: usize) -> Vec<Option<usize>> {
        (0..channels.next_multiple_of(D::LANES)).map(|c| (c < channels).then_some(c)).collect()
    }

    /// The constants in every lane, for a run.
    ///
    /// # Safety
    /// The processor must have the set.
    #[inline(always)]
    pub unsafe fn lanes<D: Dot>(&self) -> EndLanes<'_, D> {
        let (low, high, factor) = self.between.unwrap_or_default();
        // SAFETY: vouched for by the caller.
        unsafe {
            EndLanes {
                scale: self.scale.as_slice(),
                bias: self.bias.as_slice(),
                is_between: self.between.is_some(),
                between: [D::number(low), D::number(high), D::number(factor)],
                residual: D::number(self.residual),
                residual_shift: D::number(-self.residual_shift),
                limits: D::limits(self.limits[0], self.limits[1], self.limits[2]),
            }
        }
    }
}

/// [`End`] with its constants in registers.
#[derive(Clone, Copy)]
pub(super) struct EndLanes<'a, D: Dot> {
    scale: &'a [f32],
    bias: &'a [f32],
    pub is_between: bool,
    between: [D::Float; 3],
    residual: D::Float,
    residual_shift: D::Float,
    pub limits: D::Limits,
}

impl<D: Dot> EndLanes<'_, D> {
    /// Sums of the slots from `slot` on to rounded, centred codes, without a residual.
    ///
    /// # Safety
    /// The processor must have the set; the slots must exist.
    #[inline(always)]
    pub unsafe fn whole(&self, sum: D::Sum, slot: usize) -> D::Sum {
        // SAFETY: vouched for by the caller.
        unsafe { D::whole(self.scaled(sum, slot)) }
    }

    /// # Safety
    /// As [`Self::whole`].
    #[inline(always)]
    unsafe fn scaled(&self, sum: D::Sum, slot: usize) -> D::Float {
        debug_assert!(slot + D::LANES <= self.scale.len());
        // SAFETY: vouched for by the caller; scale and bias hold every slot.
        unsafe {
            let (scale, bias) = (self.scale.as_ptr().add(slot), self.bias.as_ptr().add(slot));
            D::add(D::mul(D::float(sum), D::floats(scale)), D::floats(bias))
        }
    }

    /// Turns the sums of `B` vectors, whose slots begin at `slot`, into codes at `to`. `RESIDUAL` and `BETWEEN` say what
    /// of a residual sum there is; only with the first is `residual` read.
    ///
    /// # Safety
    /// The processor must have the set; `B` vectors of slots must exist with their padding, at `to` and, where it is
    /// read, at `residual`.
    #[inline(always)]
    pub unsafe fn apply<const B: usize, const RESIDUAL: bool, const BETWEEN: bool>(
        &self,
        sums: [D::Sum; B],
        slot: usize,
        residual: *const D::Code,
        to: *mut D::Code,
    ) {
        // SAFETY: vouched for by the caller.
        unsafe {
            let other = if RESIDUAL { D::widen::<B>(residual) } else { sums };
            let mut whole = sums;
            for b in 0..B {
                let mut y = self.scaled(sums[b], slot + b * D::LANES);
                if RESIDUAL {
                    if BETWEEN {
                        let [low, high, factor] = self.between;
                        y = D::mul(D::settle(y, low, high), factor);
                    }
                    let mut x = D::float(other[b]);
                    if !D::Code::CENTRED {
                        x = D::add(x, self.residual_shift);
                    }
                    y = D::add(y, D::mul(x, self.residual));
                }
                whole[b] = D::whole(y);
            }
            D::store::<B>(whole, self.limits, to);
        }
    }

    /// The same for one vector and whatever there is.
    ///
    /// # Safety
    /// As [`Self::apply`].
    #[inline(always)]
    pub unsafe fn apply_any(&self, sum: D::Sum, slot: usize, residual: Option<*const D::Code>, to: *mut D::Code) {
        // SAFETY: vouched for by the caller.
        unsafe {
            match (residual, self.is_between) {
                (None, _) => self.apply::<1, false, false>([sum], slot, std::ptr::null(), to),
                (Some(other), false) => self.apply::<1, true, false>([sum], slot, other, to),
                (Some(other), true) => self.apply::<1, true, true>([sum], slot, other, to),
            }
        }
    }
}

/// Where a window stands on a stored map.
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

    /// Code under the window's first tap for an output pixel.
    #[inline(always)]
    pub fn start(&self, y: usize, x: usize) -> usize {
        let [top, left] = self.window.before;
        self.input.halo_at(y * self.window.stride[0], top, x * self.window.stride[1], left)
    }

    /// The residual's codes for an output pixel.
    #[inline(always)]
    pub fn residual_at<D: Dot>(&self, data: Data<'_, D>, y: usize, x: usize, channel: usize) -> Option<*const D::Code> {
        let (from, layout) = data.residual.zip(self.residual.as_ref())?;
        from.get(layout.at(y, x) + channel..).map(<[D::Code]>::as_ptr)
    }
}
