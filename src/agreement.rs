//! How far two forms of one network agree on the same pictures: classes, figures, logits, maps, layer by layer.
//!
//! A and B may be a run, a bundle, an ONNX file, or one of the last two on stock tract. Each side's probabilities are at
//! its own temperature, a bundle's or one fitted on validation. Differences carry 95 % intervals of the pairs.

use crate::failure::{Failure, Result};
use crate::model::Model;
use excon_convert::compare::{Difference, LayerError, Side as Logits, compare, layer_errors};
use excon_convert::fold::Folded;
use excon_convert::onnx;
use excon_convert::weights::Weights;
use excon_edge::bundle::Bundle;
use excon_edge::engine::tract::TractEngine;
use excon_edge::engine::{self, Engine, NO_MAP};
use excon_edge::probability::{Metrics, Scaling, argmax};
use excon_edge::saliency::class_activation_map;
use excon_train::checkpoint::Run;
use excon_train::config::Device;
use excon_train::dataset::{Dataset, Split};
use excon_train::evaluate::planar;
use serde::Serialize;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

/// Schema of [`Agreement`].
pub const SCHEMA: &str = "excon.compare/1";
/// Pictures per call of an engine.
const BATCH: usize = 64;
/// Pictures behind the layers' noise, and behind the time of one.
const FEW: usize = 32;
/// Before a path: run the file on stock tract.
const TRACT: &str = "tract:";

/// One of the two.
pub struct Form {
    /// As it was given.
    pub given: String,
    /// Its network.
    pub model: Model,
    /// The file's ONNX bytes, where it is a file.
    onnx: Option<Vec<u8>>,
    /// The run, where it is one.
    run: Option<Run>,
}

/// Opens both; an ONNX file alone takes classes and preprocessing from the other.
pub fn open(a: &str, b: &str) -> Result<[Form; 2]> {
    let is_onnx = |given: &str| given.ends_with(".onnx");
    match (is_onnx(a), is_onnx(b)) {
        (true, true) => Err(Failure::usage(
            "an ONNX file alone says neither classes nor preprocessing; give a run or a bundle as one of the two",
        )),
        (true, false) => {
            let second = Form::open(b, None)?;
            Ok([Form::open(a, Some(&second.model))?, second])
        }
        (false, _) => {
            let first = Form::open(a, None)?;
            let second = Form::open(b, is_onnx(b).then_some(&first.model))?;
            Ok([first, second])
        }
    }
}

impl Form {
    fn open(given: &str, like: Option<&Model>) -> Result<Self> {
        let (tract, path) = match given.strip_prefix(TRACT) {
            Some(path) => (true, Path::new(path)),
            None => (false, Path::new(given)),
        };
        let given = given.to_string();
        if path.join("run.json").is_file() {
            if tract {
                return Err(Failure::usage(format!("{TRACT} runs a bundle or an ONNX file; {given} is a run")));
            }
            let run = Run::open(path)?;
            return Ok(Self { given, model: Model::from_run(&run, Device::Cpu)?, onnx: None, run: Some(run) });
        }
        let (mut model, bytes) = match like {
            Some(like) => {
                let bytes = std::fs::read(path)
                    .map_err(|e| Failure::input(format!("{} cannot be read: {e}", path.display())))?;
                let engine: Arc<dyn Engine> = engine::open(&bytes, &given)?.into();
                (like.on(engine), bytes)
            }
            None => {
                let bundle = Bundle::open(path)?;
                (Model::from_bundle(&bundle, path)?, bundle.model.clone())
            }
        };
        if tract {
            // A bundle's temperature was fitted on another engine.
            model = model.on(Arc::new(TractEngine::from_onnx(&bytes, &given)?));
        }
        Ok(Self { given, model, onnx: Some(bytes), run: None })
    }
}

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
    /// The same as `features_db` after each layer, where A is a run and B a quantized form of it.
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
        [a, b]: &[Form; 2],
        data: &Dataset,
        (name, split): (&str, &Split),
        at: &mut dyn FnMut(usize),
    ) -> Result<Self> {
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
        let alike = shapes.features == others.features;
        for indices in (0..split.len()).collect::<Vec<_>>().chunks(BATCH) {
            let run = |model: &Model| model.engine.run(&planar(split, indices, &model.preprocess));
            let (x, y) = (run(&a.model)?, run(&b.model)?);
            logits.add(&x.logits, &y.logits);
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
        let scalings = [a.model.scaling(data)?.0, b.model.scaling(data)?.0];
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
            layers: layers(a, b, split)?,
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

/// Noise after each layer, where A is a run and B has its maps by the same names.
fn layers(a: &Form, b: &Form, split: &Split) -> Result<Option<Vec<LayerError>>> {
    let (Some(run), Some(bytes)) = (&a.run, &b.onnx) else { return Ok(None) };
    let weights = Weights::read(&run.path.join("model.safetensors"))?;
    let folded = Folded::new(&run.manifest.graph, &weights, run.manifest.preprocess.size)?;
    let model = onnx::decode(bytes)?;
    let few: Vec<usize> = (0..split.len().min(FEW)).collect();
    // A file of other layers has no maps of these names; then there is nothing to say layer by layer.
    Ok(layer_errors(&folded, &model, &planar(split, &few, &a.model.preprocess)).ok())
}
