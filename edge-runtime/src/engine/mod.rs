//! One trait for whatever executes a network: fused kernels or tract on a CPU, TensorRT on a graphics unit, the trainer's
//! own network. [`open`] takes the fastest on the CPU that can run a file.
//!
//! An engine maps a batch of normalised pictures to logits and the last feature map, in one pass. It promises that
//! equal inputs give equal outputs, that the batch size does not change them, and that the head runs in f32.

#[cfg(feature = "tract")]
pub mod fused;
#[cfg(feature = "tract")]
mod lower;
#[cfg(feature = "tract")]
pub mod onnx;
#[cfg(feature = "tract")]
pub mod tensorrt;
#[cfg(feature = "tract")]
pub mod tract;

#[cfg(all(test, feature = "tract"))]
mod tests;

#[cfg(feature = "tract")]
use crate::Error;
use crate::Result;
use crate::bundle::Precision;
#[cfg(feature = "tract")]
use rayon::prelude::*;

/// Shapes of a network's input and outputs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shapes {
    /// Channels, height, width of one input.
    pub input: [usize; 3],
    /// Number of classes.
    pub classes: usize,
    /// Channels, height, width of the last feature map.
    pub features: [usize; 3],
}

/// Why a network whose last map is one cell has no class-activation map.
pub const NO_MAP: &str =
    "the network's head is not linear on the mean of its last map, so it has no class-activation map";

impl Shapes {
    /// Whether the last feature map has places to tell apart. A map of one cell, as networks without a pooled linear head
    /// are written, has no class-activation map that explains anything: [`NO_MAP`].
    pub fn explains(&self) -> bool {
        self.features[1] * self.features[2] > 1
    }
}

/// What a network says about a batch.
#[derive(Debug, Clone, PartialEq)]
pub struct Outputs {
    /// `n × classes`.
    pub logits: Vec<f32>,
    /// `n × channels × height × width`: exactly what global average pooling reads.
    pub features: Vec<f32>,
}

/// Time of one step of a network.
#[derive(Debug, Clone, PartialEq)]
pub struct StepTime {
    /// What it does.
    pub name: String,
    /// Multiplications of one picture.
    pub products: u64,
    /// Seconds a picture, the fastest run's: other work on the machine does not show.
    pub seconds: f64,
}

/// An inference engine holding one network.
pub trait Engine: Send + Sync {
    /// Short name for status and reports, such as `tract` or `candle`.
    fn name(&self) -> &str;
    /// Shapes of input and outputs.
    fn shapes(&self) -> Shapes;
    /// Runs `n` pictures, planar and normalised (`n × C × H × W`); `n` follows from the length.
    ///
    /// # Errors
    /// When the length is no multiple of one input, or the engine fails.
    fn run(&self, images: &[f32]) -> Result<Outputs>;
    /// Where the time of one picture goes, step by step in the best of `runs` runs; nothing where the engine cannot say.
    fn profile(&self, _image: &[f32], _runs: usize) -> Option<Vec<StepTime>> {
        None
    }
    /// Largest `|logit − golden| / (1 + |golden|)` with which it still computes the sealed model. Int8 leaves room for
    /// activations that lie on a rounding border: another instruction set sums in another order, and then they fall to
    /// the neighbouring code.
    fn golden_tolerance(&self, precision: Precision) -> f64 {
        match precision {
            Precision::Float => 1e-3,
            Precision::Int8 | Precision::Mixed => 0.1,
        }
    }
    /// Why a faster engine was not taken, for diagnostics.
    fn note(&self) -> Option<&str> {
        None
    }
}

/// The fastest CPU engine that can run an ONNX file: the fused kernels where the whole file lowers to them, else tract,
/// whose [`Engine::note`] says why. The converter fits and the board runs on what this returns. `name` (a path or
/// a bundle's member) appears in errors.
///
/// # Errors
/// As [`tract::TractEngine::from_onnx`].
#[cfg(feature = "tract")]
pub fn open(bytes: &[u8], name: &str) -> Result<Box<dyn Engine>> {
    let refuse = |reason: String| Error::Bundle { path: std::path::Path::new(name).into(), reason };
    let checked = onnx::check(bytes).map_err(refuse)?;
    match fused::FusedEngine::build(&checked) {
        Ok(engine) => Ok(Box::new(engine)),
        Err(reason) => {
            let kind = if checked.is_quantized() { "int8" } else { "float" };
            let note = format!("the {kind} kernels do not take this file: {reason}");
            Ok(Box::new(tract::TractEngine::build(checked, Some(note)).map_err(refuse)?))
        }
    }
}

/// Runs each picture by itself, a lone one on the caller's thread: no hand-over, lowest latency. Neither batch size nor
/// scheduling can change an answer. `one` fills logits and features of one picture.
#[cfg(feature = "tract")]
fn run_batch(
    engine: &dyn Engine,
    images: &[f32],
    one: impl Fn(&[f32], &mut [f32], &mut [f32]) -> std::result::Result<(), String> + Sync,
) -> Result<Outputs> {
    let fail = |reason: String| Error::Engine { engine: engine.name().into(), reason };
    let Shapes { input, classes, features } = engine.shapes();
    let (size, map) = (input.iter().product::<usize>(), features.iter().product::<usize>());
    if !images.len().is_multiple_of(size) {
        return Err(fail(format!("{} values are no multiple of one input's {size}", images.len())));
    }
    let count = images.len() / size;
    let mut outputs = Outputs { logits: vec![0.0; count * classes], features: vec![0.0; count * map] };
    if count == 1 {
        return one(images, &mut outputs.logits, &mut outputs.features).map(|()| outputs).map_err(fail);
    }
    let logits = outputs.logits.par_chunks_exact_mut(classes);
    let features = outputs.features.par_chunks_exact_mut(map);
    let pictures = images.par_chunks_exact(size).zip(logits).zip(features);
    pictures.try_for_each(|((image, logits), features)| one(image, logits, features)).map_err(fail)?;
    Ok(outputs)
}
