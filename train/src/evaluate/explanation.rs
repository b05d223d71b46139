//! What explanations and embeddings are worth, where it takes many passes a picture: deletion and insertion, and how
//! little the embedding minds an occlusion.
//!
//! Measured on a sample of the split, evenly spread: a picture costs 2·(steps + 1) + 9 passes. The map is the exact
//! class-activation map of the predicted class, the embedding what global average pooling gives: the vector the linear
//! head reads. Works on any engine.

use super::{BATCH, planar, require};
use crate::Result;
use crate::dataset::Split;
use excon_edge::engine::Engine;
use excon_edge::image::Preprocess;
use excon_edge::probability::{Estimate, argmax};
use excon_edge::saliency::{
    self, LinearHead, OCCLUDED_SHARE, POSITIONS, class_activation_map, deletion_insertion, occluded, similarity,
};
use serde::{Deserialize, Serialize};

/// Steps of the deletion and insertion curves, fewer where a picture has fewer pixels.
const STEPS: usize = 32;

/// Figures over a sample of pictures, each a mean with its 95 % bootstrap interval.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Explanations {
    /// Pictures of the sample.
    pub count: usize,
    /// Steps of the two curves.
    pub steps: usize,
    /// Area under the probability of the predicted class while its most salient pixels turn to the mean colour first,
    /// 0..=1; lower is better. `null` for a network without maps.
    pub deletion: Option<Estimate>,
    /// The same while they come back first; higher is better.
    pub insertion: Option<Estimate>,
    /// How little the embedding minds a covered quarter of the picture.
    pub occlusion: Occlusion,
}

/// Occlusion invariance of embeddings.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Occlusion {
    /// `(cosine − between) / (1 − between)`, the cosine averaged over the places of the square: 1 where the embedding
    /// does not move, 0 where it moves as far as to another picture. The interval takes `between` as known.
    pub invariance: Estimate,
    /// Mean cosine between the embeddings of a picture and of its occluded forms.
    pub cosine: f64,
    /// Mean cosine between the embeddings of different pictures of the sample.
    pub between: f64,
    /// Share of the area that the square covers.
    pub share: f64,
    /// Places of the square.
    pub positions: usize,
}

/// Measures on at most `limit` pictures, evenly spread; `done` hears how many are finished. None where the split or the
/// limit is 0, or one picture alone leaves nothing to compare with.
///
/// # Errors
/// When the split does not fit the engine, or the engine fails.
pub fn explanations(
    engine: &dyn Engine,
    head: &LinearHead,
    split: &Split,
    preprocess: &Preprocess,
    limit: usize,
    done: &mut dyn FnMut(usize),
) -> Result<Option<Explanations>> {
    let shapes = engine.shapes();
    let [_, rows, columns] = shapes.input;
    let indices = spread(split.len(), limit);
    if indices.len() < 2 {
        return Ok(None);
    }
    require(split, shapes.classes)?;
    let steps = STEPS.min(rows * columns);
    let area = shapes.features.iter().product::<usize>();
    let embedding = |features: &[f32]| saliency::pool(features, shapes.features[0]);
    let (mut deletion, mut insertion, mut cosines, mut embeddings) = (vec![], vec![], vec![], vec![]);
    for chunk in indices.chunks(BATCH) {
        let images = planar(split, chunk, preprocess);
        let out = engine.run(&images)?;
        let pictures = images.chunks_exact(shapes.input.iter().product()).zip(out.logits.chunks_exact(shapes.classes));
        for ((image, logits), features) in pictures.zip(out.features.chunks_exact(area)) {
            if shapes.explains() {
                let class = argmax(logits);
                let map = class_activation_map(features, shapes.features, head, class).upsample(columns, rows);
                let curves = deletion_insertion(engine, image, class, &map.order(), steps)?;
                deletion.push(saliency::area(&curves.deletion));
                insertion.push(saliency::area(&curves.insertion));
            }
            let whole = embedding(features);
            let covered = engine.run(&occluded(image, shapes.input))?;
            let alike = covered.features.chunks_exact(area).map(|f| similarity(&whole, &embedding(f)));
            cosines.push(alike.sum::<f64>() / POSITIONS as f64);
            embeddings.push(whole);
            done(embeddings.len());
        }
    }
    let between = between(&embeddings);
    let scaled: Vec<f64> = cosines.iter().map(|c| (c - between) / (1.0 - between).max(1e-12)).collect();
    let [deletion, insertion] = [deletion, insertion].map(|areas| Estimate::mean(&areas, [0.0, 1.0]));
    let Some(invariance) = Estimate::mean(&scaled, [f64::NEG_INFINITY, 1.0]) else { return Ok(None) };
    let cosine = cosines.iter().sum::<f64>() / cosines.len() as f64;
    let occlusion = Occlusion { invariance, cosine, between, share: OCCLUDED_SHARE, positions: POSITIONS };
    Ok(Some(Explanations { count: embeddings.len(), steps, deletion, insertion, occlusion }))
}

/// Indices of at most `limit` of `n` things, evenly spread.
pub fn spread(n: usize, limit: usize) -> Vec<usize> {
    let limit = limit.min(n);
    (0..limit).map(|i| i * n / limit).collect()
}

/// Mean cosine over the pairs of different embeddings.
fn between(embeddings: &[Vec<f32>]) -> f64 {
    let n = embeddings.len();
    let pairs = (0..n).flat_map(|i| (0..i).map(move |j| (i, j)));
    pairs.map(|(i, j)| similarity(&embeddings[i], &embeddings[j])).sum::<f64>() / (n * (n - 1) / 2) as f64
}
