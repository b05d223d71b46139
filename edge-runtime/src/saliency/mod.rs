//! Explanations: the exact class-activation map of a network with a pooled linear head, masks, faithfulness,
//! how well a map finds an object, how little an embedding minds an occlusion.
//!
//! For `logits = W · mean(features) + b` the map `CAM_c(y, x) = Σ_k W[c, k] · features[k, y, x]` satisfies
//! `mean(CAM_c) + b[c] = logit_c` exactly (completeness), which doubles as the engine's self-test.

mod curve;
mod faithfulness;
mod localisation;
mod map;
mod mask;
mod occlusion;
#[cfg(test)]
mod resnet8;
#[cfg(test)]
mod tests;

pub use curve::{Curves, area, deletion_insertion};
pub use faithfulness::{Faithfulness, confidences, faithfulness};
pub use localisation::{Localised, ObjectBox, localise};
pub use map::Map;
pub use mask::{keep_above, keep_top, mask_normalised};
pub use occlusion::{OCCLUDED_SHARE, POSITIONS, occluded, similarity};

use crate::{Error, Result};

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

impl LinearHead {
    /// A head whose lengths and values have been checked.
    ///
    /// # Errors
    /// [`Error::Data`] when lengths disagree with the shape or a value is not finite.
    pub fn new(classes: usize, channels: usize, weight: Vec<f32>, bias: Vec<f32>) -> Result<Self> {
        let refuse = |reason: String| Err(Error::Data { what: "linear head", reason });
        if classes == 0 || channels == 0 || classes.checked_mul(channels) != Some(weight.len()) || bias.len() != classes
        {
            return refuse(format!(
                "{classes} classes × {channels} channels do not fit {} weights and {} biases",
                weight.len(),
                bias.len()
            ));
        }
        if weight.iter().chain(&bias).any(|v| !v.is_finite()) {
            return refuse("a weight or bias is not finite".into());
        }
        Ok(Self { classes, channels, weight, bias })
    }

    /// Logits of one pooled feature vector (`C` values), summed in f64.
    ///
    /// # Panics
    /// When `pooled` has another length than `channels`.
    pub fn logits(&self, pooled: &[f32]) -> Vec<f32> {
        assert_eq!(pooled.len(), self.channels, "pooled features must match the head");
        self.weight
            .chunks_exact(self.channels)
            .zip(&self.bias)
            .map(|(row, bias)| {
                let sum: f64 = row.iter().zip(pooled).map(|(w, p)| f64::from(*w) * f64::from(*p)).sum();
                (sum + f64::from(*bias)) as f32
            })
            .collect()
    }
}

/// Global average pooling of one feature map (`C × h × w`), summed in f64.
///
/// # Panics
/// When the length is not a positive multiple of `channels`.
pub fn pool(features: &[f32], channels: usize) -> Vec<f32> {
    assert!(
        channels > 0 && !features.is_empty() && features.len().is_multiple_of(channels),
        "features must be C × h × w"
    );
    let area = features.len() / channels;
    let mean = |plane: &[f32]| plane.iter().map(|v| f64::from(*v)).sum::<f64>() / area as f64;
    features.chunks_exact(area).map(|plane| mean(plane) as f32).collect()
}

/// The exact class-activation map of `class` from one feature map (`shape = [C, h, w]`), without the bias.
///
/// # Panics
/// When `features` does not have that shape, or head and class do not fit it.
pub fn class_activation_map(features: &[f32], shape: [usize; 3], head: &LinearHead, class: usize) -> Map {
    let [channels, height, width] = shape;
    assert!(channels == head.channels && class < head.classes, "head and class must fit the feature map");
    assert_eq!(features.len(), channels * height * width, "features must be C × h × w");
    let mut sums = vec![0f64; height * width];
    let row = &head.weight[class * channels..][..channels];
    for (plane, weight) in features.chunks_exact(height * width).zip(row) {
        let weight = f64::from(*weight);
        for (sum, value) in sums.iter_mut().zip(plane) {
            *sum += weight * f64::from(*value);
        }
    }
    Map { width, height, values: sums.into_iter().map(|v| v as f32).collect() }
}

/// How far an engine's logit is from what its own feature map says: `|mean(CAM) + b − logit| / (1 + |logit|)`.
/// About 1e-6 in a sound float engine; not a number when the engine returns one.
pub fn completeness_residual(map: &Map, head: &LinearHead, class: usize, logit: f32) -> f64 {
    let logit = f64::from(logit);
    (map.mean() + f64::from(head.bias[class]) - logit).abs() / (1.0 + logit.abs())
}
