//! The seam between the loop and a device that makes the steps in the CPU's place.
//!
//! An accelerator holds the network's numbers and the training pictures itself. It is asked for steps and may answer
//! later: outcomes come in the order of the steps, at the latest from [`Accelerator::finish`]. The loop stays the same,
//! and so do checkpoints: after each epoch the numbers are brought home.

use crate::Result;
use crate::config::{Device, TrainConfig};
use crate::dataset::{Dataset, Split};
use crate::network::Network;
use crate::optimizer::Sgd;
use crate::recipe::{Draw, Step};

/// One step to make.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Job<'a> {
    /// Its pictures.
    pub draws: &'a [Draw],
    /// Pictures of the class-balanced branch, where the recipe has one.
    pub balanced: &'a [Draw],
    /// From 1.
    pub epoch: usize,
    /// Learning rate.
    pub rate: f64,
}

/// What one step came to; means over its pictures. A step whose loss is no number may have moved nothing.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Outcome {
    /// Its pictures.
    pub pictures: usize,
    /// What was differentiated.
    pub loss: f64,
    /// Contrastive part, where there is one.
    pub contrastive: Option<f64>,
    /// Cross-entropy part, where there is one.
    pub cross_entropy: Option<f64>,
    /// Rows whose logits were compared with a label, and how many of them were right.
    pub classified: (usize, usize),
    /// Pictures that were masked, and how many of them the network still recognised.
    pub explained: (usize, usize),
}

impl Outcome {
    /// Of a step on the CPU.
    pub fn of(step: &Step, loss: f32, pictures: usize) -> Self {
        let passing = |passes: &Vec<bool>| (passes.len(), passes.iter().filter(|p| **p).count());
        Self {
            pictures,
            loss: f64::from(loss),
            contrastive: step.contrastive,
            cross_entropy: step.cross_entropy,
            classified: step.classified,
            explained: step.passes.as_ref().map_or((0, 0), passing),
        }
    }
}

/// What an accelerator begins with.
#[cfg_attr(not(feature = "cuda"), expect(dead_code, reason = "no accelerator is built in"))]
pub(crate) struct Start<'a> {
    pub config: &'a TrainConfig,
    pub data: &'a Dataset,
    pub network: &'a Network,
    pub encoder: &'a Sgd,
    pub classifier: Option<&'a Sgd>,
}

/// What an inference returns per picture.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wanted {
    Logits,
    Pooled,
}

/// A device that trains.
pub(crate) trait Accelerator {
    /// Asks for an encoder's step; outcomes of steps that are known by now.
    fn step(&mut self, job: &Job) -> Result<Vec<Outcome>>;
    /// Asks for a step of the classifier alone, on frozen features; outcomes that are known by now.
    fn classifier_step(&mut self, job: &Job) -> Result<Vec<Outcome>>;
    /// The outcomes that are still missing.
    fn finish(&mut self) -> Result<Vec<Outcome>>;
    /// Takes over parameters and running statistics.
    fn load(&mut self, network: &Network) -> Result<()>;
    /// Rows of what is wanted, in eval mode, for the pictures of a split or their mirror images.
    fn infer(&mut self, split: &Split, mirror: bool, wanted: Wanted) -> Result<Vec<f32>>;
    /// Brings the numbers home.
    fn store(&self, network: &mut Network, encoder: &mut Sgd, classifier: Option<&mut Sgd>) -> Result<()>;
}

/// The accelerator of a configuration; none where the CPU trains.
///
/// # Errors
/// When this build, this machine or the settings do not allow it, saying what to do.
pub(crate) fn open(start: &Start) -> Result<Option<Box<dyn Accelerator>>> {
    match start.config.device {
        Device::Cpu => Ok(None),
        #[cfg(feature = "cuda")]
        Device::Cuda => Ok(Some(crate::cuda::open(start)?)),
        #[cfg(not(feature = "cuda"))]
        Device::Cuda => Err(Device::not_built_in()),
    }
}
