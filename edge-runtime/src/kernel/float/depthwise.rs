//! Convolutions of each channel by itself. Vectors run along the channels, so no number is broadcast: a tap of a tile is
//! one load and one multiply-add for each of its pixels. So few products a number need the first cache: a chunk of channels
//! is done for the whole map, rows in order, and the rows under a window stay.

use super::buffer::Buffer;
use super::dense::with_pixels;
use super::end::{Data, End, Place};
use super::layout::Layout;
use super::{Conv, Map};
use crate::kernel::{Kernel, Vector};
use std::ops::Range;

/// Most pixels of a row in a tile.
const PIXELS: usize = 8;
/// Columns of the window whose numbers are kept in registers from pixel to pixel.
const SIDE: usize = 3;
/// Input under a row of windows that stays in the first cache, bytes.
const CHUNK_BYTES: usize = 24 << 10;

/// A depthwise convolution.
pub(super) struct Depthwise {
    place: Place,
    end: End,
    /// Offset of each tap from the window's first.
    taps: Vec<usize>,
    /// `[vector of channels][tap][lane]`.
    weights: Buffer<f32>,
    bias: Buffer<f32>,
    /// Channels that are done together: whole vectors.
    chunk: usize,
    /// The step of windows of three neighbouring columns, 1 or 2; 0 for any other window.
    neighbours: usize,
}

impl Depthwise {
    pub fn new(
        conv: &Conv,
        maps: &[Map],
        lanes: usize,
        input: &Layout,
        output: &Layout,
        residual: Option<&Layout>,
    ) -> Self {
        let place = Place::new(conv.window, input, output, residual);
        let [rows, columns] = conv.window.kernel;
        let (channels, count) = (maps[conv.output].channels, rows * columns);
        let padded = channels.next_multiple_of(lanes);
        let mut weights = Buffer::new(padded * count, 0.0);
        for (channel, window) in conv.weight.chunks_exact(count).enumerate() {
            for (tap, weight) in window.iter().enumerate() {
                weights.values()[(channel / lanes * count + tap) * lanes + channel % lanes] = *weight;
            }
        }
        let mut bias = Buffer::new(padded, 0.0);
        bias.values()[..channels].copy_from_slice(&conv.bias);
        let taps = (0..count).map(|t| place.tap(t / columns, t % columns)).collect();
        let vector_bytes = rows * input.row / input.pixel * lanes * size_of::<f32>();
        let chunk = (CHUNK_BYTES / vector_bytes).max(1) * lanes;
        let side_by_side = columns == SIDE && conv.window.dilation[1] == 1 && conv.window.stride[1] <= 2;
        let neighbours = if side_by_side { conv.window.stride[1] } else { 0 };
        Self { place, end: End::new(conv), taps, weights, bias, chunk, neighbours }
    }
}

/// [`Depthwise`] on its data.
pub(super) struct RunDepthwise<'a>(pub &'a Depthwise, pub Data);

impl Kernel for RunDepthwise<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<V: Vector>(self) {
        let (output, chunk) = (&self.0.place.output, self.0.chunk);
        for first in (0..output.channels).step_by(chunk) {
            let channels = first..(first + chunk).min(output.channels);
            for y in 0..output.height {
                let (mut x, mut tiles) = (0, output.width.div_ceil(PIXELS));
                while tiles > 0 {
                    let count = (output.width - x).div_ceil(tiles);
                    // SAFETY: a row's pixels and whole vectors; the caller vouches for set and data.
                    unsafe {
                        let channels = channels.clone();
                        match self.0.neighbours {
                            1 => with_pixels!(count, PIXELS, |P| self.tile::<V, P, 1>(y, x, channels)),
                            2 => with_pixels!(count, PIXELS, |P| self.tile::<V, P, 2>(y, x, channels)),
                            _ => with_pixels!(count, PIXELS, |P| self.tile::<V, P, 0>(y, x, channels)),
                        }
                    }
                    x += count;
                    tiles -= 1;
                }
            }
        }
    }
}

impl RunDepthwise<'_> {
    /// `P` neighbouring pixels, whole vectors of channels, `STEP` as in [`Depthwise::neighbours`].
    ///
    /// # Safety
    /// The processor must have the set of `V`; the pixels and channels must exist.
    #[inline(always)]
    unsafe fn tile<V: Vector, const P: usize, const STEP: usize>(&self, y: usize, x: usize, channels: Range<usize>) {
        let Self(conv, data) = self;
        let place = &conv.place;
        let step = place.window.stride[1] * place.input.pixel;
        // SAFETY: the layouts' halo covers every tap of the window; weights and bias hold every vector of channels.
        unsafe {
            let from = data.input.add(place.start(y, x));
            let to = data.output.add(place.output.at(y, x));
            let mut weights = conv.weights.as_ptr().add(channels.start * conv.taps.len());
            for channel in channels.step_by(V::LANES) {
                let mut sums = [V::load(conv.bias.as_ptr().add(channel)); P];
                if STEP == 0 {
                    for &tap in &conv.taps {
                        let w = V::load(weights);
                        weights = weights.add(V::LANES);
                        let from = from.add(tap + channel);
                        for p in 0..P {
                            sums[p] = sums[p].add_product(V::load(from.add(p * step)), w);
                        }
                    }
                } else {
                    for row in conv.taps.chunks_exact(SIDE) {
                        let w = [0, 1, 2].map(|k| V::load(weights.add(k * V::LANES)));
                        weights = weights.add(SIDE * V::LANES);
                        let from = from.add(row[0] + channel);
                        let column = |at: usize| V::load(from.add(at * place.input.pixel));
                        let mut x = [column(0), column(1), column(2)];
                        for p in 0..P {
                            for k in 0..SIDE {
                                sums[p] = sums[p].add_product(x[k], w[k]);
                            }
                            if p + 1 < P {
                                let next = p * STEP + SIDE;
                                x = if STEP == 1 {
                                    [x[1], x[2], column(next)]
                                } else {
                                    [x[2], column(next), column(next + 1)]
                                };
                            }
                        }
                    }
                }
                for p in 0..P {
                    let to = to.add(p * place.output.pixel + channel);
                    if data.residual.is_null() {
                        conv.end.store::<V, false>(sums[p], std::ptr::null(), to);
                    } else {
                        let other = data.residual.add(place.residual_at(y, x + p) + channel);
                        conv.end.store::<V, true>(sums[p], other, to);
                    }
                }
            }
        }
    }
}
