//! Pooling of N × H × W × C maps: maximum with any window (candle has no gradient for overlapping ones), and mean.

use super::{Shared, floats, uninitialised, with_floats};
use candle_core::{CpuStorage, CustomOp1, Device, Layout, Result, Shape, Tensor, bail};
use rayon::prelude::*;

/// Maximum over windows, padding by −∞, tracked by autograd; the first of equal maxima gets the gradient.
///
/// # Errors
/// When the window does not fit or a window could lie wholly in the padding.
pub fn max_pool(x: &Tensor, kernel: usize, stride: usize, padding: usize) -> Result<Tensor> {
    x.contiguous()?.apply_op1(MaxPool { kernel, stride, padding })
}

/// Mean over the map, N × C, tracked by autograd.
///
/// # Errors
/// When `x` is not a map of `f32`.
pub fn global_pool(x: &Tensor) -> Result<Tensor> {
    x.contiguous()?.apply_op1(GlobalPool)
}

struct MaxPool {
    kernel: usize,
    stride: usize,
    padding: usize,
}

impl MaxPool {
    fn sides(&self, h: usize, w: usize) -> Result<(usize, usize)> {
        let Self { kernel, stride, padding } = *self;
        if kernel == 0 || stride == 0 || 2 * padding > kernel || h.min(w) + 2 * padding < kernel {
            bail!("max pool of {h} × {w} with window {kernel}, stride {stride}, padding {padding}");
        }
        let side = |side: usize| (side + 2 * padding - kernel) / stride + 1;
        Ok((side(h), side(w)))
    }

    /// Calls `f(output, inputs)` with the offsets of an image's pixels, for each output pixel.
    fn windows(&self, h: usize, w: usize, rows: usize, columns: usize, mut f: impl FnMut(usize, &[usize])) {
        let reach = |at: usize, side: usize| {
            let first = at * self.stride;
            first.saturating_sub(self.padding)..(first + self.kernel - self.padding).min(side)
        };
        let mut inputs = vec![];
        for row in 0..rows {
            for column in 0..columns {
                inputs.clear();
                for y in reach(row, h) {
                    inputs.extend(reach(column, w).map(|x| y * w + x));
                }
                f(row * columns + column, &inputs);
            }
        }
    }
}

impl CustomOp1 for MaxPool {
    fn name(&self) -> &'static str {
        "max-pool-nhwc"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let (n, h, w, c) = layout.shape().dims4()?;
        let (rows, columns) = self.sides(h, w)?;
        let x = floats(storage, layout)?;
        let mut y = vec![f32::NEG_INFINITY; n * rows * columns * c];
        y.par_chunks_mut((rows * columns * c).max(1)).zip(x.par_chunks((h * w * c).max(1))).for_each(|(y, x)| {
            self.windows(h, w, rows, columns, |output, inputs| {
                let y = &mut y[output * c..][..c];
                for &input in inputs {
                    y.iter_mut().zip(&x[input * c..][..c]).for_each(|(y, &x)| *y = if x > *y { x } else { *y });
                }
            });
        });
        Ok((CpuStorage::F32(y), (n, rows, columns, c).into()))
    }

    fn bwd(&self, x: &Tensor, y: &Tensor, g: &Tensor) -> Result<Option<Tensor>> {
        let (_, h, w, c) = x.dims4()?;
        let (_, rows, columns, _) = y.dims4()?;
        let mut dx = vec![0.0; x.elem_count()];
        with_floats([x, y, &g.contiguous()?], |[x, y, g]| {
            let (large, small) = ((h * w * c).max(1), (rows * columns * c).max(1));
            dx.par_chunks_mut(large).zip(x.par_chunks(large)).enumerate().for_each(|(image, (dx, x))| {
                let (y, g) = (&y[image * small..][..small], &g[image * small..][..small]);
                self.windows(h, w, rows, columns, |output, inputs| {
                    for c_at in 0..c {
                        let at = output * c + c_at;
                        if let Some(&input) = inputs.iter().find(|&&i| x[i * c + c_at] == y[at]) {
                            dx[input * c + c_at] += g[at];
                        }
                    }
                });
            });
            Ok(())
        })?;
        Ok(Some(Tensor::from_vec(dx, x.shape(), &Device::Cpu)?))
    }
}

struct GlobalPool;

impl CustomOp1 for GlobalPool {
    fn name(&self) -> &'static str {
        "global-pool-nhwc"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let (n, h, w, c) = layout.shape().dims4()?;
        let x = floats(storage, layout)?;
        let mut y = vec![0.0; n * c];
        let scale = 1.0 / (h * w) as f32;
        y.par_chunks_mut(c.max(1)).zip(x.par_chunks((h * w * c).max(1))).for_each(|(y, x)| {
            for x in x.chunks_exact(c) {
                y.iter_mut().zip(x).for_each(|(y, x)| *y += x);
            }
            y.iter_mut().for_each(|y| *y *= scale);
        });
        Ok((CpuStorage::F32(y), (n, c).into()))
    }

    fn bwd(&self, x: &Tensor, _: &Tensor, g: &Tensor) -> Result<Option<Tensor>> {
        let (n, h, w, c) = x.dims4()?;
        let scale = 1.0 / (h * w) as f32;
        let mut dx = uninitialised(x.elem_count());
        let out = Shared::of(&mut dx);
        with_floats([&g.contiguous()?], |[g]| {
            (0..n).into_par_iter().for_each(|image| {
                let scaled: Vec<f32> = g[image * c..][..c].iter().map(|g| g * scale).collect();
                for pixel in image * h * w..(image + 1) * h * w {
                    // SAFETY: each image's pixels are written by one thread, c numbers each.
                    unsafe { out.at(pixel * c).copy_from_nonoverlapping(scaled.as_ptr(), c) };
                }
            });
            Ok(())
        })?;
        Ok(Some(Tensor::from_vec(dx, x.shape(), &Device::Cpu)?))
    }
}
