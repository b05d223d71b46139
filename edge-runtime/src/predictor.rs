//! The one path every command takes: picture → network input → engine → calibrated probabilities, prediction set,
//! exact class-activation map, scores for the shift monitor.
//!
//! A predictor made from a bundle has proved itself first: the golden inputs gave the golden outputs, and
//! `mean(CAM) + bias = logit` held for every class. The same check runs on every prediction.

use crate::bundle::{Bundle, ProjectionHead};
use crate::engine::{Engine, Outputs};
use crate::image::{Picture, Preprocess};
use crate::probability::{Abstention, Conformal, Scaling, argmax};
use crate::saliency::{
    LinearHead, Map, class_activation_map, completeness_residual, keep_above, mask_normalised, pool,
};
use crate::shift::{FrameInput, FrameScores, MaskedPass, ScoreModel};
use crate::{Error, Result};
use std::sync::Arc;

/// Largest completeness residual `|mean(CAM) + b − logit| / (1 + |logit|)` of an engine whose head runs in f32.
pub const COMPLETENESS_TOLERANCE: f64 = 1e-4;

/// Normalised saliency above which a pixel stays in the masked picture (the threshold ExCon trains with).
const KEEP_ABOVE: f32 = 0.5;

/// What the network says about one picture.
#[derive(Debug, Clone, PartialEq)]
pub struct Prediction {
    /// Index of the predicted class: the largest probability, the first of equal ones.
    pub class: usize,
    /// Its name.
    pub label: String,
    /// Calibrated probabilities of all classes.
    pub probabilities: Vec<f64>,
    /// Raw outputs of the network.
    pub logits: Vec<f32>,
    /// Calibrated probability of the predicted class.
    pub confidence: f64,
    /// Classes that cannot be excluded at the bundle's miscoverage, ascending; never without the predicted class.
    pub prediction_set: Option<Vec<usize>>,
    /// Whether the confidence is below what the bundle's risk target asks of an answer; without a target it never is.
    pub abstains: bool,
    /// Class-activation map of the predicted class, at the size of the last feature map; a single cell where the network
    /// has none.
    pub cam: Map,
    /// Largest completeness residual over all classes; not a number when the engine's outputs are not finite.
    pub completeness: f64,
    /// Spatial mean of the last feature map: the embedding.
    pub pooled: Vec<f32>,
    /// The embedding behind the projection head, when the bundle carries one.
    pub projected: Option<Vec<f32>>,
}

impl Prediction {
    /// The engine's self-test on this picture.
    ///
    /// # Errors
    /// [`Error::Engine`] when map, head and logits do not fit together.
    pub fn verify(&self, engine: &str) -> Result<()> {
        if self.completeness <= COMPLETENESS_TOLERANCE {
            return Ok(());
        }
        let reason = format!(
            "self-test failed: mean(CAM) + bias differs from the logit by {:.1e} of 1 + |logit|, allowed {:.0e}. \
             Run `excon-edge bench` on this bundle, or seal it anew",
            self.completeness, COMPLETENESS_TOLERANCE
        );
        Err(Error::Engine { engine: engine.into(), reason })
    }
}

/// What a predictor is made of. A converter assembles one before there is a bundle.
#[derive(Clone)]
pub struct Parts {
    /// Executes the network.
    pub engine: Arc<dyn Engine>,
    /// Class names in the order of the logits.
    pub labels: Vec<String>,
    /// From picture to input.
    pub preprocess: Preprocess,
    /// The linear head behind the pool.
    pub head: LinearHead,
    /// The projection head of contrastive training.
    pub projection: Option<ProjectionHead>,
    /// From logits to probabilities.
    pub scaling: Scaling,
    /// Prediction sets.
    pub conformal: Option<Conformal>,
    /// When an answer is none.
    pub abstention: Option<Abstention>,
    /// Needed for [`Predictor::scores`] alone.
    pub scores: Option<ScoreModel>,
}

/// See the module's first paragraph.
#[derive(Clone)]
pub struct Predictor {
    parts: Parts,
}

impl Predictor {
    /// Opens a bundle with the CPU engine and runs its self-test.
    ///
    /// # Errors
    /// As [`Bundle::open`] and [`Predictor::new`].
    #[cfg(feature = "tract")]
    pub fn open(path: impl AsRef<std::path::Path>) -> Result<Self> {
        Self::from_bundle(&Bundle::open(path)?)
    }

    /// A predictor on the CPU engine, self-tested.
    ///
    /// # Errors
    /// When the model is refused, or as [`Predictor::new`].
    #[cfg(feature = "tract")]
    pub fn from_bundle(bundle: &Bundle) -> Result<Self> {
        let name = bundle.path.join(crate::bundle::MODEL).display().to_string();
        Self::new(bundle, Arc::from(crate::engine::open(&bundle.model, &name)?))
    }

    /// A predictor on an engine of the caller, self-tested.
    ///
    /// # Errors
    /// [`Error::Bundle`] when shapes disagree or a golden input does not give its golden output, [`Error::Engine`] when
    /// the engine fails or completeness does not hold.
    pub fn new(bundle: &Bundle, engine: Arc<dyn Engine>) -> Result<Self> {
        let manifest = &bundle.manifest;
        let refuse = |reason: String| Error::Bundle { path: bundle.path.clone(), reason };
        let predictor = Self::assemble(Parts {
            engine,
            labels: manifest.labels.clone(),
            preprocess: manifest.preprocess.clone(),
            head: bundle.head.clone(),
            projection: bundle.projection.clone(),
            scaling: manifest.calibration.scaling(),
            conformal: manifest.calibration.conformal.clone(),
            abstention: manifest.calibration.abstention.clone(),
            scores: Some(bundle.scores.clone()),
        })
        .map_err(|e| refuse(e.to_string()))?;
        if predictor.parts.engine.shapes().features != manifest.network.features {
            return Err(refuse("the model's feature map is not the one its manifest describes".into()));
        }
        predictor.self_test(bundle)?;
        Ok(predictor)
    }

    /// Runs the golden inputs of the bundle it was made from: the outputs must be the golden ones, and completeness
    /// must hold on each.
    ///
    /// # Errors
    /// [`Error::Bundle`] when an output differs, [`Error::Engine`] when the engine fails or completeness does not hold.
    pub fn self_test(&self, bundle: &Bundle) -> Result<()> {
        let (manifest, golden) = (&bundle.manifest, &bundle.golden);
        let engine = self.parts.engine.name();
        let outputs = self.parts.engine.run(&golden.inputs)?;
        let limit = self.parts.engine.golden_tolerance(manifest.precision);
        for (index, (logit, wanted)) in outputs.logits.iter().zip(&golden.logits).enumerate() {
            let off = f64::from((logit - wanted).abs()) / (1.0 + f64::from(wanted.abs()));
            if off.is_nan() || off > limit {
                let (picture, class) = (index / manifest.labels.len(), index % manifest.labels.len());
                let class = &manifest.labels[class];
                let reason = format!(
                    "golden input {picture} gives {logit} for `{class}` where {wanted} was sealed; engine {engine} does \
                     not compute this model"
                );
                return Err(Error::Bundle { path: bundle.path.clone(), reason });
            }
        }
        self.read(outputs).iter().try_for_each(|prediction| prediction.verify(engine))
    }

    /// A predictor from its parts, without golden inputs to test it on.
    ///
    /// # Errors
    /// [`Error::Data`] when the parts do not fit together.
    pub fn assemble(parts: Parts) -> Result<Self> {
        let refuse = |reason: &str| Err(Error::Data { what: "predictor", reason: reason.into() });
        let shapes = parts.engine.shapes();
        parts.preprocess.validate()?;
        if shapes.input != [3, parts.preprocess.size, parts.preprocess.size] {
            return refuse("the network's input is not what preprocessing makes");
        }
        if parts.labels.len() != shapes.classes || parts.head.classes != shapes.classes {
            return refuse("the network has another number of classes than its labels or its head");
        }
        if parts.head.channels != shapes.features[0] {
            return refuse("the head has another number of channels than the feature map");
        }
        match parts.scaling.validate(shapes.classes) {
            Ok(()) => Ok(Self { parts }),
            Err(reason) => refuse(&reason),
        }
    }

    /// What it is made of.
    pub fn parts(&self) -> &Parts {
        &self.parts
    }

    /// What it is made of, to change it and assemble it again.
    pub fn into_parts(self) -> Parts {
        self.parts
    }

    /// The engine.
    pub fn engine(&self) -> &dyn Engine {
        self.parts.engine.as_ref()
    }

    /// The picture at network size: what map, pixel statistics and sensor check refer to.
    pub fn resize(&self, picture: &Picture) -> Picture {
        self.parts.preprocess.resize(picture)
    }

    /// Predicts one picture of any size.
    ///
    /// # Errors
    /// When the engine fails.
    pub fn predict(&self, picture: &Picture) -> Result<Prediction> {
        let mut predictions = self.predict_all(std::slice::from_ref(picture))?;
        predictions.pop().ok_or_else(|| Error::Engine {
            engine: self.engine().name().into(),
            reason: "it gave no output for one picture".into(),
        })
    }

    /// Predicts many pictures in one batch; each answer is the one it would get alone.
    ///
    /// # Errors
    /// When the engine fails.
    pub fn predict_all(&self, pictures: &[Picture]) -> Result<Vec<Prediction>> {
        let mut input = Vec::new();
        for picture in pictures {
            self.parts.preprocess.normalise(&self.resize(picture), &mut input);
        }
        self.predict_normalised(&input)
    }

    /// Predicts normalised pictures (`n × 3 × size × size`).
    ///
    /// # Errors
    /// When the length is no multiple of one input, or the engine fails.
    pub fn predict_normalised(&self, input: &[f32]) -> Result<Vec<Prediction>> {
        Ok(self.read(self.parts.engine.run(input)?))
    }

    /// Scores a predicted picture for the shift monitor. With `masked`, the salient half of the map's range is kept,
    /// the rest set to the mean colour, and the network asked again. Without a map that explains
    /// ([`Shapes::explains`](crate::engine::Shapes::explains)) its channels stay empty.
    ///
    /// # Errors
    /// [`Error::Data`] without a score model; [`Error::Engine`] when the second pass fails.
    pub fn scores(&self, picture: &Picture, prediction: &Prediction, masked: bool) -> Result<FrameScores> {
        let Some(model) = &self.parts.scores else {
            return Err(Error::Data { what: "scores of a frame", reason: "no score model has been fitted".into() });
        };
        let picture = self.resize(picture);
        let map = self.parts.engine.shapes().explains();
        let second = if masked && map { Some(self.masked(&picture, prediction)?) } else { None };
        model.scores(&FrameInput {
            picture: &picture,
            probabilities: &prediction.probabilities,
            predicted: prediction.class,
            pooled: &prediction.pooled,
            projected: prediction.projected.as_deref(),
            cam: map.then_some(&prediction.cam),
            completeness: Some(prediction.completeness),
            masked: second.as_ref().map(|p| MaskedPass {
                pooled: &p.pooled,
                projected: p.projected.as_deref(),
                predicted: p.class,
            }),
        })
    }

    /// The prediction on the salient part of a picture at network size.
    fn masked(&self, picture: &Picture, prediction: &Prediction) -> Result<Prediction> {
        let mut input = Vec::new();
        self.parts.preprocess.normalise(picture, &mut input);
        let keep = keep_above(&prediction.cam.upsample(picture.width, picture.height).normalised(), KEEP_ABOVE);
        mask_normalised(&mut input, &keep);
        self.predict_normalised(&input)?.pop().ok_or_else(|| Error::Engine {
            engine: self.engine().name().into(),
            reason: "it gave no output for the masked picture".into(),
        })
    }

    fn read(&self, outputs: Outputs) -> Vec<Prediction> {
        let shapes = self.parts.engine.shapes();
        let rows = outputs.logits.chunks_exact(shapes.classes);
        let maps = outputs.features.chunks_exact(shapes.features.iter().product());
        rows.zip(maps).map(|(logits, features)| self.read_one(logits, features)).collect()
    }

    fn read_one(&self, logits: &[f32], features: &[f32]) -> Prediction {
        let Parts { engine, labels, head, projection, scaling, conformal, abstention, .. } = &self.parts;
        let shape = engine.shapes().features;
        let probabilities = scaling.probabilities(logits);
        let class = argmax(&probabilities);
        let cam = class_activation_map(features, shape, head, class);
        let pooled = pool(features, shape[0]);
        // The map proves the predicted class; the pooled features, whose mean each map shares, prove the others.
        let mut completeness = completeness_residual(&cam, head, class, logits[class]);
        for (wanted, logit) in head.logits(&pooled).into_iter().zip(logits) {
            let off = f64::from((wanted - logit).abs()) / (1.0 + f64::from(logit.abs()));
            if off.is_nan() || off > completeness {
                completeness = off;
            }
        }
        Prediction {
            class,
            label: labels[class].clone(),
            confidence: probabilities[class],
            projected: projection.as_ref().map(|p| p.project(&pooled)),
            logits: logits.to_vec(),
            prediction_set: conformal.as_ref().map(|c| c.set(&probabilities)),
            abstains: abstention.as_ref().is_some_and(|a| a.abstains(probabilities[class])),
            probabilities,
            cam,
            completeness,
            pooled,
        }
    }
}

#[cfg(all(test, feature = "tract"))]
mod tests;
