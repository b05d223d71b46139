//! A convolution over all channels: register tiles of pixels × output channels.
//!
//! Maps are pixel by pixel (NHWC) with a halo of zeros, so the taps of a kernel row are one contiguous run of codes and
//! no border needs a case of its own. Short sums, such as those of 1 × 1 convolutions, are mostly requantization, which
//! is cheapest for as many vectors as one store packs; long sums take narrower tiles, so that the weights, which stream
//! from the second cache, are read less often.

use super::buffer::Buffer;
use super::dot::{Code, Dot, Task};
use super::end::{Data, End, EndLanes, Place, packed};
use super::network::Layout;
use super::{Conv, Map};
use std::ops::Range;

/// Codes of input that one pass over the output channels may stream: what stays in the first cache beside the weights.
const CHUNK_BYTES: usize = 16 << 10;
/// Weights of a block that stay in the first cache.
const BLOCK_BYTES: usize = 16 << 10;

/// Vectors of output channels that one tile computes.
#[derive(Clone, Copy)]
struct Block {
    /// First slot.
    slot: usize,
    vectors: usize,
    /// Where its weights start.
    weights: usize,
}

/// Channel groups are spread out with zero weights between.
pub(super) struct Dense<D: Dot> {
    place: Place,
    end: End,
    /// First code of each contiguous run of taps, counted from the window's first tap.
    runs: Vec<usize>,
    /// Groups of `D::GROUP` codes in a run.
    groups: usize,
    blocks: Vec<Block>,
    /// For each block `[run][step][vector][lane][code]`.
    weights: Buffer<D::Weight>,
    /// What a sum starts at, by slot: takes the halo's stored zero out again.
    start: Buffer<i32>,
    /// Every pixel follows the last one in the input: the map is one row.
    flat: bool,
}

impl<D: Dot> Dense<D> {
    pub fn new(conv: &Conv, maps: &[Map], input: &Layout, output: &Layout, residual: Option<&Layout>) -> Self {
        let [rows, columns] = conv.window.kernel;
        let [row_step, column_step] = [conv.window.dilation[0] * input.row, conv.window.dilation[1] * input.stride];
        // Neighbouring taps of a row lie side by side: one run. Spread taps are a run each.
        let (runs, taps): (Vec<usize>, usize) = if conv.window.dilation[1] == 1 {
            ((0..rows).map(|y| y * row_step).collect(), columns)
        } else {
            ((0..rows * columns).map(|t| t / columns * row_step + t % columns * column_step).collect(), 1)
        };
        let groups = match taps {
            1 => maps[conv.input].channels.div_ceil(D::GROUP),
            _ => taps * input.stride / D::GROUP,
        };
        // A code's weight may be less than the set takes: what is missing comes in a second walk over the runs.
        let windows = if conv.weight.iter().any(|&w| w < D::LEAST_WEIGHT) { 2 } else { 1 };
        let run_len = (groups * D::GROUP).next_multiple_of(D::STEP);
        let vector_len = windows * runs.len() * run_len * D::LANES;
        let short = vector_len * D::GROUP * size_of::<D::Weight>() <= BLOCK_BYTES;
        let outputs = maps[conv.output].channels;
        let padded = outputs.next_multiple_of(D::LANES);
        let (mut blocks, mut channels) = (vec![], vec![None; padded]);
        let mut slot = 0;
        while slot < padded {
            let left = (padded - slot) / D::LANES;
            let vectors =
                [4, 2, 1].into_iter().find(|&v| v <= left && v <= if short { D::GROUP } else { 2 }).unwrap_or(1);
            for channel in (0..vectors * D::LANES).filter(|c| slot + c < outputs) {
                let (vector, lane) = packed(channel, vectors);
                channels[slot + vector * D::LANES + lane] = Some(slot + channel);
            }
            blocks.push(Block { slot, vectors, weights: slot / D::LANES * vector_len });
            slot += vectors * D::LANES;
        }
        let mut weights = Buffer::new(padded / D::LANES * vector_len, D::Weight::from(0));
        let mut start = Buffer::new(padded, 0);
        let shift = D::Code::shift(&maps[conv.input].codes);
        let (fan_in, fan_out) = (maps[conv.input].channels / conv.groups, outputs / conv.groups);
        for block in &blocks {
            for (at, o) in (block.slot..block.slot + block.vectors * D::LANES).enumerate() {
                let Some(channel) = channels[o] else { continue };
                for i in 0..fan_in {
                    for tap in 0..rows * columns {
                        let weight = conv.weight[(channel * fan_in + i) * rows * columns + tap];
                        start.values()[o] -= shift * i32::from(weight);
                        let (run, code) = (tap / taps, tap % taps * input.stride + channel / fan_out * fan_in + i);
                        let first = weight.max(D::LEAST_WEIGHT);
                        for (window, weight) in [first, weight - first].into_iter().enumerate().take(windows) {
                            let step = ((window * runs.len() + run) * run_len + code) / D::STEP;
                            let vector = step * block.vectors + at / D::LANES;
                            let to = block.weights + (vector * D::LANES + at % D::LANES) * D::STEP + code % D::STEP;
                            weights.values()[to] = D::Weight::from(weight);
                        }
                    }
                }
            }
        }
        let runs = runs.repeat(windows);
        let place = Place::new(conv.window, input, output, residual);
        let flat = conv.window.kernel == [1, 1] && conv.window.stride == [1, 1] && input.is_flat();
        let end = End::new::<D>(conv, maps, &channels, 1.0);
        Self { place, end, runs, groups, blocks, weights, start, flat }
    }

    /// One tile: `P` neighbouring pixels, `B` vectors of output channels.
    ///
    /// # Safety
    /// The processor must have the set; the pixels and the block must exist; the slices must be those of the layouts.
    #[inline(always)]
    unsafe fn tile<const P: usize, const B: usize>(
        &self,
        from: usize,
        [y, x]: [usize; 2],
        block: Block,
        end: &EndLanes<'_, D>,
        data: Data<'_, D>,
    ) {
        let place = &self.place;
        let step = place.window.stride[1] * place.input.stride;
        debug_assert!(
            from + (P - 1) * step + self.runs[self.runs.len() - 1] + self.groups * D::GROUP <= data.input.len()
        );
        // SAFETY: the layouts' halo covers every tap of the window; the weights hold every block.
        unsafe {
            let start = self.start.as_ptr().add(block.slot);
            let start: [D::Sum; B] = std::array::from_fn(|b| D::sums(start.add(b * D::LANES)));
            let from = (data.input.as_ptr().add(from), step);
            let weights = self.weights.as_ptr().add(block.weights);
            let sums = D::tile::<P, B>(start, from, &self.runs, self.groups, weights);
            // One branch a tile: the sums stay in registers.
            let residual = data.residual.zip(place.residual.as_ref());
            match (residual, end.is_between) {
                (None, _) => self.finish::<P, B, false, false>(sums, [y, x], block, end, data),
                (Some(_), false) => self.finish::<P, B, true, false>(sums, [y, x], block, end, data),
                (Some(_), true) => self.finish::<P, B, true, true>(sums, [y, x], block, end, data),
            }
        }
    }

    /// Stores a tile. In a flat map it may run on into the next row.
    ///
    /// # Safety
    /// As [`Self::tile`]; with `RESIDUAL` there must be one.
    #[inline(always)]
    unsafe fn finish<const P: usize, const B: usize, const RESIDUAL: bool, const BETWEEN: bool>(
        &self,
        sums: [[D::Sum; B]; P],
        [mut y, mut x]: [usize; 2],
        block: Block,
        end: &EndLanes<'_, D>,
        data: Data<'_, D>,
    ) {
        let place = &self.place;
        for sums in sums {
            let residual = match (data.residual, &place.residual) {
                (Some(from), Some(layout)) if RESIDUAL => from.as_ptr().wrapping_add(layout.at(y, x) + block.slot),
                _ => std::ptr::null(),
            };
            // SAFETY: vouched for by the caller.
            unsafe {
                let to = data.output.add(place.output.at(y, x) + block.slot);
                end.apply::<B, RESIDUAL, BETWEEN>(sums, block.slot, residual, to);
            }
            x += 1;
            if x == place.output.width {
                (x, y) = (0, y + 1);
            }
        }
    }

    /// Pixels of one row, or of a flat map, in tiles of `P`. The last tile overlaps its neighbour instead of running over,
    /// and is a smaller one where that is less work.
    ///
    /// # Safety
    /// As [`Self::tile`].
    #[inline(always)]
    unsafe fn line<const P: usize, const B: usize>(
        &self,
        pixels: Range<usize>,
        y: usize,
        block: Block,
        end: &EndLanes<'_, D>,
        data: Data<'_, D>,
    ) {
        let (width, step) = (self.place.output.width, self.place.window.stride[1] * self.place.input.stride);
        let first = self.place.start(y, 0);
        let spot = |x: usize| if self.flat { [y + x / width, x % width] } else { [y, x] };
        let mut x = pixels.start;
        // SAFETY: the tiles lie inside the line.
        unsafe {
            while x + P <= pixels.end {
                self.tile::<P, B>(first + x * step, spot(x), block, end, data);
                x += P;
            }
            // A single pixel has few sums: only those of four vectors keep the multipliers busy.
            if B < 4 && P > 4 {
                if pixels.end - x > P / 2 && pixels.len() >= P {
                    x = pixels.end - P;
                    self.tile::<P, B>(first + x * step, spot(x), block, end, data);
                    return;
                }
                while x + 4 <= pixels.end {
                    self.tile::<4, B>(first + x * step, spot(x), block, end, data);
                    x += 4;
                }
            }
            if B < 4 && pixels.end - x > 1 && pixels.len() >= 4 {
                x = pixels.end - 4;
                self.tile::<4, B>(first + x * step, spot(x), block, end, data);
                return;
            }
            for x in x..pixels.end {
                self.tile::<1, B>(first + x * step, spot(x), block, end, data);
            }
        }
    }
}

/// [`Dense`] on its data.
pub(super) struct RunDense<'a, D: Dot>(pub &'a Dense<D>, pub Data<'a, D>);

impl<D: Dot> Task<D> for RunDense<'_, D> {
    type Output = ();

    #[inline(always)]
    unsafe fn run(self) {
        let Self(conv, data) = self;
        let (input, output) = (&conv.place.input, &conv.place.output);
        // SAFETY: the caller vouches for the set.
        let end = &unsafe { conv.end.lanes::<D>() };
        // A flat map is one line; lines are taken in parts, other maps in rows, which the first cache holds.
        let (lines, pixels, bytes) = if conv.flat {
            (1, output.height * output.width, input.stride * size_of::<D::Code>())
        } else {
            (output.height, output.width, input.row * conv.place.window.stride[0] * size_of::<D::Code>())
        };
        let fitting = (CHUNK_BYTES / bytes).max(1);
        let (part, rows) = if conv.flat { (fitting.next_multiple_of(16), 1) } else { (pixels, fitting) };
        for first in (0..lines).step_by(rows) {
            for from in (0..pixels).step_by(part) {
                let part = from..(from + part).min(pixels);
                for &block in &conv.blocks {
                    for y in first..(first + rows).min(lines) {
                        // SAFETY: rows and blocks of this convolution; the caller vouches for set and data.
                        unsafe {
                            match (block.vectors, D::REGISTERS > 16) {
                                (4, _) => conv.line::<4, 4>(part.clone(), y, block, end, data),
                                (2, true) => conv.line::<8, 2>(part.clone(), y, block, end, data),
                                (2, false) => conv.line::<4, 2>(part.clone(), y, block, end, data),
                                (_, true) => conv.line::<16, 1>(part.clone(), y, block, end, data),
                                (_, false) => conv.line::<8, 1>(part.clone(), y, block, end, data),
                            }
                        }
                    }
                }
            }
        }
    }
}
