//! Weight gradient of a convolution: for each number of the window and each output channel, the sum over pixels of
//! input × output gradient.
//!
//! One register tile: 6 window numbers × 2 vectors of output channels (12 × 2 where there are 32 registers, or 12 × 1),
//! summed over a few rows, or images where those are small, then added to the thread's own gradient.

use super::correlate::Steps;
use excon_edge::kernel::{Isa, Kernel, Vector, dispatch};

/// Window numbers come in multiples of this, so that no tile is partial.
const INPUT_UNIT: usize = 12;
/// Pixels that are summed before the sums leave the registers: the part of their input and gradient that one tile reads
/// stays in the first-level cache.
const PIXELS: usize = 128;

/// What to sum, for any number of images.
pub(super) struct WeightGradient {
    isa: Isa,
    /// Offset of each window number from the window's origin, padded with copies of the first.
    offsets: Vec<usize>,
    /// Output channels, rounded up to whole vectors.
    pub(super) channels: usize,
    /// Output rows.
    rows: usize,
    /// Output columns.
    columns: usize,
    /// Output rows that are summed before the sums leave the registers.
    band: usize,
    /// Images whose rows are summed together, where one has few.
    together: usize,
    /// How the window's origin moves.
    input: Steps,
    /// How the gradient's pixel moves.
    gradient: Steps,
}

impl WeightGradient {
    /// `offsets` of the window's numbers; the gradient has `[rows, columns, outputs]`.
    pub(super) fn new(
        isa: Isa,
        mut offsets: Vec<usize>,
        [rows, columns, outputs]: [usize; 3],
        input: Steps,
        gradient: Steps,
    ) -> Self {
        let channels = outputs.next_multiple_of(isa.lanes());
        offsets.resize(offsets.len().next_multiple_of(INPUT_UNIT), offsets.first().copied().unwrap_or(0));
        let band = (PIXELS / columns.max(1)).clamp(1, rows.max(1));
        let together = (PIXELS / (rows * columns).max(1)).max(1);
        Self { isa, offsets, channels, rows, columns, band, together, input, gradient }
    }

    /// Numbers of the sum: padded window × padded channels.
    pub(super) fn len(&self) -> usize {
        self.offsets.len() * self.channels
    }

    /// Adds the gradient of `images` images to `sum`, `[window][channels]`.
    ///
    /// # Safety
    /// `input` must be readable wherever the steps and offsets lead, `gradient` for [`Self::channels`] numbers from each
    /// pixel of the images on; those past the outputs may be anything.
    pub(super) unsafe fn add(&self, images: usize, input: *const f32, gradient: *const f32, sum: &mut [f32]) {
        assert!(sum.len() >= self.len());
        dispatch(self.isa, Run { job: self, images, input, gradient, sum: sum.as_mut_ptr() });
    }
}

struct Run<'a> {
    job: &'a WeightGradient,
    images: usize,
    input: *const f32,
    gradient: *const f32,
    sum: *mut f32,
}

impl Kernel for Run<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<V: Vector>(self) {
        let job = self.job;
        for image in (0..self.images).step_by(job.together) {
            let images = job.together.min(self.images - image);
            for from in (0..job.rows).step_by(job.band) {
                let size = [images, job.band.min(job.rows - from)];
                // SAFETY: image and row exist; channels advance by whole vectors up to the padded number.
                unsafe {
                    let input = self.input.add(image * job.input.image + from * job.input.row);
                    let gradient = self.gradient.add(image * job.gradient.image + from * job.gradient.row);
                    let mut channel = 0;
                    while channel + 2 * V::LANES <= job.channels {
                        if V::REGISTERS > 16 {
                            self.tiles::<V, 12, 2>(input, gradient, size, channel);
                        } else {
                            self.tiles::<V, 6, 2>(input, gradient, size, channel);
                        }
                        channel += 2 * V::LANES;
                    }
                    if channel < job.channels {
                        self.tiles::<V, 12, 1>(input, gradient, size, channel);
                    }
                }
            }
        }
    }
}

impl Run<'_> {
    #[inline(always)]
    unsafe fn tiles<V: Vector, const INPUTS: usize, const VECTORS: usize>(
        &self,
        input: *const f32,
        gradient: *const f32,
        [images, rows]: [usize; 2],
        channel: usize,
    ) {
        let job = self.job;
        for (i, offsets) in job.offsets.chunks_exact(INPUTS).enumerate() {
            // SAFETY: the sum has `channels` numbers for each offset; pixels as promised to `WeightGradient::add`.
            unsafe {
                let sum = self.sum.add(i * INPUTS * job.channels + channel);
                let mut sums = [[V::splat(0.0); VECTORS]; INPUTS];
                for k in 0..INPUTS {
                    for v in 0..VECTORS {
                        sums[k][v] = V::load(sum.add(k * job.channels + v * V::LANES));
                    }
                }
                for line in 0..images * rows {
                    let (image, row) = (line / rows, line % rows);
                    let input = input.add(image * job.input.image + row * job.input.row);
                    let mut g = gradient.add(image * job.gradient.image + row * job.gradient.row + channel);
                    let mut inputs = [input; INPUTS];
                    for k in 0..INPUTS {
                        inputs[k] = input.add(offsets[k]);
                    }
                    let mut at = 0;
                    for _ in 0..job.columns {
                        let mut gs = [V::splat(0.0); VECTORS];
                        for v in 0..VECTORS {
                            gs[v] = V::load(g.add(v * V::LANES));
                        }
                        for k in 0..INPUTS {
                            let x = V::splat(*inputs[k].add(at));
                            for v in 0..VECTORS {
                                sums[k][v] = sums[k][v].add_product(x, gs[v]);
                            }
                        }
                        at += job.input.pixel;
                        g = g.wrapping_add(job.gradient.pixel);
                    }
                }
                for k in 0..INPUTS {
                    for v in 0..VECTORS {
                        sums[k][v].store(sum.add(k * job.channels + v * V::LANES));
                    }
                }
            }
        }
    }
}
