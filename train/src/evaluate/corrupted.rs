//! Accuracy and calibration on corrupted pictures, every corruption at every severity.
//!
//! Corrupted pictures come from a [`Source`]: computed anew from the pictures at hand ("regenerated"), or read from the
//! published files. The two are not comparable digit by digit, so every table says which it is.

use super::{Measured, planar, require};
use crate::Result;
use crate::corruption::{Corruption, Group};
use crate::dataset::Split;
use crate::recipe::{Purpose, stream};
use excon_edge::engine::Engine;
use excon_edge::image::Preprocess;
use excon_edge::probability::Scaling;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use std::borrow::Cow;

/// Severities, mild to strong.
pub const SEVERITIES: usize = 5;

/// Where corrupted pictures come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Origin {
    /// Computed anew from the pictures at hand, after the benchmark's definitions.
    Regenerated,
    /// Read from the files that the benchmark's authors published.
    Published,
}

/// Gives corrupted forms of one labelled set of pictures.
pub trait Source {
    /// Where the pictures come from.
    fn origin(&self) -> Origin;
    /// Names of the corruptions, each of which has all severities.
    fn corruptions(&self) -> Vec<String>;
    /// The set under one corruption at one severity, 1 to [`SEVERITIES`].
    ///
    /// # Errors
    /// When the pictures cannot be made or read.
    fn pictures(&self, corruption: &str, severity: usize) -> Result<Cow<'_, Split>>;
}

/// Corrupts the pictures of a split. All randomness is keyed by (seed, corruption, severity, picture), so a cell is the
/// same whatever else is measured.
pub struct Regenerated<'a> {
    /// The pictures.
    pub split: &'a Split,
    /// Seed of the noise.
    pub seed: u64,
}

/// One corruption at one severity.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Cell {
    /// Name of the corruption, as in the benchmark; an approximation's own name, such as `frost_like`.
    pub corruption: String,
    /// Its group; `null` for a name that the benchmark does not know.
    pub group: Option<Group>,
    /// 1 to 5.
    pub severity: usize,
    /// How the regenerated form differs from the benchmark's, where it does by more than its random draws.
    pub approximation: Option<String>,
    /// Accuracy and calibration, with intervals, before and after scaling.
    #[serde(flatten)]
    pub measured: Measured,
}

/// Means over cells.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Means {
    /// Cells behind them.
    pub cells: usize,
    /// Of the accuracy.
    pub accuracy: f64,
    /// Of the calibration error, 15 bins.
    pub ece: f64,
    /// Of the negative log-likelihood, nats.
    pub nll: f64,
    /// Of the Brier score.
    pub brier: f64,
    /// Of the calibration error before scaling.
    pub unscaled_ece: f64,
    /// Of the negative log-likelihood before scaling, nats.
    pub unscaled_nll: f64,
}

/// The table of a model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Corrupted {
    /// Where the pictures come from.
    pub origin: Origin,
    /// Pictures behind each cell.
    pub pictures: usize,
    /// How the probabilities were scaled.
    #[serde(flatten)]
    pub scaling: Scaling,
    /// By corruption, then severity.
    pub cells: Vec<Cell>,
    /// Over the cells of the benchmark's 15 corruptions; `null` where there is none.
    pub mean: Option<Means>,
    /// Over the cells of the benchmark's four held-out corruptions.
    pub mean_held_out: Option<Means>,
}

impl Corrupted {
    /// Means over the cells that `chosen` picks; none where it picks none.
    pub fn means(&self, chosen: impl Fn(&Cell) -> bool) -> Option<Means> {
        means(&self.cells, chosen)
    }
}

fn means(cells: &[Cell], chosen: impl Fn(&Cell) -> bool) -> Option<Means> {
    let cells: Vec<&Measured> = cells.iter().filter(|c| chosen(c)).map(|c| &c.measured).collect();
    let mean = |of: fn(&Measured) -> f64| cells.iter().map(|m| of(m)).sum::<f64>() / cells.len() as f64;
    (!cells.is_empty()).then(|| Means {
        cells: cells.len(),
        accuracy: mean(|m| m.metrics.accuracy),
        ece: mean(|m| m.metrics.ece),
        nll: mean(|m| m.metrics.nll),
        brier: mean(|m| m.metrics.brier),
        unscaled_ece: mean(|m| m.unscaled.ece),
        unscaled_nll: mean(|m| m.unscaled.nll),
    })
}

/// Measures an engine on every corruption and severity of a source; `done` hears of each finished cell.
///
/// # Errors
/// When the pictures cannot be had or do not fit the engine, or the engine fails.
pub fn corrupted(
    engine: &dyn Engine,
    source: &dyn Source,
    preprocess: &Preprocess,
    scaling: &Scaling,
    done: &mut dyn FnMut(&Cell),
) -> Result<Corrupted> {
    let classes = engine.shapes().classes;
    let (mut cells, mut pictures) = (Vec::new(), 0);
    for name in source.corruptions() {
        let known = Corruption::ALL.into_iter().find(|c| c.name() == name || c.benchmark_name() == Some(&name));
        let approximation = known.filter(|_| source.origin() == Origin::Regenerated).and_then(|c| c.approximation());
        for severity in 1..=SEVERITIES {
            let split = source.pictures(&name, severity)?;
            require(&split, classes)?;
            pictures = split.len();
            let mut logits = Vec::with_capacity(split.len() * classes);
            for indices in (0..split.len()).collect::<Vec<_>>().chunks(super::BATCH) {
                logits.extend(engine.run(&planar(&split, indices, preprocess))?.logits);
            }
            let cell = Cell {
                corruption: name.clone(),
                group: known.map(Corruption::group),
                severity,
                approximation: approximation.map(String::from),
                measured: Measured::of(&logits, classes, &split.labels, scaling)?,
            };
            done(&cell);
            cells.push(cell);
        }
    }
    let mean = means(&cells, |c| c.group.is_some_and(Group::in_benchmark));
    let mean_held_out = means(&cells, |c| c.group == Some(Group::HeldOut));
    Ok(Corrupted { origin: source.origin(), pictures, scaling: scaling.clone(), cells, mean, mean_held_out })
}

impl Source for Regenerated<'_> {
    fn origin(&self) -> Origin {
        Origin::Regenerated
    }

    fn corruptions(&self) -> Vec<String> {
        Corruption::ALL.into_iter().map(|c| c.name().to_string()).collect()
    }

    fn pictures(&self, corruption: &str, severity: usize) -> Result<Cow<'_, Split>> {
        let corruption: Corruption = corruption.parse()?;
        // The name is the key, so that a longer list of corruptions changes no cell; severities are fewer than 16.
        let key = corruption.name().bytes().fold(0usize, |key, b| key.wrapping_mul(31).wrapping_add(b.into()));
        let key = key.wrapping_mul(16).wrapping_add(severity);
        let one = |index: usize| {
            let mut rng = stream(self.seed, Purpose::Corruption, key, index);
            Ok(corruption.apply(&self.split.to_picture(index), severity, &mut rng)?.rgb)
        };
        let pictures = (0..self.split.len()).into_par_iter().map(one).collect::<Result<Vec<_>>>()?;
        Ok(Cow::Owned(Split { rgb: pictures.concat(), ..self.split.clone() }))
    }
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
        (
            Split { size: 32, rgb, labels, names, ..Split::default() },
            Preprocess { size: 32, mean: [0.5; 3], std: [0.25; 3] },
        )
    }

    #[test]
    fn every_cell_is_measured_once_and_the_mean_leaves_dark_out() {
        let engine = NetworkEngine::new(network(), 32).unwrap();
        let (split, preprocess) = split(3);
        let mut heard = 0;
        let source = Regenerated { split: &split, seed: 3 };
        let table = corrupted(&engine, &source, &preprocess, &1.5.into(), &mut |_| heard += 1).unwrap();
        assert_eq!((table.origin, table.pictures), (Origin::Regenerated, 3));
        assert_eq!((heard, table.cells.len()), (Corruption::ALL.len() * 5, Corruption::ALL.len() * 5));
        let names: BTreeSet<_> = table.cells.iter().map(|c| (&c.corruption, c.severity)).collect();
        assert_eq!(names.len(), table.cells.len());
        // 15 of the benchmark, 4 held out, and our own `dark`, which no mean holds.
        let (mean, held_out) = (table.mean.unwrap(), table.mean_held_out.unwrap());
        assert_eq!((mean.cells, held_out.cells, table.cells.len()), (75, 20, 100));
        let nll = table.cells.iter().filter(|c| c.group.unwrap().in_benchmark()).map(|c| c.measured.metrics.nll);
        assert!((mean.nll - nll.sum::<f64>() / 75.0).abs() < 1e-12);
        let frost = table.cells.iter().find(|c| c.corruption == "frost_like").unwrap();
        assert!(frost.approximation.as_ref().unwrap().contains("frost"));
        assert_eq!(table, corrupted(&engine, &source, &preprocess, &1.5.into(), &mut |_| {}).unwrap());
        let (empty, _) = self::split(0);
        let source = Regenerated { split: &empty, seed: 3 };
        assert!(corrupted(&engine, &source, &preprocess, &1.0.into(), &mut |_| {}).is_err());
    }

    #[test]
    fn a_cell_is_the_figures_of_the_corrupted_pictures() {
        let engine = NetworkEngine::new(network(), 32).unwrap();
        let (split, preprocess) = split(20);
        let source = |seed| Regenerated { split: &split, seed };
        let table = corrupted(&engine, &source(3), &preprocess, &2.0.into(), &mut |_| {}).unwrap();
        for (corruption, severity) in [("contrast", 5), ("gaussian_noise", 2)] {
            let of = source(3);
            let worse = of.pictures(corruption, severity).unwrap();
            assert_ne!(worse.rgb, split.rgb);
            let logits = crate::evaluate::logits(&engine, &worse, &preprocess).unwrap();
            let cell = table.cells.iter().find(|c| c.corruption == corruption && c.severity == severity).unwrap();
            assert_eq!(cell.measured, Measured::of(&logits, 10, &split.labels, &2.0.into()).unwrap());
        }
        // Noise is a picture's own, and another for another seed, severity or picture.
        let noisy = |seed, severity| source(seed).pictures("gaussian_noise", severity).unwrap().into_owned().rgb;
        assert_eq!(noisy(3, 1), noisy(3, 1));
        assert_ne!(noisy(3, 1), noisy(4, 1));
        let few = split.subset(&[0, 1]);
        let few = Regenerated { split: &few, seed: 3 }.pictures("gaussian_noise", 1).unwrap().into_owned();
        assert_eq!(few.rgb, noisy(3, 1)[..few.rgb.len()]);
    }
}
