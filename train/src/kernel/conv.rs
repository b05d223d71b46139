//! Convolution, N × H × W × C with O × I × K × K weights: forward, input gradient, weight gradient.
//!
//! Each thread copies a few images with their zero border into its scratch memory and correlates from there. The input
//! gradient of stride `s` is `s × s` correlations of the output gradient, one for each residue of the input position,
//! with the weights that reach it. It is skipped when the input is not tracked, as that of the first convolution.

use super::correlate::{Correlation, Epilogue, Packed, Steps, segments};
use super::depthwise::{Depthwise, DepthwiseGradient};
use super::frame::Frame;
use super::job::{Job, Load, WeightJob, chunks, parts, shared_chunks};
use super::pixelwise::Plain;
use super::weight_gradient::WeightGradient;
use super::{Shared, floats, uninitialised, with_floats, with_scratch};
use candle_core::{CpuStorage, CustomOp2, Device, Layout, Result, Shape, Tensor, bail};
use excon_edge::kernel::{Clip, Isa, active};
use rayon::prelude::*;

/// Output channels whose weight gradient is added up together: a cache line's.
const UNPACKED: usize = 16;

/// Geometry of a convolution without bias; square kernel, symmetric zero padding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Convolution {
    /// Stride in both directions.
    pub stride: usize,
    /// Zero padding on every side.
    pub padding: usize,
    /// Whether each channel has a window of its own: O × 1 × K × K weights, as many outputs as inputs.
    pub depthwise: bool,
    /// Instruction set of the kernels.
    pub isa: Isa,
}

/// Convolution of an N × H × W × C map with O × C/groups × K × K weights, tracked by autograd.
///
/// # Errors
/// When shapes do not fit together or the tensors are not `f32`.
pub fn conv2d(x: &Tensor, weight: &Tensor, stride: usize, padding: usize, groups: usize) -> Result<Tensor> {
    let depthwise = is_depthwise(x, weight, groups)?;
    let op = Convolution { stride, padding, depthwise, isa: active() };
    if groups == 1 || depthwise {
        return x.contiguous()?.apply_op2(&weight.contiguous()?, op);
    }
    // Simple rather than fast: our networks have no groups of several channels.
    let (xs, weights) = (x.chunk(groups, 3)?, weight.chunk(groups, 0)?);
    if xs.len() != groups || weights.len() != groups {
        bail!("{groups} groups need at least as many channels");
    }
    let parts: Result<Vec<_>> =
        xs.iter().zip(&weights).map(|(x, w)| x.contiguous()?.apply_op2(&w.contiguous()?, op)).collect();
    Tensor::cat(&parts?, 3)?.contiguous()
}

fn is_depthwise(x: &Tensor, weight: &Tensor, groups: usize) -> Result<bool> {
    Ok(groups > 1 && groups == x.dims4()?.3 && groups == weight.dims4()?.0)
}

/// `clip(conv(x) + bias + residual)` in one pass, not tracked: the inference form of convolution and batch norm.
///
/// # Errors
/// When shapes do not fit together or the tensors are not `f32`.
pub fn conv2d_fused(
    x: &Tensor,
    weight: &Tensor,
    stride: usize,
    padding: usize,
    groups: usize,
    bias: &[f32],
    residual: Option<&Tensor>,
    clip: Clip,
) -> Result<Tensor> {
    let depthwise = is_depthwise(x, weight, groups)?;
    if groups > 1 && !depthwise {
        bail!("the fused convolution has no groups of several channels");
    }
    let op = Convolution { stride, padding, depthwise, isa: active() };
    let shape = op.shape(x.dims4()?, weight.dims4()?)?;
    if bias.len() != shape.output.3 {
        bail!("{} biases for {} channels", bias.len(), shape.output.3);
    }
    let (x, weight) = (x.contiguous()?, weight.contiguous()?);
    let y = match residual {
        None => with_floats([&x, &weight], |[x, w]| Ok(op.forward(&shape, x, w, Some(bias), None, clip)))?,
        Some(residual) if residual.dims4()? == shape.output => {
            with_floats([&x, &weight, &residual.contiguous()?], |[x, w, r]| {
                Ok(op.forward(&shape, x, w, Some(bias), Some(r), clip))
            })?
        }
        Some(residual) => bail!("the residual is {:?}, the convolution {:?}", residual.dims(), shape.output),
    };
    Tensor::from_vec(y, shape.output, &Device::Cpu)
}

/// Checked shapes of one call.
#[derive(Debug, Clone, Copy)]
pub(super) struct Shapes {
    /// N, H, W, C of the input.
    pub(super) input: (usize, usize, usize, usize),
    /// N, H, W, C of the output.
    pub(super) output: (usize, usize, usize, usize),
    /// Kernel side.
    pub(super) kernel: usize,
}

impl Convolution {
    pub(super) fn shape(
        &self,
        input @ (n, h, w, c): (usize, usize, usize, usize),
        weight: (usize, usize, usize, usize),
    ) -> Result<Shapes> {
        let (outputs, inputs, kernel, other) = weight;
        let fits = if self.depthwise { inputs == 1 && outputs == c } else { inputs == c };
        if kernel != other || !fits || kernel * outputs * h * w * c * self.stride == 0 {
            bail!("convolution of {input:?} (N, H, W, C) with weights {weight:?} (O, I, K, K), stride {}", self.stride);
        }
        let side = |side: usize| match (side + 2 * self.padding).checked_sub(kernel) {
            Some(rest) => Ok(rest / self.stride + 1),
            None => bail!("a kernel of {kernel} does not fit a padded side of {}", side + 2 * self.padding),
        };
        Ok(Shapes { input, output: (n, side(h)?, side(w)?, outputs), kernel })
    }

    /// The zero-padded input that windows are read from.
    pub(super) fn frame(&self, shapes: &Shapes) -> Frame {
        let (_, h, w, c) = shapes.input;
        Frame::new([h, w, c], self.padding)
    }

    /// Input frame to output.
    pub(super) fn forward_job(&self, shapes: &Shapes, weight: &[f32]) -> Job {
        let (_, rows, columns, outputs) = shapes.output;
        let (c, k, frame) = (shapes.input.3, shapes.kernel, self.frame(shapes));
        let taps = (0..k * k).map(|t| frame.offset(t / k, t % k));
        let input = frame.steps(self.stride);
        let output = Steps { pixel: outputs, row: columns * outputs, image: rows * columns * outputs };
        if self.depthwise {
            let weights = (0..k * k * c).map(|i| weight[i % c * k * k + i / c]).collect();
            let (isa, taps) = (self.isa, taps.collect());
            return Job::Depthwise(Depthwise {
                isa,
                channels: c,
                taps,
                weights,
                rows,
                columns,
                input,
                output,
                first: 0,
            });
        }
        let packed = Packed::new(self.isa, k * k * c, outputs, |i, o| weight[(o * c + i % c) * k * k + i / c]);
        Job::Dense(Correlation { segments: segments(taps, c), packed, rows, columns, input, output, first: 0 })
    }

    fn forward(
        &self,
        shapes: &Shapes,
        x: &[f32],
        weight: &[f32],
        bias: Option<&[f32]>,
        residual: Option<&[f32]>,
        clip: Clip,
    ) -> Vec<f32> {
        let n = shapes.input.0;
        let (frame, job) = (self.frame(shapes), self.forward_job(shapes, weight));
        let image = shapes.output.1 * shapes.output.2 * shapes.output.3;
        let mut y = uninitialised(n * image);
        let out = Shared::of(&mut y);
        let chunks = shared_chunks(n, Load { numbers: frame.len(), pixels: shapes.output.1 * shapes.output.2 });
        chunks.par_iter().with_max_len(1).for_each(|images| {
            with_scratch(|[scratch, _]| {
                let input = frame.pad(x, images.clone(), scratch);
                let at = images.start * image;
                let residual = residual.map(|r| r[at..].as_ptr());
                // SAFETY: the frame holds whole padded images; each chunk writes its own images of `y`.
                unsafe { job.run(images.len(), input, out.at(at), Epilogue { bias, residual, clip }) };
            });
        });
        y
    }

    /// Framed output gradient to input gradient: the frame, and one job per residue of the input position. Where
    /// `adding`, residues that no weight reaches need no job.
    pub(super) fn input_jobs(&self, shapes: &Shapes, weight: &[f32], adding: bool) -> (Frame, Vec<Job>) {
        let (_, h, w, c) = shapes.input;
        let (_, rows, columns, outputs) = shapes.output;
        let (s, k) = (self.stride, shapes.kernel);
        let vertical = Residue::all(h, rows, k, s, self.padding);
        let horizontal = Residue::all(w, columns, k, s, self.padding);
        let [top, left] = [Residue::border(&vertical), Residue::border(&horizontal)];
        let frame = Frame { rows, columns, channels: outputs, vertical: top, horizontal: left };
        let mut jobs = vec![];
        for v in &vertical {
            for u in &horizontal {
                // Ascending offsets, so that neighbouring taps join into one segment.
                let taps: Vec<(usize, usize, usize)> = v
                    .taps
                    .iter()
                    .flat_map(|&(ky, dy)| u.taps.iter().map(move |&(kx, dx)| (ky, kx, dy, dx)))
                    .map(|(ky, kx, dy, dx)| {
                        let (y, x) = (dy + top[0] as isize, dx + left[0] as isize);
                        (ky, kx, frame.offset(y as usize, x as usize))
                    })
                    .collect();
                if adding && taps.is_empty() {
                    continue;
                }
                let (rows, columns, input) = (v.count, u.count, frame.steps(1));
                let output = Steps { pixel: s * c, row: s * w * c, image: h * w * c };
                let first = (v.residue * w + u.residue) * c;
                jobs.push(if self.depthwise {
                    let reach =
                        |&(ky, kx, _): &(usize, usize, usize)| (0..c).map(move |ci| weight[(ci * k + ky) * k + kx]);
                    let weights = taps.iter().flat_map(reach).collect();
                    let (isa, taps) = (self.isa, taps.iter().map(|t| t.2).collect());
                    Job::Depthwise(Depthwise { isa, channels: c, taps, weights, rows, columns, input, output, first })
                } else {
                    let segments = segments(taps.iter().map(|t| t.2), outputs);
                    let packed = Packed::new(self.isa, taps.len() * outputs, c, |i, ci| {
                        let (ky, kx, _) = taps[i / outputs];
                        weight[(((i % outputs) * c + ci) * k + ky) * k + kx]
                    });
                    Job::Dense(Correlation { segments, packed, rows, columns, input, output, first })
                });
            }
        }
        (frame, jobs)
    }

    fn input_gradient(&self, shapes: &Shapes, gradient: &[f32], weight: &[f32]) -> Vec<f32> {
        let (n, h, w, c) = shapes.input;
        let (frame, jobs) = self.input_jobs(shapes, weight, false);
        let mut dx = uninitialised(n * h * w * c);
        let out = Shared::of(&mut dx);
        let chunks = shared_chunks(n, Load { numbers: frame.len(), pixels: h * w });
        chunks.par_iter().with_max_len(1).for_each(|images| {
            with_scratch(|[scratch, _]| {
                let input = frame.pad(gradient, images.clone(), scratch);
                for job in &jobs {
                    // SAFETY: the border covers every tap; residues are disjoint, and each chunk has its own images.
                    unsafe { job.run(images.len(), input, out.at(images.start * h * w * c), Epilogue::NONE) };
                }
            });
        });
        dx
    }

    /// Framed input and gradient (with steps `gradient`) to the sums that [`Self::unpack`] turns into weights.
    pub(super) fn weight_job(&self, shapes: &Shapes, gradient: Steps) -> WeightJob {
        let (_, rows, columns, outputs) = shapes.output;
        let (c, k, frame) = (shapes.input.3, shapes.kernel, self.frame(shapes));
        let (size, input) = ([rows, columns, outputs], frame.steps(self.stride));
        if self.depthwise {
            let taps = (0..k * k).map(|t| frame.offset(t / k, t % k)).collect();
            return WeightJob::Depthwise(DepthwiseGradient::new(self.isa, taps, size, input, gradient));
        }
        let offsets = (0..k * k * c).map(|i| frame.offset(i / c / k, i / c % k) + i % c).collect();
        WeightJob::Dense(WeightGradient::new(self.isa, offsets, size, input, gradient))
    }

    /// Adds up partial sums in order, as O × I × K × K.
    pub(super) fn unpack(&self, shapes: &Shapes, job: &WeightJob, sums: &[Vec<f32>], dw: &mut [f32]) {
        let (c, k) = (if self.depthwise { 1 } else { shapes.input.3 }, shapes.kernel);
        // A few outputs at a time: those that share the sums' cache lines.
        let filter = c * k * k;
        dw.par_chunks_mut(UNPACKED * filter).enumerate().for_each(|(block, dw)| {
            for i in 0..filter {
                let at = (i % (k * k) * c + i / (k * k)) * job.channels() + block * UNPACKED;
                for (o, dw) in dw[i..].iter_mut().step_by(filter).enumerate() {
                    *dw = sums.iter().map(|sum| sum[at + o]).sum();
                }
            }
        });
    }

    fn weight_gradient(&self, shapes: &Shapes, x: &[f32], gradient: &[f32]) -> Vec<f32> {
        let (n, rows, columns, outputs) = shapes.output;
        let frame = self.frame(shapes);
        let plain = Frame::new([rows, columns, outputs], 0);
        let job = self.weight_job(shapes, plain.steps(1));
        let sums: Vec<Vec<f32>> = parts(n, job.len())
            .into_par_iter()
            .with_max_len(1)
            .map(|part| {
                let mut sum = vec![0.0; job.len()];
                with_scratch(|[scratch, whole]| {
                    for images in chunks(part, Load { numbers: frame.len(), pixels: rows * columns }) {
                        let input = frame.pad(x, images.clone(), scratch);
                        let gradient = if job.channels() == outputs {
                            plain.pad(gradient, images.clone(), whole)
                        } else {
                            // Vectors reach past the outputs: the copy has room for that.
                            // SAFETY: the gradient has as many images.
                            unsafe { plain.fill(self.isa, &Plain(gradient), images.clone(), whole) }
                        };
                        // SAFETY: both hold whole images in the layout that the job was made for.
                        unsafe { job.add(images.len(), input, gradient, &mut sum) };
                    }
                });
                sum
            })
            .collect();
        let fan_in = if self.depthwise { 1 } else { shapes.input.3 };
        let mut dw = uninitialised(outputs * fan_in * shapes.kernel * shapes.kernel);
        self.unpack(shapes, &job, &sums, &mut dw);
        dw
    }
}

/// Input positions of one residue modulo the stride, along one axis: position = residue + stride · t.
struct Residue {
    residue: usize,
    /// Positions, t = 0 .. count.
    count: usize,
    /// Kernel index and the output position it reaches, relative to t; ascending in the latter.
    taps: Vec<(usize, isize)>,
    /// Rows (columns) of zeros that the taps need before and after the output.
    border: [usize; 2],
}

impl Residue {
    fn all(side: usize, outputs: usize, kernel: usize, stride: usize, padding: usize) -> Vec<Self> {
        (0..stride.min(side))
            .map(|residue| {
                let count = (side - residue).div_ceil(stride);
                // output · stride + k − padding = residue + stride · t
                let mut taps: Vec<(usize, isize)> = (0..kernel)
                    .map(|k| (k, residue as isize + padding as isize - k as isize))
                    .filter(|(_, distance)| distance.rem_euclid(stride as isize) == 0)
                    .map(|(k, distance)| (k, distance.div_euclid(stride as isize)))
                    .collect();
                taps.reverse();
                let before = taps.first().map_or(0, |t| (-t.1).max(0) as usize);
                let after = taps.last().map_or(0, |t| (count as isize + t.1 - outputs as isize).max(0) as usize);
                Self { residue, count, taps, border: [before, after] }
            })
            .collect()
    }

    fn border(all: &[Self]) -> [usize; 2] {
        [0, 1].map(|side| all.iter().map(|r| r.border[side]).max().unwrap_or(0))
    }
}

impl CustomOp2 for Convolution {
    fn name(&self) -> &'static str {
        "conv2d-nhwc"
    }

    fn cpu_fwd(&self, s1: &CpuStorage, l1: &Layout, s2: &CpuStorage, l2: &Layout) -> Result<(CpuStorage, Shape)> {
        let shapes = self.shape(l1.shape().dims4()?, l2.shape().dims4()?)?;
        let y = self.forward(&shapes, floats(s1, l1)?, floats(s2, l2)?, None, None, Clip::NONE);
        Ok((CpuStorage::F32(y), shapes.output.into()))
    }

    fn bwd(&self, x: &Tensor, weight: &Tensor, _: &Tensor, g: &Tensor) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let shapes = self.shape(x.dims4()?, weight.dims4()?)?;
        with_floats([x, weight, &g.contiguous()?], |[xs, weights, gs]| {
            let dx = x.track_op().then(|| self.input_gradient(&shapes, gs, weights));
            let dw = weight.track_op().then(|| self.weight_gradient(&shapes, xs, gs));
            let tensor = |data: Option<Vec<f32>>, like: &Tensor| {
                data.map(|data| Tensor::from_vec(data, like.shape(), &Device::Cpu)).transpose()
            };
            Ok((tensor(dx, x)?, tensor(dw, weight)?))
        })
    }
}
