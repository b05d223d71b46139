//! The steps around the convolutions: taking in the picture, sums, max pools, and the end of the network.

use super::buffer::Buffer;
use super::end::{Data, clipped};
use super::layout::Layout;
use super::{Head, Window};
use crate::kernel::{Clip, Kernel, Vector};

/// A planar picture to the input map.
pub(super) fn take_in(image: &[f32], layout: &Layout, map: &mut [f32]) {
    for (line, row) in image.chunks_exact(layout.width).enumerate() {
        let (channel, y) = (line / layout.height, line % layout.height);
        let to = &mut map[channel * layout.channel + layout.at(y, 0)..];
        if layout.is_planar() {
            to[..row.len()].copy_from_slice(row);
        } else {
            to.iter_mut().step_by(layout.pixel).zip(row).for_each(|(to, v)| *to = *v);
        }
    }
}

/// The sum of two maps; the second is the data's residual.
pub(super) struct Sum {
    /// Summands and result.
    pub layouts: [Layout; 3],
    pub clip: Clip,
}

/// [`Sum`] on its data.
pub(super) struct RunSum<'a>(pub &'a Sum, pub Data);

impl Kernel for RunSum<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<V: Vector>(self) {
        let Self(Sum { layouts: [a, b, to], clip }, data) = self;
        for y in 0..to.height {
            // SAFETY: all three maps have this row, pixels equally far apart and padded to whole vectors.
            unsafe {
                let (a, b) = (data.input.add(a.at(y, 0)), data.residual.add(b.at(y, 0)));
                let out = data.output.add(to.at(y, 0));
                for at in (0..to.width * to.pixel).step_by(V::LANES) {
                    clipped(V::load(a.add(at)).add(V::load(b.add(at))), *clip).store(out.add(at));
                }
            }
        }
    }
}

/// Max pooling.
pub(super) struct MaxPool {
    pub window: Window,
    pub input: Layout,
    pub output: Layout,
}

/// [`MaxPool`] on its data.
pub(super) struct RunMaxPool<'a>(pub &'a MaxPool, pub Data);

impl Kernel for RunMaxPool<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<V: Vector>(self) {
        let Self(MaxPool { window, input, output }, data) = self;
        for y in 0..output.height {
            let rows = window.inside(y, 0, input.height);
            for x in 0..output.width {
                let columns = window.inside(x, 1, input.width);
                for channel in (0..output.pixel).step_by(V::LANES) {
                    // SAFETY: pixels of both maps, padded alike to whole vectors.
                    unsafe {
                        let mut best = V::splat(f32::NEG_INFINITY);
                        for row in rows.clone() {
                            for column in columns.clone() {
                                best = best.max(V::load(data.input.add(input.at(row, column) + channel)));
                            }
                        }
                        best.store(data.output.add(output.at(y, x) + channel));
                    }
                }
            }
        }
    }
}

/// Classes whose scores are summed together.
const CLASSES: usize = 4;
/// Pixels that are turned from the order of the map to that of the planes together, and the widest vector.
const PIXELS: usize = 16;
const WIDEST: usize = 16;

/// The classifier: global average, then a linear layer.
pub(super) struct Classifier {
    pub layout: Layout,
    /// `classes × channels`, channels padded to whole vectors.
    weight: Buffer<f32>,
    bias: Vec<f32>,
}

impl Classifier {
    pub fn new(head: &Head, layout: Layout) -> Self {
        let mut weight = Buffer::new(head.bias.len() * layout.pixel, 0.0);
        let rows = weight.values().chunks_exact_mut(layout.pixel).zip(head.weight.chunks_exact(layout.channels));
        rows.for_each(|(to, from)| to[..from.len()].copy_from_slice(from));
        Self { layout, weight, bias: head.bias.clone() }
    }

    pub fn classes(&self) -> usize {
        self.bias.len()
    }
}

/// [`Classifier`] on the last map: its planes, its mean, the logits.
pub(super) struct RunClassifier<'a> {
    pub classifier: &'a Classifier,
    pub input: *const f32,
    /// Mean of each channel, padded to whole vectors.
    pub pooled: &'a mut [f32],
    pub features: &'a mut [f32],
    pub logits: &'a mut [f32],
}

impl Kernel for RunClassifier<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<V: Vector>(self) {
        let Self { classifier, input, pooled, features, logits } = self;
        let layout = &classifier.layout;
        let area = layout.height * layout.width;
        for first in (0..layout.channels).step_by(V::LANES) {
            let count = (layout.channels - first).min(V::LANES);
            let planes = &mut features[first * area..][..count * area];
            let mut sums = [0f64; WIDEST];
            for pixel in (0..area).step_by(PIXELS) {
                let pixels = (area - pixel).min(PIXELS);
                let (mut turned, mut lanes) = ([[0f32; WIDEST]; PIXELS], [0f32; WIDEST]);
                // SAFETY: the map has these pixels, padded to whole vectors; the caller vouches for the set.
                unsafe {
                    let mut sum = V::splat(0.0);
                    for (i, turned) in turned[..pixels].iter_mut().enumerate() {
                        let at = layout.at((pixel + i) / layout.width, (pixel + i) % layout.width) + first;
                        let v = V::load(input.add(at));
                        sum = sum.add(v);
                        v.store(turned.as_mut_ptr());
                    }
                    sum.store(lanes.as_mut_ptr());
                }
                sums.iter_mut().zip(lanes).for_each(|(sum, v)| *sum += f64::from(v));
                for (channel, plane) in planes.chunks_exact_mut(area).enumerate() {
                    let plane = &mut plane[pixel..pixel + pixels];
                    plane.iter_mut().zip(&turned).for_each(|(to, from)| *to = from[channel]);
                }
            }
            pooled[first..].iter_mut().zip(&sums[..count]).for_each(|(mean, sum)| *mean = (sum / area as f64) as f32);
        }
        for first in (0..logits.len()).step_by(CLASSES) {
            // Past the end the last class stands in.
            let class: [usize; CLASSES] = std::array::from_fn(|k| (first + k).min(logits.len() - 1));
            // SAFETY: the weights hold every class, padded to whole vectors as the mean is.
            unsafe {
                let mut scores = [V::splat(0.0); CLASSES];
                for channel in (0..layout.pixel).step_by(V::LANES) {
                    let mean = V::load(pooled.as_ptr().add(channel));
                    for k in 0..CLASSES {
                        let weight = classifier.weight.as_ptr().add(class[k] * layout.pixel + channel);
                        scores[k] = scores[k].add_product(mean, V::load(weight));
                    }
                }
                for k in 0..CLASSES {
                    let mut lanes = [0f32; WIDEST];
                    scores[k].store(lanes.as_mut_ptr());
                    logits[class[k]] = lanes.iter().sum::<f32>() + classifier.bias[class[k]];
                }
            }
        }
    }
}
