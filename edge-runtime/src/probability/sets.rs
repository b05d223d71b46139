//! The rule of a bundle's prediction sets: which score, which quantile, and how both are fitted.
//!
//! A class is scored by the probability of the classes above it, not counting its own (APS with u = 1: Romano, Sesia,
//! Candès 2020, arXiv 2006.02544), so that the predicted class always belongs and no coverage is spent on sets that would
//! be empty. RAPS (Angelopoulos et al. 2021, arXiv 2009.14193) adds a penalty for long sets. Where the network is right more
//! often than the coverage asks for, every set holds the predicted class alone and covers more.

use super::conformal;
use crate::{Error, Result};
use serde::{Deserialize, Serialize};

/// Penalties that are tried.
const PENALTIES: [f64; 6] = [0.0, 0.001, 0.01, 0.1, 0.2, 0.5];

/// Score of a class.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SetScore {
    /// Probability of the classes above it.
    #[default]
    Aps,
    /// The same with a penalty for every rank beyond the free ones: sets of more even, often smaller size.
    Raps,
}

/// How sets are fitted.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SetOptions {
    /// Allowed miscoverage, in 0..1.
    pub alpha: f64,
    /// Score.
    pub score: SetScore,
    /// Whether every class gets a quantile of its own, so that each is covered as promised and not their mean alone.
    pub by_class: bool,
}

impl Default for SetOptions {
    fn default() -> Self {
        Self { alpha: 0.1, score: SetScore::Aps, by_class: false }
    }
}

/// Split-conformal prediction sets.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Conformal {
    /// Score of a class.
    pub method: SetScore,
    /// Allowed miscoverage, in 0..1.
    pub alpha: f64,
    /// A class belongs to the set while its score is at most this.
    pub quantile: f64,
    /// Calibration pictures behind the quantile.
    pub pictures: usize,
    /// Penalty of RAPS.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub penalty: Option<Penalty>,
    /// Quantiles of each class, instead of the common one; `null` for a class of too few pictures, which is in every set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by_class: Option<Vec<Option<f64>>>,
}

/// Penalty for long sets.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Penalty {
    /// Added for every rank beyond the free ones.
    pub weight: f64,
    /// Ranks without penalty.
    pub free: usize,
}

/// Labelled probabilities: `labels.len()` rows of `classes`.
#[derive(Debug, Clone, Copy)]
pub struct LabelledRows<'a> {
    /// Row by row.
    pub probabilities: &'a [f64],
    /// Columns.
    pub classes: usize,
    /// Class of each row.
    pub labels: &'a [usize],
}

impl<'a> LabelledRows<'a> {
    fn iter(&self) -> impl Iterator<Item = (&'a [f64], usize)> {
        self.probabilities.chunks_exact(self.classes).zip(self.labels.iter().copied())
    }
}

impl Conformal {
    /// Fits the quantile on `rank`, and RAPS's penalty on `fit`, which are other pictures; `fit` may be empty for APS.
    /// Beside it, classes that have too few pictures for a quantile of their own.
    ///
    /// # Errors
    /// [`Error::Data`] when sizes disagree, alpha is not inside 0..1 or there are too few pictures for it.
    pub fn fit(options: &SetOptions, fit: LabelledRows, rank: LabelledRows) -> Result<(Self, Vec<usize>)> {
        super::check_rows("prediction sets", rank.probabilities.len(), rank.classes, rank.labels)?;
        let penalty = match options.score {
            SetScore::Aps => None,
            SetScore::Raps => Some(tune(options.alpha, fit)?),
        };
        let scores: Vec<f64> = rank.iter().map(|(row, label)| scores(row, penalty)[label]).collect();
        let quantile = conformal::quantile(&scores, options.alpha)?;
        let (mut by_class, mut few) = (None, Vec::new());
        if options.by_class {
            let of_class = |class: usize| -> Vec<f64> {
                let own = scores.iter().zip(rank.labels).filter(|(_, label)| **label == class);
                own.map(|(score, _)| *score).collect()
            };
            let quantiles: Vec<Option<f64>> =
                (0..rank.classes).map(|class| conformal::quantile(&of_class(class), options.alpha).ok()).collect();
            few = (0..rank.classes).filter(|&class| quantiles[class].is_none()).collect();
            by_class = Some(quantiles);
        }
        let (method, alpha, pictures) = (options.score, options.alpha, scores.len());
        Ok((Self { method, alpha, quantile, pictures, penalty, by_class }, few))
    }

    /// The set of a row of probabilities, ascending; the most probable class is always in it.
    pub fn set(&self, probabilities: &[f64]) -> Vec<usize> {
        let scores = scores(probabilities, self.penalty);
        match &self.by_class {
            None => conformal::set(&scores, self.quantile),
            Some(quantiles) => {
                let top = super::argmax(probabilities);
                let within = |class: usize| match quantiles.get(class).copied().flatten() {
                    Some(quantile) => class == top || conformal::within(scores[class], quantile),
                    None => true,
                };
                (0..scores.len()).filter(|&class| within(class)).collect()
            }
        }
    }

    /// How it was fitted.
    pub fn options(&self) -> SetOptions {
        SetOptions { alpha: self.alpha, score: self.method, by_class: self.by_class.is_some() }
    }

    /// Such as `90 % (APS, by class)`.
    pub fn words(&self) -> String {
        let score = match self.method {
            SetScore::Aps => "APS",
            SetScore::Raps => "RAPS",
        };
        let by_class = if self.by_class.is_some() { ", by class" } else { "" };
        format!("{:.0} % ({score}{by_class})", 100.0 * (1.0 - self.alpha))
    }

    pub(crate) fn validate(&self, classes: usize) -> std::result::Result<(), String> {
        let quantile = |q: f64| q.is_finite() && q >= 0.0;
        let demand = |holds: bool, what: &str| if holds { Ok(()) } else { Err(what.to_string()) };
        demand(self.alpha > 0.0 && self.alpha < 1.0 && quantile(self.quantile), "alpha in 0..1 and quantile >= 0")?;
        demand(self.penalty.is_some() == (self.method == SetScore::Raps), "a penalty for raps, and for it alone")?;
        demand(self.penalty.is_none_or(|p| quantile(p.weight)), "a penalty >= 0")?;
        let each = |q: &[Option<f64>]| q.len() == classes && q.iter().flatten().all(|q| quantile(*q));
        demand(self.by_class.as_deref().is_none_or(each), "one quantile >= 0, or null, a class")
    }
}

/// Scores of every class; the most probable one has 0.
fn scores(probabilities: &[f64], penalty: Option<Penalty>) -> Vec<f64> {
    let Penalty { weight, free } = penalty.unwrap_or(Penalty { weight: 0.0, free: probabilities.len() });
    // A sum of the classes above, less its own rounding, must not rule the most probable class out.
    conformal::raps(probabilities, Some(1.0), weight, free.max(1)).into_iter().map(|score| score.max(0.0)).collect()
}

/// Free ranks: within them lies the true class of 1 − alpha of the rows. Weight: the one with the smallest sets there.
fn tune(alpha: f64, rows: LabelledRows) -> Result<Penalty> {
    super::check_rows("prediction sets", rows.probabilities.len(), rows.classes, rows.labels)?;
    let rank = |(row, label): (&[f64], usize)| 1 + row.iter().filter(|p| **p > row[label]).count();
    let ranks: Vec<f64> = rows.iter().map(|row| rank(row) as f64).collect();
    let free = conformal::quantile(&ranks, alpha)? as usize;
    let size = |weight: f64| -> Result<usize> {
        let penalty = Some(Penalty { weight, free });
        let all: Vec<(Vec<f64>, usize)> = rows.iter().map(|(row, label)| (scores(row, penalty), label)).collect();
        let own: Vec<f64> = all.iter().map(|(scores, label)| scores[*label]).collect();
        let quantile = conformal::quantile(&own, alpha)?;
        Ok(all.iter().map(|(scores, _)| conformal::set(scores, quantile).len()).sum())
    };
    let mut best: Option<(usize, f64)> = None;
    for weight in PENALTIES {
        let size = size(weight)?;
        if best.is_none_or(|(least, _)| size < least) {
            best = Some((size, weight));
        }
    }
    match best {
        Some((_, weight)) => Ok(Penalty { weight, free }),
        None => Err(Error::Data { what: "prediction sets", reason: "no penalty was tried".into() }),
    }
}
