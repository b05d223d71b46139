//! Learned directions: for each shift of the declared family, the combination of pixel statistics and network scores
//! that tells it best from healthy pictures.
//!
//! Fisher's discriminant with a ridge: w = (S + 0.1 I)⁻¹ (mean under the shift − mean of healthy pictures), all on the
//! fit half, standardised there. One-sided: a frame far along a direction looks like that shift. Seven pixel statistics
//! (without the ratio, which the others determine) and the logarithms of the two network scores enter.

use super::Declared;
use super::channel::Channel;
use super::matrix::inverse;
use super::scores::FrameScores;
use super::tensors::{Tensors, take};
use crate::{Error, Result};

/// Scores that enter.
pub(super) const INPUTS: usize = 9;
/// Ridge added to the correlation before inversion.
const RIDGE: f64 = 0.1;
/// Smallest standard deviation a score is divided by.
const SMALLEST_DEVIATION: f64 = 1e-6;
/// Added to a network score before its logarithm is taken: below it, they are equally sure.
const SURE: f64 = 1e-2;
/// Fewest pictures per shift.
const MINIMUM: usize = 2 * INPUTS;

/// Weights per declared shift on standardised scores.
#[derive(Debug, Clone, PartialEq)]
pub struct Directions {
    standard: Standard,
    /// In the order of [`Declared::ALL`].
    weights: [[f64; INPUTS]; Declared::COUNT],
}

/// Mean and deviation of healthy scores.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Standard {
    pub mean: [f64; INPUTS],
    pub deviation: [f64; INPUTS],
}

impl Standard {
    pub fn of(rows: &[[f64; INPUTS]]) -> Self {
        let mean = average(rows);
        let squares: Vec<_> = rows.iter().map(|r| std::array::from_fn(|i| (r[i] - mean[i]).powi(2))).collect();
        Self { mean, deviation: average(&squares).map(|v| v.sqrt().max(SMALLEST_DEVIATION)) }
    }

    pub fn apply(&self, row: &[f64; INPUTS]) -> [f64; INPUTS] {
        std::array::from_fn(|i| (row[i] - self.mean[i]) / self.deviation[i])
    }
}

impl Directions {
    /// Learns the directions from scores of healthy pictures and of the same kind of pictures under each shift, in the
    /// order of [`Declared::ALL`].
    ///
    /// # Errors
    /// When there are fewer than 18 healthy pictures, or a shift has none, or a network or pixel score is missing.
    pub fn learn(healthy: &[FrameScores], shifted: &[Vec<FrameScores>; Declared::COUNT]) -> Result<Self> {
        if healthy.len() < MINIMUM || shifted.iter().any(Vec::is_empty) {
            let reason = format!("{} healthy pictures, at least {MINIMUM} are needed", healthy.len());
            return Err(Error::Data { what: "learned directions", reason });
        }
        let rows = |frames: &[FrameScores]| -> Result<Vec<[f64; INPUTS]>> {
            let missing = || Error::Data { what: "learned directions", reason: "a score is missing".into() };
            frames.iter().map(|f| inputs(f).ok_or_else(missing)).collect()
        };
        let healthy = rows(healthy)?;
        let standard = Standard::of(&healthy);
        let x: Vec<[f64; INPUTS]> = healthy.iter().map(|row| standard.apply(row)).collect();
        let mut correlation = [[0.0; INPUTS]; INPUTS];
        for (i, row) in correlation.iter_mut().enumerate() {
            for (j, value) in row.iter_mut().enumerate() {
                *value = x.iter().map(|x| x[i] * x[j]).sum::<f64>() / x.len() as f64;
            }
            row[i] += RIDGE;
        }
        let precision = inverse(correlation);
        let mut weights = [[0.0; INPUTS]; Declared::COUNT];
        for (weights, frames) in weights.iter_mut().zip(shifted) {
            let moved = standard.apply(&average(&rows(frames)?));
            *weights = precision.map(|row| dot(&row, &moved));
        }
        Ok(Self { standard, weights })
    }

    /// How far a frame lies along each direction; none when one of the scores is missing.
    pub(super) fn scores(&self, frame: &FrameScores) -> Option<[f64; Declared::COUNT]> {
        let x = self.standard.apply(&inputs(frame)?);
        Some(self.weights.map(|w| dot(&w, &x)))
    }

    pub(super) fn to_tensors(&self) -> Tensors {
        let weights = self.weights.as_flattened().to_vec();
        Tensors::from([
            ("scores.direction_mean".into(), (vec![INPUTS], self.standard.mean.to_vec())),
            ("scores.direction_deviation".into(), (vec![INPUTS], self.standard.deviation.to_vec())),
            ("scores.directions".into(), (vec![Declared::COUNT, INPUTS], weights)),
        ])
    }

    /// None where a bundle brings no directions.
    pub(super) fn from_tensors(tensors: &Tensors) -> Result<Option<Self>> {
        if !tensors.contains_key("scores.directions") {
            return Ok(None);
        }
        let (_, mean) = take(tensors, "scores.direction_mean", &[Some(INPUTS)])?;
        let (_, deviation) = take(tensors, "scores.direction_deviation", &[Some(INPUTS)])?;
        let (_, weights) = take(tensors, "scores.directions", &[Some(Declared::COUNT), Some(INPUTS)])?;
        let finite = [mean, deviation, weights].iter().all(|v| v.iter().all(|x| x.is_finite()));
        if !finite || deviation.iter().any(|d| *d <= 0.0) {
            let reason = "directions must be finite, their deviations positive".to_string();
            return Err(Error::Data { what: "shift tensors", reason });
        }
        Ok(Some(Self {
            standard: Standard {
                mean: std::array::from_fn(|i| mean[i]),
                deviation: std::array::from_fn(|i| deviation[i]),
            },
            weights: std::array::from_fn(|f| std::array::from_fn(|i| weights[f * INPUTS + i])),
        }))
    }
}

/// Seven pixel statistics and the logarithms of both network scores.
pub(super) fn inputs(frame: &FrameScores) -> Option<[f64; INPUTS]> {
    let mut values = [0.0; INPUTS];
    let pixels = Channel::PIXELS.into_iter().filter(|c| *c != Channel::LaplacianRatio);
    for (value, channel) in values.iter_mut().zip(pixels) {
        *value = frame.get(channel)?;
    }
    for (value, channel) in values[7..].iter_mut().zip([Channel::Confidence, Channel::Cosine]) {
        *value = (frame.get(channel)?.max(0.0) + SURE).ln();
    }
    Some(values)
}

pub(super) fn average(rows: &[[f64; INPUTS]]) -> [f64; INPUTS] {
    std::array::from_fn(|i| rows.iter().map(|r| r[i]).sum::<f64>() / rows.len() as f64)
}

fn dot(a: &[f64; INPUTS], b: &[f64; INPUTS]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}
