//! Deletion and insertion curves: the probability of a class while pixels leave, or come back, in order of salience.

use super::faithfulness::{BATCH, run};
use crate::engine::Engine;
use crate::probability::softmax;
use crate::{Error, Result};
use serde::{Deserialize, Serialize};

/// Probabilities (softmax at temperature 1) after 0, 1, … `steps` equal steps.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Curves {
    /// From the whole picture, the most salient pixels set to the mean colour first; a fast fall is good.
    pub deletion: Vec<f64>,
    /// From the mean colour, the most salient pixels put back first; a fast rise is good.
    pub insertion: Vec<f64>,
}

/// Area under a curve by the trapezoid rule, over the fraction 0..=1 of pixels; 0 for fewer than two points.
pub fn area(curve: &[f64]) -> f64 {
    let sum: f64 = curve.windows(2).map(|pair| (pair[0] + pair[1]) / 2.0).sum();
    if curve.len() < 2 { 0.0 } else { sum / (curve.len() - 1) as f64 }
}

/// Both curves of one planar, normalised picture (`C × H × W`) for `class`, with pixels in `order` (most salient first,
/// as from [`Map::order`](super::Map::order) of a map at input size).
///
/// # Errors
/// [`Error::Data`] when picture, class, order or steps do not fit the engine; otherwise the engine's.
pub fn deletion_insertion(
    engine: &dyn Engine,
    image: &[f32],
    class: usize,
    order: &[usize],
    steps: usize,
) -> Result<Curves> {
    let refuse = |reason: &str| Err(Error::Data { what: "deletion and insertion", reason: reason.into() });
    let shapes = engine.shapes();
    let pixels = shapes.input[1] * shapes.input[2];
    if image.len() != shapes.input[0] * pixels || class >= shapes.classes {
        return refuse("picture or class does not fit the engine");
    }
    let mut seen = vec![false; pixels];
    if order.len() != pixels || order.iter().any(|p| *p >= pixels || std::mem::replace(&mut seen[*p], true)) {
        return refuse("the order must name every pixel once");
    }
    if steps == 0 || steps > pixels {
        return refuse("use at least 1 step and at most one a pixel");
    }
    // Every stage of both curves, deletion then insertion, in as few calls of the engine as fit in memory.
    let mut stages = Vec::with_capacity(2 * (steps + 1) * image.len());
    let (mut deleted, mut inserted) = (image.to_vec(), vec![0f32; image.len()]);
    for step in 0..=steps {
        if step > 0 {
            for pixel in &order[(step - 1) * pixels / steps..step * pixels / steps] {
                for at in (*pixel..image.len()).step_by(pixels) {
                    inserted[at] = image[at];
                    deleted[at] = 0.0;
                }
            }
        }
        stages.extend_from_slice(&deleted);
        stages.extend_from_slice(&inserted);
    }
    let mut probabilities = Vec::with_capacity(2 * (steps + 1));
    for batch in stages.chunks(BATCH * image.len()) {
        let outputs = run(engine, batch)?;
        probabilities.extend(outputs.logits.chunks_exact(shapes.classes).map(|row| softmax(row, 1.0)[class]));
    }
    Ok(Curves {
        deletion: probabilities.iter().copied().step_by(2).collect(),
        insertion: probabilities.iter().copied().skip(1).step_by(2).collect(),
    })
}
