//! Images with a border of zeros: what windows are read from.

use super::correlate::Steps;
use super::pixelwise::{Value, write_pixels};
use excon_edge::kernel::{Isa, Kernel, Vector, dispatch};
use std::ops::Range;

/// Room after the last pixel, so that whole vectors can be read there.
const SLACK: usize = 16;

/// The layout of a framed image.
#[derive(Debug, Clone, Copy)]
pub(super) struct Frame {
    /// Rows of the image.
    pub(super) rows: usize,
    /// Columns of the image.
    pub(super) columns: usize,
    /// Numbers per pixel.
    pub(super) channels: usize,
    /// Rows of zeros above and below.
    pub(super) vertical: [usize; 2],
    /// Columns of zeros left and right.
    pub(super) horizontal: [usize; 2],
}

impl Frame {
    /// An image of `[rows, columns, channels]` with the same border on every side.
    pub(super) fn new([rows, columns, channels]: [usize; 3], border: usize) -> Self {
        Self { rows, columns, channels, vertical: [border; 2], horizontal: [border; 2] }
    }

    fn width(&self) -> usize {
        self.columns + self.horizontal[0] + self.horizontal[1]
    }

    /// Numbers of the image alone.
    pub(super) fn image(&self) -> usize {
        self.rows * self.columns * self.channels
    }

    /// Numbers of the framed image.
    pub(super) fn len(&self) -> usize {
        (self.rows + self.vertical[0] + self.vertical[1]) * self.width() * self.channels
    }

    /// Where a pixel of the frame starts.
    pub(super) fn offset(&self, row: usize, column: usize) -> usize {
        (row * self.width() + column) * self.channels
    }

    /// Where the image's first pixel starts.
    pub(super) fn origin(&self) -> usize {
        self.offset(self.vertical[0], self.horizontal[0])
    }

    /// Steps of a window that moves by `stride` pixels.
    pub(super) fn steps(&self, stride: usize) -> Steps {
        Steps { pixel: stride * self.channels, row: stride * self.width() * self.channels, image: self.len() }
    }

    /// The images with their frame: copied into `scratch`, or where they are if the border is empty.
    pub(super) fn pad(&self, source: &[f32], images: Range<usize>, scratch: &mut Vec<f32>) -> *const f32 {
        let image = self.image();
        let source = &source[images.start * image..images.end * image];
        if self.len() == image {
            return source.as_ptr();
        }
        let row = self.columns * self.channels;
        let scratch = self.scratch(images.len(), scratch);
        for (source, frame) in source.chunks_exact(image).zip(scratch.chunks_exact_mut(self.len())) {
            self.clear_border(frame);
            for (y, source) in source.chunks_exact(row).enumerate() {
                let at = self.origin() + self.offset(y, 0);
                frame[at..at + row].copy_from_slice(source);
            }
        }
        scratch.as_ptr()
    }

    /// The frames filled with a formula's values on these images, whole vectors readable after them.
    ///
    /// # Safety
    /// The formula must be defined on the images.
    pub(super) unsafe fn fill(
        &self,
        isa: Isa,
        value: &impl Value,
        images: Range<usize>,
        scratch: &mut Vec<f32>,
    ) -> *const f32 {
        let scratch = self.scratch(images.len(), scratch);
        if self.len() > self.image() {
            scratch[..images.len() * self.len()]
                .chunks_exact_mut(self.len())
                .for_each(|frame| self.clear_border(frame));
        }
        dispatch(isa, Fill { frame: self, value, images, out: scratch.as_mut_ptr() });
        scratch.as_ptr()
    }

    fn scratch<'a>(&self, images: usize, scratch: &'a mut Vec<f32>) -> &'a mut [f32] {
        let needed = images * self.len() + SLACK;
        if scratch.len() < needed {
            scratch.resize(needed, 0.0);
        }
        &mut scratch[..needed]
    }

    fn clear_border(&self, frame: &mut [f32]) {
        let (width, row) = (self.width() * self.channels, self.columns * self.channels);
        // From the end of one row's pixels to the start of the next row's, with the whole rows above and below.
        let mut from = 0;
        for y in 0..self.rows {
            let to = self.origin() + y * width;
            frame[from..to].fill(0.0);
            from = to + row;
        }
        frame[from..].fill(0.0);
    }
}

struct Fill<'a, P> {
    frame: &'a Frame,
    value: &'a P,
    images: Range<usize>,
    out: *mut f32,
}

impl<P: Value> Kernel for Fill<'_, P> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<V: Vector>(self) {
        let frame = self.frame;
        let row = frame.columns * frame.channels;
        for (i, image) in self.images.enumerate() {
            for y in 0..frame.rows {
                let from = image * frame.image() + y * row;
                // SAFETY: the row lies inside the frame, and the caller vouches for the formula.
                unsafe {
                    let out = self.out.add(i * frame.len() + frame.origin() + frame.offset(y, 0));
                    write_pixels::<V, P>(self.value, from, row, frame.channels, out);
                }
            }
        }
    }
}
