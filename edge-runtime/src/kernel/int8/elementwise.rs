//! The steps around the convolutions: quantizing the picture, sums and pools, and the f32 end.

use super::dot::{Code, Dot, Task};
use super::end::{Data, packed, stored_limits};
use super::network::Layout;
use super::{Codes, Map, Window, ratio, round};
use crate::kernel::Clip;

/// Rows that are interleaved.
const ROWS: usize = 4;
/// Codes in the widest operand.
const MOST_CODES: usize = 64;

/// A planar picture to the input map.
pub(super) struct Quantize<'a, D: Dot> {
    pub image: &'a [f32],
    pub codes: Codes,
    pub layout: Layout,
    pub output: &'a mut [D::Code],
}

impl<D: Dot> Task<D> for Quantize<'_, D> {
    type Output = ();

    #[inline(always)]
    unsafe fn run(self) {
        const CHUNK: usize = 32;
        let Self { image, codes, layout, output } = self;
        let (low, high) = codes.range();
        let shift = D::Code::shift(&codes);
        let to_code = |v: f32| {
            // NaN fails the first comparison and becomes the lowest code.
            let v = v / codes.scale;
            let v = if v > low { v } else { low };
            // SAFETY: between two codes.
            shift + unsafe { round(if v < high { v } else { high }).to_int_unchecked::<i32>() }
        };
        if let (3, 4) = (layout.channels, layout.stride) {
            // A pixel is stored whole.
            let plane = layout.height * layout.width;
            for y in 0..layout.height {
                let row = |channel: usize| &image[channel * plane + y * layout.width..][..layout.width];
                let to = output[layout.at(y, 0)..][..layout.width * 4].as_chunks_mut::<4>().0;
                for (((to, a), b), c) in to.iter_mut().zip(row(0)).zip(row(1)).zip(row(2)) {
                    *to = D::Code::four([to_code(*a), to_code(*b), to_code(*c), shift]);
                }
            }
            return;
        }
        let mut whole = [0i32; CHUNK];
        for (line, row) in image.chunks_exact(layout.width).enumerate() {
            let (channel, y) = (line / layout.height, line % layout.height);
            for (part, values) in row.chunks(CHUNK).enumerate() {
                whole.iter_mut().zip(values).for_each(|(w, v)| *w = to_code(*v));
                let at = layout.at(y, part * CHUNK) + channel;
                for (to, w) in output[at..].iter_mut().step_by(layout.stride).zip(&whole[..values.len()]) {
                    *to = D::Code::new(*w);
                }
            }
        }
    }
}

/// The sum of two maps.
pub(super) struct Sum {
    layouts: [Layout; 3],
    factors: [f32; 2],
    shifts: [f32; 2],
    limits: [i32; 3],
}

impl Sum {
    /// Summands and result, in this order.
    pub fn new<D: Dot>(maps: [&Map; 3], layouts: [&Layout; 3], clip: Clip) -> Self {
        let (low, high) = maps[2].codes.limits(clip);
        Self {
            layouts: layouts.map(|l| *l),
            factors: [ratio(&maps[0].codes, &maps[2].codes), ratio(&maps[1].codes, &maps[2].codes)],
            shifts: [maps[0], maps[1]].map(|m| D::Code::shift(&m.codes) as f32),
            limits: stored_limits::<D>(&maps[2].codes, [low, high]),
        }
    }
}

/// [`Sum`] on its data; the second summand is the data's residual.
pub(super) struct RunSum<'a, D: Dot>(pub &'a Sum, pub Data<'a, D>);

impl<D: Dot> Task<D> for RunSum<'_, D> {
    type Output = ();

    #[inline(always)]
    unsafe fn run(self) {
        let Self(sum, data) = self;
        let [a, b, to] = &sum.layouts;
        let Some(second) = data.residual else { return };
        for y in 0..to.height {
            for x in 0..to.width {
                for channel in (0..to.channels).step_by(D::LANES) {
                    // SAFETY: all three maps have this pixel, their channels padded to whole vectors.
                    unsafe {
                        let load = |from: &[D::Code], at: &Layout, i: usize| {
                            let [codes] = D::widen::<1>(from.as_ptr().add(at.at(y, x) + channel));
                            let v = D::float(codes);
                            let v = if D::Code::CENTRED { v } else { D::add(v, D::number(-sum.shifts[i])) };
                            D::mul(v, D::number(sum.factors[i]))
                        };
                        let v = D::add(load(data.input, a, 0), load(second, b, 1));
                        let [zero, low, high] = sum.limits;
                        let limits = D::limits(zero, low, high);
                        D::store([D::whole(v)], limits, data.output.add(to.at(y, x) + channel));
                    }
                }
            }
        }
    }
}

/// Max pooling: the largest stored code of a window, then a table of 256.
pub(super) struct MaxPool<D: Dot> {
    window: Window,
    input: Layout,
    output: Layout,
    /// Result by centred code, from the lowest on.
    table: Vec<D::Code>,
    /// Stored form of the lowest code.
    lowest: i32,
}

impl<D: Dot> MaxPool<D> {
    pub fn new(window: Window, maps: [&Map; 2], layouts: [&Layout; 2]) -> Self {
        let [from, to] = maps.map(|m| m.codes);
        let (low, high) = from.range();
        let shift = D::Code::shift(&to);
        let result = |x: i32| D::Code::new(to.quantize(x as f32 * from.scale) as i32 + shift);
        Self {
            window,
            input: *layouts[0],
            output: *layouts[1],
            table: (low as i32..=high as i32).map(result).collect(),
            lowest: low as i32 + D::Code::shift(&from),
        }
    }
}

/// [`MaxPool`] on its data.
pub(super) struct RunMaxPool<'a, D: Dot>(pub &'a MaxPool<D>, pub &'a [D::Code], pub &'a mut [D::Code]);

impl<D: Dot> Task<D> for RunMaxPool<'_, D> {
    type Output = ();

    #[inline(always)]
    unsafe fn run(self) {
        let Self(pool, input, output) = self;
        let lowest = D::Code::new(pool.lowest);
        for y in 0..pool.output.height {
            for x in 0..pool.output.width {
                let at = pool.output.at(y, x);
                let to = &mut output[at..at + pool.output.channels];
                to.fill(lowest);
                for row in pool.window.inside(y, 0, pool.input.height) {
                    for column in pool.window.inside(x, 1, pool.input.width) {
                        let from = pool.input.at(row, column);
                        for (best, &code) in to.iter_mut().zip(&input[from..]) {
                            *best = (*best).max(code);
                        }
                    }
                }
                for code in to {
                    *code = pool.table[(code.get() - pool.lowest) as usize];
                }
            }
        }
    }
}

/// The f32 end: the last map dequantized and planar, its mean, the classifier.
pub(super) struct Classify<'a, D: Dot> {
    pub codes: Codes,
    pub layout: Layout,
    pub input: &'a [D::Code],
    /// The classifier's; of no class where a map is only handed on.
    pub weight: &'a [f32],
    pub bias: &'a [f32],
    pub pooled: &'a mut [f32],
    pub features: &'a mut [f32],
    pub logits: &'a mut [f32],
}

impl<D: Dot> Task<D> for Classify<'_, D> {
    type Output = ();

    #[inline(always)]
    unsafe fn run(self) {
        let Self { codes, layout, input, weight, bias, pooled, features, logits } = self;
        let area = layout.height * layout.width;
        let shift = D::Code::shift(&codes);
        // Four pixels at a time, interleaved channel by channel: from the order of the map to that of the planes.
        for first in (0..layout.channels).step_by(D::LANES * D::GROUP) {
            let count = (layout.channels - first).min(D::LANES * D::GROUP);
            let planes = &mut features[first * area..][..count * area];
            let (mut stored, mut fours) = ([D::Code::new(0); ROWS * MOST_CODES], [[D::Code::new(0); ROWS]; MOST_CODES]);
            let mut sums = [0i64; MOST_CODES];
            for pixel in (0..area).step_by(ROWS) {
                // SAFETY: the caller vouches for the set; the map has these pixels, and the memory behind it is readable
                // for a chunk of channels.
                unsafe {
                    let rows = [0, 1, 2, 3].map(|row: usize| {
                        // Past the end the last pixel stands in.
                        let at = (pixel + row).min(area - 1);
                        let from = layout.at(at / layout.width, at % layout.width) + first;
                        D::load_codes(input.as_ptr().add(from))
                    });
                    for (operand, codes) in D::interleave(rows).into_iter().enumerate() {
                        D::store_codes(codes, stored.as_mut_ptr().add(operand * D::LANES * D::GROUP));
                    }
                }
                for (channel, four) in fours[..D::LANES * D::GROUP].iter_mut().enumerate() {
                    let (vector, lane) = packed(channel, D::GROUP);
                    for row in (0..ROWS).step_by(D::GROUP) {
                        let at = ((row + vector) * D::LANES + lane) * D::GROUP;
                        four[row..row + D::GROUP].copy_from_slice(&stored[at..at + D::GROUP]);
                    }
                }
                let all = planes.chunks_exact_mut(area).zip(&fours).zip(&mut sums);
                if area - pixel < ROWS {
                    for ((plane, four), sum) in all {
                        for (to, code) in plane[pixel..].iter_mut().zip(four) {
                            *sum += i64::from(code.get() - shift);
                            *to = (code.get() - shift) as f32 * codes.scale;
                        }
                    }
                } else {
                    for ((plane, four), sum) in all {
                        let centred = four.map(|code| code.get() - shift);
                        *sum += i64::from(centred.iter().sum::<i32>());
                        plane[pixel..pixel + ROWS].copy_from_slice(&centred.map(|x| x as f32 * codes.scale));
                    }
                }
            }
            for (mean, sum) in pooled[first..].iter_mut().zip(&sums[..count]) {
                *mean = (*sum as f64 * f64::from(codes.scale) / area as f64) as f32;
            }
        }
        for ((logit, row), bias) in logits.iter_mut().zip(weight.chunks_exact(pooled.len())).zip(bias) {
            *logit = product(row, pooled) + bias;
        }
    }
}

/// Scalar product in eight partial sums of fixed order, so that every instruction set rounds alike.
#[inline(always)]
fn product(a: &[f32], b: &[f32]) -> f32 {
    let (a, rest_a) = a.as_chunks::<8>();
    let (b, rest_b) = b.as_chunks::<8>();
    let mut sums = [0f32; 8];
    for (a, b) in a.iter().zip(b) {
        for i in 0..8 {
            sums[i] += a[i] * b[i];
        }
    }
    let rest: f32 = rest_a.iter().zip(rest_b).map(|(a, b)| a * b).sum();
    ((sums[0] + sums[4]) + (sums[2] + sums[6])) + ((sums[1] + sums[5]) + (sums[3] + sums[7])) + rest
}
