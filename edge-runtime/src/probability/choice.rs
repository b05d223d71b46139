//! Which calibration a network gets: the simplest one that held-out pictures do not contradict.
//!
//! Every candidate is fitted five times, each time without a fifth of the pictures, and judged by the negative
//! log-likelihood of the fifth it has not seen (cross-fitting). A temperature must gain at all; what has more numbers, and
//! may change answers, must gain more than two standard errors of the paired difference. What is chosen is then fitted on
//! all pictures.

use super::{Refinement, Scaling, VectorScaling, VennAbers, argmax, check_rows, fit_temperature_reported, softmax};
use crate::Result;
use serde::{Deserialize, Serialize};

/// Parts that the pictures are dealt into.
const FOLDS: usize = 5;
/// Standard errors that a refinement must gain.
const CLEARLY: f64 = 2.0;
/// Pictures below which nothing is fitted.
pub const FEWEST: usize = 10;
/// Pictures below which Venn–Abers is not tried: its steps would be as wide as the scale.
const FEWEST_VENN_ABERS: usize = 100;
/// Pictures a class below which vector scaling is not tried.
const FEWEST_A_CLASS: usize = 10;

/// A calibration and how it was chosen.
#[derive(Debug, Clone, PartialEq)]
pub struct Choice {
    /// What to use.
    pub scaling: Scaling,
    /// Every candidate that was tried, the simplest first.
    pub candidates: Vec<Candidate>,
    /// Why something was not fitted or not taken, as sentences.
    pub notes: Vec<String>,
}

/// A way to calibrate on trial.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Candidate {
    /// `none`, `temperature`, `venn-abers` or `vector`.
    pub method: Method,
    /// Mean negative log-likelihood of pictures it was not fitted on, nats.
    pub held_out_nll: f64,
    /// Whether it is used.
    pub chosen: bool,
}

/// Ways to calibrate, the simplest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Method {
    /// The logits as they are.
    None,
    /// One temperature.
    Temperature,
    /// A temperature, then a step function on the confidence.
    VennAbers,
    /// A weight and an offset a class.
    Vector,
}

impl Method {
    /// A word for people.
    pub fn words(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Temperature => "temperature",
            Self::VennAbers => "Venn–Abers",
            Self::Vector => "vector scaling",
        }
    }

    fn fit(self, rows: &Rows) -> Result<Scaling> {
        if self == Self::None {
            return Ok(Scaling::default());
        }
        let fit = fit_temperature_reported(&rows.logits, rows.classes, &rows.labels)?;
        let temperature = fit.temperature;
        let refinement = match self {
            Self::None | Self::Temperature => None,
            Self::VennAbers => {
                let each = rows.logits.chunks_exact(rows.classes).zip(&rows.labels).map(|(row, &label)| {
                    let p = softmax(row, temperature);
                    let top = argmax(&p);
                    (p[top], top == label)
                });
                let (confidences, right): (Vec<f64>, Vec<bool>) = each.unzip();
                Some(Refinement::VennAbers(VennAbers::fit(&confidences, &right)?))
            }
            Self::Vector => {
                let scaled: Vec<f64> = rows.logits.iter().map(|z| z / temperature).collect();
                Some(Refinement::Vector(VectorScaling::fit(&scaled, rows.classes, &rows.labels)?))
            }
        };
        Ok(Scaling { temperature, refinement })
    }
}

/// Labelled logits.
struct Rows {
    logits: Vec<f64>,
    classes: usize,
    labels: Vec<usize>,
}

impl Rows {
    fn part(&self, within: impl Fn(usize) -> bool) -> Self {
        let chosen = || (0..self.labels.len()).filter(|&i| within(i));
        let logits = chosen().flat_map(|i| &self.logits[i * self.classes..][..self.classes]).copied().collect();
        Self { logits, classes: self.classes, labels: chosen().map(|i| self.labels[i]).collect() }
    }

    /// The negative log-likelihood of each row.
    fn losses(&self, scaling: &Scaling) -> Vec<f64> {
        let rows = self.logits.chunks_exact(self.classes).zip(&self.labels);
        // A probability that rounds to 0 costs what the smallest one above it does.
        rows.map(|(row, &label)| -scaling.probabilities(row)[label].max(f64::MIN_POSITIVE).ln()).collect()
    }

    /// [`Rows::losses`] where each row is judged by a fit that has not seen it.
    fn held_out(&self, method: Method) -> Result<Vec<f64>> {
        let mut losses = vec![0.0; self.labels.len()];
        for fold in 0..FOLDS {
            let scaling = method.fit(&self.part(|i| i % FOLDS != fold))?;
            let judged = self.part(|i| i % FOLDS == fold).losses(&scaling);
            losses.iter_mut().skip(fold).step_by(FOLDS).zip(judged).for_each(|(to, loss)| *to = loss);
        }
        Ok(losses)
    }
}

/// Chooses among the ways to calibrate `labels.len() × classes` logits.
///
/// # Errors
/// [`Error::Data`](crate::Error::Data) when sizes disagree, there is no row, a label is no class or a logit is not finite.
pub fn choose<T: Copy + Into<f64>>(logits: &[T], classes: usize, labels: &[usize]) -> Result<Choice> {
    check_rows("calibration", logits.len(), classes, labels)?;
    let n = labels.len();
    if n < FEWEST {
        let notes = vec![format!("temperature kept at 1: {n} pictures to fit it on, {FEWEST} are needed")];
        return Ok(Choice { scaling: Scaling::default(), candidates: Vec::new(), notes });
    }
    let rows = Rows { logits: logits.iter().map(|z| (*z).into()).collect(), classes, labels: labels.to_vec() };
    let mut notes = Vec::new();
    let whole = fit_temperature_reported(&rows.logits, classes, labels)?;
    let mut trials = vec![(Method::None, rows.losses(&Scaling::default()))];
    match whole.refused {
        Some(why) => notes.push(format!("temperature kept at 1: {why}")),
        None => {
            let mut methods = vec![Method::Temperature];
            methods.extend((n >= FEWEST_VENN_ABERS).then_some(Method::VennAbers));
            methods.extend((n >= FEWEST_A_CLASS * classes).then_some(Method::Vector));
            for method in methods {
                trials.push((method, rows.held_out(method)?));
            }
        }
    }
    let mut best = 0;
    for index in 1..trials.len() {
        let (method, losses) = &trials[index];
        let (gain, error) = paired(&trials[best].1, losses);
        let needed = if *method == Method::Temperature { 0.0 } else { CLEARLY * error };
        if gain > needed {
            best = index;
        } else if *method == Method::Temperature {
            notes.push(format!("temperature kept at 1: pictures it has not seen lose {:.4} nats by it", -gain));
        }
    }
    let scaling = trials[best].0.fit(&rows)?;
    let candidate = |(index, (method, losses)): (usize, &(Method, Vec<f64>))| Candidate {
        method: *method,
        held_out_nll: losses.iter().sum::<f64>() / n as f64,
        chosen: index == best,
    };
    Ok(Choice { scaling, candidates: trials.iter().enumerate().map(candidate).collect(), notes })
}

/// Mean of `from − to` and its standard error.
fn paired(from: &[f64], to: &[f64]) -> (f64, f64) {
    let n = from.len() as f64;
    let mean = from.iter().zip(to).map(|(a, b)| a - b).sum::<f64>() / n;
    let variance = from.iter().zip(to).map(|(a, b)| (a - b - mean).powi(2)).sum::<f64>() / (n - 1.0);
    (mean, (variance / n).sqrt())
}
