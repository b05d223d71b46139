//! From one forward pass and the pixels to the scores of a frame.
//!
//! A [`ScoreModel`] holds what is fitted once: class means of training embeddings, and, from the fit half of the
//! validation pictures, mean, deviation and precision of the pixel statistics, directions and axes. It never sees the reference it will be ranked
//! against. A score that is not a number counts as +∞: a broken network is unusual, not silent.

use super::channel::Channel;
use super::directions::Directions;
use super::looks::Looks;
use super::matrix::inverse;
use super::pixels::PixelStatistics;
use super::projections::Projections;
use super::tensors::{Tensors, take};
use crate::image::Picture;
use crate::saliency::Map;
use crate::{Error, Result};

/// Ridge added to the correlation of the pixel statistics before inversion.
const RIDGE: f64 = 0.1;
/// Smallest standard deviation a pixel statistic is divided by.
const SMALLEST_DEVIATION: f64 = 1e-6;

/// The scores of one frame, one slot a channel; an empty slot leaves that channel's evidence unchanged.
#[derive(Debug, Clone, PartialEq)]
pub struct FrameScores {
    values: [Option<f64>; Channel::COUNT],
    /// Completeness residual |mean(CAM) + b − logit| / (1 + |logit|) of the frame: the engine's self-test.
    pub completeness: Option<f64>,
}

impl FrameScores {
    /// No scores yet.
    pub fn empty() -> Self {
        Self { values: [None; Channel::COUNT], completeness: None }
    }

    /// The score of a channel.
    pub fn get(&self, channel: Channel) -> Option<f64> {
        self.values[channel.index()]
    }

    /// Sets a score; NaN becomes +∞, −0 becomes 0.
    pub fn set(&mut self, channel: Channel, score: f64) {
        self.values[channel.index()] = Some(if score.is_nan() { f64::INFINITY } else { score + 0.0 });
    }
}

/// Everything a frame is scored from.
#[derive(Debug, Clone, Copy)]
pub struct FrameInput<'a> {
    /// The picture at network size.
    pub picture: &'a Picture,
    /// Calibrated probabilities, K values.
    pub probabilities: &'a [f64],
    /// The predicted class.
    pub predicted: usize,
    /// Pooled embedding, C values.
    pub pooled: &'a [f32],
    /// Projected embedding, where the bundle carries a projection head.
    pub projected: Option<&'a [f32]>,
    /// Class-activation map of the predicted class, at feature size, where the network has one.
    pub cam: Option<&'a Map>,
    /// Completeness residual of the predicted class, see [`crate::saliency`].
    pub completeness: Option<f64>,
    /// The second pass on the masked picture, on the frames where it was made.
    pub masked: Option<MaskedPass<'a>>,
}

/// What the network says about the masked picture: salient part kept, the rest the mean colour.
#[derive(Debug, Clone, Copy)]
pub struct MaskedPass<'a> {
    /// Pooled embedding, C values.
    pub pooled: &'a [f32],
    /// Projected embedding, where there is a projection head.
    pub projected: Option<&'a [f32]>,
    /// Its predicted class.
    pub predicted: usize,
}

/// Running class means of pooled training embeddings.
#[derive(Debug, Clone, PartialEq)]
pub struct ClassMeans {
    channels: usize,
    sums: Vec<f64>,
    counts: Vec<u64>,
}

impl ClassMeans {
    /// Means of `classes` classes over embeddings of `channels` values.
    pub fn new(classes: usize, channels: usize) -> Self {
        Self { channels, sums: vec![0.0; classes * channels], counts: vec![0; classes] }
    }

    /// Adds one embedding.
    ///
    /// # Errors
    /// When the label or the length does not fit, or a value is not finite.
    pub fn add(&mut self, label: usize, pooled: &[f32]) -> Result<()> {
        if label >= self.counts.len() || pooled.len() != self.channels || pooled.iter().any(|v| !v.is_finite()) {
            let reason = format!(
                "label {label} of {} classes, {} values of {} (all must be finite)",
                self.counts.len(),
                pooled.len(),
                self.channels
            );
            return Err(Error::Data { what: "class means", reason });
        }
        let row = &mut self.sums[label * self.channels..(label + 1) * self.channels];
        row.iter_mut().zip(pooled).for_each(|(sum, value)| *sum += f64::from(*value));
        self.counts[label] += 1;
        Ok(())
    }
}

/// The fitted part of the scores.
#[derive(Debug, Clone, PartialEq)]
pub struct ScoreModel {
    channels: usize,
    /// `K × C`, row-major.
    class_means: Vec<f64>,
    /// Mean of the seven pixel statistics without the ratio.
    mean: [f64; 7],
    /// Their standard deviation.
    deviation: [f64; 7],
    /// Inverse of covariance + 0.1 I of the standardised statistics, row-major.
    precision: [[f64; 7]; 7],
    directions: Option<Directions>,
    projections: Option<Projections>,
    looks: Option<Looks>,
}

impl ScoreModel {
    /// Fits the model: class means from training embeddings, pixel statistics from the fit half.
    ///
    /// # Errors
    /// When a class has no embedding, or there are fewer than 8 pixel statistics.
    pub fn fit(class_means: &ClassMeans, pixels: &[PixelStatistics]) -> Result<Self> {
        if let Some(class) = class_means.counts.iter().position(|&count| count == 0) {
            let reason = format!("class {class} has no training picture; give at least one of every class");
            return Err(Error::Data { what: "class means", reason });
        }
        if pixels.len() < 8 {
            let reason = format!("{} pictures in the fit half, at least 8 are needed", pixels.len());
            return Err(Error::Data { what: "pixel statistics", reason });
        }
        let rows: Vec<[f64; 7]> = pixels.iter().map(PixelStatistics::without_ratio).collect();
        let count = rows.len() as f64;
        let average = |f: &dyn Fn(&[f64; 7]) -> f64| rows.iter().map(f).sum::<f64>() / count;
        let mean: [f64; 7] = std::array::from_fn(|i| average(&|row| row[i]));
        let deviation: [f64; 7] = std::array::from_fn(|i| {
            average(&|row| (row[i] - mean[i]) * (row[i] - mean[i])).sqrt().max(SMALLEST_DEVIATION)
        });
        let mut matrix = [[0.0; 7]; 7];
        for i in 0..7 {
            for j in 0..7 {
                matrix[i][j] = average(&|row| (row[i] - mean[i]) / deviation[i] * ((row[j] - mean[j]) / deviation[j]));
            }
            matrix[i][i] += RIDGE;
        }
        let means = class_means.sums.iter().enumerate();
        let class_means_of =
            means.map(|(i, sum)| sum / class_means.counts[i / class_means.channels.max(1)] as f64).collect();
        Ok(Self {
            channels: class_means.channels,
            class_means: class_means_of,
            mean,
            deviation,
            precision: inverse(matrix),
            directions: None,
            projections: None,
            looks: None,
        })
    }

    /// The same with directions of the declared family and axes of the embedding; without them, their channels stay
    /// empty.
    pub fn with(self, directions: Option<Directions>, projections: Option<Projections>) -> Self {
        Self { directions, projections, ..self }
    }

    /// The same with what corruptions look like.
    pub fn with_looks(self, looks: Looks) -> Self {
        Self { looks: Some(looks), ..self }
    }

    /// What corruptions look like, where a bundle says it.
    pub fn looks(&self) -> Option<&Looks> {
        self.looks.as_ref()
    }

    /// Number of classes.
    pub fn classes(&self) -> usize {
        self.class_means.len() / self.channels.max(1)
    }

    /// Scores one frame. Channels whose inputs are missing stay empty.
    ///
    /// # Errors
    /// When probabilities, predicted class or embedding do not fit the model.
    pub fn scores(&self, input: &FrameInput<'_>) -> Result<FrameScores> {
        let confidence = input.probabilities.get(input.predicted);
        let (Some(confidence), true, true) =
            (confidence, input.probabilities.len() == self.classes(), input.pooled.len() == self.channels)
        else {
            let reason = format!(
                "class {} of {} probabilities, embedding of {}; the model has {} classes and {} channels",
                input.predicted,
                input.probabilities.len(),
                input.pooled.len(),
                self.classes(),
                self.channels
            );
            return Err(Error::Data { what: "scores of a frame", reason });
        };
        let mut scores = FrameScores::empty();
        scores.completeness = input.completeness;
        scores.set(Channel::Confidence, 1.0 - confidence);
        let mean = &self.class_means[input.predicted * self.channels..][..self.channels];
        scores.set(Channel::Cosine, cosine_distance(widen(input.pooled), mean.iter().copied()));

        let statistics = PixelStatistics::of(input.picture);
        for (channel, value) in Channel::PIXELS.into_iter().zip(statistics.0) {
            scores.set(channel, value);
        }
        for (channel, value) in Channel::RESIDUALS.into_iter().zip(self.residuals(&statistics)) {
            scores.set(channel, value);
        }

        if let Some(along) = self.directions.as_ref().and_then(|d| d.scores(&scores)) {
            Channel::TOWARD.into_iter().zip(along).for_each(|(channel, value)| scores.set(channel, value));
        }
        if let Some(projections) = &self.projections {
            let along = projections.scores(input.pooled);
            Channel::PROJECTIONS.into_iter().zip(along).for_each(|(channel, value)| scores.set(channel, value));
        }

        if let Some(cam) = input.cam {
            scores.set(Channel::CamEntropy, cam.entropy());
            scores.set(Channel::CamConcentration, cam.concentration());
        }
        if let Some(masked) = &input.masked {
            scores.set(Channel::MaskedCosine, cosine_distance(widen(input.pooled), widen(masked.pooled)));
            if let (Some(whole), Some(part)) = (input.projected, masked.projected) {
                scores.set(Channel::MaskedProjectionCosine, cosine_distance(widen(whole), widen(part)));
            }
            scores.set(Channel::MaskedDisagreement, f64::from(u8::from(masked.predicted != input.predicted)));
        }
        Ok(scores)
    }

    /// r_i = (P x)_i / P_ii of the standardised statistics: each beyond what the other six predict.
    pub fn residuals(&self, statistics: &PixelStatistics) -> [f64; 7] {
        let raw = statistics.without_ratio();
        let x: [f64; 7] = std::array::from_fn(|i| (raw[i] - self.mean[i]) / self.deviation[i]);
        std::array::from_fn(|i| {
            let row = &self.precision[i];
            row.iter().zip(&x).map(|(p, x)| p * x).sum::<f64>() / row[i]
        })
    }

    /// The model as named tensors, prefix `scores.`.
    pub fn to_tensors(&self) -> Tensors {
        let precision = self.precision.iter().flatten().copied().collect();
        let mut tensors = Tensors::from([
            ("scores.class_means".into(), (vec![self.classes(), self.channels], self.class_means.clone())),
            ("scores.pixel_mean".into(), (vec![7], self.mean.to_vec())),
            ("scores.pixel_deviation".into(), (vec![7], self.deviation.to_vec())),
            ("scores.pixel_precision".into(), (vec![7, 7], precision)),
        ]);
        tensors.extend(self.directions.iter().flat_map(Directions::to_tensors));
        tensors.extend(self.projections.iter().flat_map(Projections::to_tensors));
        tensors.extend(self.looks.iter().flat_map(Looks::to_tensors));
        tensors
    }

    /// Reads [`ScoreModel::to_tensors`] back; other tensors are ignored.
    ///
    /// # Errors
    /// When a tensor is missing, has another shape, or holds values no fit gives.
    pub fn from_tensors(tensors: &Tensors) -> Result<Self> {
        let (shape, class_means) = take(tensors, "scores.class_means", &[None, None])?;
        let (_, mean) = take(tensors, "scores.pixel_mean", &[Some(7)])?;
        let (_, deviation) = take(tensors, "scores.pixel_deviation", &[Some(7)])?;
        let (_, precision) = take(tensors, "scores.pixel_precision", &[Some(7), Some(7)])?;
        let finite = [class_means, mean, deviation, precision].iter().all(|v| v.iter().all(|x| x.is_finite()));
        let diagonal = (0..7).all(|i| precision[8 * i] > 0.0);
        if !finite || !diagonal || deviation.iter().any(|d| *d <= 0.0) || class_means.is_empty() {
            let reason = "class means and pixel model must be finite, deviations and precisions positive".to_string();
            return Err(Error::Data { what: "shift tensors", reason });
        }
        Ok(Self {
            channels: shape[1],
            class_means: class_means.to_vec(),
            mean: std::array::from_fn(|i| mean[i]),
            deviation: std::array::from_fn(|i| deviation[i]),
            precision: std::array::from_fn(|i| std::array::from_fn(|j| precision[7 * i + j])),
            directions: Directions::from_tensors(tensors)?,
            projections: Projections::from_tensors(tensors, shape[1])?,
            looks: Looks::from_tensors(tensors)?,
        })
    }
}

fn widen(values: &[f32]) -> impl Iterator<Item = f64> + Clone + '_ {
    values.iter().map(|&v| f64::from(v))
}

/// 1 − cosine; 1 when either side is zero.
fn cosine_distance(a: impl Iterator<Item = f64>, b: impl Iterator<Item = f64>) -> f64 {
    let (mut dot, mut aa, mut bb) = (0.0, 0.0, 0.0);
    for (x, y) in a.zip(b) {
        dot += x * y;
        aa += x * x;
        bb += y * y;
    }
    let norms = aa.sqrt() * bb.sqrt();
    if norms == 0.0 { 1.0 } else { 1.0 - dot / norms }
}
