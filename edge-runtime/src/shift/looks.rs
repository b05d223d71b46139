//! What a shift looks like: the likely kind of corruption, from the mean scores of a few frames.
//!
//! `convert` draws corruptions on pictures of the fit half and keeps where each moves the mean of nine standardised scores
//! (the inputs of [`super::Directions`]), and the inverse covariance of single frames: under 4 KB. The frames of an alarm
//! are held against every such place by Gaussian likelihood; what is likely is shared out over the kinds. It is a hint for
//! who looks after the camera: no part of the alarm, and outside its promise.

use super::directions::{INPUTS, Standard, inputs};
use super::matrix::inverse;
use super::scores::FrameScores;
use super::tensors::{Tensors, take};
use crate::{Error, Result};
use serde::Serialize;

/// Frames below which nothing is said.
const FEWEST: usize = 4;
/// Frames that are looked at, the latest ones.
pub const FRAMES: usize = 32;
/// A mean of many frames is trusted like that of so many: corruptions of the world lie between and beside those that
/// were drawn.
const TRUST: f64 = 8.0;
/// Ridge added to the correlation of the scores before inversion.
const RIDGE: f64 = 0.1;
/// Most places that are read from a bundle.
const MOST: usize = 1_000;

/// A kind of corruption.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Look {
    /// None of them: pictures look as they always did, what they show may be new.
    Unchanged,
    /// Noise of the sensor.
    Noise,
    /// Out of focus, moving, behind glass.
    Blur,
    /// Coarse pixels, compression.
    Coarse,
    /// Fog, little contrast.
    Haze,
    /// Too bright.
    Bright,
    /// Too dark.
    Dark,
    /// Snow, frost, drops on the lens.
    Weather,
    /// Other colours.
    Colour,
    /// Warped or turned.
    Warp,
}

impl Look {
    /// Every kind.
    pub const ALL: [Self; 10] = [
        Self::Unchanged,
        Self::Noise,
        Self::Blur,
        Self::Coarse,
        Self::Haze,
        Self::Bright,
        Self::Dark,
        Self::Weather,
        Self::Colour,
        Self::Warp,
    ];

    /// Words for people.
    pub fn words(self) -> &'static str {
        match self {
            Self::Unchanged => "new content, no corruption",
            Self::Noise => "noise",
            Self::Blur => "blur",
            Self::Coarse => "coarse pixels or compression",
            Self::Haze => "fog or low contrast",
            Self::Bright => "too bright",
            Self::Dark => "too dark",
            Self::Weather => "snow, frost or drops",
            Self::Colour => "other colours",
            Self::Warp => "warped or turned",
        }
    }

    fn index(self) -> usize {
        self as usize
    }
}

/// A kind of corruption and how likely it is among those that are known.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Likeness {
    /// The kind.
    pub look: Look,
    /// Its share, in 0..1; all kinds together make 1.
    pub share: f64,
}

impl Likeness {
    /// The three likeliest kinds that are not out of the question, such as `fog or low contrast (71 %), too bright (22 %)`;
    /// none of an empty list.
    pub fn words(found: &[Self]) -> Option<String> {
        let likely = found.iter().take(3).filter(|l| l.share >= 0.05);
        let words: Vec<String> = likely.map(|l| format!("{} ({:.0} %)", l.look.words(), 100.0 * l.share)).collect();
        (!words.is_empty()).then(|| words.join(", "))
    }
}

/// Where corruptions move the mean scores.
#[derive(Debug, Clone, PartialEq)]
pub struct Looks {
    standard: Standard,
    /// Inverse covariance of single frames.
    precision: [[f64; INPUTS]; INPUTS],
    /// A corruption at a strength: its kind and the mean scores under it. The first is the healthy one, all zeros.
    places: Vec<(Look, [f64; INPUTS])>,
}

impl Looks {
    /// Learns from scores of healthy pictures and of the same kind of pictures under each corruption and strength.
    ///
    /// # Errors
    /// [`Error::Data`] when there are fewer than 18 healthy pictures, a corruption has none, or a score is missing.
    pub fn learn(healthy: &[FrameScores], corrupted: &[(Look, Vec<FrameScores>)]) -> Result<Self> {
        let refuse = |reason: String| Error::Data { what: "looks of corruptions", reason };
        if healthy.len() < 2 * INPUTS || corrupted.is_empty() || corrupted.iter().any(|(_, frames)| frames.is_empty()) {
            return Err(refuse(format!("{} healthy pictures, at least {} are needed", healthy.len(), 2 * INPUTS)));
        }
        let rows = |frames: &[FrameScores]| -> Result<Vec<[f64; INPUTS]>> {
            frames.iter().map(|f| inputs(f).ok_or_else(|| refuse("a score is missing".into()))).collect()
        };
        let healthy = rows(healthy)?;
        let standard = Standard::of(&healthy);
        let mut covariance = [[0.0; INPUTS]; INPUTS];
        let mut count = 0.0;
        let mut place = |look: Look, frames: Vec<[f64; INPUTS]>| {
            let frames: Vec<[f64; INPUTS]> = frames.iter().map(|row| standard.apply(row)).collect();
            let mean = super::directions::average(&frames);
            for frame in &frames {
                for (i, row) in covariance.iter_mut().enumerate() {
                    (0..INPUTS).for_each(|j| row[j] += (frame[i] - mean[i]) * (frame[j] - mean[j]));
                }
            }
            count += frames.len() as f64;
            (look, mean)
        };
        let mut places = vec![place(Look::Unchanged, healthy)];
        for (look, frames) in corrupted {
            places.push(place(*look, rows(frames)?));
        }
        covariance.as_flattened_mut().iter_mut().for_each(|v| *v /= count);
        (0..INPUTS).for_each(|i| covariance[i][i] += RIDGE);
        Ok(Self { standard, precision: inverse(covariance), places })
    }

    /// What frames look like, the likeliest first, from the latest [`FRAMES`] of them; nothing where fewer than four have
    /// the scores that it takes.
    pub fn of<'a>(&self, frames: impl DoubleEndedIterator<Item = &'a FrameScores>) -> Vec<Likeness> {
        let rows: Vec<[f64; INPUTS]> = frames.rev().filter_map(inputs).take(FRAMES).collect();
        // A score beyond all measure says nothing about a kind.
        let rows: Vec<_> =
            rows.iter().map(|row| self.standard.apply(row)).filter(|r| r.iter().all(|v| v.is_finite())).collect();
        if rows.len() < FEWEST {
            return Vec::new();
        }
        let mean = super::directions::average(&rows);
        let trust = (rows.len() as f64).min(TRUST);
        let likelihood = |place: &[f64; INPUTS]| {
            let off: [f64; INPUTS] = std::array::from_fn(|i| mean[i] - place[i]);
            let turned = self.precision.map(|row| row.iter().zip(&off).map(|(p, d)| p * d).sum::<f64>());
            -0.5 * trust * turned.iter().zip(&off).map(|(a, b)| a * b).sum::<f64>()
        };
        let all: Vec<(Look, f64)> = self.places.iter().map(|(look, place)| (*look, likelihood(place))).collect();
        let top = all.iter().map(|(_, l)| *l).fold(f64::NEG_INFINITY, f64::max);
        // Kinds are equally likely beforehand, however many corruptions were drawn of each.
        let mut shares = [(0.0, 0.0); Look::ALL.len()];
        for (look, likelihood) in all {
            let (sum, count) = &mut shares[look.index()];
            *sum += (likelihood - top).exp();
            *count += 1.0;
        }
        let means = shares.map(|(sum, count): (f64, f64)| if count > 0.0 { sum / count } else { 0.0 });
        let total: f64 = means.iter().sum();
        let mut found: Vec<Likeness> = Look::ALL
            .into_iter()
            .zip(means)
            .filter(|(_, mean)| *mean > 0.0)
            .map(|(look, mean)| Likeness { look, share: mean / total })
            .collect();
        found.sort_by(|a, b| b.share.total_cmp(&a.share));
        found
    }

    pub(super) fn to_tensors(&self) -> Tensors {
        let n = self.places.len();
        let looks = self.places.iter().map(|(look, _)| look.index() as f64).collect();
        let places = self.places.iter().flat_map(|(_, place)| *place).collect();
        Tensors::from([
            ("looks.mean".into(), (vec![INPUTS], self.standard.mean.to_vec())),
            ("looks.deviation".into(), (vec![INPUTS], self.standard.deviation.to_vec())),
            ("looks.precision".into(), (vec![INPUTS, INPUTS], self.precision.as_flattened().to_vec())),
            ("looks.kinds".into(), (vec![n], looks)),
            ("looks.places".into(), (vec![n, INPUTS], places)),
        ])
    }

    /// None where a bundle brings no looks.
    pub(super) fn from_tensors(tensors: &Tensors) -> Result<Option<Self>> {
        if !tensors.contains_key("looks.places") {
            return Ok(None);
        }
        let (_, mean) = take(tensors, "looks.mean", &[Some(INPUTS)])?;
        let (_, deviation) = take(tensors, "looks.deviation", &[Some(INPUTS)])?;
        let (_, precision) = take(tensors, "looks.precision", &[Some(INPUTS), Some(INPUTS)])?;
        let (shape, kinds) = take(tensors, "looks.kinds", &[None])?;
        let (_, places) = take(tensors, "looks.places", &[Some(shape[0]), Some(INPUTS)])?;
        let refuse = |reason: &str| Err(Error::Data { what: "shift tensors", reason: reason.into() });
        let finite = [mean, deviation, precision, places].iter().all(|v| v.iter().all(|x| x.is_finite()));
        if !finite || deviation.iter().any(|d| *d <= 0.0) || !(1..=MOST).contains(&shape[0]) {
            return refuse("looks must be finite, their deviations positive");
        }
        let look = |kind: &f64| Look::ALL.into_iter().find(|look| look.index() as f64 == *kind);
        let Some(kinds) = kinds.iter().map(look).collect::<Option<Vec<_>>>() else {
            return refuse("looks of a kind that this program does not know");
        };
        let row = |values: &[f64]| -> [f64; INPUTS] { std::array::from_fn(|i| values[i]) };
        Ok(Some(Self {
            standard: Standard { mean: row(mean), deviation: row(deviation) },
            precision: std::array::from_fn(|i| row(&precision[i * INPUTS..])),
            places: kinds.into_iter().zip(places.chunks_exact(INPUTS).map(row)).collect(),
        }))
    }
}
