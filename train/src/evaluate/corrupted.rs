//! Accuracy and calibration on corrupted pictures, every corruption at every severity.
//!
//! The corruptions are computed anew from the test pictures, not read from the published files: results are called
//! "regenerated" and are not comparable digit by digit with those on the published sets. All randomness is keyed by
//! (seed, corruption, severity, picture), so a cell is the same whatever else is measured.

use super::planar;
use crate::corruption::Corruption;
use crate::dataset::Split;
use crate::recipe::{Purpose, stream};
use crate::{Error, Result};
use excon_edge::engine::Engine;
use excon_edge::image::Preprocess;
use excon_edge::probability::{Metrics, softmax_rows};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

/// Severities, mild to strong.
pub const SEVERITIES: usize = 5;

/// One corruption at one severity.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Cell {
    /// Name of the corruption, as in the benchmark.
    pub corruption: String,
    /// 1 to 5.
    pub severity: usize,
    /// Share of right answers.
    pub accuracy: f64,
    /// Expected calibration error, 15 bins.
    pub ece: f64,
    /// Mean negative log-likelihood, nats.
    pub nll: f64,
}

/// Means over cells.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Means {
    /// Cells behind them.
    pub cells: usize,
    /// Of the accuracy.
    pub accuracy: f64,
    /// Of the calibration error.
    pub ece: f64,
    /// Of the negative log-likelihood, nats.
    pub nll: f64,
}

/// The table of a model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Corrupted {
    /// Always `regenerated`: see the module's first paragraphs.
    pub origin: String,
    /// Pictures behind each cell.
    pub pictures: usize,
    /// Temperature the probabilities were scaled with.
    pub temperature: f64,
    /// By corruption, then severity.
    pub cells: Vec<Cell>,
    /// Over all cells of the benchmark's corruptions; `dark` is not one of them.
    pub mean: Means,
}

impl Corrupted {
    /// Means over the severities of one corruption.
    pub fn of(&self, corruption: Corruption) -> Means {
        means(self.cells.iter().filter(|c| c.corruption == corruption.name()))
    }
}

/// Means over cells.
pub fn means<'a>(cells: impl Iterator<Item = &'a Cell>) -> Means {
    let (mut n, mut sums) = (0, [0.0; 3]);
    for cell in cells {
        n += 1;
        sums.iter_mut().zip([cell.accuracy, cell.ece, cell.nll]).for_each(|(s, v)| *s += v);
    }
    let [accuracy, ece, nll] = sums.map(|s| s / n as f64);
    Means { cells: n, accuracy, ece, nll }
}

/// Measures an engine on every corruption and severity of a split; `done` hears of each finished cell.
///
/// # Errors
/// When the split is empty or does not fit the engine, or the engine fails.
pub fn corrupted(
    engine: &dyn Engine,
    split: &Split,
    preprocess: &Preprocess,
    temperature: f64,
    seed: u64,
    done: &mut dyn FnMut(&Cell),
) -> Result<Corrupted> {
    let classes = engine.shapes().classes;
    if split.is_empty() || split.labels.iter().any(|&l| l >= classes) {
        let reason = format!("it holds {} pictures, and the network knows {classes} classes", split.len());
        return Err(Error::Setting { name: "data".into(), reason });
    }
    let mut cells = Vec::with_capacity(Corruption::ALL.len() * SEVERITIES);
    for corruption in Corruption::ALL {
        for severity in 1..=SEVERITIES {
            let worse = apply(split, corruption, severity, seed)?;
            let mut logits = Vec::with_capacity(split.len() * classes);
            for indices in (0..worse.len()).collect::<Vec<_>>().chunks(super::BATCH) {
                logits.extend(engine.run(&planar(&worse, indices, preprocess))?.logits);
            }
            let Metrics { accuracy, ece, nll, .. } =
                Metrics::measure(&softmax_rows(&logits, classes, temperature), classes, &split.labels)?;
            let cell = Cell { corruption: corruption.name().into(), severity, accuracy, ece, nll };
            done(&cell);
            cells.push(cell);
        }
    }
    let mean = means(cells.iter().filter(|c| c.corruption != Corruption::Dark.name()));
    Ok(Corrupted { origin: "regenerated".into(), pictures: split.len(), temperature, cells, mean })
}

/// The corrupted pictures of a split.
fn apply(split: &Split, corruption: Corruption, severity: usize, seed: u64) -> Result<Split> {
    // The name is the key, so that a longer list of corruptions changes no cell; severities are fewer than 16.
    let key = corruption.name().bytes().fold(0usize, |key, b| key.wrapping_mul(31).wrapping_add(b.into()));
    let key = key.wrapping_mul(16).wrapping_add(severity);
    let one = |index: usize| {
        let mut rng = stream(seed, Purpose::Corruption, key, index);
        Ok(corruption.apply(&split.to_picture(index), severity, &mut rng)?.rgb)
    };
    let pictures = (0..split.len()).into_par_iter().map(one).collect::<Result<Vec<_>>>()?;
    Ok(Split { rgb: pictures.concat(), ..split.clone() })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::evaluate::NetworkEngine;
    use crate::golden::network;
    use rand::RngExt;
    use std::collections::BTreeSet;

    fn split(n: usize) -> (Split, Preprocess) {
        let mut rng = stream(7, Purpose::Order, 0, 0);
        let rgb = (0..n * 32 * 32 * 3).map(|i| (i % 97) as u8 + rng.random_range(0..150u8)).collect();
        let labels = (0..n).map(|i| i % 10).collect();
        let names = (0..n).map(|i| i.to_string()).collect();
        (Split { size: 32, rgb, labels, names, sets: vec![] }, Preprocess { size: 32, mean: [0.5; 3], std: [0.25; 3] })
    }

    #[test]
    fn every_cell_is_measured_once_and_the_mean_leaves_dark_out() {
        let engine = NetworkEngine::new(network(), 32).unwrap();
        let (split, preprocess) = split(3);
        let mut heard = 0;
        let table = corrupted(&engine, &split, &preprocess, 1.5, 3, &mut |_| heard += 1).unwrap();
        assert_eq!((table.origin.as_str(), table.pictures), ("regenerated", 3));
        assert_eq!((heard, table.cells.len()), (Corruption::ALL.len() * 5, Corruption::ALL.len() * 5));
        let names: BTreeSet<_> = table.cells.iter().map(|c| (&c.corruption, c.severity)).collect();
        assert_eq!(names.len(), table.cells.len());
        assert_eq!(table.mean.cells, table.cells.len() - 5);
        let benchmark = Corruption::ALL.into_iter().filter(|c| *c != Corruption::Dark);
        let nll = benchmark.map(|c| table.of(c).nll).sum::<f64>() / (Corruption::ALL.len() - 1) as f64;
        assert!((table.mean.nll - nll).abs() < 1e-12);
        assert_eq!(table, corrupted(&engine, &split, &preprocess, 1.5, 3, &mut |_| {}).unwrap());
        let (empty, _) = self::split(0);
        assert!(corrupted(&engine, &empty, &preprocess, 1.0, 3, &mut |_| {}).is_err());
    }

    #[test]
    fn a_cell_is_the_figures_of_the_corrupted_pictures() {
        let engine = NetworkEngine::new(network(), 32).unwrap();
        let (split, preprocess) = split(20);
        let table = corrupted(&engine, &split, &preprocess, 2.0, 3, &mut |_| {}).unwrap();
        for (corruption, severity) in [(Corruption::Contrast, 5), (Corruption::GaussianNoise, 2)] {
            let worse = apply(&split, corruption, severity, 3).unwrap();
            assert_ne!(worse.rgb, split.rgb);
            let logits = crate::evaluate::logits(&engine, &worse, &preprocess).unwrap();
            let m = Metrics::measure(&softmax_rows(&logits, 10, 2.0), 10, &split.labels).unwrap();
            let cell =
                table.cells.iter().find(|c| c.corruption == corruption.name() && c.severity == severity).unwrap();
            assert_eq!((cell.accuracy, cell.ece, cell.nll), (m.accuracy, m.ece, m.nll));
        }
        // Noise is a picture's own, and another for another seed, severity or picture.
        let noisy = |seed, severity| apply(&split, Corruption::GaussianNoise, severity, seed).unwrap().rgb;
        assert_eq!(noisy(3, 1), noisy(3, 1));
        assert_ne!(noisy(3, 1), noisy(4, 1));
        let few = apply(&split.subset(&[0, 1]), Corruption::GaussianNoise, 1, 3).unwrap();
        assert_eq!(few.rgb, noisy(3, 1)[..few.rgb.len()]);
    }
}
