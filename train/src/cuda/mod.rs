//! Training on an NVIDIA graphics card: cuDNN for convolutions, cuBLAS for matrix products, own kernels for all else,
//! compiled by NVRTC when a training begins. The libraries are opened at run time: the program needs none of them to be
//! built or to start, and says which one is missing when asked to train without it.
//!
//! From the ground up: `device` (what the engine needs of a device), `card` and `convolution` (the graphics card),
//! `memory`, `kernels` (the text in `kernels/*.cu`, a typed function each), `parameters`, `walk` and `backward` (the network's
//! graph), `step` (a step of each method), `engine` (the trainer's
//! [`Accelerator`](crate::trainer::accelerator)), `inference` (a trained network to be measured). All but `card` and `convolution` is tested on any machine with a C++
//! compiler, which runs the kernels' own text.

mod backward;
mod card;
mod convolution;
mod device;
mod engine;
mod inference;
mod kernels;
mod memory;
mod parameters;
mod step;
#[cfg(test)]
mod tests;
mod walk;

pub(crate) use inference::CudaNetwork;

#[cfg(not(test))]
use crate::config::Precision;
use crate::trainer::accelerator::{Accelerator, Start};
use crate::{Error, Result};
#[cfg(not(test))]
use std::rc::Rc;

/// The first graphics card, ready for a training.
///
/// # Errors
/// When the driver, a library or the card is missing, and when a setting does not run there.
pub(crate) fn open(start: &Start) -> Result<Box<dyn Accelerator>> {
    let device = device(start.config.precision)?;
    Ok(Box::new(engine::Engine::new(device, start)?))
}

#[cfg(not(test))]
fn device(precision: Precision) -> Result<Rc<dyn device::Device>> {
    Ok(Rc::new(card::Card::open(precision)?))
}

/// In tests a CPU takes the card's place where there is none.
#[cfg(test)]
use tests::device;

/// An error of a library or part.
fn fail(name: &str, reason: impl std::fmt::Display) -> Error {
    Error::Device { name: name.into(), reason: reason.to_string() }
}
