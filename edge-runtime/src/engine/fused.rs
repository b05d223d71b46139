//! The engine of the project's own kernels: an ONNX file, float, int8 or mixed, lowered whole to fused steps.
//!
//! Promises: the same bits for the same picture in every batch, in int8 on every instruction set too; no memory is asked
//! for once each thread has run a picture. Files pass the gate in `onnx.rs` and every check of
//! [`Graph::check`](crate::kernel::graph::Graph::check) before anything is built.

use super::lower::{Precision, lower, unfused};
use super::{Engine, Outputs, Shapes, StepTime, onnx, run_batch};
use crate::kernel::float::{self, Float};
use crate::kernel::graph::{Executor, StepDescription};
use crate::kernel::int8::{self, Int8};
use crate::kernel::mixed::{self, Mixed};
use crate::{Error, Result, kernel};
use std::path::Path;

/// A network executed by the fused kernels.
pub struct FusedEngine {
    network: Box<dyn Executor>,
    shapes: Shapes,
    name: &'static str,
}

impl std::fmt::Debug for FusedEngine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let isa = self.network.isa();
        let mut this = f.debug_struct("FusedEngine");
        this.field("name", &self.name).field("shapes", &self.shapes).field("isa", &isa).finish_non_exhaustive()
    }
}

impl FusedEngine {
    /// Builds the engine from the bytes of an ONNX file, for the instruction set in use: in float where nothing in it is
    /// quantized, in int8 where everything is, else mixed.
    ///
    /// # Errors
    /// [`Error::Bundle`] when the gate refuses the file or something in it is no step of the kernels; the message names
    /// the node.
    pub fn from_onnx(bytes: &[u8], name: &str) -> Result<Self> {
        let refuse = |reason: String| Error::Bundle { path: Path::new(name).into(), reason };
        Self::build(&onnx::check(bytes).map_err(refuse)?).map_err(refuse)
    }

    /// The same behind the gate; the error is a sentence fragment.
    pub(super) fn build(checked: &onnx::Checked) -> std::result::Result<Self, String> {
        let (isa, shapes) = (kernel::active(), checked.shapes);
        let (network, name) = if checked.is_quantized() {
            match lower(checked).and_then(|graph| int8::build(&graph, isa)) {
                Ok(network) => (network, Int8::NAME),
                // What stands against all of it in int8 says more than what stands against parts.
                Err(reason) => match unfused(checked).and_then(|graph| mixed::build(&graph, isa)) {
                    Ok(network) => (network, Mixed::NAME),
                    Err(_) => return Err(reason),
                },
            }
        } else {
            (float::build(&lower(checked)?, isa)?, Float::NAME)
        };
        Ok(Self { network, shapes, name })
    }
}

impl Engine for FusedEngine {
    /// `float`, `int8` or `mixed`; a calibration fitted on one holds on every instruction set, in float up to rounding.
    fn name(&self) -> &str {
        self.name
    }

    fn shapes(&self) -> Shapes {
        self.shapes
    }

    fn run(&self, images: &[f32]) -> Result<Outputs> {
        run_batch(self, images, |image, logits, features| {
            self.network.run(image, logits, features);
            Ok(())
        })
    }

    fn profile(&self, image: &[f32], runs: usize) -> Option<Vec<StepTime>> {
        let steps = self.network.steps();
        if image.len() != self.shapes.input.iter().product::<usize>() || runs == 0 {
            return None;
        }
        let mut seconds = vec![f64::INFINITY; steps.len()];
        (0..runs).for_each(|_| self.network.time(image, &mut seconds));
        let time =
            |(step, seconds): (StepDescription, f64)| StepTime { name: step.name, products: step.products, seconds };
        Some(steps.into_iter().zip(seconds).map(time).collect())
    }
}
