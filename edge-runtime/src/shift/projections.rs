//! Signed feature projections: the embedding along its leading principal directions, each a two-sided channel.
//!
//! Axes come from healthy pictures of the fit half by orthogonal iteration; a sign is fixed by the axis's largest
//! component, so that equal pictures give equal bundles.

use super::channel::Channel;
use super::tensors::{Tensors, take};
use crate::{Error, Result};

/// Number of axes.
const AXES: usize = Channel::PROJECTIONS.len();
/// Rounds of orthogonal iteration: far more than neighbouring axes of a trained network need.
const ROUNDS: usize = 60;

/// Mean and leading axes of the embedding.
#[derive(Debug, Clone, PartialEq)]
pub struct Projections {
    mean: Vec<f64>,
    /// Unit vectors, the largest variance first.
    axes: Vec<Vec<f64>>,
}

impl Projections {
    /// Axes of the embeddings of healthy pictures, all of one length.
    ///
    /// # Errors
    /// When there are fewer embeddings than axes or fewer channels, or a value is not finite.
    pub fn learn(embeddings: &[&[f32]]) -> Result<Self> {
        let channels = embeddings.first().map_or(0, |e| e.len());
        let finite = embeddings.iter().all(|e| e.len() == channels && e.iter().all(|v| v.is_finite()));
        if embeddings.len() <= AXES || channels < AXES || !finite {
            let reason = format!("{} embeddings of {channels} channels, more than {AXES} of each", embeddings.len());
            return Err(Error::Data { what: "feature projections", reason });
        }
        let count = embeddings.len() as f64;
        let mean: Vec<f64> =
            (0..channels).map(|c| embeddings.iter().map(|e| f64::from(e[c])).sum::<f64>() / count).collect();
        let centred: Vec<Vec<f64>> =
            embeddings.iter().map(|e| e.iter().zip(&mean).map(|(v, m)| f64::from(*v) - m).collect()).collect();
        // Starting axes: rows of a cosine transform, which no embedding is orthogonal to by construction.
        let start = |k: usize| move |c: usize| (0.5 + (k as f64 + 1.0) * (c as f64 + 0.5)).cos();
        let mut axes: Vec<Vec<f64>> = (0..AXES).map(|k| (0..channels).map(start(k)).collect()).collect();
        orthonormalise(&mut axes);
        for _ in 0..ROUNDS {
            for axis in &mut axes {
                let mut next = vec![0.0; channels];
                for row in &centred {
                    let along = dot(row, axis);
                    next.iter_mut().zip(row).for_each(|(n, v)| *n += along * v);
                }
                *axis = next;
            }
            orthonormalise(&mut axes);
        }
        for axis in &mut axes {
            let largest = axis.iter().copied().fold(0.0f64, |a, b| if b.abs() > a.abs() { b } else { a });
            axis.iter_mut().for_each(|v| *v *= largest.signum());
        }
        Ok(Self { mean, axes })
    }

    /// The embedding along each axis.
    pub(super) fn scores(&self, pooled: &[f32]) -> [f64; AXES] {
        let centred: Vec<f64> = pooled.iter().zip(&self.mean).map(|(v, m)| f64::from(*v) - m).collect();
        std::array::from_fn(|k| dot(&self.axes[k], &centred))
    }

    pub(super) fn to_tensors(&self) -> Tensors {
        let axes: Vec<f64> = self.axes.iter().flatten().copied().collect();
        Tensors::from([
            ("scores.projection_mean".into(), (vec![self.mean.len()], self.mean.clone())),
            ("scores.projections".into(), (vec![AXES, self.mean.len()], axes)),
        ])
    }

    /// None where a bundle brings no axes. `channels` is the embedding's length.
    pub(super) fn from_tensors(tensors: &Tensors, channels: usize) -> Result<Option<Self>> {
        if !tensors.contains_key("scores.projections") {
            return Ok(None);
        }
        let (_, mean) = take(tensors, "scores.projection_mean", &[Some(channels)])?;
        let (_, axes) = take(tensors, "scores.projections", &[Some(AXES), Some(channels)])?;
        if mean.iter().chain(axes).any(|v| !v.is_finite()) {
            let reason = "feature projections must be finite".to_string();
            return Err(Error::Data { what: "shift tensors", reason });
        }
        Ok(Some(Self { mean: mean.to_vec(), axes: axes.chunks_exact(channels.max(1)).map(<[f64]>::to_vec).collect() }))
    }
}

/// Gram–Schmidt; an axis that vanishes becomes 0 and scores nothing.
fn orthonormalise(axes: &mut [Vec<f64>]) {
    for k in 0..axes.len() {
        let (before, rest) = axes.split_at_mut(k);
        let axis = &mut rest[0];
        for other in before {
            let along = dot(axis, other);
            axis.iter_mut().zip(other.iter()).for_each(|(a, o)| *a -= along * o);
        }
        let norm = dot(axis, axis).sqrt();
        let scale = if norm > 1e-12 { 1.0 / norm } else { 0.0 };
        axis.iter_mut().for_each(|v| *v *= scale);
    }
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}
