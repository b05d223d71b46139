//! tract as a measuring instrument: runs any of the converter's models one picture at a time and returns every output,
//! inner maps too where it declares them. The engine that boards run is `excon_edge::engine::tract`; this one exists for calibration.

use crate::onnx::pb::ModelProto;
use crate::{Error, Result};
use rayon::prelude::*;
use std::sync::Arc;
use tract_onnx::prelude::*;

/// A model loaded for one picture a run.
#[derive(Debug, Clone)]
pub struct Probe {
    plan: Arc<TypedRunnableModel>,
    input: [usize; 3],
}

impl Probe {
    /// Loads and optimises a model whose input is `batch × input`.
    ///
    /// # Errors
    /// When tract refuses it.
    pub fn new(model: &ModelProto, input: [usize; 3]) -> Result<Self> {
        let load = || -> TractResult<Arc<TypedRunnableModel>> {
            let [c, h, w] = input;
            tract_onnx::onnx()
                .with_ignore_output_shapes(true)
                .model_for_proto_model(model)?
                .with_input_fact(0, f32::fact([1, c, h, w]).into())?
                .into_optimized()?
                .into_runnable()
        };
        Ok(Self { plan: load().map_err(engine)?, input })
    }

    /// All outputs for one picture (planar, normalised), in the order the model declares them.
    ///
    /// # Errors
    /// When the picture has the wrong size or tract fails.
    pub fn run(&self, image: &[f32]) -> Result<Vec<Vec<f32>>> {
        let [c, h, w] = self.input;
        let run = || -> TractResult<Vec<Vec<f32>>> {
            let tensor = Tensor::from_shape(&[1, c, h, w], image)?;
            let outputs = self.plan.run(tvec!(tensor.into()))?;
            outputs.iter().map(|o| Ok(o.to_plain_array_view::<f32>()?.iter().copied().collect())).collect()
        };
        run().map_err(engine)
    }

    /// Runs many pictures (one after the other in `images`) on all cores; results come in the order of the pictures.
    ///
    /// # Errors
    /// As [`Probe::run`].
    pub fn run_all<T: Send>(&self, images: &[f32], keep: impl Fn(Vec<Vec<f32>>) -> T + Sync) -> Result<Vec<T>> {
        let one = self.input.iter().product::<usize>().max(1);
        images.par_chunks(one).map(|image| self.run(image).map(&keep)).collect()
    }

    /// Gathers something over many pictures without keeping their outputs. `merge` must not depend on order, for threads
    /// decide who gathers what.
    ///
    /// # Errors
    /// As [`Probe::run`].
    pub fn fold<T: Send>(
        &self,
        images: &[f32],
        empty: impl Fn() -> T + Sync + Send,
        add: impl Fn(&mut T, &[Vec<f32>]) + Sync + Send,
        merge: impl Fn(T, T) -> T + Sync + Send,
    ) -> Result<T> {
        let one = self.input.iter().product::<usize>().max(1);
        let gather = |mut gathered: T, image: &[f32]| {
            add(&mut gathered, &self.run(image)?);
            Ok(gathered)
        };
        images.par_chunks(one).try_fold(&empty, gather).try_reduce(&empty, |a, b| Ok(merge(a, b)))
    }
}

fn engine(error: TractError) -> Error {
    Error::Engine { reason: format!("{error:#}") }
}
