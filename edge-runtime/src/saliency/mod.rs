//! Explanations: the exact class-activation map of a network with a pooled linear head, masks, faithfulness.
//!
//! For `logits = W · mean(features) + b` the map `CAM_c(y, x) = Σ_k W[c, k] · features[k, y, x]` satisfies
//! `mean(CAM_c) + b[c] = logit_c` exactly (completeness), which doubles as the engine's self-test.

/// A saliency map, row-major. Signed: positive values speak for the class, negative against it.
#[derive(Debug, Clone, PartialEq)]
pub struct Map {
    /// Columns.
    pub width: usize,
    /// Rows.
    pub height: usize,
    /// `height * width` values.
    pub values: Vec<f32>,
}

/// The linear head behind global average pooling: `logits = weight · pooled + bias`.
#[derive(Debug, Clone, PartialEq)]
pub struct LinearHead {
    /// Number of classes K.
    pub classes: usize,
    /// Number of channels C of the last feature map.
    pub channels: usize,
    /// `K × C`, row-major.
    pub weight: Vec<f32>,
    /// `K`.
    pub bias: Vec<f32>,
}
