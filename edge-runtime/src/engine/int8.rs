//! The int8 engine: a quantized ONNX file lowered whole to fused kernels.
//!
//! Promises: the same bits for the same picture on every instruction set and in every batch; no memory is asked for once
//! each thread has run a picture. Files pass the gate in `onnx.rs` and every check of
//! [`Graph::check`](crate::kernel::int8::Graph::check) before anything is built.

use super::{Engine, Outputs, Shapes, StepTime, lower, onnx, run_batch};
use crate::kernel::{self, int8};
use crate::{Error, Result};
use std::path::Path;

/// Name in reports; a calibration fitted on it holds on every instruction set.
const NAME: &str = "int8";

/// A quantized network executed by the fused kernels.
pub struct Int8Engine {
    network: Box<dyn int8::Executor>,
    shapes: Shapes,
}

impl std::fmt::Debug for Int8Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let isa = self.network.isa();
        f.debug_struct("Int8Engine").field("shapes", &self.shapes).field("isa", &isa).finish_non_exhaustive()
    }
}

impl Int8Engine {
    /// Builds the engine from the bytes of an ONNX file, for the instruction set in use.
    ///
    /// # Errors
    /// [`Error::Bundle`] when the gate refuses the file or something in it is not an int8 step; the message names the
    /// node.
    pub fn from_onnx(bytes: &[u8], name: &str) -> Result<Self> {
        let refuse = |reason: String| Error::Bundle { path: Path::new(name).into(), reason };
        Self::build(&onnx::check(bytes).map_err(refuse)?).map_err(refuse)
    }

    pub(super) fn build(checked: &onnx::Checked) -> std::result::Result<Self, String> {
        let network = int8::build(&lower::lower(checked)?, kernel::active())?;
        Ok(Self { network, shapes: checked.shapes })
    }
}

impl Engine for Int8Engine {
    fn name(&self) -> &str {
        NAME
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
        let time = |(step, seconds): (crate::kernel::int8::StepDescription, f64)| StepTime {
            name: step.name,
            products: step.products,
            seconds,
        };
        Some(steps.into_iter().zip(seconds).map(time).collect())
    }
}
