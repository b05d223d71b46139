//! Constants that depend on the engine that will run, fitted on that engine: calibration, class means, pixel model,
//! prediction sets, abstention, shift reference, accuracy estimate, completeness.
//!
//! Class means come from train; calibration, pixel model, directions, axes and RAPS's penalty from the fit half of
//! validation; quantiles, abstention and reference from its rank half; the accuracy estimate from both. The halves are
//! disjoint; nothing here sees test. The converter calls this for the CPU, a board for an engine that only exists there, on
//! the pictures that its bundle carries.

mod family;

use crate::accuracy::AccuracyModel;
use crate::bundle::{Calibration, ShiftContract};
use crate::image::Picture;
use crate::predictor::{Parts, Prediction, Predictor};
use crate::probability::{self, Abstention, Candidate, Conformal, LabelledRows, Scaling, SetOptions};
use crate::shift::sensor::SensorCheck;
use crate::shift::{
    ClassMeans, Contract, Declared, Directions, PixelStatistics, Problem, Projections, Reference, ReferenceOptions,
    ScoreModel, reference,
};
use crate::{Error, Result};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use std::collections::HashSet;

/// Pictures predicted in one go.
const BATCH: usize = 64;
/// Pictures of the fit half that each shift of the declared family is applied to, at most.
const DECLARED_PICTURES: usize = 512;

/// Square pictures of one size, each with its class.
#[derive(Debug, Clone, Copy)]
pub struct Labelled<'a> {
    /// Side, pixels.
    pub size: usize,
    /// `n × size × size × 3` bytes, RGB interleaved.
    pub rgb: &'a [u8],
    /// One class index per picture.
    pub labels: &'a [usize],
}

impl Labelled<'_> {
    fn len(&self) -> usize {
        self.labels.len()
    }

    fn picture(&self, index: usize) -> Picture {
        let bytes = self.size * self.size * 3;
        Picture { width: self.size, height: self.size, rgb: self.rgb[index * bytes..][..bytes].to_vec() }
    }
}

/// The pictures constants are fitted on.
#[derive(Debug, Clone, Copy)]
pub struct Pictures<'a> {
    /// Training pictures, for the class means. A board has none: it keeps the score model of its bundle, whose pixel part
    /// depends on no engine and whose class means hardly do.
    pub train: Option<Labelled<'a>>,
    /// Fit half of validation.
    pub fit: Labelled<'a>,
    /// Rank half of validation.
    pub rank: Labelled<'a>,
}

/// How constants are fitted.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FitOptions {
    /// Prediction sets.
    pub sets: SetOptions,
    /// Error rate that answers may have, in 0..1; none: the network always answers.
    pub risk: Option<f64>,
    /// Mean effective frames between false alarms that the monitor promises, above 1.
    pub mean_time_between_false_alarms: f64,
    /// One frame in so many is also run masked on the board; 0 means never.
    pub masked_every: usize,
    /// Whether the rank pictures are independent of each other, as photographs of a folder are and frames of a video
    /// are not.
    pub independent: bool,
}

impl Default for FitOptions {
    fn default() -> Self {
        let contract = Contract::default();
        Self {
            sets: SetOptions::default(),
            risk: Some(0.1),
            mean_time_between_false_alarms: contract.mean_time_between_false_alarms,
            masked_every: contract.masked_every,
            independent: true,
        }
    }
}

/// What was fitted.
#[derive(Clone)]
pub struct Fitted {
    /// Predictor with all constants in it.
    pub predictor: Predictor,
    /// Score model, also in the predictor.
    pub scores: ScoreModel,
    /// Scores of healthy pictures.
    pub reference: Reference,
    /// What accuracy is estimated with; none where there were too few pictures.
    pub accuracy: Option<AccuracyModel>,
    /// For the manifest.
    pub calibration: Calibration,
    /// For the manifest.
    pub shift: ShiftContract,
    /// For the report.
    pub report: FitReport,
}

/// The fit in figures.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FitReport {
    /// Engine it was done on.
    pub engine: String,
    /// From logits to probabilities.
    #[serde(flatten)]
    pub scaling: Scaling,
    /// Ways to calibrate that were tried on the fit half.
    pub calibrations: Vec<Candidate>,
    /// Pictures behind the calibration.
    pub fit_pictures: usize,
    /// Prediction sets.
    pub conformal: Option<Conformal>,
    /// When an answer is none.
    pub abstention: Option<Abstention>,
    /// Pictures behind the class means.
    pub training_pictures: usize,
    /// Kept frames of the shift reference.
    pub reference_frames: usize,
    /// Rank pictures that the sensor check left out.
    pub sensor_faults: usize,
    /// Conditions of the promise that fail, in words.
    pub problems: Vec<String>,
    /// Largest completeness residual over all pictures seen.
    pub completeness_residual: f64,
    /// What a reader should know.
    pub notes: Vec<String>,
}

/// Fits everything. `parts` holds the engine; its calibration is ignored, and its score model where there
/// are training pictures.
///
/// # Errors
/// When there are too few pictures, a class has none in train, there is neither train nor a score model, the engine
/// fails, or its outputs contradict its head.
pub fn fit(parts: Parts, pictures: Pictures, options: &FitOptions) -> Result<Fitted> {
    let mut notes = Vec::new();
    // Without a map there is nothing to mask by.
    let masked_every = if parts.engine.shapes().explains() { options.masked_every } else { 0 };
    let options = &FitOptions { masked_every, ..options.clone() };
    let classes = parts.labels.len();
    let engine = parts.engine.name().to_string();
    let channels = parts.engine.shapes().features[0];
    let sealed = parts.scores.clone();
    let plain = Parts { scaling: Scaling::default(), conformal: None, abstention: None, scores: None, ..parts };
    let predictor = Predictor::assemble(plain)?;

    let mut completeness = 0.0f64;
    let mut note = |predictions: &[Prediction]| -> Result<()> {
        for prediction in predictions {
            prediction.verify(&engine)?;
            completeness = completeness.max(prediction.completeness);
        }
        Ok(())
    };

    let on_fit = predict(&predictor, &pictures.fit, "fit half of validation")?;
    note(&on_fit)?;
    let logits: Vec<f32> = on_fit.iter().flat_map(|p| p.logits.iter().copied()).collect();
    let chosen = probability::choose(&logits, classes, pictures.fit.labels)?;
    notes.extend(chosen.notes);
    let scaling = chosen.scaling;

    let scores = match (&pictures.train, sealed) {
        (Some(train), _) => {
            let mut means = ClassMeans::new(classes, channels);
            let on_train = predict(&predictor, train, "train")?;
            note(&on_train)?;
            for (prediction, &label) in on_train.iter().zip(train.labels) {
                means.add(label, &prediction.pooled)?;
            }
            let statistics = |i| PixelStatistics::of(&pictures.fit.picture(i));
            let plain = ScoreModel::fit(&means, &(0..pictures.fit.len()).map(statistics).collect::<Vec<_>>())?;
            let scaled = Parts { scaling: scaling.clone(), scores: Some(plain.clone()), ..predictor.parts().clone() };
            let (directions, projections) = learn(&Predictor::assemble(scaled)?, &pictures.fit, &mut notes)?;
            plain.with(directions, projections)
        }
        (None, Some(sealed)) => sealed,
        (None, None) => {
            let reason = "it needs training pictures or a score model that was fitted before".into();
            return Err(Error::Data { what: "score model", reason });
        }
    };
    let scored = Parts { scaling: scaling.clone(), scores: Some(scores.clone()), ..predictor.into_parts() };
    let predictor = Predictor::assemble(scored)?;

    let on_rank = predict(&predictor, &pictures.rank, "rank half of validation")?;
    note(&on_rank)?;
    let on_fit = scaling.rows(&logits, classes);
    let conformal =
        sets(&predictor, (&on_fit, pictures.fit.labels), (&on_rank, pictures.rank.labels), options, &mut notes);
    let abstention = abstention(&on_rank, pictures.rank.labels, options, &mut notes);
    let accuracy = match family::accuracy(&predictor, &pictures) {
        Ok(accuracy) => Some(accuracy),
        Err(error) => {
            notes.push(format!("no accuracy estimate: {error}"));
            None
        }
    };
    let (reference, sensor_faults) = rank_reference(&predictor, &pictures, &on_rank, options, &mut notes)?;

    let calibration = Calibration {
        temperature: scaling.temperature,
        refinement: scaling.refinement.clone(),
        engine: engine.clone(),
        pictures: pictures.fit.len(),
        conformal: conformal.clone(),
        abstention: abstention.clone(),
        completeness_residual: completeness,
    };
    let shift = ShiftContract {
        mean_time_between_false_alarms: options.mean_time_between_false_alarms,
        reference_frames: reference.frames(),
        autocorrelation_time: reference.autocorrelation_time(),
        independent: reference.independent(),
        masked_every: options.masked_every,
    };
    let report = FitReport {
        engine,
        scaling,
        calibrations: chosen.candidates,
        fit_pictures: pictures.fit.len(),
        conformal: conformal.clone(),
        abstention: abstention.clone(),
        training_pictures: pictures.train.map_or(0, |train| train.len()),
        reference_frames: reference.frames(),
        sensor_faults,
        problems: reference.problems().iter().map(|p| p.words().to_string()).collect(),
        completeness_residual: completeness,
        notes,
    };
    let predictor = Predictor::assemble(Parts { conformal, abstention, ..predictor.into_parts() })?;
    Ok(Fitted { predictor, scores, reference, accuracy, calibration, shift, report })
}

/// Predictions for every picture of a part, in order; an empty one is an error.
fn predict(predictor: &Predictor, part: &Labelled, name: &str) -> Result<Vec<Prediction>> {
    if part.len() == 0 {
        let reason = format!("there are no pictures in {name}");
        return Err(Error::Data { what: "constants of an engine", reason });
    }
    let mut predictions = Vec::with_capacity(part.len());
    for start in (0..part.len()).step_by(BATCH) {
        let batch: Vec<Picture> = (start..part.len().min(start + BATCH)).map(|i| part.picture(i)).collect();
        predictions.extend(predictor.predict_all(&batch)?);
    }
    Ok(predictions)
}

/// Directions of the declared family and axes of the embedding, from pictures spread over the fit half. Where there are
/// too few, a note says so and their channels stay empty.
fn learn(
    predictor: &Predictor,
    fit: &Labelled,
    notes: &mut Vec<String>,
) -> Result<(Option<Directions>, Option<Projections>)> {
    let count = fit.len().min(DECLARED_PICTURES);
    let pictures: Vec<Picture> = (0..count).map(|i| predictor.resize(&fit.picture(i * fit.len() / count))).collect();
    let scored = |pictures: &[Picture]| -> Result<Vec<_>> {
        let batch = |pictures: &[Picture]| -> Result<Vec<_>> {
            let predictions = predictor.predict_all(pictures)?;
            let score = |(picture, p): (&Picture, &Prediction)| predictor.scores(picture, p, false);
            let scores = pictures.iter().zip(&predictions).map(score).collect::<Result<Vec<_>>>()?;
            Ok(scores.into_iter().zip(predictions.into_iter().map(|p| p.pooled)).collect())
        };
        Ok(pictures.par_chunks(BATCH).map(batch).collect::<Result<Vec<_>>>()?.into_iter().flatten().collect())
    };
    let (healthy, embeddings): (Vec<_>, Vec<_>) = scored(&pictures)?.into_iter().unzip();
    let mut shifted: [Vec<_>; Declared::COUNT] = Default::default();
    for (scores, shift) in shifted.iter_mut().zip(Declared::ALL) {
        let seen: Vec<Picture> =
            pictures.par_iter().enumerate().map(|(i, picture)| shift.apply(picture, i as u64)).collect();
        *scores = scored(&seen)?.into_iter().map(|(scores, _)| scores).collect();
    }
    let mut noted = |error: Error| notes.push(format!("without channels: {error}"));
    let directions = Directions::learn(&healthy, &shifted).map_err(&mut noted).ok();
    let embeddings: Vec<&[f32]> = embeddings.iter().map(Vec::as_slice).collect();
    let projections = Projections::learn(&embeddings).map_err(&mut noted).ok();
    Ok((directions, projections))
}

/// Prediction sets from probabilities of the fit half and predictions of the rank half; none, with a note, where there
/// are too few pictures.
fn sets(
    predictor: &Predictor,
    (on_fit, fit_labels): (&[f64], &[usize]),
    (on_rank, labels): (&[Prediction], &[usize]),
    options: &FitOptions,
    notes: &mut Vec<String>,
) -> Option<Conformal> {
    let names = &predictor.parts().labels;
    let classes = names.len();
    let probabilities: Vec<f64> = on_rank.iter().flat_map(|p| p.probabilities.iter().copied()).collect();
    let fit = LabelledRows { probabilities: on_fit, classes, labels: fit_labels };
    match Conformal::fit(&options.sets, fit, LabelledRows { probabilities: &probabilities, classes, labels }) {
        Ok((conformal, few)) => {
            if !few.is_empty() {
                let few: Vec<&str> = few.iter().map(|&class| names[class].as_str()).collect();
                let few = few.join(", ");
                notes.push(format!("in every prediction set, for want of pictures to fit their own quantile: {few}"));
            }
            Some(conformal)
        }
        Err(error) => {
            notes.push(format!("no prediction sets: {error}"));
            None
        }
    }
}

/// The threshold of the risk target; none, with a note, where no confidence keeps it.
fn abstention(
    on_rank: &[Prediction],
    labels: &[usize],
    options: &FitOptions,
    notes: &mut Vec<String>,
) -> Option<Abstention> {
    let confidences: Vec<f64> = on_rank.iter().map(|p| p.confidence).collect();
    let right: Vec<bool> = on_rank.iter().zip(labels).map(|(p, label)| p.class == *label).collect();
    let fitted = Abstention::fit(&confidences, &right, options.risk?);
    fitted.map_err(|error| notes.push(format!("the network always answers: {error}"))).ok()
}

/// Scores of the rank pictures whose sensor was well, each also run masked, and how many were left out. Pictures of which
/// the fit half holds a copy are not ranked against; where hardly any others are left, the promise says that it fails.
fn rank_reference(
    predictor: &Predictor,
    pictures: &Pictures,
    predictions: &[Prediction],
    options: &FitOptions,
    notes: &mut Vec<String>,
) -> Result<(Reference, usize)> {
    let rank = &pictures.rank;
    let fitted: HashSet<Vec<u8>> = (0..pictures.fit.len()).map(|i| pictures.fit.picture(i).rgb).collect();
    let unseen: Vec<usize> = (0..rank.len()).filter(|&i| !fitted.contains(&rank.picture(i).rgb)).collect();
    let overlap = unseen.len() < reference::MINIMUM;
    let copies = rank.len() - unseen.len();
    if copies > 0 && !overlap {
        notes.push(format!("{copies} rank pictures are also in the fit half; the shift reference is without them"));
    }
    let used = if overlap { (0..rank.len()).collect() } else { unseen };
    let mut sensor = SensorCheck::default();
    let well: Vec<(Picture, &Prediction)> = used
        .iter()
        .map(|&i| (predictor.resize(&rank.picture(i)), &predictions[i]))
        .filter(|(picture, _)| sensor.check(picture).is_none())
        .collect();
    let scores = well.par_iter().map(|(picture, p)| predictor.scores(picture, p, true)).collect::<Result<Vec<_>>>()?;
    let problems = if overlap { vec![Problem::FitAndRankOverlap] } else { Vec::new() };
    let how = ReferenceOptions { independent: options.independent, problems, ..ReferenceOptions::default() };
    Ok((Reference::build(&scores, &how)?, used.len() - well.len()))
}
