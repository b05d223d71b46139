//! A whole encoder of convolution → batch norm → [sum] → [activation] links as one operation with its own backward pass.
//!
//! Training such a network is bound by memory as much as by arithmetic, so maps are touched as rarely as batch
//! statistics allow. Forward keeps each convolution's raw output and no more: the next convolution applies norm and activation
//! while it copies images into its frame, and the statistics of its own output are summed while that is in the cache.
//! Backward, one pass over a link's images takes the gradient through activation and norm into a frame, from which both the
//! input and the weight gradient are computed. Results are stored only where sums of two branches need them.

use super::conv::{Convolution, Shapes};
use super::correlate::Epilogue;
use super::frame::Frame;
use super::job::{Load, chunks, parts, shared_chunks};
use super::link::{Link, Source};
use super::norm::{affine, gradients};
use super::pixelwise::{
    Affine, AffineSum, Coefficients, Deviation, Gated, Moments, NormGradient, Plain, Raw, Value, map, sum, sum_range,
};
use super::{Shared, Statistics, buffers, floats, with_floats, with_scratch};
use candle_core::{CpuStorage, CustomOp2, Device, Layout, Result, Shape, Tensor, bail};
use excon_edge::kernel::{Clip, Isa, active};
use rayon::prelude::*;
use std::ops::Range;
use std::sync::{Mutex, PoisonError};

/// The last link's output for an N × H × W × C batch, tracked by autograd, and each link's batch statistics.
///
/// `parameters` is flat: for each link the convolution's weights, then the norm's weights and biases.
///
/// # Errors
/// When shapes do not fit together, a link reads a later one, or the tensors are not `f32`.
pub fn chain(x: &Tensor, parameters: &Tensor, links: &[Link]) -> Result<(Tensor, Vec<Statistics>)> {
    let (x, parameters) = (x.contiguous()?, parameters.contiguous()?);
    let input = x.dims4()?;
    let (op, statistics) = with_floats([&x, &parameters], |[x, p]| Chain::forward(x, input, p, links))?;
    Ok((x.apply_op2(&parameters, op)?, statistics))
}

/// A link that has run.
struct Ran {
    link: Link,
    conv: Convolution,
    shapes: Shapes,
    /// Where its parameters start.
    at: usize,
    /// The convolution's output.
    raw: Vec<f32>,
    mean: Vec<f32>,
    inverse: Vec<f32>,
    scale: Vec<f32>,
    shift: Vec<f32>,
    /// The link's output where others need it in memory; the last link's is the operation's.
    stored: Option<Vec<f32>>,
}

impl Ran {
    /// Norm without activation, of the raw output.
    fn norm(&self) -> Affine<'_> {
        Affine { x: &self.raw, scale: &self.scale, shift: &self.shift, clip: Clip::NONE }
    }

    /// Norm with the activation if there is one: the link's output, unless there is a residual.
    fn output(&self) -> Affine<'_> {
        Affine { clip: self.link.clip, ..self.norm() }
    }
}

impl Drop for Ran {
    fn drop(&mut self) {
        buffers::give(std::mem::take(&mut self.raw));
        buffers::give(self.stored.take().unwrap_or_default());
    }
}

/// A link's input: in memory, or computed as it is read.
#[derive(Clone, Copy)]
enum Activation<'a> {
    Stored(&'a [f32]),
    Lazy(Affine<'a>),
}

impl Activation<'_> {
    fn fill(&self, isa: Isa, frame: &Frame, images: Range<usize>, scratch: &mut Vec<f32>) -> *const f32 {
        match self {
            Self::Stored(map) => frame.pad(map, images, scratch),
            // SAFETY: the formula covers all images of its link.
            Self::Lazy(value) => unsafe { frame.fill(isa, value, images, scratch) },
        }
    }
}

/// The operation on (x, flat parameters).
struct Chain {
    isa: Isa,
    ran: Vec<Ran>,
    output: Mutex<Vec<f32>>,
}

/// What `source` holds.
fn activation<'a>(x: &'a [f32], ran: &'a [Ran], source: Source) -> Activation<'a> {
    match source {
        Source::Entry => Activation::Stored(x),
        Source::Link(i) => match &ran[i].stored {
            Some(stored) => Activation::Stored(stored),
            None => Activation::Lazy(ran[i].output()),
        },
    }
}

impl Chain {
    fn forward(
        x: &[f32],
        entry: (usize, usize, usize, usize),
        parameters: &[f32],
        links: &[Link],
    ) -> Result<(Self, Vec<Statistics>)> {
        let isa = active();
        if links.is_empty() || parameters.len() != links.iter().map(Link::parameters).sum::<usize>() {
            bail!("a chain of {} links with {} parameters", links.len(), parameters.len());
        }
        let mut ran: Vec<Ran> = Vec::with_capacity(links.len());
        let mut statistics = Vec::with_capacity(links.len());
        let mut at = 0;
        for (i, &link) in links.iter().enumerate() {
            let sources = [Some(link.input), link.residual];
            if sources.iter().flatten().any(|s| matches!(s, Source::Link(other) if *other >= i)) {
                bail!("link {i} reads a link that does not come before it");
            }
            let shape = |source| match source {
                Source::Entry => entry,
                Source::Link(i) => ran[i].shapes.output,
            };
            let conv = link.convolution(isa);
            let weight_shape = (link.outputs, link.fan_in(), link.kernel, link.kernel);
            let shapes = conv.shape(shape(link.input), weight_shape)?;
            if entry.0 == 0 || link.residual.is_some_and(|r| shape(r) != shapes.output) {
                bail!("link {i} adds a map of another shape, or the batch is empty");
            }
            let (weight, norm) = parameters[at..at + link.parameters()].split_at(link.weights());
            let (raw, batch) = convolve(&conv, &shapes, activation(x, &ran, link.input), weight);
            let inverse = batch.inverse();
            let (scale, shift) = affine(&norm[..link.outputs], &norm[link.outputs..], &batch.mean, &inverse);
            let mean = batch.mean.clone();
            let mut done = Ran { link, conv, shapes, at, raw, mean, inverse, scale, shift, stored: None };
            let summed = links.iter().any(|l| l.residual == Some(Source::Link(i)));
            if link.residual.is_some() || summed || i + 1 == links.len() {
                let mut y = buffers::take(done.raw.len());
                // SAFETY: residuals are stored maps of this shape.
                unsafe {
                    match link.residual.map(|r| activation(x, &ran, r)) {
                        None => map(isa, &done.output(), link.outputs, &mut y),
                        Some(Activation::Stored(residual)) => {
                            map(isa, &AffineSum { affine: done.output(), residual }, link.outputs, &mut y);
                        }
                        Some(Activation::Lazy(_)) => bail!("the residual of link {i} was not stored"),
                    }
                }
                done.stored = Some(y);
            }
            at += link.parameters();
            ran.push(done);
            statistics.push(batch);
        }
        let output = ran.last_mut().and_then(|last| last.stored.take()).unwrap_or_default();
        Ok((Self { isa, ran, output: Mutex::new(output) }, statistics))
    }

    /// Gradients of the entry, if asked for, and of the parameters.
    fn backward(
        &self,
        x: &[f32],
        parameters: &[f32],
        y: &[f32],
        g: &[f32],
        entry: bool,
    ) -> (Option<Vec<f32>>, Vec<f32>) {
        let mut parameter_gradients = vec![0.0; parameters.len()];
        // Gradients at the entry and at each link's output.
        let mut maps: Vec<Option<Vec<f32>>> = vec![None; self.ran.len() + 1];
        let slot = |source| match source {
            Source::Entry => 0,
            Source::Link(i) => i + 1,
        };
        let mut last = buffers::take(g.len());
        last.copy_from_slice(g);
        maps[self.ran.len()] = Some(last);
        for (i, ran) in self.ran.iter().enumerate().rev() {
            let Some(mut gradient) = maps[i + 1].take() else { continue };
            let link = &ran.link;
            let (channels, clips, high) = (link.outputs, link.clip != Clip::NONE, link.clip.high);
            let (raw, mean) = (&ran.raw[..], &ran.mean[..]);
            let into = slot(link.input);
            let wanted = entry || link.input != Source::Entry;
            let mut input = wanted.then(|| maps[into].take());
            let work = Work { chain: self, i, x };
            // SAFETY: all maps have the link's shape.
            let sums = unsafe {
                match (clips, link.residual) {
                    (true, Some(_)) => {
                        // What passes the activation is the residual's gradient too: it replaces the output's.
                        let gate = Plain(ran.stored.as_deref().unwrap_or(y));
                        let (keep, len) = (Shared::of(&mut gradient), gradient.len());
                        let gradient = Gated { gradient: Raw(keep), gate, high };
                        sum(self.isa, &Moments { gradient, x: raw, mean, keep: Some(keep) }, channels, len)
                    }
                    (true, None) => {
                        let gradient = Gated { gradient: Plain(&gradient), gate: ran.norm(), high };
                        sum(self.isa, &Moments { gradient, x: raw, mean, keep: None }, channels, raw.len())
                    }
                    (false, _) => {
                        let gradient = Plain(&gradient);
                        sum(self.isa, &Moments { gradient, x: raw, mean, keep: None }, channels, raw.len())
                    }
                }
            };
            let own = ran.at..ran.at + link.parameters();
            let (weight, norm) = parameters[own.clone()].split_at(link.weights());
            let pixels = raw.len() / channels;
            let (norm_gradient, coefficients) = gradients(&sums, &norm[..channels], mean, &ran.inverse, Some(pixels));
            let (dw, rest) = parameter_gradients[own].split_at_mut(link.weights());
            rest.copy_from_slice(&norm_gradient);
            if clips && link.residual.is_none() {
                let gradient = Gated { gradient: Plain(&gradient), gate: ran.norm(), high };
                work.pass(gradient, &coefficients, weight, input.as_mut(), dw);
            } else {
                work.pass(Plain(&gradient), &coefficients, weight, input.as_mut(), dw);
            }
            if let Some(input) = input {
                maps[into] = input;
            }
            match link.residual {
                Some(residual) if entry || residual != Source::Entry => match &mut maps[slot(residual)] {
                    Some(sum) => {
                        sum.par_iter_mut().zip(&gradient).with_min_len(4096).for_each(|(s, g)| *s += g);
                        buffers::give(gradient);
                    }
                    empty => *empty = Some(gradient),
                },
                _ => buffers::give(gradient),
            }
        }
        (maps[0].take(), parameter_gradients)
    }
}

/// The raw output of a link's convolution, and its statistics.
fn convolve(conv: &Convolution, shapes: &Shapes, input: Activation, weight: &[f32]) -> (Vec<f32>, Statistics) {
    let (n, rows, columns, outputs) = shapes.output;
    let (frame, job) = (conv.frame(shapes), conv.forward_job(shapes, weight));
    let image = rows * columns * outputs;
    let mut raw = buffers::take(n * image);
    let out = Shared::of(&mut raw);
    let partial: Vec<(Vec<f32>, usize, Vec<f64>)> =
        shared_chunks(n, Load { numbers: frame.len(), pixels: rows * columns })
            .into_par_iter()
            .with_max_len(1)
            .map(|images| {
                with_scratch(|[scratch, _]| {
                    let from = input.fill(conv.isa, &frame, images.clone(), scratch);
                    let len = images.len() * image;
                    // SAFETY: the frame holds whole padded images; each chunk writes, then reads, its own images of `raw`.
                    unsafe {
                        let to = out.at(images.start * image);
                        job.run(images.len(), from, to, Epilogue::NONE);
                        let x = std::slice::from_raw_parts(to, len);
                        let pivot = &x[..outputs];
                        (pivot.to_vec(), len / outputs, sum_range(conv.isa, &Deviation { x, pivot }, outputs, 0, len))
                    }
                })
            })
            .collect();
    // Each chunk's sums are about its own pivot: bring them to zero, where double precision has digits to spare.
    let mut sums = vec![0.0; 2 * outputs];
    for (pivot, count, part) in &partial {
        let count = *count as f64;
        for c in 0..outputs {
            let (p, a, b) = (f64::from(pivot[c]), part[c], part[outputs + c]);
            sums[c] += a + count * p;
            sums[outputs + c] += b + 2.0 * p * a + count * p * p;
        }
    }
    let statistics = Statistics::of(&sums, &vec![0.0; outputs], n * rows * columns);
    (raw, statistics)
}

/// The backward pass over one link's images.
struct Work<'a> {
    chain: &'a Chain,
    i: usize,
    x: &'a [f32],
}

impl Work<'_> {
    /// Takes `gradient`, past the activation, through norm and convolution: adds to (or makes) the `input` gradient if there
    /// is to be one, and writes the weights' gradient.
    fn pass(
        &self,
        gradient: impl Value + Copy + Sync,
        coefficients: &Coefficients,
        weight: &[f32],
        input: Option<&mut Option<Vec<f32>>>,
        dw: &mut [f32],
    ) {
        let ran = &self.chain.ran[self.i];
        let (isa, conv, shapes) = (self.chain.isa, &ran.conv, &ran.shapes);
        let (n, rows, columns, outputs) = shapes.output;
        let source = activation(self.x, &self.chain.ran, ran.link.input);
        let frame = conv.frame(shapes);
        let image = frame.image();
        let mut adding = false;
        let (gradient_frame, jobs, out) = match input {
            None => (Frame::new([rows, columns, outputs], 0), vec![], None),
            Some(slot) => {
                adding = slot.is_some();
                let buffer = slot.get_or_insert_with(|| buffers::take(n * image));
                let (frame, jobs) = conv.input_jobs(shapes, weight, adding);
                (frame, jobs, Some(Shared::of(buffer)))
            }
        };
        let job = conv.weight_job(shapes, gradient_frame.steps(1));
        let value = NormGradient { gradient, x: &ran.raw, coefficients };
        let load = Load { numbers: frame.len().max(gradient_frame.len()), pixels: rows * columns };
        let sums: Vec<Vec<f32>> = parts(n, job.len())
            .into_par_iter()
            .with_max_len(1)
            .map(|part| {
                let mut sum = buffers::take(job.len());
                sum.fill(0.0);
                with_scratch(|[first, second]| {
                    for images in chunks(part, load) {
                        // SAFETY: maps and frames hold these images; each part has its own images of the input gradient,
                        // which the epilogue reads before it writes.
                        unsafe {
                            let g = gradient_frame.fill(isa, &value, images.clone(), first);
                            if let Some(out) = out {
                                let out = out.at(images.start * image);
                                let residual = adding.then_some(out.cast_const());
                                for job in &jobs {
                                    job.run(images.len(), g, out, Epilogue { residual, ..Epilogue::NONE });
                                }
                            }
                            let input = source.fill(isa, &frame, images.clone(), second);
                            job.add(images.len(), input, g.add(gradient_frame.origin()), &mut sum);
                        }
                    }
                });
                sum
            })
            .collect();
        conv.unpack(shapes, &job, &sums, dw);
        sums.into_iter().for_each(buffers::give);
    }
}

impl CustomOp2 for Chain {
    fn name(&self) -> &'static str {
        "convolution-norm-chain"
    }

    fn cpu_fwd(&self, _: &CpuStorage, _: &Layout, s2: &CpuStorage, l2: &Layout) -> Result<(CpuStorage, Shape)> {
        // The work is done: it also gave the statistics, which an operation cannot return.
        floats(s2, l2)?;
        let Some(last) = self.ran.last() else { bail!("an empty chain") };
        let output = std::mem::take(&mut *self.output.lock().unwrap_or_else(PoisonError::into_inner));
        Ok((CpuStorage::F32(output), last.shapes.output.into()))
    }

    fn bwd(&self, x: &Tensor, parameters: &Tensor, y: &Tensor, g: &Tensor) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let (dx, dp) = with_floats([x, parameters, y, &g.contiguous()?], |[xs, ps, ys, gs]| {
            Ok(self.backward(xs, ps, ys, gs, x.track_op()))
        })?;
        let dx = dx.map(|dx| Tensor::from_vec(dx, x.shape(), &Device::Cpu)).transpose()?;
        Ok((dx, Some(Tensor::from_vec(dp, parameters.shape(), &Device::Cpu)?)))
    }
}
