//! The engine `tensorrt`: a bundle's network built by NVIDIA's TensorRT for the graphics unit at hand.
//!
//! This program is not linked with TensorRT. A shim of some twenty C functions ([`setup`]) is compiled on the board against
//! its own headers and opened at run time, so one binary serves boards with any TensorRT from 8.2 on, and those without.
//! [`api`] is the safe wrapper, [`plan`] the cache, [`build`](build()) the builders.
//!
//! Promises: nothing is asked of TensorRT before CUDA has counted a device; the head runs in f32 without TF32; a run
//! that hangs ends with an error. Like the other engines it answers each picture by itself, so that batches change
//! nothing; unlike them its numbers depend on the board, so constants are fitted anew on the built engine.

mod abi;
pub mod api;
mod build;
mod home;
mod master;
pub mod plan;
pub mod setup;
pub mod trtexec;

pub use build::{Built, How, Progress, build};
pub use home::{HALF_TARGET, Home, Job, Ready};
pub use master::Master;

use super::{Engine, Outputs, Shapes};
use crate::bundle::Precision;
use crate::{Error, Result};
use api::{ExecutionContext, Fault, FaultKind, Logger, Runtime};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// Name in reports, and engine of the constants that are fitted on it.
pub const NAME: &str = "tensorrt";
/// Longest that one picture may take. The slowest board needs milliseconds.
const LIMIT: Duration = Duration::from_secs(10);

/// Something TensorRT needs is not here.
fn unavailable(reason: impl Into<String>) -> Error {
    Error::Unavailable { engine: NAME.into(), reason: reason.into() }
}

/// A fault with what to do about it.
fn told(fault: Fault) -> Error {
    let Fault { kind, reason, .. } = fault;
    let next = match kind {
        FaultKind::Library => "Compile the shim anew: excon-edge tensorrt setup",
        FaultKind::NoDevice => "The CPU engine works without: --engine cpu",
        FaultKind::Parse => "The CPU engine runs this file: --engine cpu",
        FaultKind::Build => {
            "`excon-edge tensorrt doctor` shows what is installed; `tensorrt build --trtexec` tries the other builder"
        }
        FaultKind::Memory => {
            "Free memory (systemctl isolate multi-user.target), or bound the builder: tensorrt build --workspace 256"
        }
        FaultKind::Mismatch => "Build it anew: excon-edge tensorrt build BUNDLE --force",
        FaultKind::Run | FaultKind::Timeout => "Look into `dmesg`; the CPU engine works without: --engine cpu",
        FaultKind::Cancelled => "Nothing was changed",
    };
    let reason = format!("{}. {next}", reason.trim_end_matches('.'));
    match kind {
        FaultKind::Library | FaultKind::NoDevice => unavailable(reason),
        _ => Error::Engine { engine: NAME.into(), reason },
    }
}

/// A network executed by TensorRT: one context of one picture, with its own stream, buffers and CUDA graph.
pub struct TensorRtEngine {
    context: Mutex<ExecutionContext>,
    shapes: Shapes,
    /// Positions of input, logits and features among the tensors.
    positions: [usize; 3],
    graph: bool,
    digest: String,
    about: plan::About,
}

impl std::fmt::Debug for TensorRtEngine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TensorRtEngine")
            .field("shapes", &self.shapes)
            .field("graph", &self.graph)
            .finish_non_exhaustive()
    }
}

impl TensorRtEngine {
    fn load(ready: &Ready, job: &Job, plan: &plan::Plan) -> Result<Self> {
        let runtime = Runtime::new(&ready.library, ready.index, &Logger::silent()).map_err(told)?;
        let engine = runtime.deserialize(&plan.bytes).map_err(told)?;
        let context = engine.create_execution_context(LIMIT).map_err(told)?;
        let tensors = engine.tensors().map_err(told)?;
        let shapes = job.master.shapes;
        let other =
            |what: &str| told(Fault::new(FaultKind::Mismatch, format!("the plan is of another network: {what}")));
        let find = |name: &str, input: bool, shape: &[usize]| {
            // The batch of one may be written or not.
            let fits = |t: &&api::Tensor| t.input == input && t.shape.strip_prefix(&[1]).unwrap_or(&t.shape) == shape;
            let known = |t: &&api::Tensor| input || t.name == name;
            let tensor = tensors.iter().filter(known).find(fits).ok_or_else(|| other(name))?;
            context.position(&tensor.name).ok_or_else(|| other(name))
        };
        let positions = [
            find("input", true, &shapes.input)?,
            find("logits", false, &[shapes.classes])?,
            find("features", false, &shapes.features)?,
        ];
        let graph = context.has_graph();
        let (digest, about) = (plan.digest(), plan.about.clone());
        Ok(Self { context: Mutex::new(context), shapes, positions, graph, digest, about })
    }

    /// SHA-256 of the plan: what constants that are fitted on this engine belong to.
    pub fn digest(&self) -> &str {
        &self.digest
    }

    /// Who built its plan, and for what.
    pub fn about(&self) -> &plan::About {
        &self.about
    }

    /// Whether inferences replay a CUDA graph.
    pub fn has_graph(&self) -> bool {
        self.graph
    }
}

impl Engine for TensorRtEngine {
    fn name(&self) -> &str {
        NAME
    }

    fn shapes(&self) -> Shapes {
        self.shapes
    }

    fn run(&self, images: &[f32]) -> Result<Outputs> {
        let Shapes { input, classes, features } = self.shapes;
        let (size, map) = (input.iter().product::<usize>(), features.iter().product::<usize>());
        if !images.len().is_multiple_of(size) {
            let reason = format!("{} values are no multiple of one input's {size}", images.len());
            return Err(Error::Engine { engine: NAME.into(), reason });
        }
        let count = images.len() / size;
        let mut outputs =
            Outputs { logits: Vec::with_capacity(count * classes), features: Vec::with_capacity(count * map) };
        let mut context = self.context.lock().unwrap_or_else(PoisonError::into_inner);
        let [from, logits, features] = self.positions;
        for image in images.chunks_exact(size) {
            context.buffer(from).copy_from_slice(image);
            context.run(LIMIT).map_err(told)?;
            outputs.logits.extend_from_slice(context.buffer(logits));
            outputs.features.extend_from_slice(context.buffer(features));
        }
        Ok(outputs)
    }

    /// Wider than on a CPU: TensorRT chooses kernels by time, and each sums in its own order. Not yet held against a
    /// real device.
    fn golden_tolerance(&self, precision: Precision) -> f64 {
        match (precision, self.about.key.half) {
            (Precision::Float, false) => 5e-3,
            (Precision::Float, true) => 0.05,
            (Precision::Int8 | Precision::Mixed, _) => 0.25,
        }
    }
}
