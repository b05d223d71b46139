//! A convolution over all channels: register tiles of pixels × vectors of output channels.
//!
//! For each number under the window a tile loads the weights once and multiplies them with that number of each of its
//! pixels, so there is no im2col: borders, strides and 1 × 1 kernels are only another list of offsets. A tile takes any
//! pixels that follow each other, across the ends of rows too.

use super::buffer::Buffer;
use super::end::{Data, End, Place};
use super::layout::Layout;
use super::{Conv, Map};
use crate::kernel::{Kernel, Vector};
use std::ops::Range;

/// Most vectors of output channels in a tile.
pub(super) const VECTORS: usize = 3;
/// Most pixels in a tile.
const PIXELS: usize = 12;
/// Weights of a block that stay in the first cache, bytes.
const SHORT_BYTES: usize = 16 << 10;
/// Input that one pass over the output channels reads, bytes: of the first cache where the weights stay there too, else
/// of the second, so that the weights come from further away less often.
const CHUNK_BYTES: [usize; 2] = [16 << 10, 192 << 10];

/// Numbers of the input that follow each other.
#[derive(Debug, Clone, Copy)]
pub(super) struct Run {
    /// Of the first, from the window's first tap.
    pub offset: usize,
    pub count: usize,
}

/// Vectors of output channels that one tile computes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Block {
    /// First channel.
    pub channel: usize,
    pub vectors: usize,
}

/// Divides output channels into blocks, all but the last of the same kind: a lone vector is the least efficient.
pub(super) fn blocks(channels: usize, lanes: usize) -> Vec<Block> {
    let mut left = channels.div_ceil(lanes);
    let mut all = vec![];
    let mut channel = 0;
    while left > 0 {
        let vectors = if left == 4 || left == 2 { 2 } else { left.min(VECTORS) };
        all.push(Block { channel, vectors });
        channel += vectors * lanes;
        left -= vectors;
    }
    all
}

/// Most pixels of a tile of `vectors`, by the set's registers: sums, weights and one number fill them.
#[inline(always)]
pub(super) const fn most_pixels<V: Vector>(vectors: usize) -> usize {
    match (vectors, V::REGISTERS > 16) {
        (1, _) => PIXELS,
        (_, true) => 8,
        (2, false) => 6,
        (_, false) => 4,
    }
}

/// The register tile: for each pixel what `start` holds and the products of all runs.
///
/// # Safety
/// The processor must have the set of `V`; the runs must be readable from every pixel, and `weights` for `B` vectors for
/// each number of the runs.
#[inline(always)]
pub(super) unsafe fn tile<V: Vector, const P: usize, const B: usize>(
    start: [V; B],
    pixels: [*const f32; P],
    runs: &[Run],
    mut weights: *const f32,
) -> [[V; B]; P] {
    let mut sums = [start; P];
    for run in runs {
        for at in run.offset..run.offset + run.count {
            // SAFETY: vouched for by the caller.
            unsafe {
                let mut w = start;
                for b in 0..B {
                    w[b] = V::load(weights.add(b * V::LANES));
                }
                weights = weights.add(B * V::LANES);
                for p in 0..P {
                    let x = V::splat(*pixels[p].add(at));
                    for b in 0..B {
                        sums[p][b] = sums[p][b].add_product(x, w[b]);
                    }
                }
            }
        }
    }
    sums
}

/// Calls `$call` with the number of pixels as a constant, up to [`most_pixels`].
macro_rules! with_pixels {
    ($count:expr, $most:expr, |$pixels:ident| $call:expr) => {
        with_pixels!(@ $count, $most, $pixels, $call, 1 2 3 4 5 6 7 8 9 10 11 12)
    };
    (@ $count:expr, $most:expr, $pixels:ident, $call:expr, $($p:literal)*) => {
        match $count {
            $($p if $p <= $most => { const $pixels: usize = $p; $call })*
            _ => debug_assert!(false, "a tile of too many pixels"),
        }
    };
}
pub(super) use with_pixels;

/// A convolution in direct form. Groups of channels are spread out with zero weights between.
pub(super) struct Dense {
    place: Place,
    end: End,
    runs: Vec<Run>,
    blocks: Vec<Block>,
    /// For each block `[number under the window][vector][lane]`.
    weights: Buffer<f32>,
    bias: Buffer<f32>,
    /// Numbers under the window.
    inputs: usize,
    /// Pixels that are done for all blocks before the next.
    chunk: usize,
}

impl Dense {
    pub fn new(
        conv: &Conv,
        maps: &[Map],
        lanes: usize,
        input: &Layout,
        output: &Layout,
        residual: Option<&Layout>,
    ) -> Self {
        let place = Place::new(conv.window, input, output, residual);
        let (channels, outputs, columns) = (input.channels, output.channels, conv.window.kernel[1]);
        let taps = conv.window.kernel[0] * columns;
        // Every number under the window, in the order of memory: offset, channel, tap.
        let number = |channel: usize, tap: usize| {
            (place.tap(tap / columns, tap % columns) + channel * input.channel, channel, tap)
        };
        let numbers: Vec<(usize, usize, usize)> = if input.is_planar() {
            (0..channels * taps).map(|i| number(i / taps, i % taps)).collect()
        } else {
            (0..channels * taps).map(|i| number(i % channels, i / channels)).collect()
        };
        let mut runs: Vec<Run> = vec![];
        for &(offset, ..) in &numbers {
            match runs.last_mut() {
                Some(run) if run.offset + run.count == offset => run.count += 1,
                _ => runs.push(Run { offset, count: 1 }),
            }
        }
        let (fan_in, fan_out) = (channels / conv.groups, maps[conv.output].channels / conv.groups);
        let blocks = blocks(outputs, lanes);
        let mut weights = Buffer::new(numbers.len() * outputs.next_multiple_of(lanes), 0.0);
        for block in &blocks {
            let width = block.vectors * lanes;
            let rows = weights.values()[block.channel * numbers.len()..].chunks_exact_mut(width);
            for (row, &(_, channel, tap)) in rows.zip(&numbers) {
                for (to, o) in row.iter_mut().zip(block.channel..outputs) {
                    if channel / fan_in == o / fan_out {
                        *to = conv.weight[(o * fan_in + channel % fan_in) * taps + tap];
                    }
                }
            }
        }
        let mut bias = Buffer::new(outputs.next_multiple_of(lanes), 0.0);
        bias.values()[..outputs].copy_from_slice(&conv.bias);
        let short = numbers.len() * VECTORS * lanes * size_of::<f32>() <= SHORT_BYTES;
        let pixel_bytes = input.pixel * conv.window.stride.iter().product::<usize>() * size_of::<f32>();
        let chunk = (CHUNK_BYTES[usize::from(!short)] / pixel_bytes).max(PIXELS);
        Self { place, end: End::new(conv), runs, blocks, weights, bias, inputs: numbers.len(), chunk }
    }
}

/// A walk over output pixels in the order of memory.
struct Walk<'a> {
    place: &'a Place,
    y: usize,
    x: usize,
    from: usize,
    to: usize,
    residual: usize,
}

impl<'a> Walk<'a> {
    fn new(place: &'a Place, pixel: usize) -> Self {
        let (y, x) = (pixel / place.output.width, pixel % place.output.width);
        Self { place, y, x, from: place.start(y, x), to: place.output.at(y, x), residual: place.residual_at(y, x) }
    }

    /// Window, output and residual of the next pixel.
    #[inline(always)]
    fn next(&mut self) -> [usize; 3] {
        let here = [self.from, self.to, self.residual];
        let place = self.place;
        self.x += 1;
        if self.x < place.output.width {
            self.from += place.window.stride[1] * place.input.pixel;
            self.to += place.output.pixel;
            self.residual += place.output.pixel;
        } else {
            (self.x, self.y) = (0, self.y + 1);
            self.from = place.start(self.y, 0);
            self.to = place.output.at(self.y, 0);
            self.residual = place.residual_at(self.y, 0);
        }
        here
    }
}

/// [`Dense`] on its data.
pub(super) struct RunDense<'a>(pub &'a Dense, pub Data);

impl Kernel for RunDense<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<V: Vector>(self) {
        let conv = self.0;
        let pixels = conv.place.output.height * conv.place.output.width;
        for first in (0..pixels).step_by(conv.chunk) {
            let part = first..(first + conv.chunk).min(pixels);
            for block in &conv.blocks {
                // SAFETY: pixels and blocks of this convolution; the caller vouches for set and data.
                unsafe {
                    match block.vectors {
                        1 => self.block::<V, 1>(part.clone(), *block),
                        2 => self.block::<V, 2>(part.clone(), *block),
                        _ => self.block::<V, VECTORS>(part.clone(), *block),
                    }
                }
            }
        }
    }
}

impl RunDense<'_> {
    /// # Safety
    /// The processor must have the set of `V`; pixels and block must exist.
    #[inline(always)]
    unsafe fn block<V: Vector, const B: usize>(&self, pixels: Range<usize>, block: Block) {
        let mut walk = Walk::new(&self.0.place, pixels.start);
        let mut left = pixels.len();
        let mut tiles = left.div_ceil(most_pixels::<V>(B));
        while tiles > 0 {
            // As even as can be: no tile of a pixel or two at the end.
            let count = left.div_ceil(tiles);
            // SAFETY: vouched for by the caller.
            unsafe { with_pixels!(count, const { most_pixels::<V>(B) }, |P| self.tile::<V, P, B>(&mut walk, block)) };
            left -= count;
            tiles -= 1;
        }
    }

    /// # Safety
    /// As [`Self::block`], for the next `P` pixels of the walk.
    #[inline(always)]
    unsafe fn tile<V: Vector, const P: usize, const B: usize>(&self, walk: &mut Walk<'_>, block: Block) {
        let Self(conv, data) = self;
        let spots: [[usize; 3]; P] = std::array::from_fn(|_| walk.next());
        // SAFETY: the layouts' halo covers every tap of the window; bias and weights hold every block.
        unsafe {
            let bias = conv.bias.as_ptr().add(block.channel);
            let start: [V; B] = std::array::from_fn(|b| V::load(bias.add(b * V::LANES)));
            let pixels: [*const f32; P] = std::array::from_fn(|p| data.input.add(spots[p][0]));
            let weights = conv.weights.as_ptr().add(block.channel * conv.inputs);
            let sums = tile::<V, P, B>(start, pixels, &conv.runs, weights);
            // One branch a tile: the sums stay in registers.
            if data.residual.is_null() {
                for p in 0..P {
                    let to = data.output.add(spots[p][1] + block.channel);
                    for b in 0..B {
                        conv.end.store::<V, false>(sums[p][b], std::ptr::null(), to.add(b * V::LANES));
                    }
                }
            } else {
                for p in 0..P {
                    let to = data.output.add(spots[p][1] + block.channel);
                    let other = data.residual.add(spots[p][2] + block.channel);
                    for b in 0..B {
                        conv.end.store::<V, true>(sums[p][b], other.add(b * V::LANES), to.add(b * V::LANES));
                    }
                }
            }
        }
    }
}
