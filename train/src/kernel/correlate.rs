//! Correlation of a padded image with packed weights: the forward convolution and every phase of its input gradient.
//!
//! One register tile: 6 output pixels × 2 vectors of output channels, 8 × 2 where there are 32 registers, or 12 × 1. For each input number of a pixel's
//! window the tile loads the weights once and multiplies them with that number broadcast, so there is no im2col; a
//! stride, a border or a 1 × 1 kernel is only another list of offsets. 6 × 2 accumulators, 2 weights and a broadcast
//! fill AVX2's 16 registers and hide the latency of the multiply-add on all sets.

use super::uninitialised;
use excon_edge::kernel::{Clip, Isa, Kernel, Vector, dispatch};
use rayon::prelude::*;

/// Widest vector there is, in numbers.
const WIDEST: usize = 16;

/// Inputs that are packed together, in cache.
const PACKED: usize = 64;

/// A run of output channels that one tile computes.
#[derive(Debug, Clone, Copy)]
struct Block {
    /// First channel.
    first: usize,
    /// Channels that exist; the rest of the vectors is padding.
    channels: usize,
    /// 1 or 2 vectors.
    vectors: usize,
    /// Where its weights start.
    weights: usize,
}

/// Weights in the order the tile reads them: for each block of output channels, for each input of the window, one or
/// two vectors.
pub(super) struct Packed {
    isa: Isa,
    blocks: Vec<Block>,
    data: Vec<f32>,
}

impl Packed {
    /// Packs `inputs × outputs` weights, `weight(input, output)` with `input` counting through the window.
    pub(super) fn new(isa: Isa, inputs: usize, outputs: usize, weight: impl Fn(usize, usize) -> f32 + Sync) -> Self {
        let lanes = isa.lanes();
        let mut blocks = vec![];
        let (mut first, mut len) = (0, 0);
        while first < outputs {
            let left = outputs - first;
            let vectors = if left > lanes { 2 } else { 1 };
            let channels = left.min(vectors * lanes);
            blocks.push(Block { first, channels, vectors, weights: len });
            first += channels;
            len += inputs * vectors * lanes;
        }
        let mut data = uninitialised(len);
        let mut rest = &mut data[..];
        let mut parts = vec![];
        for block in &blocks {
            let width = block.vectors * lanes;
            let (part, behind) = rest.split_at_mut(inputs * width);
            rest = behind;
            // A few inputs at a time, each channel's one after the other: the weights lie channel by channel.
            let few = part.chunks_mut(PACKED * width).enumerate();
            parts.extend(few.map(|(i, chunk)| (block, width, i * PACKED, chunk)));
        }
        parts.into_par_iter().with_min_len(8).for_each(|(block, width, first, chunk)| {
            for lane in 0..width {
                for (i, row) in chunk.chunks_exact_mut(width).enumerate() {
                    row[lane] = if lane < block.channels { weight(first + i, block.first + lane) } else { 0.0 };
                }
            }
        });
        Self { isa, blocks, data }
    }
}

/// A grid of pixels in memory, in numbers (not bytes).
#[derive(Debug, Clone, Copy)]
pub(super) struct Steps {
    /// From a pixel to its right neighbour.
    pub(super) pixel: usize,
    /// From a row to the next.
    pub(super) row: usize,
    /// From an image to the next.
    pub(super) image: usize,
}

/// What to correlate, for any number of images.
pub(super) struct Correlation {
    /// Runs of consecutive input numbers of a window: offset from the pixel's origin, and length.
    pub(super) segments: Vec<(usize, usize)>,
    /// Weights; as many inputs as the segments have numbers.
    pub(super) packed: Packed,
    /// Output rows.
    pub(super) rows: usize,
    /// Output columns.
    pub(super) columns: usize,
    /// How the window's origin moves.
    pub(super) input: Steps,
    /// How the output pixel moves.
    pub(super) output: Steps,
    /// First output pixel.
    pub(super) first: usize,
}

/// Joins windows' taps that follow each other in memory.
pub(super) fn segments(taps: impl IntoIterator<Item = usize>, channels: usize) -> Vec<(usize, usize)> {
    let mut joined: Vec<(usize, usize)> = vec![];
    for tap in taps {
        match joined.last_mut() {
            Some((offset, length)) if *offset + *length == tap => *length += channels,
            _ => joined.push((tap, channels)),
        }
    }
    joined
}

/// What becomes of a finished sum before it is stored.
#[derive(Clone, Copy)]
pub(super) struct Epilogue<'a> {
    /// Added per output channel.
    pub(super) bias: Option<&'a [f32]>,
    /// Added per output number; same layout as the output.
    pub(super) residual: Option<*const f32>,
    /// Activation at the end.
    pub(super) clip: Clip,
}

impl Epilogue<'_> {
    /// Sums are stored as they are.
    pub(super) const NONE: Self = Self { bias: None, residual: None, clip: Clip::NONE };

    /// Stores one vector of output channels, `at` counted from `output`.
    ///
    /// # Safety
    /// The set of `V` must be present, `output` (and the residual) writable (readable) there for a vector, and `channel`
    /// a vector of the bias.
    #[inline(always)]
    pub(super) unsafe fn finish<V: Vector>(&self, mut sum: V, output: *mut f32, at: usize, channel: usize) {
        // SAFETY: see above.
        unsafe {
            if let Some(bias) = self.bias {
                sum = sum.add(V::load(bias.as_ptr().add(channel)));
            }
            if let Some(residual) = self.residual {
                sum = sum.add(V::load(residual.add(at)));
            }
            if self.clip != Clip::NONE {
                sum = sum.max(V::splat(self.clip.low)).min(V::splat(self.clip.high));
            }
            sum.store(output.add(at));
        }
    }
}

impl Correlation {
    /// Computes `images` images.
    ///
    /// # Safety
    /// `input` must be readable, and `output` (and the epilogue's residual) writable (readable), wherever the steps
    /// lead for that many images; nobody else may touch those output numbers meanwhile.
    pub(super) unsafe fn run(&self, images: usize, input: *const f32, output: *mut f32, epilogue: Epilogue) {
        dispatch(self.packed.isa, Run { job: self, images, input, output, epilogue });
    }
}

struct Run<'a> {
    job: &'a Correlation,
    images: usize,
    input: *const f32,
    output: *mut f32,
    epilogue: Epilogue<'a>,
}

impl Kernel for Run<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<V: Vector>(self) {
        for block in &self.job.packed.blocks {
            // SAFETY: as promised to `Correlation::run`.
            unsafe {
                match (block.vectors, V::REGISTERS > 16) {
                    (2, true) => self.block::<V, 8, 2>(block),
                    (2, false) => self.block::<V, 6, 2>(block),
                    _ => self.block::<V, 12, 1>(block),
                }
            }
        }
    }
}

impl Run<'_> {
    #[inline(always)]
    unsafe fn block<V: Vector, const PIXELS: usize, const VECTORS: usize>(&self, block: &Block) {
        let job = self.job;
        let total = self.images * job.rows * job.columns;
        let (mut image, mut row, mut column) = (0, 0, 0);
        let (mut from, mut to) = (0, job.first);
        let mut done = 0;
        while done < total {
            let count = PIXELS.min(total - done);
            let mut inputs = [self.input; PIXELS];
            let mut outputs = [0; PIXELS];
            for p in 0..PIXELS {
                // Past the end the tile repeats the chunk's first pixel and does not store it.
                if p < count {
                    // Wrapping: an origin without taps may lie past the last row.
                    inputs[p] = self.input.wrapping_add(from);
                    outputs[p] = to;
                    column += 1;
                    from += job.input.pixel;
                    to += job.output.pixel;
                    if column == job.columns {
                        column = 0;
                        row += 1;
                        if row == job.rows {
                            row = 0;
                            image += 1;
                        }
                        from = image * job.input.image + row * job.input.row;
                        to = job.first + image * job.output.image + row * job.output.row;
                    }
                }
            }
            // SAFETY: windows and outputs are valid as promised; the block's weights match the segments.
            unsafe {
                let sums =
                    tile::<V, PIXELS, VECTORS>(&inputs, &job.segments, job.packed.data.as_ptr().add(block.weights));
                if block.channels == VECTORS * V::LANES {
                    for p in 0..PIXELS {
                        if p < count {
                            for v in 0..VECTORS {
                                self.finish(sums[p][v], outputs[p], block.first + v * V::LANES);
                            }
                        }
                    }
                } else {
                    self.finish_padded(block, &sums, &outputs[..count]);
                }
            }
            done += count;
        }
    }

    /// Stores one vector of a pixel's channels.
    ///
    /// # Safety
    /// The set of `V` must be present; pixel and channels must be the output's.
    #[inline(always)]
    unsafe fn finish<V: Vector>(&self, sum: V, pixel: usize, channel: usize) {
        // SAFETY: see above.
        unsafe { self.epilogue.finish(sum, self.output, pixel + channel, channel) }
    }

    /// Stores channels that do not fill the vectors, with narrower ones.
    #[inline(never)]
    unsafe fn finish_padded<V: Vector, const PIXELS: usize, const VECTORS: usize>(
        &self,
        block: &Block,
        sums: &[[V; VECTORS]; PIXELS],
        outputs: &[usize],
    ) {
        let mut lanes = [0.0; 2 * WIDEST];
        for (sums, &pixel) in sums.iter().zip(outputs) {
            // SAFETY: the buffer holds two of the widest vectors; only existing channels are stored.
            unsafe {
                for v in 0..VECTORS {
                    sums[v].store(lanes.as_mut_ptr().add(v * V::LANES));
                }
                let mut channel = 0;
                while channel + V::Half::LANES <= block.channels {
                    let sum = V::Half::load(lanes.as_ptr().add(channel));
                    self.finish(sum, pixel, block.first + channel);
                    channel += V::Half::LANES;
                }
                for channel in channel..block.channels {
                    self.finish(lanes[channel], pixel, block.first + channel);
                }
            }
        }
    }
}

/// The register tile: `PIXELS × VECTORS` sums over all segments.
///
/// # Safety
/// The segments must be readable from every pixel, and `weights` for `VECTORS` vectors per number of the segments.
#[inline(always)]
unsafe fn tile<V: Vector, const PIXELS: usize, const VECTORS: usize>(
    pixels: &[*const f32; PIXELS],
    segments: &[(usize, usize)],
    mut weights: *const f32,
) -> [[V; VECTORS]; PIXELS] {
    // SAFETY: see above.
    unsafe {
        let mut sums = [[V::splat(0.0); VECTORS]; PIXELS];
        for &(offset, length) in segments {
            for at in offset..offset + length {
                let mut w = [V::splat(0.0); VECTORS];
                for v in 0..VECTORS {
                    w[v] = V::load(weights.add(v * V::LANES));
                }
                weights = weights.add(VECTORS * V::LANES);
                for p in 0..PIXELS {
                    let x = V::splat(*pixels[p].wrapping_add(at));
                    for v in 0..VECTORS {
                        sums[p][v] = sums[p][v].add_product(x, w[v]);
                    }
                }
            }
        }
        sums
    }
}
