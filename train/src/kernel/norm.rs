//! Batch norm, optionally with a residual added and an activation, as one operation: two passes forward, two backward.
//!
//! The variance that normalises is the biased one.

use super::pixelwise::{Affine, AffineSum, Coefficients, Deviation, Gated, Moments, NormGradient, Plain, map, sum};
use super::{Shared, floats, uninitialised, with_floats};
use candle_core::{CpuStorage, CustomOp2, CustomOp3, Device, Layout, Result, Shape, Tensor, bail};
use excon_edge::kernel::{Clip, Isa, active};

/// Added to the variance.
pub const EPSILON: f64 = 1e-5;

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

/// `clip((x − mean) / √(variance + ε) · weight + bias + residual?)` per channel, tracked by autograd.
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
    clip: Clip,
    fixed: Option<&Statistics>,
) -> Result<NormOutput> {
    let x = x.contiguous()?;
    let channels = x.dims4()?.3;
    if x.elem_count() == 0
        || weight.dims() != [channels]
        || bias.dims() != [channels]
        || residual.is_some_and(|r| r.dims() != x.dims())
    {
        bail!("batch norm of {:?}: weight {:?}, residual {:?}", x.dims(), weight.dims(), residual.map(|r| r.dims()));
    }
    let isa = active();
    let batch = match fixed {
        Some(fixed) if fixed.mean.len() == channels && fixed.variance.len() == channels => None,
        Some(fixed) => bail!("batch norm of {channels} channels with statistics of {}", fixed.mean.len()),
        None => Some(with_floats([&x], |[x]| Ok(statistics(isa, x, channels)))?),
    };
    let used = fixed.or(batch.as_ref());
    let Some(used) = used else { bail!("batch norm without statistics") };
    let (mean, inverse) = (used.mean.clone(), used.inverse());
    let op = Norm { mean, inverse, batch: fixed.is_none(), clip, isa };
    let affine = Tensor::stack(&[weight, bias], 0)?;
    let y = match residual {
        None => x.apply_op2(&affine, op)?,
        Some(residual) => x.apply_op3(&affine, &residual.contiguous()?, op)?,
    };
    Ok(NormOutput { y, batch })
}

/// Mean and biased variance of each channel.
fn statistics(isa: Isa, x: &[f32], channels: usize) -> Statistics {
    let pivot = &x[..channels];
    // SAFETY: `x` holds whole pixels.
    let sums = unsafe { sum(isa, &Deviation { x, pivot }, channels, x.len()) };
    Statistics::of(&sums, pivot, x.len() / channels)
}

impl Statistics {
    /// From the sums of deviations from a pivot, and of their squares.
    pub(super) fn of(sums: &[f64], pivot: &[f32], count: usize) -> Self {
        let (mean, square) = sums.split_at(pivot.len());
        let n = count as f64;
        Self {
            mean: mean.iter().zip(pivot).map(|(m, p)| (f64::from(*p) + m / n) as f32).collect(),
            variance: mean.iter().zip(square).map(|(m, s)| (s / n - m / n * (m / n)).max(0.0) as f32).collect(),
            count,
        }
    }

    /// 1 / √(variance + ε).
    pub(super) fn inverse(&self) -> Vec<f32> {
        self.variance.iter().map(|&v| (1.0 / (f64::from(v) + EPSILON).sqrt()) as f32).collect()
    }
}

/// Factor and summand that normalise and scale at once.
pub(super) fn affine(weight: &[f32], bias: &[f32], mean: &[f32], inverse: &[f32]) -> (Vec<f32>, Vec<f32>) {
    let scale: Vec<f32> = weight.iter().zip(inverse).map(|(w, i)| w * i).collect();
    let shift = bias.iter().zip(mean).zip(&scale).map(|((b, m), s)| b - m * s).collect();
    (scale, shift)
}

/// From the sums of the gradient and of gradient × deviation over `pixels`: the gradients of weight then bias, and the
/// coefficients of the input's gradient. With fixed statistics only the gradient itself passes on.
pub(super) fn gradients(
    sums: &[f64],
    weight: &[f32],
    mean: &[f32],
    inverse: &[f32],
    pixels: Option<usize>,
) -> (Vec<f32>, Coefficients) {
    let channels = weight.len();
    let mut parameters = vec![0.0; 2 * channels];
    let [mut scale, mut slope, mut constant] = [(); 3].map(|()| vec![0.0; channels]);
    for c in 0..channels {
        let inverse = f64::from(inverse[c]);
        let (bias, slant) = (sums[c], sums[channels + c] * inverse);
        let k = f64::from(weight[c]) * inverse;
        parameters[c] = slant as f32;
        parameters[channels + c] = bias as f32;
        scale[c] = k as f32;
        if let Some(pixels) = pixels {
            let s = k * slant * inverse / pixels as f64;
            slope[c] = s as f32;
            constant[c] = (f64::from(mean[c]) * s - k * bias / pixels as f64) as f32;
        }
    }
    (parameters, Coefficients { scale, slope, constant })
}

/// The operation on (x, [weight; bias]) and, with three arguments, a residual.
struct Norm {
    mean: Vec<f32>,
    /// 1 / √(variance + ε).
    inverse: Vec<f32>,
    /// The statistics are the batch's.
    batch: bool,
    clip: Clip,
    isa: Isa,
}

struct Gradients {
    dx: Vec<f32>,
    affine: Vec<f32>,
    residual: Option<Vec<f32>>,
}

impl Norm {
    fn forward(&self, x: &[f32], parameters: &[f32], residual: Option<&[f32]>) -> Vec<f32> {
        let channels = self.mean.len();
        let (weight, bias) = parameters.split_at(channels);
        let (scale, shift) = affine(weight, bias, &self.mean, &self.inverse);
        let affine = Affine { x, scale: &scale, shift: &shift, clip: self.clip };
        let mut y = uninitialised(x.len());
        // SAFETY: all maps have the length of `x`; channels were checked.
        unsafe {
            match residual {
                None => map(self.isa, &affine, channels, &mut y),
                Some(residual) => map(self.isa, &AffineSum { affine, residual }, channels, &mut y),
            }
        }
        y
    }

    fn backward(&self, x: &[f32], parameters: &[f32], y: &[f32], g: &[f32], residual: bool) -> Gradients {
        let (isa, channels, mean) = (self.isa, self.mean.len(), &self.mean[..]);
        let clips = self.clip != Clip::NONE;
        // Without an activation the residual's gradient is the output's, which the caller has.
        let mut d = (residual && clips).then(|| uninitialised(x.len()));
        let keep = d.as_mut().map(|d| Shared::of(d));
        let gated = Gated { gradient: Plain(g), gate: Plain(y), high: self.clip.high };
        // SAFETY: all maps have the length of `x`.
        let sums = unsafe {
            match clips {
                true => sum(isa, &Moments { gradient: gated, x, mean, keep }, channels, x.len()),
                false => sum(isa, &Moments { gradient: Plain(g), x, mean, keep }, channels, x.len()),
            }
        };
        let pixels = self.batch.then_some(x.len() / channels);
        let (grads, coefficients) = gradients(&sums, &parameters[..channels], mean, &self.inverse, pixels);
        let coefficients = &coefficients;
        let mut dx = uninitialised(x.len());
        // SAFETY: all maps have the length of `x`.
        unsafe {
            match clips {
                true => map(isa, &NormGradient { gradient: gated, x, coefficients }, channels, &mut dx),
                false => map(isa, &NormGradient { gradient: Plain(g), x, coefficients }, channels, &mut dx),
            }
        }
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
