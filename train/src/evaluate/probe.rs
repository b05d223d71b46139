//! What the features of a network are worth without its own classifier: a linear probe, and nearest neighbours.
//!
//! Features are the means of the last feature map, of the clean training pictures and of those that are measured. The
//! probe is a logistic regression on them, its strength chosen on the fit half of validation. The neighbours vote with
//! weight `exp(cosine / 0.07)`, as is usual for encoders trained without labels (Wu et al., arXiv 1805.01978).

use super::logistic::LogisticRegression;
use super::planar;
use crate::dataset::{Dataset, Split, split_validation};
use crate::{Error, Result};
use candle_core::{Device, Tensor};
use excon_edge::engine::Engine;
use excon_edge::image::Preprocess;
use excon_edge::probability::argmax;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

/// Neighbours that vote.
pub const NEIGHBOURS: usize = 20;
/// Temperature of their votes.
const TEMPERATURE: f64 = 0.07;
/// Pictures per call of the engine.
const BATCH: usize = 64;

/// Figures of a network's features on one split.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Probe {
    /// Accuracy of a linear classifier fitted on the training pictures, 0..1.
    pub linear: f64,
    /// Its L2 strength.
    pub l2: f64,
    /// Accuracy of the neighbours' vote, 0..1.
    pub neighbours: f64,
    /// How many neighbours voted: 20, or all where there are fewer.
    pub voters: usize,
    /// Training pictures behind both.
    pub train: usize,
    /// Pictures measured.
    pub count: usize,
}

/// Probes an engine's features: fits on `data.train`, chooses on the fit half of `data.validation` (all of train where
/// there is none), measures on `split`. `seed` is the one that halves validation.
///
/// # Errors
/// When a split is empty or does not fit the engine, pictures have sets of labels, or the engine fails.
pub fn probe(engine: &dyn Engine, data: &Dataset, split: &Split, preprocess: &Preprocess, seed: u64) -> Result<Probe> {
    if data.is_multi_label() || data.train.is_empty() || split.is_empty() {
        let reason = "probing needs training pictures and pictures to measure, of one class each".into();
        return Err(Error::Setting { name: "data".into(), reason });
    }
    let (fit, _) = split_validation(&data.validation, seed);
    let fit = if fit.is_empty() { data.train.clone() } else { data.validation.subset(&fit) };
    let train = features(engine, &data.train, preprocess)?;
    let measured = features(engine, split, preprocess)?;
    let columns = train.len() / data.train.len();
    let matrix = |values: &[f64]| Tensor::from_slice(values, (values.len() / columns, columns), &Device::Cpu);
    let held_out = matrix(&features(engine, &fit, preprocess)?)?;
    let classes = data.labels.len();
    let fitted = LogisticRegression::fit(&matrix(&train)?, &data.train.labels, classes, (&held_out, &fit.labels))?;

    let voters = NEIGHBOURS.min(data.train.len());
    let (train, known) = (unit(&train, columns), &data.train.labels);
    let vote = |row: &[f64]| argmax(&votes(row, &train, known, classes, voters));
    let right = |predicted: Vec<usize>| {
        predicted.iter().zip(&split.labels).filter(|(p, l)| p == l).count() as f64 / split.len() as f64
    };
    let linear = measured.chunks_exact(columns).map(|row| {
        let logit = |(w, b): (&[f32], &f32)| {
            (row.iter().zip(w).map(|(x, w)| x * f64::from(*w)).sum::<f64>() + f64::from(*b)) as f32
        };
        argmax(&fitted.weight.chunks_exact(columns).zip(&fitted.bias).map(logit).collect::<Vec<_>>())
    });
    Ok(Probe {
        linear: right(linear.collect()),
        l2: fitted.l2,
        neighbours: right(unit(&measured, columns).par_chunks_exact(columns).map(vote).collect()),
        voters,
        train: data.train.len(),
        count: split.len(),
    })
}

/// Pooled features of a split, `n × channels`.
fn features(engine: &dyn Engine, split: &Split, preprocess: &Preprocess) -> Result<Vec<f64>> {
    let [channels, height, width] = engine.shapes().features;
    let mut pooled = Vec::with_capacity(split.len() * channels);
    for indices in (0..split.len()).collect::<Vec<_>>().chunks(BATCH) {
        let out = engine.run(&planar(split, indices, preprocess))?;
        let mean = |plane: &[f32]| plane.iter().map(|v| f64::from(*v)).sum::<f64>() / (height * width) as f64;
        pooled.extend(out.features.chunks_exact(height * width).map(mean));
    }
    Ok(pooled)
}

/// Rows at length 1; a zero row stays.
fn unit(rows: &[f64], columns: usize) -> Vec<f64> {
    let length = |row: &[f64]| row.iter().map(|v| v * v).sum::<f64>().sqrt().max(f64::MIN_POSITIVE);
    rows.chunks_exact(columns).flat_map(|row| row.iter().map(move |v| v / length(row))).collect()
}

/// Each class's votes among the `voters` training rows that are most similar to `row`, the first of equals; unit rows.
fn votes(row: &[f64], train: &[f64], labels: &[usize], classes: usize, voters: usize) -> Vec<f32> {
    let cosine = |other: &[f64]| row.iter().zip(other).map(|(a, b)| a * b).sum::<f64>();
    let mut near: Vec<(f64, usize)> = train.chunks_exact(row.len()).map(cosine).zip(labels.iter().copied()).collect();
    near.sort_by(|a, b| b.0.total_cmp(&a.0));
    let mut votes = vec![0f32; classes];
    near.iter().take(voters).for_each(|(cosine, label)| votes[*label] += ((cosine - 1.0) / TEMPERATURE).exp() as f32);
    votes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_vote_by_their_cosine() {
        let train = unit(&[1.0, 0.0, 1.0, 0.1, -1.0, 0.0, 0.0, 2.0], 2);
        let got = votes(&[1.0, 0.0], &train, &[0, 1, 1, 0], 2, 3);
        // The three nearest: cosines 1 (class 0), 1/√1.01 (class 1) and 0 (class 0).
        let weight = |cosine: f64| ((cosine - 1.0) / 0.07).exp() as f32;
        let want = [weight(1.0) + weight(0.0), weight(1.0 / 1.01f64.sqrt())];
        assert!(got.iter().zip(want).all(|(a, b)| (a - b).abs() < 1e-6), "{got:?} {want:?}");
        assert_eq!(votes(&[0.0, 1.0], &train, &[0, 1, 1, 0], 2, 1), [1.0, 0.0]);
    }
}
