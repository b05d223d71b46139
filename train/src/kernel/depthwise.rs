//! Depthwise convolution: every channel has a window of its own. Forward and each phase of the input gradient are one
//! kernel over a list of taps, the weight gradient another.
//!
//! Vectors run along the channels, so no number is broadcast: a tap of the forward tile is one load and one
//! multiply-add for each of its pixels. Channels that do not fill a vector are done with narrower ones.

use super::correlate::{Epilogue, Steps};
use excon_edge::kernel::{Isa, Kernel, Vector, dispatch};

/// Taps whose sums the weight gradient holds in registers: a 3 × 3 window.
const TAPS: usize = 9;

/// What to sum, for any number of images: in each channel, weight × input over the taps.
pub(super) struct Depthwise {
    pub(super) isa: Isa,
    /// Channels of input and output.
    pub(super) channels: usize,
    /// Offset of each tap from the pixel's origin.
    pub(super) taps: Vec<usize>,
    /// `[tap][channel]`.
    pub(super) weights: Vec<f32>,
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

impl Depthwise {
    /// Computes `images` images.
    ///
    /// # Safety
    /// `input` must be readable, and `output` (and the epilogue's residual) writable (readable), wherever the steps
    /// lead for that many images; nobody else may touch those output numbers meanwhile.
    pub(super) unsafe fn run(&self, images: usize, input: *const f32, output: *mut f32, epilogue: Epilogue) {
        dispatch(self.isa, Run { job: self, images, input, output, epilogue });
    }
}

struct Run<'a> {
    job: &'a Depthwise,
    images: usize,
    input: *const f32,
    output: *mut f32,
    epilogue: Epilogue<'a>,
}

impl Kernel for Run<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<V: Vector>(self) {
        let (job, channels) = (self.job, self.job.channels);
        for image in 0..self.images {
            for row in 0..job.rows {
                let from = image * job.input.image + row * job.input.row;
                let to = job.first + image * job.output.image + row * job.output.row;
                let mut channel = 0;
                // SAFETY: image and row exist; channels advance by what was done.
                unsafe {
                    while channel + V::LANES <= channels {
                        self.row::<V>(from, to, channel);
                        channel += V::LANES;
                    }
                    while channel + V::Half::LANES <= channels {
                        self.row::<V::Half>(from, to, channel);
                        channel += V::Half::LANES;
                    }
                    while channel < channels {
                        self.row::<f32>(from, to, channel);
                        channel += 1;
                    }
                }
            }
        }
    }
}

impl Run<'_> {
    /// One vector of channels along a row.
    ///
    /// # Safety
    /// The set of `V` must be present; `from` and `to` must be a row's first pixel, `channel` a vector of its channels.
    #[inline(always)]
    unsafe fn row<V: Vector>(&self, from: usize, to: usize, channel: usize) {
        let columns = self.job.columns;
        let mut column = 0;
        // SAFETY: passed on to the caller.
        unsafe {
            while column + 8 <= columns {
                self.tile::<V, 8>(from, to, column, channel);
                column += 8;
            }
            if column + 4 <= columns {
                self.tile::<V, 4>(from, to, column, channel);
                column += 4;
            }
            while column < columns {
                self.tile::<V, 1>(from, to, column, channel);
                column += 1;
            }
        }
    }

    /// # Safety
    /// As [`Self::row`], for `PIXELS` pixels from `column` on.
    #[inline(always)]
    unsafe fn tile<V: Vector, const PIXELS: usize>(&self, from: usize, to: usize, column: usize, channel: usize) {
        let job = self.job;
        // SAFETY: windows and outputs are valid as promised to `Depthwise::run`; weights hold every channel of a tap.
        unsafe {
            // Wrapping: an origin without taps may lie past the last row.
            let pixel = self.input.wrapping_add(from + column * job.input.pixel + channel);
            let mut weights = job.weights.as_ptr().wrapping_add(channel);
            let mut sums = [V::splat(0.0); PIXELS];
            for &tap in &job.taps {
                let w = V::load(weights);
                weights = weights.wrapping_add(job.channels);
                for p in 0..PIXELS {
                    sums[p] = sums[p].add_product(V::load(pixel.wrapping_add(tap + p * job.input.pixel)), w);
                }
            }
            for p in 0..PIXELS {
                let at = to + (column + p) * job.output.pixel + channel;
                self.epilogue.finish(sums[p], self.output, at, channel);
            }
        }
    }
}

/// The weight gradient: in each channel and for each tap, input × output gradient over the pixels.
pub(super) struct DepthwiseGradient {
    isa: Isa,
    pub(super) channels: usize,
    /// Offset of each tap from the window's origin, padded with copies of the first.
    taps: Vec<usize>,
    rows: usize,
    columns: usize,
    input: Steps,
    gradient: Steps,
}

impl DepthwiseGradient {
    /// `taps` of the window; the gradient has `[rows, columns, channels]`.
    pub(super) fn new(
        isa: Isa,
        mut taps: Vec<usize>,
        [rows, columns, channels]: [usize; 3],
        input: Steps,
        gradient: Steps,
    ) -> Self {
        taps.resize(taps.len().next_multiple_of(TAPS), taps.first().copied().unwrap_or(0));
        Self { isa, channels, taps, rows, columns, input, gradient }
    }

    /// Numbers of the sum.
    pub(super) fn len(&self) -> usize {
        self.taps.len() * self.channels
    }

    /// Adds the gradient of `images` images to `sum`, `[tap][channel]`.
    ///
    /// # Safety
    /// `input` and `gradient` must be readable wherever the steps and taps lead for that many images.
    pub(super) unsafe fn add(&self, images: usize, input: *const f32, gradient: *const f32, sum: &mut [f32]) {
        assert!(sum.len() >= self.len());
        dispatch(self.isa, Add { job: self, images, input, gradient, sum: sum.as_mut_ptr() });
    }
}

struct Add<'a> {
    job: &'a DepthwiseGradient,
    images: usize,
    input: *const f32,
    gradient: *const f32,
    sum: *mut f32,
}

impl Kernel for Add<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<V: Vector>(self) {
        let channels = self.job.channels;
        let mut channel = 0;
        // SAFETY: channels advance by what was done.
        unsafe {
            while channel + V::LANES <= channels {
                self.channels::<V>(channel);
                channel += V::LANES;
            }
            while channel + V::Half::LANES <= channels {
                self.channels::<V::Half>(channel);
                channel += V::Half::LANES;
            }
            while channel < channels {
                self.channels::<f32>(channel);
                channel += 1;
            }
        }
    }
}

impl Add<'_> {
    /// One vector of channels over all images: each image is streamed once.
    ///
    /// # Safety
    /// The set of `V` must be present and `channel` a vector of the channels.
    #[inline(always)]
    unsafe fn channels<V: Vector>(&self, channel: usize) {
        let job = self.job;
        for (group, taps) in job.taps.chunks_exact(TAPS).enumerate() {
            // SAFETY: the sum has all channels for each tap; pixels as promised to `DepthwiseGradient::add`.
            unsafe {
                let sum = self.sum.add(group * TAPS * job.channels + channel);
                for image in 0..self.images {
                    let mut sums = [V::splat(0.0); TAPS];
                    for row in 0..job.rows {
                        let mut x = self.input.add(image * job.input.image + row * job.input.row + channel);
                        let mut g = self.gradient.add(image * job.gradient.image + row * job.gradient.row + channel);
                        for _ in 0..job.columns {
                            let gradient = V::load(g);
                            for t in 0..TAPS {
                                sums[t] = sums[t].add_product(V::load(x.add(taps[t])), gradient);
                            }
                            x = x.wrapping_add(job.input.pixel);
                            g = g.wrapping_add(job.gradient.pixel);
                        }
                    }
                    for t in 0..TAPS {
                        let at = sum.add(t * job.channels);
                        V::load(at).add(sums[t]).store(at);
                    }
                }
            }
        }
    }
}
