//! Figures of a network on pictures with sets of labels: average precision of every class, and their mean.

use super::logits;
use crate::dataset::{Dataset, Split};
use crate::{Error, Result};
use excon_edge::engine::Engine;
use excon_edge::image::Preprocess;
use serde::{Deserialize, Serialize};

/// One class.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LabelPrecision {
    /// Its name.
    pub label: String,
    /// Pictures that have it.
    pub pictures: usize,
    /// Average precision, 0..1; none where no picture has it.
    pub average_precision: Option<f64>,
}

/// Figures of one network on one split.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LabelFigures {
    /// Pictures.
    pub count: usize,
    /// Mean of the average precisions of the classes that occur, 0..1.
    pub map: f64,
    /// Share of the pictures whose whole set is right at probability 0.5.
    pub exact: f64,
    /// Mean binary negative log-likelihood over pictures and classes, nats.
    pub nll: f64,
    /// Every class.
    pub labels: Vec<LabelPrecision>,
}

impl LabelFigures {
    /// From logits (`n × classes`) and the pictures' label sets.
    pub(super) fn of(logits: &[f32], names: &[String], sets: &[Vec<usize>]) -> Self {
        let classes = names.len();
        let label = |(class, name): (usize, &String)| {
            let scores: Vec<f32> = logits.iter().skip(class).step_by(classes).copied().collect();
            let relevant: Vec<bool> = sets.iter().map(|set| set.contains(&class)).collect();
            LabelPrecision {
                label: name.clone(),
                pictures: relevant.iter().filter(|r| **r).count(),
                average_precision: average_precision(&scores, &relevant),
            }
        };
        let labels: Vec<LabelPrecision> = names.iter().enumerate().map(label).collect();
        let known: Vec<f64> = labels.iter().filter_map(|l| l.average_precision).collect();
        let nll = |(at, z): (usize, &f32)| {
            let z = f64::from(*z);
            let sign = if sets[at / classes].contains(&(at % classes)) { -1.0 } else { 1.0 };
            // log(1 + exp(±z)), without overflow.
            (sign * z).max(0.0) + (-z.abs()).exp().ln_1p()
        };
        let n = sets.len().max(1) as f64;
        Self {
            count: sets.len(),
            map: known.iter().sum::<f64>() / known.len().max(1) as f64,
            exact: exact_matches(logits, classes, sets) as f64 / n,
            nll: logits.iter().enumerate().map(nll).sum::<f64>() / (n * classes as f64),
            labels,
        }
    }
}

/// How many rows of logits (`n × classes`) are positive exactly at their labels.
pub(crate) fn exact_matches(logits: &[f32], classes: usize, sets: &[Vec<usize>]) -> usize {
    let right = |(row, set): (&[f32], &Vec<usize>)| row.iter().enumerate().all(|(k, z)| (*z > 0.0) == set.contains(&k));
    logits.chunks_exact(classes).zip(sets).filter(|(row, set)| right((row, set))).count()
}

/// Average precision `Σ (R_n − R_{n−1}) P_n` over the thresholds of descending scores, equal scores at one threshold;
/// without interpolation, as scikit-learn defines it. None where nothing is relevant.
pub fn average_precision(scores: &[f32], relevant: &[bool]) -> Option<f64> {
    let all = relevant.iter().filter(|r| **r).count();
    let mut order: Vec<usize> = (0..scores.len().min(relevant.len())).collect();
    order.sort_by(|&a, &b| scores[b].total_cmp(&scores[a]));
    let (mut seen, mut found, mut area) = (0usize, 0usize, 0.0);
    for tied in order.chunk_by(|&a, &b| scores[a] == scores[b]) {
        let hits = tied.iter().filter(|i| relevant[**i]).count();
        seen += tied.len();
        found += hits;
        area += hits as f64 * found as f64 / seen as f64;
    }
    (all > 0).then(|| area / all as f64)
}

/// Measures an engine on a split of label sets.
///
/// # Errors
/// When the split has no sets or does not fit the engine, or the engine fails.
pub fn evaluate_labels(
    engine: &dyn Engine,
    data: &Dataset,
    split: &Split,
    preprocess: &Preprocess,
) -> Result<LabelFigures> {
    if split.sets.is_empty() || engine.shapes().classes != data.labels.len() {
        let reason = "it must hold pictures with sets of labels, of the classes that the network knows".into();
        return Err(Error::Setting { name: "data".into(), reason });
    }
    Ok(LabelFigures::of(&logits(engine, split, preprocess)?, &data.labels, &split.sets))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn average_precision_is_the_area_under_the_steps() {
        // By hand: relevant at ranks 1, 3 and 4 of 5: (1/1 + 2/3 + 3/4) / 3.
        let scores = [0.9, 0.8, 0.7, 0.4, 0.1];
        let ap = average_precision(&scores, &[true, false, true, true, false]);
        assert!(ap.is_some_and(|v| (v - (1.0 + 2.0 / 3.0 + 0.75) / 3.0).abs() < 1e-12), "{ap:?}");
        // The example in scikit-learn's documentation.
        let ap = average_precision(&[0.1, 0.4, 0.35, 0.8], &[false, false, true, true]);
        assert!(ap.is_some_and(|v| (v - 0.833_333_333).abs() < 1e-6), "{ap:?}");
        // All equal: precision is the share of relevant ones, whatever the order.
        assert_eq!(average_precision(&[2.0; 4], &[false, true, false, false]), Some(0.25));
        assert_eq!(average_precision(&[2.0; 4], &[false; 4]), None);
    }

    #[test]
    fn figures_agree_with_a_direct_count() {
        let names = ["a", "b", "c"].map(String::from);
        let sets = vec![vec![0, 2], vec![], vec![1]];
        let logits = [2.0f32, -1.0, 0.5, -3.0, -0.5, -2.0, 0.1, 1.0, -4.0];
        let figures = LabelFigures::of(&logits, &names, &sets);
        assert_eq!(figures.labels.iter().map(|l| l.pictures).collect::<Vec<_>>(), [1, 1, 1]);
        assert_eq!((figures.count, figures.map, figures.exact), (3, 1.0, 2.0 / 3.0));
        let probability = |z: f32| 1.0 / (1.0 + (-f64::from(z)).exp());
        let truth = [1, 0, 1, 0, 0, 0, 0, 1, 0];
        let nll: f64 = logits
            .iter()
            .zip(truth)
            .map(|(z, t)| -(if t == 1 { probability(*z) } else { 1.0 - probability(*z) }).ln())
            .sum::<f64>()
            / 9.0;
        assert!((figures.nll - nll).abs() < 1e-7, "{} {nll}", figures.nll);
    }
}
