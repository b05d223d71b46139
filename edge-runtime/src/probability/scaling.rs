//! The map from logits to calibrated probabilities: a temperature and, where held-out pictures ask for more, a refinement
//! behind it.
//!
//! A predictor, a measurement and a fit all go through [`Scaling::probabilities`]. With a refinement the most
//! probable class can be another than that of the largest logit; the predicted class is always the most probable one.

use super::{VectorScaling, VennAbers, argmax, softmax};
use serde::{Deserialize, Serialize};

/// See the module's first paragraph.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Scaling {
    /// Softmax temperature, positive; 1 leaves the logits as they are.
    pub temperature: f64,
    /// What comes behind it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refinement: Option<Refinement>,
}

/// A calibration of more than one number.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "method", rename_all = "kebab-case")]
pub enum Refinement {
    /// A weight and an offset for every class, on logits that the temperature has divided.
    Vector(VectorScaling),
    /// A step function on the confidence. The other classes share what it leaves in the proportions they had.
    VennAbers(VennAbers),
}

impl Default for Scaling {
    fn default() -> Self {
        Self::from(1.0)
    }
}

impl From<f64> for Scaling {
    fn from(temperature: f64) -> Self {
        Self { temperature, refinement: None }
    }
}

impl Scaling {
    /// Calibrated probabilities of one row of logits; they sum to 1.
    pub fn probabilities<T: Copy + Into<f64>>(&self, logits: &[T]) -> Vec<f64> {
        match &self.refinement {
            None => softmax(logits, self.temperature),
            Some(Refinement::Vector(vector)) => {
                let scaled: Vec<f64> = logits.iter().map(|z| (*z).into() / self.temperature).collect();
                softmax(&vector.apply(&scaled), 1.0)
            }
            Some(Refinement::VennAbers(venn_abers)) => {
                let mut row = softmax(logits, self.temperature);
                let top = argmax(&row);
                let confidence = venn_abers.probability(row[top]);
                let left = 1.0 - confidence;
                row[top] = 0.0;
                let rest: f64 = row.iter().sum();
                let others = row.len().saturating_sub(1).max(1) as f64;
                // Where rounding left the others nothing, they share alike.
                row.iter_mut().for_each(|p| *p = if rest > 1e-300 { left * (*p / rest) } else { left / others });
                row[top] = confidence;
                row
            }
        }
    }

    /// [`Scaling::probabilities`] of every row of `classes` logits.
    ///
    /// # Panics
    /// When `classes` is 0.
    pub fn rows<T: Copy + Into<f64>>(&self, logits: &[T], classes: usize) -> Vec<f64> {
        logits.chunks_exact(classes).flat_map(|row| self.probabilities(row)).collect()
    }

    /// Whether it can be applied to rows of `classes` logits.
    ///
    /// # Errors
    /// A sentence fragment that names the number which cannot be.
    pub fn validate(&self, classes: usize) -> Result<(), String> {
        if !(self.temperature.is_finite() && self.temperature > 0.0) {
            return Err("the temperature must be positive".into());
        }
        match &self.refinement {
            None => Ok(()),
            Some(Refinement::Vector(vector)) => vector.validate(classes),
            Some(Refinement::VennAbers(venn_abers)) => venn_abers.validate(),
        }
    }

    /// Such as `temperature 1.272, then Venn–Abers`.
    pub fn words(&self) -> String {
        let behind = match &self.refinement {
            None => "",
            Some(Refinement::Vector(_)) => ", then vector scaling",
            Some(Refinement::VennAbers(_)) => ", then Venn–Abers",
        };
        format!("temperature {:.3}{behind}", self.temperature)
    }
}
