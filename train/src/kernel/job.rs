//! The work on one convolution that its kind decides, dense or depthwise, and how a batch's images are shared out for it.

use super::correlate::{Correlation, Epilogue};
use super::depthwise::{Depthwise, DepthwiseGradient};
use super::weight_gradient::WeightGradient;
use std::ops::Range;

/// Scratch memory for padded images: a good part of a second-level cache, in numbers.
const CHUNK: usize = 48 * 1024;
/// Output pixels that a chunk has at least, so that weights, and sums of their gradient, are not read for a few only.
const PIXELS: usize = 64;
/// Numbers of a sum that no thread makes two of.
const LARGE: usize = 64 * 1024;

/// A correlation of either kind.
pub(super) enum Job {
    Dense(Correlation),
    Depthwise(Depthwise),
}

impl Job {
    /// # Safety
    /// As [`Correlation::run`].
    pub(super) unsafe fn run(&self, images: usize, input: *const f32, output: *mut f32, epilogue: Epilogue) {
        // SAFETY: passed on to the caller.
        unsafe {
            match self {
                Self::Dense(job) => job.run(images, input, output, epilogue),
                Self::Depthwise(job) => job.run(images, input, output, epilogue),
            }
        }
    }
}

/// A weight gradient of either kind.
pub(super) enum WeightJob {
    Dense(WeightGradient),
    Depthwise(DepthwiseGradient),
}

impl WeightJob {
    /// Numbers of a sum.
    pub(super) fn len(&self) -> usize {
        match self {
            Self::Dense(job) => job.len(),
            Self::Depthwise(job) => job.len(),
        }
    }

    /// Output channels of a sum.
    pub(super) fn channels(&self) -> usize {
        match self {
            Self::Dense(job) => job.channels,
            Self::Depthwise(job) => job.channels,
        }
    }

    /// # Safety
    /// As [`WeightGradient::add`].
    pub(super) unsafe fn add(&self, images: usize, input: *const f32, gradient: *const f32, sum: &mut [f32]) {
        // SAFETY: passed on to the caller.
        unsafe {
            match self {
                Self::Dense(job) => job.add(images, input, gradient, sum),
                Self::Depthwise(job) => job.add(images, input, gradient, sum),
            }
        }
    }
}

/// What decides how many images are worked on at a time.
#[derive(Debug, Clone, Copy)]
pub(super) struct Load {
    /// Numbers of an image in scratch memory.
    pub(super) numbers: usize,
    /// Pixels of its output.
    pub(super) pixels: usize,
}

impl Load {
    /// Images that fill [`CHUNK`] numbers, or have [`PIXELS`] pixels if that is more.
    fn images(self) -> usize {
        (CHUNK / self.numbers.max(1)).max(PIXELS.div_ceil(self.pixels.max(1))).max(1)
    }
}

/// Splits images into such runs.
pub(super) fn chunks(images: Range<usize>, load: Load) -> impl Iterator<Item = Range<usize>> {
    let per = load.images();
    images.clone().step_by(per).map(move |from| from..(from + per).min(images.end))
}

/// Runs of images for the threads to share; small enough that they end together.
pub(super) fn shared_chunks(images: usize, load: Load) -> Vec<Range<usize>> {
    let per = load.images().min(images.div_ceil(4 * rayon::current_num_threads()).max(1));
    (0..images).step_by(per).map(|from| from..(from + per).min(images)).collect()
}

/// Runs of images that each have their own partial sum of `len` numbers: several a thread, so that they end together,
/// unless adding large sums up would cost more than that.
pub(super) fn parts(images: usize, len: usize) -> Vec<Range<usize>> {
    let threads = rayon::current_num_threads();
    let each = if len > LARGE { 1 } else { 4 };
    let parts = (each * threads).clamp(1, images.max(1));
    (0..parts).map(|part| images * part / parts..images * (part + 1) / parts).collect()
}
