//! How far two forms of one network agree on the same pictures: classes, figures, logits, maps, layer by layer.
//!
//! A and B are what `form` opens. Each side's probabilities are at its own temperature, a bundle's or one fitted on
//! validation. Differences carry 95 % intervals of the pairs.

use crate::failure::{Failure, Result};
use crate::form::Form;
use crate::model::Model;
use excon_convert::compare::{Difference, LayerError, Side as Logits, compare, noise};
use excon_edge::engine::{Engine, NO_MAP};
use excon_edge::probability::{Metrics, Scaling, argmax};
use excon_edge::saliency::class_activation_map;
use excon_train::dataset::{Dataset, Split};
use excon_train::evaluate::planar;
use serde::Serialize;
use std::time::Instant;

/// Schema of [`Agreement`].
pub const SCHEMA: &str = "excon.compare/1";
/// Pictures per call of an engine.
const BATCH: usize = 64;
/// Pictures behind the layers' noise, and behind the time of one.
const FEW: usize = 32;

/// What one form comes to.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Side {
    /// As it was given.
    pub model: String,
    /// What ran it.
    pub engine: String,
    /// How its logits become probabilities.
    #[serde(flatten)]
    pub scaling: Scaling,
    /// Accuracy and calibration.
    pub metrics: Metrics,
    /// Milliseconds for one picture alone, the fastest of a few.
    pub milliseconds: f64,
}

/// Two forms of a network on the same pictures.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Agreement {
    /// Always [`SCHEMA`].
    pub schema: &'static str,
    /// The pictures.
    pub data: String,
    /// Their split.
    pub split: String,
    /// How many.
    pub pictures: usize,
    /// The first.
    pub a: Side,
    /// The second.
    pub b: Side,
    /// Share of pictures with the same answer, 0..1.
    pub same_class: f64,
    /// Accuracy of A − accuracy of B: positive where B is worse.
    pub accuracy_loss: Difference,
    /// ECE of B − ECE of A (15 bins): positive where B is worse.
    pub ece_loss: Difference,
    /// Largest difference of a logit.
    pub largest_logit_difference: f64,
    /// 10 · log10(Σ a² / Σ (a − b)²) of the logits; `null` where all are equal.
    pub logits_db: Option<f64>,
    /// The same of the last feature map; `null` also where the two have other shapes.
    pub features_db: Option<f64>,
    /// Mean cosine between the class-activation maps of A's answer; `null` where the two have other shapes, or no map.
    pub map_cosine: Option<f64>,
    /// Why nothing is said of maps; `null` where both have them.
    pub no_map: Option<String>,
    /// The same as `features_db` after each layer, where both have the same maps and are not both our own files on our
    /// own engines.
    pub layers: Option<Vec<LayerError>>,
}

/// Sums behind a signal-to-noise ratio.
#[derive(Default)]
struct Noise {
    signal: f64,
    noise: f64,
    largest: f64,
}

impl Noise {
    fn add(&mut self, a: &[f32], b: &[f32]) {
        for (a, b) in a.iter().zip(b) {
            let (a, gap) = (f64::from(*a), f64::from(*a) - f64::from(*b));
            self.signal += a * a;
            self.noise += gap * gap;
            self.largest = self.largest.max(gap.abs());
        }
    }

    fn decibels(&self) -> Option<f64> {
        (self.noise > 0.0 && self.signal > 0.0).then(|| 10.0 * (self.signal / self.noise).log10())
    }
}

impl Agreement {
    /// Measures both on a split; `at` hears how many pictures are done.
    pub fn measure(
        forms: &[Form; 2],
        data: &Dataset,
        (name, split): (&str, &Split),
        at: &mut dyn FnMut(usize),
    ) -> Result<Self> {
        let [a, b] = forms;
        let (shapes, others) = (a.model.engine.shapes(), b.model.engine.shapes());
        if shapes.input != others.input || shapes.classes != others.classes || a.model.labels != b.model.labels {
            return Err(Failure::input(format!(
                "{} and {} take other pictures or know other classes: they are no two forms of one network",
                a.given, b.given
            )));
        }
        let (mut logits, mut features, mut values) = (Noise::default(), Noise::default(), [vec![], vec![]]);
        let mut cosines = vec![];
        let each: usize = shapes.features.iter().product();
        let alike = shapes.features == others.features && each > 0;
        for indices in (0..split.len()).collect::<Vec<_>>().chunks(BATCH) {
            let run = |model: &Model| model.engine.run(&planar(split, indices, &model.preprocess));
            let (x, y) = (run(&a.model)?, run(&b.model)?);
            match a.shifted || b.shifted {
                true => logits.add(&centred(&x.logits, shapes.classes), &centred(&y.logits, shapes.classes)),
                false => logits.add(&x.logits, &y.logits),
            }
            if alike {
                features.add(&x.features, &y.features);
            }
            if alike && shapes.explains() {
                let maps = x.features.chunks_exact(each).zip(y.features.chunks_exact(each));
                for ((f, g), row) in maps.zip(x.logits.chunks_exact(shapes.classes)) {
                    let map = |model: &Model, features| {
                        class_activation_map(features, shapes.features, &model.head, argmax(row)).values
                    };
                    cosines.push(cosine(&map(&a.model, f), &map(&b.model, g)));
                }
            }
            values[0].extend(x.logits);
            values[1].extend(y.logits);
            at(values[0].len() / shapes.classes);
        }
        let mut scalings = [a.model.scaling(data)?.0, b.model.scaling(data)?.0];
        // What stands behind a temperature may change answers: where one side has none, neither is compared with it.
        if scalings.iter().any(|s| s.refinement.is_none()) {
            scalings.iter_mut().for_each(|s| s.refinement = None);
        }
        let side = |i: usize| Logits { logits: &values[i], scaling: &scalings[i] };
        let c = compare(name, side(0), side(1), shapes.classes, &split.labels, a.model.seed)?;
        let form = |form: &Form, metrics: &Metrics, scaling: &Scaling| {
            let (model, engine) = (form.given.clone(), form.model.engine.name().to_string());
            let milliseconds = fastest(form.model.engine.as_ref(), &planar(split, &[0], &form.model.preprocess))?;
            Ok::<_, Failure>(Side { model, engine, scaling: scaling.clone(), metrics: metrics.clone(), milliseconds })
        };
        Ok(Self {
            schema: SCHEMA,
            data: data.name.clone(),
            split: name.into(),
            pictures: split.len(),
            a: form(a, &c.float, &scalings[0])?,
            b: form(b, &c.int8, &scalings[1])?,
            same_class: c.agreement,
            accuracy_loss: c.accuracy_loss,
            ece_loss: c.ece_loss,
            largest_logit_difference: logits.largest,
            logits_db: logits.decibels(),
            features_db: features.decibels(),
            map_cosine: (!cosines.is_empty()).then(|| cosines.iter().sum::<f64>() / cosines.len() as f64),
            no_map: [a, b]
                .iter()
                .find(|f| !f.model.engine.shapes().explains())
                .map(|f| format!("{}: {NO_MAP}", f.given)),
            layers: layers(forms, split)?,
        })
    }
}

/// Cosine of two maps about their means; 1 for two flat ones.
fn cosine(a: &[f32], b: &[f32]) -> f64 {
    let centred = |v: &[f32]| {
        let mean = v.iter().map(|x| f64::from(*x)).sum::<f64>() / v.len() as f64;
        v.iter().map(|x| f64::from(*x) - mean).collect::<Vec<f64>>()
    };
    let (a, b) = (centred(a), centred(b));
    let dot = |x: &[f64], y: &[f64]| x.iter().zip(y).map(|(x, y)| x * y).sum::<f64>();
    let lengths = (dot(&a, &a) * dot(&b, &b)).sqrt();
    if lengths > 0.0 { dot(&a, &b) / lengths } else { 1.0 }
}

fn fastest(engine: &dyn Engine, image: &[f32]) -> Result<f64> {
    let mut least = f64::INFINITY;
    for _ in 0..FEW {
        let began = Instant::now();
        engine.run(image)?;
        least = least.min(began.elapsed().as_secs_f64());
    }
    Ok(1e3 * least)
}

/// Logits as logarithms of probabilities, which leaves out what a picture adds to all of them.
fn centred(logits: &[f32], classes: usize) -> Vec<f32> {
    let row = |row: &[f32]| -> Vec<f32> {
        let most = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let sum = row.iter().map(|v| f64::from(v - most).exp()).sum::<f64>();
        row.iter().map(|v| (f64::from(v - most) - sum.ln()) as f32).collect()
    };
    logits.chunks_exact(classes).flat_map(row).collect()
}

/// Noise after each layer, where both have maps of the same names and there is something to say of them.
fn layers(forms: &[Form; 2], split: &Split) -> Result<Option<Vec<LayerError>>> {
    let [a, b] = forms;
    if !(a.has_own_layers() || b.has_own_layers()) {
        return Ok(None);
    }
    let (Some((model, maps)), Some((other, others))) = (a.layers()?, b.layers()?) else { return Ok(None) };
    if maps.is_empty() || maps.iter().any(|map| others.iter().all(|other| other.value != map.value)) {
        return Ok(None);
    }
    let few: Vec<usize> = (0..split.len().min(FEW)).collect();
    let images = planar(split, &few, &a.model.preprocess);
    let both = [a.look_into(&model, &maps)?, b.look_into(&other, &maps)?];
    Ok(Some(noise(&maps, &images, a.model.engine.shapes().input, both)?))
}
