//! The inference form of a [`chain`](super::chain()): norms folded into the convolutions, bias, residual and activation in
//! their epilogue, and a few images taken through all links while they are in a thread's cache.

use super::conv::Shapes;
use super::correlate::Epilogue;
use super::frame::Frame;
use super::job::{Job, Load, shared_chunks};
use super::link::{Link, Source};
use super::{Shared, uninitialised, with_floats, with_scratch};
use candle_core::{Device, Result, Tensor, bail};
use excon_edge::kernel::active;
use rayon::prelude::*;
use std::ops::Range;

/// The last link's output with known statistics, not tracked. `folded` holds each link's convolution weights with the
/// norm folded in, and the biases.
///
/// # Errors
/// When shapes do not fit together, a link reads a later one, or the tensors are not `f32`.
pub fn chain_folded(x: &Tensor, folded: &[(Tensor, Vec<f32>)], links: &[Link]) -> Result<Tensor> {
    let x = x.contiguous()?;
    let (entry, isa) = (x.dims4()?, active());
    if links.is_empty() || folded.len() != links.len() {
        bail!("a chain of {} links with weights for {}", links.len(), folded.len());
    }
    let mut jobs: Vec<(Shapes, Frame, Job)> = Vec::with_capacity(links.len());
    for (i, (link, (weight, bias))) in links.iter().zip(folded).enumerate() {
        let shape = |source| match source {
            Source::Entry => Ok(entry),
            Source::Link(other) if other < i => Ok(jobs[other].0.output),
            Source::Link(_) => bail!("link {i} reads a link that does not come before it"),
        };
        let conv = link.convolution(isa);
        let shapes = conv.shape(shape(link.input)?, weight.dims4()?)?;
        let added = link.residual.map(shape).transpose()?;
        if bias.len() != shapes.output.3 || added.is_some_and(|added| added != shapes.output) {
            bail!("link {i} has {} biases, or adds a map of another shape", bias.len());
        }
        let job = with_floats([&weight.contiguous()?], |[weight]| Ok(conv.forward_job(&shapes, weight)))?;
        jobs.push((shapes, conv.frame(&shapes), job));
    }
    let image = |(_, h, w, c): (usize, usize, usize, usize)| h * w * c;
    let Some((last, ..)) = jobs.last() else { bail!("an empty chain") };
    let output = (entry.0, last.output.1, last.output.2, last.output.3);
    let mut y = uninitialised(entry.0 * image(output));
    let out = Shared::of(&mut y);
    let numbers = jobs.iter().map(|(_, frame, _)| frame.len()).max().unwrap_or(1);
    let pixels = jobs.iter().map(|(shapes, ..)| shapes.output.1 * shapes.output.2).min().unwrap_or(1);
    let run = |x: &[f32], images: Range<usize>, maps: &mut Vec<Vec<f32>>| {
        let count = images.len();
        with_scratch(|[scratch, _]| {
            for (i, (link, (shapes, frame, job))) in links.iter().zip(&jobs).enumerate() {
                let len = count * image(shapes.output);
                let (before, rest) = maps.split_at_mut(i);
                let here = &mut rest[0];
                if here.len() < len {
                    here.resize(len, 0.0);
                }
                let read = |source| match source {
                    Source::Entry => &x[images.start * image(entry)..images.end * image(entry)],
                    Source::Link(other) => &before[other][..],
                };
                let input = frame.pad(read(link.input), 0..count, scratch);
                let residual = link.residual.map(|source| read(source).as_ptr());
                let epilogue = Epilogue { bias: Some(&folded[i].1), residual, clip: link.clip };
                // SAFETY: the frame and the maps hold `count` images; the last link writes this chunk's own of `y`.
                unsafe {
                    let to =
                        if i + 1 == links.len() { out.at(images.start * image(output)) } else { here.as_mut_ptr() };
                    job.run(count, input, to, epilogue);
                }
            }
        });
    };
    with_floats([&x], |[x]| {
        shared_chunks(entry.0, Load { numbers, pixels })
            .into_par_iter()
            .with_max_len(1)
            .for_each_init(|| vec![vec![]; links.len()], |maps, images| run(x, images, maps));
        Ok(())
    })?;
    Tensor::from_vec(y, output, &Device::Cpu)
}
