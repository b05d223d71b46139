//! One trait for whatever executes a network: tract on a CPU, the trainer's own network, later TensorRT.
//!
//! An engine maps a batch of normalised pictures to logits and the last feature map, in one pass. It promises that
//! equal inputs give equal outputs, that the batch size does not change them, and that the head runs in f32.

#[cfg(feature = "tract")]
mod onnx;
#[cfg(feature = "tract")]
pub mod tract;

#[cfg(all(test, feature = "tract"))]
mod tests;

use crate::Result;

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

/// What a network says about a batch.
#[derive(Debug, Clone, PartialEq)]
pub struct Outputs {
    /// `n × classes`.
    pub logits: Vec<f32>,
    /// `n × channels × height × width`: exactly what global average pooling reads.
    pub features: Vec<f32>,
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
}
