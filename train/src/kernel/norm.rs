//! Batch norm, optionally with a residual added and a ReLU, as one operation: two passes forward, two backward.
//!
//! Batch statistics are summed in `f32` over at most 64 pixels about a pivot, then in `f64`; chunks are fixed by the
//! shape, so the result does not depend on the number of threads. The variance that normalises is the biased one.

use super::{Shared, floats, uninitialised, with_floats};
use candle_core::{CpuStorage, CustomOp2, CustomOp3, Device, Layout, Result, Shape, Tensor, bail};
use excon_edge::kernel::{Isa, Kernel, Vector, active, dispatch};
use rayon::prelude::*;

/// Added to the variance.
pub const EPSILON: f64 = 1e-5;
/// Numbers of one parallel piece of work.
const CHUNK: usize = 16 * 1024;
/// Pixels summed in single precision.
const RUN: usize = 64;

/// Mean and biased variance of each channel, over `count` pixels.
#[derive(Debug, Clone, PartialEq)]
pub struct Statistics {
    /// Mean per channel.
    pub mean: Vec<f32>,
    /// Biased variance per channel.
    pub variance: Vec<f32>,
    /// Pixels that were averaged.
    pub count: usize,
}

/// What [`batch_norm`] returns.
pub struct NormOutput {
    /// The normalised map.
    pub y: Tensor,
    /// The batch's statistics, where they normalised it.
    pub batch: Option<Statistics>,
}

/// `relu?((x − mean) / √(variance + ε) · weight + bias + residual?)` per channel, tracked by autograd.
///
/// With `fixed` statistics those normalise and are constants of the gradient; without, those of the batch do, and the
/// gradient goes through them.
///
/// # Errors
/// When shapes do not fit together or the tensors are not `f32`.
pub fn batch_norm(
    x: &Tensor,
    weight: &Tensor,
    bias: &Tensor,
    residual: Option<&Tensor>,
    relu: bool,
    fixed: Option<&Statistics>,
) -> Result<NormOutput> {
    let x = x.contiguous()?;
    let channels = x.dims4()?.3;
    if weight.dims() != [channels] || bias.dims() != [channels] || residual.is_some_and(|r| r.dims() != x.dims()) {
        bail!("batch norm of {:?}: weight {:?}, residual {:?}", x.dims(), weight.dims(), residual.map(|r| r.dims()));
    }
    let isa = active();
    let batch = match fixed {
        Some(fixed) if fixed.mean.len() == channels && fixed.variance.len() == channels => None,
        Some(fixed) => bail!("batch norm of {channels} channels with statistics of {}", fixed.mean.len()),
        None => Some(with_floats([&x], |[x]| Ok(statistics(isa, x, channels)))?),
    };
    let used = fixed.or(batch.as_ref());
    let (mean, inverse) = match used {
        Some(s) => {
            (s.mean.clone(), s.variance.iter().map(|&v| (1.0 / (f64::from(v) + EPSILON).sqrt()) as f32).collect())
        }
        None => bail!("batch norm without statistics"),
    };
    let op = Norm { mean, inverse, batch: fixed.is_none(), relu, isa };
    let affine = Tensor::stack(&[weight, bias], 0)?;
    let y = match residual {
        None => x.apply_op2(&affine, op)?,
        Some(residual) => x.apply_op3(&affine, &residual.contiguous()?, op)?,
    };
    Ok(NormOutput { y, batch })
}

/// Mean and biased variance of each channel.
fn statistics(isa: Isa, x: &[f32], channels: usize) -> Statistics {
    let count = x.len() / channels;
    let pivot = &x[..channels.min(x.len())];
    let sums = reduce(x.len(), channels, |from, to, sums| {
        dispatch(isa, Sums::<0> { x: &x[from..to], gradient: &[], gate: &[], pivot, channels, sums });
    });
    let (mut mean, mut variance) = (vec![0.0; channels], vec![0.0; channels]);
    for c in 0..channels.min(x.len()) {
        let (a, b) = (sums[c] / count as f64, sums[channels + c] / count as f64);
        mean[c] = (f64::from(pivot[c]) + a) as f32;
        variance[c] = (b - a * a).max(0.0) as f32;
    }
    Statistics { mean, variance, count }
}

/// Sums `2 · channels` numbers over chunks of pixels in a fixed order.
fn reduce(len: usize, channels: usize, f: impl Fn(usize, usize, &mut [f64]) + Sync) -> Vec<f64> {
    let chunk = (CHUNK / channels).max(1) * channels;
    let parts: Vec<Vec<f64>> = (0..len.div_ceil(chunk))
        .into_par_iter()
        .map(|i| {
            let mut sums = vec![0.0; 2 * channels];
            f(i * chunk, ((i + 1) * chunk).min(len), &mut sums);
            sums
        })
        .collect();
    let mut total = vec![0.0; 2 * channels];
    for part in parts {
        total.iter_mut().zip(part).for_each(|(t, p)| *t += p);
    }
    total
}

/// Per channel the sums of `u` and `u · v`. `MODE` 0: u = v = x − pivot; 1: u = gradient, v = x − pivot; 2: as 1, where
/// the gate is positive.
struct Sums<'a, const MODE: u8> {
    x: &'a [f32],
    gradient: &'a [f32],
    gate: &'a [f32],
    pivot: &'a [f32],
    channels: usize,
    /// `2 · channels` totals that are added to.
    sums: &'a mut [f64],
}

impl<const MODE: u8> Kernel for Sums<'_, MODE> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<V: Vector>(mut self) {
        let pixels = self.x.len() / self.channels;
        for from in (0..pixels).step_by(RUN) {
            let run = RUN.min(pixels - from);
            let mut c = 0;
            // SAFETY: channels advance by what was summed, and the pixels exist in all slices that the mode reads.
            unsafe {
                while c + 2 * V::LANES <= self.channels {
                    self.block::<V, 2>(from, run, c);
                    c += 2 * V::LANES;
                }
                while c + V::LANES <= self.channels {
                    self.block::<V, 1>(from, run, c);
                    c += V::LANES;
                }
                while c < self.channels {
                    self.block::<f32, 1>(from, run, c);
                    c += 1;
                }
            }
        }
    }
}

impl<const MODE: u8> Sums<'_, MODE> {
    #[inline(always)]
    unsafe fn block<V: Vector, const N: usize>(&mut self, from: usize, run: usize, channel: usize) {
        // SAFETY: see `run`.
        unsafe {
            let (mut a, mut b) = ([V::splat(0.0); N], [V::splat(0.0); N]);
            let mut pivot = [V::splat(0.0); N];
            for n in 0..N {
                pivot[n] = V::load(self.pivot.as_ptr().add(channel + n * V::LANES));
            }
            for pixel in from..from + run {
                for n in 0..N {
                    let at = pixel * self.channels + channel + n * V::LANES;
                    let v = V::load(self.x.as_ptr().add(at)).sub(pivot[n]);
                    let u = match MODE {
                        0 => v,
                        1 => V::load(self.gradient.as_ptr().add(at)),
                        _ => {
                            V::load(self.gradient.as_ptr().add(at)).where_positive(V::load(self.gate.as_ptr().add(at)))
                        }
                    };
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

/// `y = x · scale + shift (+ residual)`, then the ReLU.
struct Apply<'a> {
    x: &'a [f32],
    residual: Option<&'a [f32]>,
    scale: &'a [f32],
    shift: &'a [f32],
    floor: f32,
    y: *mut f32,
}

impl Kernel for Apply<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<V: Vector>(self) {
        let channels = self.scale.len();
        for pixel in (0..self.x.len()).step_by(channels) {
            let mut c = 0;
            // SAFETY: pixels and channels exist in all slices; `y` has room for as many numbers as `x`.
            unsafe {
                while c + V::LANES <= channels {
                    self.one::<V>(pixel + c, c);
                    c += V::LANES;
                }
                while c < channels {
                    self.one::<f32>(pixel + c, c);
                    c += 1;
                }
            }
        }
    }
}

impl Apply<'_> {
    #[inline(always)]
    unsafe fn one<V: Vector>(&self, at: usize, channel: usize) {
        // SAFETY: see `run`.
        unsafe {
            let scale = V::load(self.scale.as_ptr().add(channel));
            let mut y = V::load(self.shift.as_ptr().add(channel)).add_product(V::load(self.x.as_ptr().add(at)), scale);
            if let Some(residual) = self.residual {
                y = y.add(V::load(residual.as_ptr().add(at)));
            }
            y.max(V::splat(self.floor)).store(self.y.add(at));
        }
    }
}

/// With d = gradient (where the gate is positive): `dx = d · scale − (x − mean) · slope − shift`, and d itself.
struct ApplyBackward<'a> {
    x: &'a [f32],
    gradient: &'a [f32],
    gate: Option<&'a [f32]>,
    mean: &'a [f32],
    scale: &'a [f32],
    slope: &'a [f32],
    shift: &'a [f32],
    dx: *mut f32,
    d: Option<*mut f32>,
}

impl Kernel for ApplyBackward<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<V: Vector>(self) {
        let channels = self.scale.len();
        for pixel in (0..self.x.len()).step_by(channels) {
            let mut c = 0;
            // SAFETY: pixels and channels exist in all slices; the outputs have room for as many numbers as `x`.
            unsafe {
                while c + V::LANES <= channels {
                    self.one::<V>(pixel + c, c);
                    c += V::LANES;
                }
                while c < channels {
                    self.one::<f32>(pixel + c, c);
                    c += 1;
                }
            }
        }
    }
}

impl ApplyBackward<'_> {
    #[inline(always)]
    unsafe fn one<V: Vector>(&self, at: usize, channel: usize) {
        // SAFETY: see `run`.
        unsafe {
            let [mean, scale, slope, shift] = [
                V::load(self.mean.as_ptr().add(channel)),
                V::load(self.scale.as_ptr().add(channel)),
                V::load(self.slope.as_ptr().add(channel)),
                V::load(self.shift.as_ptr().add(channel)),
            ];
            let mut d = V::load(self.gradient.as_ptr().add(at));
            if let Some(gate) = self.gate {
                d = d.where_positive(V::load(gate.as_ptr().add(at)));
            }
            if let Some(out) = self.d {
                d.store(out.add(at));
            }
            let centred = V::load(self.x.as_ptr().add(at)).sub(mean);
            d.mul(scale).sub(centred.mul(slope)).sub(shift).store(self.dx.add(at));
        }
    }
}

/// The operation on (x, [weight; bias]) and, with three arguments, a residual.
struct Norm {
    mean: Vec<f32>,
    /// 1 / √(variance + ε).
    inverse: Vec<f32>,
    /// The statistics are the batch's.
    batch: bool,
    relu: bool,
    isa: Isa,
}

struct Gradients {
    dx: Vec<f32>,
    affine: Vec<f32>,
    residual: Option<Vec<f32>>,
}

impl Norm {
    fn forward(&self, x: &[f32], affine: &[f32], residual: Option<&[f32]>) -> Vec<f32> {
        let channels = self.mean.len();
        let scale: Vec<f32> = (0..channels).map(|c| affine[c] * self.inverse[c]).collect();
        let shift: Vec<f32> = (0..channels).map(|c| affine[channels + c] - self.mean[c] * scale[c]).collect();
        let floor = if self.relu { 0.0 } else { f32::NEG_INFINITY };
        let mut y = uninitialised(x.len());
        let out = Shared::of(&mut y);
        each_chunk(x.len(), channels, |from, to| {
            // SAFETY: chunks are disjoint ranges of `y`.
            let y = unsafe { out.at(from) };
            let residual = residual.map(|r| &r[from..to]);
            dispatch(self.isa, Apply { x: &x[from..to], residual, scale: &scale, shift: &shift, floor, y });
        });
        y
    }

    fn backward(&self, x: &[f32], affine: &[f32], y: &[f32], g: &[f32], residual: bool) -> Gradients {
        let channels = self.mean.len();
        let isa = self.isa;
        let sums = reduce(x.len(), channels, |from, to, sums| {
            let (x, gradient, gate, pivot) = (&x[from..to], &g[from..to], &y[from..to], &self.mean[..]);
            match self.relu {
                true => dispatch(isa, Sums::<2> { x, gradient, gate, pivot, channels, sums }),
                false => dispatch(isa, Sums::<1> { x, gradient, gate, pivot, channels, sums }),
            }
        });
        let pixels = (x.len() / channels).max(1) as f64;
        let mut grads = vec![0.0; 2 * channels];
        let [mut scale, mut slope, mut shift] = [(); 3].map(|()| vec![0.0; channels]);
        for c in 0..channels {
            let inverse = f64::from(self.inverse[c]);
            let (bias, weight) = (sums[c], sums[channels + c] * inverse);
            let k = f64::from(affine[c]) * inverse;
            grads[c] = weight as f32;
            grads[channels + c] = bias as f32;
            scale[c] = k as f32;
            if self.batch {
                slope[c] = (k * weight * inverse / pixels) as f32;
                shift[c] = (k * bias / pixels) as f32;
            }
        }
        let mut dx = uninitialised(x.len());
        // Without a ReLU the residual's gradient is the output's, which the caller has.
        let mut d = (residual && self.relu).then(|| uninitialised(x.len()));
        let (dx_out, d_out) = (Shared::of(&mut dx), d.as_mut().map(|d| Shared::of(d)));
        each_chunk(x.len(), channels, |from, to| {
            // SAFETY: chunks are disjoint ranges of both outputs.
            let (dx, d) = unsafe { (dx_out.at(from), d_out.map(|d| d.at(from))) };
            let gate = self.relu.then(|| &y[from..to]);
            let (x, gradient, mean) = (&x[from..to], &g[from..to], &self.mean[..]);
            dispatch(
                isa,
                ApplyBackward { x, gradient, gate, mean, scale: &scale, slope: &slope, shift: &shift, dx, d },
            );
        });
        Gradients { dx, affine: grads, residual: d }
    }

    fn tensors(
        &self,
        x: &Tensor,
        affine: &Tensor,
        y: &Tensor,
        g: &Tensor,
        residual: bool,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let g = g.contiguous()?;
        let grads = with_floats([x, affine, y, &g], |[x, affine, y, g]| Ok(self.backward(x, affine, y, g, residual)))?;
        let d = match (residual, grads.residual) {
            (false, _) => None,
            (true, None) => Some(g),
            (true, Some(d)) => Some(Tensor::from_vec(d, x.shape(), &Device::Cpu)?),
        };
        let dx = Tensor::from_vec(grads.dx, x.shape(), &Device::Cpu)?;
        Ok((Some(dx), Some(Tensor::from_vec(grads.affine, affine.shape(), &Device::Cpu)?), d))
    }
}

/// Runs `f` on ranges of whole pixels in parallel.
fn each_chunk(len: usize, channels: usize, f: impl Fn(usize, usize) + Sync) {
    let chunk = (CHUNK / channels).max(1) * channels;
    (0..len.div_ceil(chunk)).into_par_iter().for_each(|i| f(i * chunk, ((i + 1) * chunk).min(len)));
}

impl CustomOp2 for Norm {
    fn name(&self) -> &'static str {
        "batch-norm"
    }

    fn cpu_fwd(&self, s1: &CpuStorage, l1: &Layout, s2: &CpuStorage, l2: &Layout) -> Result<(CpuStorage, Shape)> {
        let y = self.forward(floats(s1, l1)?, floats(s2, l2)?, None);
        Ok((CpuStorage::F32(y), l1.shape().clone()))
    }

    fn bwd(&self, x: &Tensor, affine: &Tensor, y: &Tensor, g: &Tensor) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let (dx, affine, _) = self.tensors(x, affine, y, g, false)?;
        Ok((dx, affine))
    }
}

impl CustomOp3 for Norm {
    fn name(&self) -> &'static str {
        "batch-norm-residual"
    }

    fn cpu_fwd(
        &self,
        s1: &CpuStorage,
        l1: &Layout,
        s2: &CpuStorage,
        l2: &Layout,
        s3: &CpuStorage,
        l3: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let y = self.forward(floats(s1, l1)?, floats(s2, l2)?, Some(floats(s3, l3)?));
        Ok((CpuStorage::F32(y), l1.shape().clone()))
    }

    fn bwd(
        &self,
        x: &Tensor,
        affine: &Tensor,
        _: &Tensor,
        y: &Tensor,
        g: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        self.tensors(x, affine, y, g, true)
    }
}
