//! The whole conversion of a folded network, in the order things happen: ranges → int8 → temperature of both → compare →
//! layers that stay float, where int8 costs too much → choose → fit → seal.
//!
//! Ranges and the way to quantize come from train, constants from validation (fit and rank half, disjoint). The budget is
//! measured on the rank half, which no temperature and no choice of layers has seen. Test is only searched for pictures of the other splits.

use crate::choose::{note_of_choice, reason_for_float, wants_mixed};
use crate::compare::{self, Allowed, Comparison, LayerError, Side};
use crate::mixed::{Found, MixedReport, search};
use crate::report::{Conversion, ConversionReport, RangeReport, SCHEMA};
use crate::select::{Selection, Ways};
use crate::source::Source;
use crate::target::{Choice, Target};
use crate::timing::Timing;
use crate::{Error, Result, export, leakage, looks, onnx, seal};
use excon_edge::bundle::{Bundle, Precision};
use excon_edge::engine::{self, Engine};
use excon_edge::file::replace;
use excon_edge::fit::{self, FitOptions, FitReport, Labelled, Pictures};
use excon_edge::predictor::Parts;
use excon_edge::probability::{Scaling, fit_temperature};
use excon_train::config::RecipeName;
use excon_train::dataset::{Dataset, Split, split_validation};
use excon_train::evaluate::planar;
use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use serde::Serialize;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

/// Pictures the per-layer errors are measured on.
const LAYER_PICTURES: usize = 16;

/// How to convert.
#[derive(Debug, Clone, PartialEq)]
pub struct Options {
    /// Result: `FILE.excon` for a bundle, `FILE.onnx` for the model alone.
    pub out: PathBuf,
    /// Int8, mixed, float, or what serves the target.
    pub precision: Choice,
    /// Model name; the data set's by default.
    pub name: Option<String>,
    /// Version counter.
    pub version: u64,
    /// Training pictures that ranges are taken from.
    pub calibration_pictures: usize,
    /// Other training pictures that choose the way to quantize.
    pub held_back_pictures: usize,
    /// Most training pictures behind the class means.
    pub class_mean_pictures: usize,
    /// Budget.
    pub allowed: Allowed,
    /// Constants.
    pub fit: FitOptions,
    /// Whether the validation pictures travel in the bundle, for a re-fit on another engine. For TensorRT they always do.
    pub ship_calibration: bool,
}

impl Options {
    /// Defaults for a result at `out`.
    pub fn new(out: impl Into<PathBuf>) -> Self {
        Self {
            out: out.into(),
            precision: Choice::Auto,
            name: None,
            version: 1,
            calibration_pictures: 256,
            held_back_pictures: 256,
            class_mean_pictures: 2_000,
            allowed: Allowed::default(),
            fit: FitOptions::default(),
            ship_calibration: false,
        }
    }

    fn form(&self) -> Result<Form> {
        let reason = match self.out.extension().and_then(|e| e.to_str()) {
            Some("excon") => return Ok(Form::Bundle),
            Some("onnx") => return Ok(Form::Model),
            _ => format!("{} must end in .excon or .onnx", self.out.display()),
        };
        Err(Error::Setting { name: "out".into(), reason })
    }
}

enum Form {
    Bundle,
    Model,
}

/// What is being done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Step {
    /// Ways to quantize are tried on this many pictures.
    Ways(usize),
    /// Float and int8 are compared on this many pictures.
    Compare(usize),
    /// Layers that stay float are looked for.
    Mixed,
    /// Constants are fitted on this many pictures.
    Fit(usize),
    /// The result is written.
    Write,
}

impl Step {
    /// A line for people.
    pub fn words(self) -> String {
        match self {
            Self::Ways(n) => format!("choosing the way to quantize on {n} other training pictures"),
            Self::Compare(n) => format!("comparing float and int8 on {n} validation pictures"),
            Self::Mixed => "int8 costs more than allowed: looking for the layers that have to stay float".into(),
            Self::Fit(n) => format!("fitting calibration, prediction sets and shift reference on {n} pictures"),
            Self::Write => "writing".into(),
        }
    }
}

/// Converts a trained network with the pictures it was trained on. `progress` hears every step as it begins.
///
/// # Errors
/// When data and network do not fit each other, there are too few pictures, or the result cannot be written; what stood at
/// `options.out` then stays.
pub fn convert(
    source: &Source,
    data: &Dataset,
    target: Target,
    options: &Options,
    progress: &mut dyn FnMut(Step),
) -> Result<Conversion> {
    let started = Instant::now();
    let form = options.form()?;
    let choice = target.choice(options.precision)?;
    let mut notes = check_data(source, data)?;
    let (fit_half, rank_half) = split_validation(&data.validation, source.seed);
    let (fit_half, rank_half) = (data.validation.subset(&fit_half), data.validation.subset(&rank_half));

    let network = &source.network;
    let float = onnx::encode(&export::float(network, &source.labels));
    let float_engine: Arc<dyn Engine> = Arc::from(engine::open(&float, "float.onnx")?);
    let mut written = Written { model: float.clone(), engine: float_engine.clone(), precision: Precision::Float };
    let (mut quantized, mut comparison, mut budget, mut mixed, mut timing) = (None, None, vec![], None, None);
    if choice != Choice::Float {
        let chosen = quantize(source, data, target, options, progress)?;
        let model = onnx::encode(&chosen.selection.model);
        let engine: Arc<dyn Engine> = Arc::from(engine::open(&model, "model.onnx")?);
        progress(Step::Compare(rank_half.len()));
        let (fit, rank) = (&fit_half, ("rank half of validation", &rank_half));
        let compared = compare_on(source, float_engine.as_ref(), engine.as_ref(), fit, rank)?;
        let lines = compare::budget(&compared, &options.allowed);
        let image = planar(&data.validation, &[0], &source.preprocess);
        let mut timed = Timing::measure(float_engine.as_ref(), engine.as_ref(), None, &image)?;
        let mut candidate = (Written { model, engine, precision: Precision::Int8 }, lines);
        if wants_mixed(choice, &timed, &candidate.1) {
            progress(Step::Mixed);
            let found = search(&chosen.ways, &chosen.selection, |model| {
                let engine = engine::open(&onnx::encode(model), "model.onnx")?;
                let half = ("fit half of validation", fit);
                let compared = compare_on(source, float_engine.as_ref(), engine.as_ref(), fit, half)?;
                Ok(compare::budget(&compared, &options.allowed).iter().all(|line| line.item.met))
            })?;
            let model = onnx::encode(&found.selection.model);
            let engine: Arc<dyn Engine> = Arc::from(engine::open(&model, "model.onnx")?);
            let compared = compare_on(source, float_engine.as_ref(), engine.as_ref(), fit, rank)?;
            let lines = compare::budget(&compared, &options.allowed);
            let int8 = candidate.0.engine.as_ref();
            timed = Timing::measure(float_engine.as_ref(), int8, Some(engine.as_ref()), &image)?;
            let Found { selection: Selection { best: range, .. }, float_layers, pictures } = found;
            mixed = Some(MixedReport { float_layers, pictures, range, comparison: compared, budget: lines.clone() });
            candidate = (Written { model, engine, precision: Precision::Mixed }, lines);
        }
        let reason = reason_for_float(choice, &timed, candidate.0.precision, &candidate.1);
        notes.extend(note_of_choice(choice, reason.is_some(), mixed.as_ref()));
        match reason {
            Some(reason) => notes.push(reason),
            None => (written, budget) = candidate,
        }
        (quantized, comparison, timing) = (Some(chosen), Some(compared), Some(timed));
    }
    notes.extend(written.engine.note().map(String::from));
    let Written { model, engine, precision } = written;

    let (bundle, fit) = match form {
        Form::Model => {
            progress(Step::Write);
            replace(&options.out, &model)?;
            (None, None)
        }
        Form::Bundle => {
            let train = spread(&data.train, options.class_mean_pictures);
            progress(Step::Fit(train.len() + data.validation.len()));
            let parts = Parts {
                engine,
                labels: source.labels.clone(),
                preprocess: source.preprocess.clone(),
                head: network.head(),
                projection: source.projection.clone(),
                scaling: Scaling::default(),
                conformal: None,
                abstention: None,
                scores: None,
            };
            let pictures =
                Pictures { train: Some(labelled(&train)), fit: labelled(&fit_half), rank: labelled(&rank_half) };
            let mut fitted = fit::fit(parts, pictures, &options.fit)?;
            match looks::learn(&fitted.predictor, &fit_half) {
                Ok(looks) => fitted.scores = fitted.scores.with_looks(looks),
                Err(error) => notes.push(format!("the alarm will not say what a shift looks like: {error}")),
            }
            progress(Step::Write);
            let about = seal::About {
                name: options.name.as_deref().unwrap_or(&data.name),
                version: options.version,
                target: target.name(),
                precision,
                budget: budget.iter().map(|line| line.item.clone()).collect(),
            };
            let ship = options.ship_calibration || target.is_built_on_board();
            let shipped = ship.then_some((&fit_half, &rank_half));
            let sealed = seal::seal(&options.out, source, &about, model.clone(), &fitted, &data.validation, shipped)?;
            (Some(sealed), Some(fitted.report))
        }
    };
    notes.extend(fit.iter().flat_map(|f: &FitReport| f.notes.clone()));
    let size = |path: &Path| std::fs::metadata(path).map(|m| m.len()).unwrap_or_default();
    let report = ConversionReport {
        schema: SCHEMA.into(),
        path: options.out.clone(),
        bytes: size(&options.out),
        digest: bundle.as_ref().map(|b: &Bundle| b.digest.clone()),
        target,
        precision,
        network: network.name.clone(),
        float_bytes: float.len() as u64,
        model_bytes: model.len() as u64,
        layers: quantized.as_ref().map(|c| c.layers.clone()).unwrap_or_default(),
        range: quantized.map(|c| c.range),
        comparison,
        budget,
        mixed,
        timing,
        fit,
        notes,
        seconds: started.elapsed().as_secs_f64(),
    };
    Ok(Conversion { path: options.out.clone(), float, model, bundle, report })
}

/// The form that is written.
struct Written {
    model: Vec<u8>,
    engine: Arc<dyn Engine>,
    precision: Precision,
}

struct Chosen {
    ways: Ways,
    selection: Selection,
    range: RangeReport,
    layers: Vec<LayerError>,
}

fn quantize(
    source: &Source,
    data: &Dataset,
    target: Target,
    options: &Options,
    progress: &mut dyn FnMut(Step),
) -> Result<Chosen> {
    let mut order: Vec<usize> = (0..data.train.len()).collect();
    order.shuffle(&mut ChaCha8Rng::seed_from_u64(source.seed));
    let wanted = options.calibration_pictures.max(1) + options.held_back_pictures.max(1);
    // On a small set both parts shrink alike, and stay disjoint.
    let total = wanted.min(order.len());
    let calibration = (options.calibration_pictures.max(1) * total / wanted).max(1);
    if total < 2 {
        let reason = format!("{} training pictures; ranges need two at least", order.len());
        return Err(Error::Pictures { data: data.name.clone(), reason });
    }
    progress(Step::Ways(total - calibration));
    let (calibration, held_back) = order[..total].split_at(calibration);
    let images = planar(&data.train, held_back, &source.preprocess);
    let classes: Vec<usize> = held_back.iter().map(|&i| data.train.labels[i]).collect();
    let ranged = planar(&data.train, calibration, &source.preprocess);
    let ways = Ways::new(&source.network, target.codes(), &source.labels, &ranged, (images, classes))?;
    let selection = ways.select(&BTreeSet::new())?;
    let (few, _) = ways.sample(LAYER_PICTURES);
    Ok(Chosen {
        layers: compare::layer_errors(&selection.network, &selection.model, few)?,
        range: RangeReport {
            best: selection.best.clone(),
            pictures: calibration.len(),
            digest: leakage::digest(&data.train, calibration),
            trials: selection.trials.clone(),
        },
        ways,
        selection,
    })
}

/// Compares two engines on a named split, each at the temperature fitted for it on `fit`. Also for splits a conversion
/// does not see, such as test.
///
/// # Errors
/// When a split is empty or an engine fails.
pub fn compare_on(
    source: &Source,
    float: &dyn Engine,
    int8: &dyn Engine,
    fit: &Split,
    (name, split): (&str, &Split),
) -> Result<Comparison> {
    let classes = source.labels.len();
    let all = |engine: &dyn Engine, split: &Split| -> Result<Vec<f32>> {
        let mut logits = Vec::with_capacity(split.len() * classes);
        for chunk in (0..split.len()).collect::<Vec<_>>().chunks(64) {
            logits.extend(engine.run(&planar(split, chunk, &source.preprocess))?.logits);
        }
        Ok(logits)
    };
    // A temperature on both sides: of two richer calibrations one could not tell their difference from the engines'.
    let scaling = |engine: &dyn Engine| -> Result<Scaling> {
        Ok(fit_temperature(&all(engine, fit)?, classes, &fit.labels)?.into())
    };
    let (a, b) = (all(float, split)?, all(int8, split)?);
    let scalings = [scaling(float)?, scaling(int8)?];
    let float = Side { logits: &a, scaling: &scalings[0] };
    let int8 = Side { logits: &b, scaling: &scalings[1] };
    compare::compare(name, float, int8, classes, &split.labels, source.seed)
}

/// Whether the pictures can serve this network; notes where they are not the ones it was trained on.
fn check_data(source: &Source, data: &Dataset) -> Result<Vec<String>> {
    let fail = |reason: String| Err(Error::Pictures { data: data.name.clone(), reason });
    data.require_training()?;
    if data.is_multi_label() || source.recipe == RecipeName::MultiLabel.as_str() {
        return fail(
            "its pictures have sets of labels, and a bundle's probabilities, prediction sets and alarm are those of one \
             class per picture. Multi-label runs cannot be converted yet; `excon evaluate` measures them"
                .into(),
        );
    }
    if data.labels != source.labels {
        return fail(format!(
            "its classes ({}) are not those of the run ({}); give the data the run was trained on",
            data.labels.join(", "),
            source.labels.join(", ")
        ));
    }
    if data.train.size != source.preprocess.size {
        return fail(format!(
            "its pictures have side {} and the network takes {}; open it with `--image-size {}`",
            data.train.size, source.preprocess.size, source.preprocess.size
        ));
    }
    if data.validation.is_empty() {
        return fail("it has no validation pictures to fit constants on".into());
    }
    if source.network.input_shape() != [3, source.preprocess.size, source.preprocess.size] {
        return fail(format!(
            "the network takes {:?}, not the pictures that preprocessing makes",
            source.network.input_shape()
        ));
    }
    let same = data.digest == source.data_digest;
    let note = "the pictures are not the ones this run was trained on: validation may overlap with its training";
    let leaked = leakage::notes(data);
    Ok(source.notes.iter().cloned().chain((!same).then(|| note.to_string())).chain(leaked).collect())
}

fn labelled(split: &Split) -> Labelled<'_> {
    Labelled { size: split.size, rgb: &split.rgb, labels: &split.labels }
}

/// At most `limit` pictures, evenly spread, and at least one of every class that has one.
fn spread(split: &Split, limit: usize) -> Split {
    let n = split.len();
    if n <= limit {
        return split.clone();
    }
    let mut chosen = excon_train::evaluate::spread(n, limit);
    let mut seen = std::collections::BTreeSet::new();
    chosen.extend((0..n).filter(|&i| seen.insert(split.labels[i])));
    chosen.sort_unstable();
    chosen.dedup();
    split.subset(&chosen)
}
