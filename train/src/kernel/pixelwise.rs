//! Passes over a map that treat each channel alike: writing a formula's values, and summing over pixels.
//!
//! A formula is written once over vectors ([`Value`], [`Pair`]); channels that do not fill a vector are done one by one
//! with the same text. Sums are taken in `f32` over at most [`RUN`] pixels, then in `f64`; pieces of work are fixed by
//! the shape, so results do not depend on the number of threads.

use super::Shared;
use excon_edge::kernel::{Clip, Isa, Kernel, Vector, dispatch};
use rayon::prelude::*;

/// Numbers of one parallel piece of work.
const CHUNK: usize = 16 * 1024;
/// Pixels summed in single precision.
const RUN: usize = 64;

/// A value for each number of a map.
pub(super) trait Value {
    /// The values at `index` (in numbers, from the start of the map) for channels from `channel`.
    ///
    /// # Safety
    /// The vector must lie in the formula's maps, and the processor must have its instruction set. Implementations are
    /// `#[inline(always)]`.
    unsafe fn at<V: Vector>(&self, index: usize, channel: usize) -> V;
}

/// Two values for each number of a map, `u` and `v`; summed are `u` and `u · v`.
pub(super) trait Pair {
    /// As [`Value::at`].
    ///
    /// # Safety
    /// As [`Value::at`].
    unsafe fn at<V: Vector>(&self, index: usize, channel: usize) -> (V, V);
}

/// Runs `f(from, to)` on ranges of whole pixels in parallel.
pub(super) fn each_chunk(len: usize, channels: usize, f: impl Fn(usize, usize) + Sync) {
    let chunk = (CHUNK / channels).max(1) * channels;
    (0..len.div_ceil(chunk)).into_par_iter().for_each(|i| f(i * chunk, ((i + 1) * chunk).min(len)));
}

/// Writes the formula's values to all of `out`, in parallel.
///
/// # Safety
/// The formula must be defined on `out.len()` numbers of pixels of `channels`.
pub(super) unsafe fn map(isa: Isa, value: &(impl Value + Sync), channels: usize, out: &mut [f32]) {
    let len = out.len();
    let out = Shared::of(out);
    each_chunk(len, channels, |from, to| {
        // SAFETY: chunks are disjoint ranges of `out`, and the caller vouches for the formula.
        unsafe { dispatch(isa, Write { value, from, to, channels, out: out.at(from) }) };
    });
}

/// Writes numbers `from..to`, whole pixels, to `out`.
struct Write<'a, P> {
    value: &'a P,
    from: usize,
    to: usize,
    channels: usize,
    out: *mut f32,
}

impl<P: Value> Kernel for Write<'_, P> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<V: Vector>(self) {
        // SAFETY: passed on to the caller of `map`.
        unsafe { write_pixels::<V, P>(self.value, self.from, self.to - self.from, self.channels, self.out) }
    }
}

/// Writes `len` numbers, whole pixels from `from` on.
///
/// # Safety
/// The formula must be defined there, `out` writable for `len` numbers, and the set of `V` present.
#[inline(always)]
pub(super) unsafe fn write_pixels<V: Vector, P: Value>(
    value: &P,
    from: usize,
    len: usize,
    channels: usize,
    out: *mut f32,
) {
    for pixel in (0..len).step_by(channels) {
        let mut c = 0;
        // SAFETY: pixels and channels lie within the `len` numbers.
        unsafe {
            while c + V::LANES <= channels {
                value.at::<V>(from + pixel + c, c).store(out.add(pixel + c));
                c += V::LANES;
            }
            while c + V::Half::LANES <= channels {
                value.at::<V::Half>(from + pixel + c, c).store(out.add(pixel + c));
                c += V::Half::LANES;
            }
            while c < channels {
                value.at::<f32>(from + pixel + c, c).store(out.add(pixel + c));
                c += 1;
            }
        }
    }
}

/// Per channel the sums of `u`, then of `u · v`, over `len` numbers, in parallel and in a fixed order.
///
/// # Safety
/// The formula must be defined on `len` numbers.
pub(super) unsafe fn sum(isa: Isa, pair: &(impl Pair + Sync), channels: usize, len: usize) -> Vec<f64> {
    let chunk = (CHUNK / channels).max(1) * channels;
    let parts: Vec<Vec<f64>> = (0..len.div_ceil(chunk))
        .into_par_iter()
        // SAFETY: the caller vouches for all `len` numbers.
        .map(|i| unsafe { sum_range(isa, pair, channels, i * chunk, ((i + 1) * chunk).min(len)) })
        .collect();
    add_up(&parts, channels)
}

/// As [`sum`], over the numbers `from..to`, on this thread.
///
/// # Safety
/// The formula must be defined there.
pub(super) unsafe fn sum_range(isa: Isa, pair: &impl Pair, channels: usize, from: usize, to: usize) -> Vec<f64> {
    let mut sums = vec![0.0; 2 * channels];
    dispatch(isa, Sum { pair, from, to, channels, sums: &mut sums });
    sums
}

/// Adds partial sums in order.
pub(super) fn add_up(parts: &[Vec<f64>], channels: usize) -> Vec<f64> {
    let mut total = vec![0.0; 2 * channels];
    for part in parts {
        total.iter_mut().zip(part).for_each(|(t, p)| *t += p);
    }
    total
}

struct Sum<'a, P> {
    pair: &'a P,
    from: usize,
    to: usize,
    channels: usize,
    sums: &'a mut [f64],
}

impl<P: Pair> Kernel for Sum<'_, P> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<V: Vector>(mut self) {
        let mut from = self.from;
        while from < self.to {
            let to = (from + RUN * self.channels).min(self.to);
            let mut c = 0;
            // SAFETY: channels advance by what was summed; pixels are the caller's.
            unsafe {
                while c + 2 * V::LANES <= self.channels {
                    self.block::<V, 2>(from, to, c);
                    c += 2 * V::LANES;
                }
                while c + V::LANES <= self.channels {
                    self.block::<V, 1>(from, to, c);
                    c += V::LANES;
                }
                while c + V::Half::LANES <= self.channels {
                    self.block::<V::Half, 1>(from, to, c);
                    c += V::Half::LANES;
                }
                while c < self.channels {
                    self.block::<f32, 1>(from, to, c);
                    c += 1;
                }
            }
            from = to;
        }
    }
}

impl<P: Pair> Sum<'_, P> {
    #[inline(always)]
    unsafe fn block<V: Vector, const N: usize>(&mut self, from: usize, to: usize, channel: usize) {
        // SAFETY: see `run`.
        unsafe {
            let (mut a, mut b) = ([V::splat(0.0); N], [V::splat(0.0); N]);
            for pixel in (from..to).step_by(self.channels) {
                for n in 0..N {
                    let c = channel + n * V::LANES;
                    let (u, v) = self.pair.at::<V>(pixel + c, c);
                    a[n] = a[n].add(u);
                    b[n] = b[n].add_product(u, v);
                }
            }
            let mut lanes = [0.0; 16];
            for n in 0..N {
                let first = channel + n * V::LANES;
                a[n].store(lanes.as_mut_ptr());
                (0..V::LANES).for_each(|i| self.sums[first + i] += f64::from(lanes[i]));
                b[n].store(lanes.as_mut_ptr());
                (0..V::LANES).for_each(|i| self.sums[self.channels + first + i] += f64::from(lanes[i]));
            }
        }
    }
}

/// Reads a vector from a slice, checked in debug builds.
///
/// # Safety
/// `at + V::LANES` must not exceed the slice; the set of `V` must be present.
#[inline(always)]
pub(super) unsafe fn load<V: Vector>(slice: &[f32], at: usize) -> V {
    debug_assert!(at + V::LANES <= slice.len());
    // SAFETY: see above.
    unsafe { V::load(slice.as_ptr().add(at)) }
}

/// # Safety
/// The set of `V` must be present.
#[inline(always)]
unsafe fn clipped<V: Vector>(value: V, clip: Clip) -> V {
    // SAFETY: see above.
    unsafe { value.max(V::splat(clip.low)).min(V::splat(clip.high)) }
}

/// `x · scale + shift`, clipped, per channel: a norm with known statistics, and its activation.
#[derive(Clone, Copy)]
pub(super) struct Affine<'a> {
    pub(super) x: &'a [f32],
    pub(super) scale: &'a [f32],
    pub(super) shift: &'a [f32],
    pub(super) clip: Clip,
}

impl Value for Affine<'_> {
    #[inline(always)]
    unsafe fn at<V: Vector>(&self, index: usize, channel: usize) -> V {
        // SAFETY: passed on to the caller.
        unsafe {
            let y = load::<V>(self.shift, channel).add_product(load(self.x, index), load(self.scale, channel));
            clipped(y, self.clip)
        }
    }
}

/// As [`Affine`] with a residual added before the activation.
pub(super) struct AffineSum<'a> {
    pub(super) affine: Affine<'a>,
    pub(super) residual: &'a [f32],
}

impl Value for AffineSum<'_> {
    #[inline(always)]
    unsafe fn at<V: Vector>(&self, index: usize, channel: usize) -> V {
        let Affine { x, scale, shift, clip } = self.affine;
        // SAFETY: passed on to the caller.
        unsafe {
            let y = load::<V>(shift, channel).add_product(load(x, index), load(scale, channel));
            clipped(y.add(load(self.residual, index)), clip)
        }
    }
}

/// For batch statistics: u = v = x − pivot.
pub(super) struct Deviation<'a> {
    pub(super) x: &'a [f32],
    /// One per channel, near the mean, so that squares do not swamp the variance.
    pub(super) pivot: &'a [f32],
}

impl Pair for Deviation<'_> {
    #[inline(always)]
    unsafe fn at<V: Vector>(&self, index: usize, channel: usize) -> (V, V) {
        // SAFETY: passed on to the caller.
        unsafe {
            let v = load::<V>(self.x, index).sub(load(self.pivot, channel));
            (v, v)
        }
    }
}

/// The output gradient where the activation let through: where the gate lies between 0 and `high`.
#[derive(Clone, Copy)]
pub(super) struct Gated<D, G> {
    pub(super) gradient: D,
    /// The activation's input, or its output: both lie inside, or neither.
    pub(super) gate: G,
    /// Upper end of the activation; infinite for a ReLU.
    pub(super) high: f32,
}

impl<D: Value, G: Value> Value for Gated<D, G> {
    #[inline(always)]
    unsafe fn at<V: Vector>(&self, index: usize, channel: usize) -> V {
        // SAFETY: passed on to the caller.
        unsafe {
            let gate = self.gate.at::<V>(index, channel);
            let inside = V::splat(self.high).sub(gate).min(gate);
            self.gradient.at::<V>(index, channel).where_positive(inside)
        }
    }
}

/// Numbers as they are, of a buffer that is being rewritten.
#[derive(Clone, Copy)]
pub(super) struct Raw(pub(super) Shared);

impl Value for Raw {
    #[inline(always)]
    unsafe fn at<V: Vector>(&self, index: usize, _: usize) -> V {
        // SAFETY: passed on to the caller.
        unsafe { V::load(self.0.at(index)) }
    }
}

/// Numbers as they are.
#[derive(Clone, Copy)]
pub(super) struct Plain<'a>(pub(super) &'a [f32]);

impl Value for Plain<'_> {
    #[inline(always)]
    unsafe fn at<V: Vector>(&self, index: usize, _: usize) -> V {
        // SAFETY: passed on to the caller.
        unsafe { load::<V>(self.0, index) }
    }
}

/// For the backward sums: u = gradient, v = x − mean.
pub(super) struct Moments<'a, D> {
    pub(super) gradient: D,
    pub(super) x: &'a [f32],
    pub(super) mean: &'a [f32],
    /// Where to keep the gradient, if anywhere.
    pub(super) keep: Option<Shared>,
}

impl<D: Value> Pair for Moments<'_, D> {
    #[inline(always)]
    unsafe fn at<V: Vector>(&self, index: usize, channel: usize) -> (V, V) {
        // SAFETY: passed on to the caller; pieces of work keep disjoint ranges.
        unsafe {
            let u = self.gradient.at::<V>(index, channel);
            if let Some(keep) = self.keep {
                u.store(keep.at(index));
            }
            (u, load::<V>(self.x, index).sub(load(self.mean, channel)))
        }
    }
}

/// The gradient at a norm's input: gradient · scale − x · slope + constant.
pub(super) struct NormGradient<'a, D> {
    pub(super) gradient: D,
    pub(super) x: &'a [f32],
    pub(super) coefficients: &'a Coefficients,
}

/// Per channel, of [`NormGradient`].
pub(super) struct Coefficients {
    pub(super) scale: Vec<f32>,
    pub(super) slope: Vec<f32>,
    pub(super) constant: Vec<f32>,
}

impl<D: Value> Value for NormGradient<'_, D> {
    #[inline(always)]
    unsafe fn at<V: Vector>(&self, index: usize, channel: usize) -> V {
        let k = self.coefficients;
        // SAFETY: passed on to the caller.
        unsafe {
            let d = self.gradient.at::<V>(index, channel);
            let rest = load::<V>(&k.constant, channel).sub(load::<V>(self.x, index).mul(load(&k.slope, channel)));
            rest.add_product(d, load(&k.scale, channel))
        }
    }
}
