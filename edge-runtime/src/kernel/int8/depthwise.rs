//! Convolutions of each channel by itself: [`Columns`] for 3 × 3 windows, [`Depthwise`] for any other.
//!
//! [`Columns`] interleaves the three codes of a window's column (and one more, of weight 0), channel by channel, so that
//! one instruction multiplies and sums four codes; an interleaved column serves every window that it is part of.

use super::buffer::Buffer;
use super::dot::{Code, Dot, Task, lane_weight};
use super::end::{Data, End, EndLanes, Place, Special, packed};
use super::network::Layout;
use super::{Conv, Map};
use std::ops::Range;

/// Rows that are interleaved, and rows and columns of the window.
const ROWS: usize = 4;
const SIDE: usize = 3;
/// Rows of a chunk that are done before the next chunk: the weights stay in registers.
const BAND: usize = 8;

/// 3 × 3 windows at stride 1 or 2. Channels are taken in chunks of `LANES × GROUP`.
pub(super) struct Columns<D: Dot> {
    place: Place,
    end: End,
    /// For each chunk `[column][operand][lane][row]`.
    weights: Buffer<D::Weight>,
    /// What a sum starts at, by slot.
    start: Buffer<i32>,
    chunks: usize,
    /// Neighbouring pixels that fill a chunk together: more than 1 only where few channels leave room.
    folded: usize,
}

/// The form for a convolution, if it has one.
pub(super) fn columns<D: Dot>(
    conv: &Conv,
    maps: &[Map],
    input: &Layout,
    output: &Layout,
) -> Option<Box<dyn Special<D>>> {
    let w = &conv.window;
    let fits = w.kernel == [SIDE, SIDE] && w.dilation == [1, 1] && matches!(w.stride, [1 | 2, 1 | 2]);
    let fits = fits && conv.residual.is_none() && conv.weight.iter().all(|&w| w >= D::LEAST_WEIGHT);
    fits.then(|| Box::new(Columns::<D>::new(conv, maps, input, output)) as Box<_>)
}

impl<D: Dot> Columns<D> {
    const CHUNK: usize = D::LANES * D::GROUP;

    fn new(conv: &Conv, maps: &[Map], input: &Layout, output: &Layout) -> Self {
        let channels = maps[conv.input].channels;
        let side_by_side = conv.window.stride[1] == 1 && Self::CHUNK.is_multiple_of(input.stride);
        let folded = if side_by_side && input.stride == output.stride { Self::CHUNK / input.stride } else { 1 };
        let chunks = (input.stride * folded).div_ceil(Self::CHUNK);
        let mut slots = vec![None; chunks * Self::CHUNK];
        let mut weights = Buffer::new(chunks * Self::CHUNK * SIDE * ROWS, D::Weight::from(0));
        let mut start = Buffer::new(slots.len(), 0);
        let shift = D::Code::shift(&maps[conv.input].codes);
        for at in 0..slots.len() {
            let channel = if folded > 1 { at % input.stride } else { at };
            if channel >= channels {
                continue;
            }
            let (chunk, (vector, lane)) = (at / Self::CHUNK, packed(at % Self::CHUNK, D::GROUP));
            let slot = chunk * Self::CHUNK + vector * D::LANES + lane;
            slots[slot] = Some(channel);
            for (tap, &weight) in conv.weight[channel * SIDE * SIDE..][..SIDE * SIDE].iter().enumerate() {
                let (row, column) = (tap / SIDE, tap % SIDE);
                // Operands hold `GROUP` rows; those of further rows follow.
                let operand = (chunk * SIDE + column) * ROWS + row / D::GROUP * D::GROUP + vector;
                weights.values()[operand * Self::CHUNK + lane * D::GROUP + row % D::GROUP] = D::Weight::from(weight);
                start.values()[slot] -= shift * i32::from(weight);
            }
        }
        let end = End::new::<D>(conv, maps, &slots, 1.0);
        Self { place: Place::new(conv.window, input, output, None), end, weights, start, chunks, folded }
    }

    /// Operands of an input column: its three rows, and one again that meets weights of 0.
    ///
    /// # Safety
    /// The processor must have the set; three rows must be readable for a chunk there.
    #[inline(always)]
    unsafe fn operands(from: *const D::Code, row: usize) -> [D::Operand; ROWS] {
        // SAFETY: vouched for by the caller.
        unsafe {
            let [a, b, c] = [0, 1, 2].map(|at: usize| D::load_codes(from.wrapping_add(at * row)));
            D::interleave([a, b, c, c])
        }
    }

    /// Adds an input column times a column of weights.
    ///
    /// # Safety
    /// The processor must have the set.
    #[inline(always)]
    unsafe fn add(sums: &mut [D::Sum; ROWS], operands: [D::Operand; ROWS], weights: [D::Operand; ROWS]) {
        for i in 0..ROWS {
            // SAFETY: vouched for by the caller.
            unsafe { sums[i % D::GROUP] = D::dot(sums[i % D::GROUP], operands[i], weights[i]) }
        }
    }

    /// Some rows of a chunk of sums, `S` columns apart. A column that several windows share is read and interleaved once:
    /// the sums of the windows that it opens wait in registers.
    ///
    /// # Safety
    /// The processor must have the set; rows and chunk must exist; the slices must be those of the layouts.
    #[inline(always)]
    unsafe fn band<const S: usize>(&self, rows: Range<usize>, chunk: usize, end: &EndLanes<'_, D>, data: Data<'_, D>) {
        let place = &self.place;
        let (pixel, row, slot) = (place.input.stride, place.input.row, chunk * Self::CHUNK);
        let sums = place.output.width.div_ceil(self.folded);
        let step = self.folded * place.output.stride;
        // Codes that the last sum of a row has; the others have as many as a chunk, or as the pixel's rest.
        let last = (place.output.width - (sums - 1) * self.folded) * place.output.stride - slot;
        let (last, full) = (last.min(Self::CHUNK), (step - slot).min(Self::CHUNK));
        // SAFETY: the halo covers every tap, and the memory behind a map is readable for a chunk; weights and start hold
        // every chunk.
        unsafe {
            let weights = self.weights.as_ptr().add(slot * SIDE * ROWS);
            let [left, middle, right] = [0, 1, 2].map(|column: usize| -> [D::Operand; ROWS] {
                std::array::from_fn(|i| D::weights(weights.add((column * ROWS + i) * Self::CHUNK)))
            });
            let start = self.start.as_ptr().add(slot);
            let opened = || -> [D::Sum; ROWS] { std::array::from_fn(|v| D::sums(start.add(v % D::GROUP * D::LANES))) };
            let close = |mut sums: [D::Sum; ROWS], count: usize, to: *mut D::Code| {
                for v in 0..D::GROUP {
                    sums[v] = end.whole(sums[v], slot + v * D::LANES);
                }
                D::store_part(sums, end.limits, count, to);
            };
            for y in rows {
                let mut from = data.input.as_ptr().add(place.start(y, 0) + slot);
                let mut to = data.output.add(place.output.at(y, 0) + slot);
                let (mut first, mut second) = (opened(), opened());
                if S < SIDE {
                    Self::add(&mut first, Self::operands(from, row), left);
                    from = from.add(pixel);
                }
                if S == 1 {
                    let column = Self::operands(from, row);
                    from = from.add(pixel);
                    Self::add(&mut first, column, middle);
                    Self::add(&mut second, column, left);
                }
                for at in 1..=sums {
                    let count = if at == sums { last } else { full };
                    if S == 1 {
                        let column = Self::operands(from, row);
                        Self::add(&mut first, column, right);
                        close(first, count, to);
                        first = second;
                        Self::add(&mut first, column, middle);
                        second = opened();
                        Self::add(&mut second, column, left);
                    } else if S == 2 {
                        Self::add(&mut first, Self::operands(from, row), middle);
                        let column = Self::operands(from.wrapping_add(pixel), row);
                        Self::add(&mut first, column, right);
                        close(first, count, to);
                        first = opened();
                        Self::add(&mut first, column, left);
                    } else {
                        let mut sums = opened();
                        Self::add(&mut sums, Self::operands(from, row), left);
                        Self::add(&mut sums, Self::operands(from.wrapping_add(pixel), row), middle);
                        Self::add(&mut sums, Self::operands(from.wrapping_add(2 * pixel), row), right);
                        close(sums, count, to);
                    }
                    from = from.wrapping_add(S * pixel);
                    to = to.wrapping_add(step);
                }
            }
        }
    }

    /// All rows.
    ///
    /// # Safety
    /// As [`Self::band`].
    #[inline(always)]
    unsafe fn rows<const S: usize>(&self, end: &EndLanes<'_, D>, data: Data<'_, D>) {
        let height = self.place.output.height;
        for first in (0..height).step_by(BAND) {
            for chunk in 0..self.chunks {
                // SAFETY: rows and chunks of this convolution.
                unsafe { self.band::<S>(first..(first + BAND).min(height), chunk, end, data) }
            }
        }
    }
}

struct RunColumns<'a, D: Dot>(&'a Columns<D>, Data<'a, D>);

impl<D: Dot> Task<D> for RunColumns<'_, D> {
    type Output = ();

    #[inline(always)]
    unsafe fn run(self) {
        let Self(conv, data) = self;
        // SAFETY: vouched for by the caller.
        unsafe {
            let end = &conv.end.lanes::<D>();
            match (conv.folded, conv.place.window.stride[1]) {
                (1, 1) => conv.rows::<1>(end, data),
                (1, _) | (2, _) => conv.rows::<2>(end, data),
                _ => conv.rows::<4>(end, data),
            }
        }
    }
}

impl<D: Dot> Special<D> for Columns<D> {
    unsafe fn run(&self, data: Data<'_, D>) {
        // SAFETY: vouched for by the caller.
        unsafe { D::enter(RunColumns(self, data)) }
    }
}

/// Windows of any form, code by code.
pub(super) struct Depthwise<D: Dot> {
    place: Place,
    end: End,
    /// Each tap's distance from the first.
    taps: Vec<usize>,
    /// `[tap][channel]`, see [`lane_weight`].
    weights: Buffer<i32>,
    start: Buffer<i32>,
    set: std::marker::PhantomData<D>,
}

impl<D: Dot> Depthwise<D> {
    pub fn new(conv: &Conv, maps: &[Map], input: &Layout, output: &Layout, residual: Option<&Layout>) -> Self {
        let [rows, columns] = conv.window.kernel;
        let [down, right] = conv.window.dilation;
        let count = rows * columns;
        let taps = (0..count).map(|t| t / columns * down * input.row + t % columns * right * input.stride);
        let channels = maps[conv.input].channels;
        let padded = channels.next_multiple_of(D::LANES);
        let shift = D::Code::shift(&maps[conv.input].codes);
        let (mut weights, mut start) = (Buffer::new(count * padded, 0), Buffer::new(padded, 0));
        for (at, &weight) in conv.weight.iter().enumerate() {
            let (channel, tap) = (at / count, at % count);
            weights.values()[tap * padded + channel] = lane_weight(weight);
            start.values()[channel] -= shift * i32::from(weight);
        }
        Self {
            place: Place::new(conv.window, input, output, residual),
            end: End::new::<D>(conv, maps, &End::in_order::<D>(channels), 1.0),
            taps: taps.collect(),
            weights,
            start,
            set: std::marker::PhantomData,
        }
    }

    /// `P` pixels, one vector of channels.
    ///
    /// # Safety
    /// The processor must have the set; pixels and channels must exist; the slices must be those of the layouts.
    #[inline(always)]
    unsafe fn tile<const P: usize>(&self, at: (usize, usize, usize), end: &EndLanes<'_, D>, data: Data<'_, D>) {
        let (y, x, channel) = at;
        let place = &self.place;
        let from = place.start(y, x) + channel;
        let step = place.window.stride[1] * place.input.stride;
        debug_assert!(from + (P - 1) * step + self.taps[self.taps.len() - 1] + D::LANES <= data.input.len());
        // SAFETY: the layouts' halo covers every tap; weights and start hold every padded channel.
        unsafe {
            let from = data.input.as_ptr().add(from);
            let mut sums = [D::sums(self.start.as_ptr().add(channel)); P];
            for (t, &tap) in self.taps.iter().enumerate() {
                let weight = D::sums(self.weights.as_ptr().add(t * self.start.len() + channel));
                for p in 0..P {
                    let [codes] = D::widen::<1>(from.add(tap + p * step));
                    sums[p] = D::multiply_add(sums[p], codes, weight);
                }
            }
            for p in 0..P {
                let other = place.residual_at(data, y, x + p, channel);
                end.apply_any(sums[p], channel, other, data.output.add(place.output.at(y, x + p) + channel));
            }
        }
    }
}

/// [`Depthwise`] on its data.
pub(super) struct RunDepthwise<'a, D: Dot>(pub &'a Depthwise<D>, pub Data<'a, D>);

impl<D: Dot> Task<D> for RunDepthwise<'_, D> {
    type Output = ();

    #[inline(always)]
    unsafe fn run(self) {
        const PIXELS: usize = 4;
        let Self(conv, data) = self;
        let output = &conv.place.output;
        // SAFETY: the caller vouches for the set.
        let end = &unsafe { conv.end.lanes::<D>() };
        for y in 0..output.height {
            for channel in (0..conv.start.len()).step_by(D::LANES) {
                let mut x = 0;
                // SAFETY: pixels and channels of this convolution; the caller vouches for set and data.
                unsafe {
                    while x + PIXELS <= output.width {
                        conv.tile::<PIXELS>((y, x, channel), end, data);
                        x += PIXELS;
                    }
                    for x in x..output.width {
                        conv.tile::<1>((y, x, channel), end, data);
                    }
                }
            }
        }
    }
}
