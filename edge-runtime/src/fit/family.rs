//! Labelled pictures under the declared family, for the accuracy estimate: light, strong, and in pairs.
//!
//! Pictures come from both halves of validation. The shift reference is made of the rank half's scores and never sees
//! a label or a shifted picture, so the alarm's promise does not know of this.

use super::{BATCH, Labelled, Pictures};
use crate::Result;
use crate::accuracy::{AccuracyModel, Outcome, Shifted};
use crate::image::Picture;
use crate::predictor::Predictor;
use crate::shift::Declared;
use rayon::prelude::*;

/// Pictures that it is fitted on, at most: each is seen healthy and under every member of the family, so that what a shift
/// does is not mistaken for what other pictures do.
const PICTURES: usize = 1_024;
/// How much stronger than light the strong form is.
const STRONG: f32 = 2.0;
/// A pair is a shift and the one so many places on in [`Declared::ALL`]: every shift is in two.
const APART: usize = 5;

/// Fits the accuracy estimate with a predictor that has temperature and score model.
///
/// # Errors
/// When there are too few pictures, or the engine fails.
pub fn accuracy(predictor: &Predictor, pictures: &Pictures) -> Result<AccuracyModel> {
    let (fit, rank) = (&pictures.fit, &pictures.rank);
    let all = fit.len() + rank.len();
    let picture = |i: usize| {
        let (part, i): (&Labelled, _) = if i < fit.len() { (fit, i) } else { (rank, i - fit.len()) };
        (predictor.resize(&part.picture(i)), part.labels[i])
    };
    let count = all.min(PICTURES);
    let healthy: Vec<(Picture, usize)> = (0..count).map(|i| picture(i * all / count)).collect();
    let shifted = |kinds: &[(Declared, f32)]| -> Result<Shifted> {
        let draw = |(i, (picture, label)): (usize, &(Picture, usize))| {
            let mut shifted = picture.clone();
            kinds.iter().for_each(|(kind, strength)| shifted = kind.apply_at(&shifted, i as u64, *strength));
            (shifted, *label)
        };
        let seen: Vec<(Picture, usize)> = healthy.par_iter().enumerate().map(draw).collect();
        Ok(Shifted { kinds: kinds.iter().map(|(kind, _)| *kind).collect(), frames: outcomes(predictor, &seen)? })
    };
    let members = Declared::ALL.into_iter().enumerate().flat_map(|(i, kind)| {
        let other = Declared::ALL[(i + APART) % Declared::COUNT];
        [vec![(kind, 1.0)], vec![(kind, STRONG)], vec![(kind, 1.0), (other, 1.0)]]
    });
    let family = members.map(|kinds| shifted(&kinds)).collect::<Result<Vec<_>>>()?;
    AccuracyModel::fit(&outcomes(predictor, &healthy)?, &family)
}

/// What the network makes of pictures at network size with their classes.
fn outcomes(predictor: &Predictor, pictures: &[(Picture, usize)]) -> Result<Vec<Outcome>> {
    let batch = |pictures: &[(Picture, usize)]| -> Result<Vec<Outcome>> {
        let alone: Vec<Picture> = pictures.iter().map(|(picture, _)| picture.clone()).collect();
        let predictions = predictor.predict_all(&alone)?;
        let outcome = |((picture, label), p): (&(Picture, usize), _)| {
            let p: &crate::predictor::Prediction = p;
            Ok(Outcome { scores: predictor.scores(picture, p, false)?, right: p.class == *label })
        };
        pictures.iter().zip(&predictions).map(outcome).collect()
    };
    Ok(pictures.par_chunks(BATCH).map(batch).collect::<Result<Vec<_>>>()?.into_iter().flatten().collect())
}
