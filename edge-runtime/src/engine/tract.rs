//! An ONNX file, float or int8 (explicit quantize–dequantize pairs), executed by tract node by node: what runs files that
//! the fused kernels do not take.
//!
//! One plan for a batch of one is built at load and shared by all threads. Files pass the gate in `onnx.rs` before
//! tract sees them.

use super::{Engine, Outputs, Shapes, onnx, run_batch};
use crate::{Error, Result};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;
use tract_onnx::prelude::*;

/// Most values of one intermediate result, and of all together.
const MAX_VALUES: usize = 1 << 26;
const MAX_TOTAL: usize = 1 << 30;

/// A network executed by tract.
pub struct TractEngine {
    plan: Arc<TypedRunnableModel>,
    shapes: Shapes,
    logits: usize,
    features: usize,
    note: Option<String>,
}

impl std::fmt::Debug for TractEngine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TractEngine").field("shapes", &self.shapes).finish_non_exhaustive()
    }
}

impl TractEngine {
    /// Builds the engine from the bytes of an ONNX file with outputs `logits` (`N × classes`) and `features`
    /// (`N × C × H × W`). `name` (a path or a bundle's member) appears in errors.
    ///
    /// # Errors
    /// [`Error::Bundle`] when the file is no ONNX file, holds anything beyond the allow-list, is too large, or its
    /// declared shapes are not what the network computes.
    pub fn from_onnx(bytes: &[u8], name: &str) -> Result<Self> {
        let refuse = |reason: String| Error::Bundle { path: Path::new(name).into(), reason };
        Self::build(onnx::check(bytes).map_err(refuse)?, None).map_err(refuse)
    }

    /// The same behind the gate; `note` is what [`Engine::note`] will say.
    pub(super) fn build(checked: onnx::Checked, note: Option<String>) -> std::result::Result<Self, String> {
        // The importer is large and foreign: should a file that passed the gate make it panic, that is still only
        // a bad file to us.
        let plan = catch_unwind(AssertUnwindSafe(|| plan(&checked)));
        let plan = plan.unwrap_or_else(|_| Err("the importer failed on it".into()))?;
        let onnx::Checked { shapes, logits, features, .. } = checked;
        Ok(Self { plan, shapes, logits, features, note })
    }

    fn run_one(&self, image: &[f32], logits: &mut [f32], features: &mut [f32]) -> TractResult<()> {
        let [c, h, w] = self.shapes.input;
        let input = Tensor::from_shape(&[1, c, h, w], image)?;
        let outputs = self.plan.run(tvec!(input.into()))?;
        for (position, target) in [(self.logits, logits), (self.features, features)] {
            let view = outputs[position].to_plain_array_view::<f32>()?;
            for (to, from) in target.iter_mut().zip(view.iter()) {
                *to = *from;
            }
        }
        Ok(())
    }
}

/// Gate passed: import, fix the batch to one, bound the sizes of all intermediate results, optimise.
fn plan(checked: &onnx::Checked) -> std::result::Result<Arc<TypedRunnableModel>, String> {
    let say = |e: TractError| format!("{e:#}");
    let Shapes { input: [c, h, w], classes, features: [fc, fh, fw] } = checked.shapes;
    let mut model = onnx().with_ignore_value_info(true).model_for_proto_model(&checked.model).map_err(say)?;
    let position = model
        .input_outlets()
        .map_err(say)?
        .iter()
        .position(|o| model.node(o.node).name == checked.input)
        .ok_or("its input is not connected")?;
    if model.input_outlets().map_err(say)?.len() != 1 {
        return Err("it must have exactly one input".into());
    }
    model.set_input_fact(position, f32::fact([1, c, h, w]).into()).map_err(say)?;
    let model = model.into_typed().map_err(say)?;
    let mut total = 0usize;
    for node in model.nodes() {
        for output in &node.outputs {
            let dims = output.fact.shape.as_concrete().ok_or_else(|| format!("{} has no fixed shape", node.name))?;
            let values = dims.iter().try_fold(1usize, |n, &d| n.checked_mul(d)).unwrap_or(usize::MAX);
            total = total.saturating_add(values);
            if values > MAX_VALUES || total > MAX_TOTAL {
                return Err(format!("{} computes more than {MAX_VALUES} values", node.name));
            }
        }
    }
    for (position, name, declared) in
        [(checked.logits, "logits", vec![1, classes]), (checked.features, "features", vec![1, fc, fh, fw])]
    {
        let fact = model.output_fact(position).map_err(say)?;
        if fact.datum_type != f32::datum_type() || fact.shape.as_concrete() != Some(&declared[..]) {
            return Err(format!("output `{name}` is declared {declared:?} and computed {:?}", fact.shape));
        }
    }
    model.into_optimized().and_then(|m| m.into_runnable()).map_err(say)
}

impl Engine for TractEngine {
    fn name(&self) -> &str {
        "tract"
    }

    fn shapes(&self) -> Shapes {
        self.shapes
    }

    fn run(&self, images: &[f32]) -> Result<Outputs> {
        run_batch(self, images, |image, logits, features| {
            self.run_one(image, logits, features).map_err(|e| format!("{e:#}"))
        })
    }

    fn note(&self) -> Option<&str> {
        self.note.as_deref()
    }
}
