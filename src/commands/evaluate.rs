//! `excon evaluate`: what a run or a bundle is worth on a data set.

use super::multi_label;
use super::robustness::{self, with_interval};
use crate::failure::{Failure, Result};
use crate::terminal::{self, Format, Progress, duration, percent};
use clap::Args;
use excon_edge::bundle::Bundle;
use excon_edge::engine::Engine;
use excon_edge::image::Preprocess;
use excon_edge::probability::{Metrics, fit_temperature, softmax_rows};
use excon_edge::saliency::LinearHead;
use excon_train::checkpoint::Run;
use excon_train::config::RecipeName;
use excon_train::dataset::{self, Dataset, OpenOptions, Split, split_validation};
use excon_train::evaluate::{self, Evaluation, NetworkEngine};
use excon_train::network::Network;
use serde_json::json;
use std::path::{Path, PathBuf};

/// Measures accuracy, calibration and explanations on a data set
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  excon evaluate runs/trashnet --data trashnet
  excon evaluate runs/demo/trashnet.excon --data PHOTOS --split validation

  excon evaluate runs/trashnet --data trashnet --attacks --corruptions --limit 200
  excon evaluate runs/leoclr --data trashnet --probe

A bundle brings its temperature. For a run it is fitted on one half of the validation pictures. Intervals are 95 %
bootstrap intervals. Corruptions are regenerated from the pictures, not read from the published files.")]
pub struct Evaluate {
    /// A run folder or a bundle
    #[arg(value_name = "RUN|FILE.excon")]
    model: PathBuf,
    /// Data set, as for `excon train`
    #[arg(long, value_name = "PATH")]
    data: String,
    /// Which pictures
    #[arg(long, value_enum, default_value = "test")]
    split: Which,
    /// Measure also under FGSM (1, 2, 4, 8 /255) and PGD-20 (8/255); needs a run
    #[arg(long)]
    attacks: bool,
    /// Measure also on every corruption at five severities
    #[arg(long)]
    corruptions: bool,
    /// Measure the features too: a linear classifier fitted on the training pictures, and 20 nearest neighbours
    #[arg(long)]
    probe: bool,
    /// Measure on so many pictures, spread evenly over the split
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    limit: Option<u32>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Which {
    Test,
    Validation,
    Train,
}

/// A network ready to be measured.
pub struct Model {
    /// Executes it.
    pub engine: Box<dyn Engine>,
    /// Its linear head.
    pub head: LinearHead,
    /// Class names.
    pub labels: Vec<String>,
    /// From picture to input.
    pub preprocess: Preprocess,
    /// Temperature it brings; none for a run.
    pub temperature: Option<f64>,
    /// Seed and validation share of the splits it was made with.
    pub seed: u64,
    validation: f64,
    classes: Option<usize>,
    multi_label: bool,
}

impl Model {
    /// Opens a bundle (a file) or a run (a folder with `run.json`).
    pub fn open(path: &Path) -> Result<Self> {
        if path.is_dir() && path.join("run.json").is_file() {
            return Self::from_run(&Run::open(path)?);
        }
        if path.is_dir() && !path.join("manifest.json").is_file() {
            return Err(Failure::input(format!(
                "{} is neither a run folder (no run.json) nor a bundle. Give what `excon train --out` or \
                 `excon convert --out` wrote",
                path.display()
            )));
        }
        let bundle = Bundle::open(path)?;
        let m = &bundle.manifest;
        Ok(Self {
            engine: excon_edge::engine::open(&bundle.model, &path.display().to_string())?,
            head: bundle.head.clone(),
            labels: m.labels.clone(),
            preprocess: m.preprocess.clone(),
            temperature: Some(m.calibration.temperature),
            seed: m.provenance.seed,
            validation: OpenOptions::default().validation,
            classes: None,
            multi_label: false,
        })
    }

    /// The trained network of a run.
    pub fn from_run(run: &Run) -> Result<Self> {
        let m = &run.manifest;
        let engine = NetworkEngine::new(run.network()?, m.preprocess.size)?;
        Ok(Self {
            head: head(engine.network())?,
            engine: Box::new(engine),
            labels: m.labels.clone(),
            preprocess: m.preprocess.clone(),
            temperature: None,
            seed: m.seed,
            validation: m.config.validation,
            classes: m.config.classes,
            multi_label: m.config.recipe == RecipeName::MultiLabel,
        })
    }

    /// Opens a data set with the splits and the picture size the model was made with.
    pub fn data(&self, source: &str) -> Result<Dataset> {
        let image_size = Some(self.preprocess.size);
        let (seed, validation, classes) = (self.seed, self.validation, self.classes);
        let data = dataset::open(source, &OpenOptions { image_size, seed, validation, classes })?;
        if data.is_multi_label() != self.multi_label {
            let (it, model) = if self.multi_label { ("one class", "sets") } else { ("sets", "one class") };
            return Err(Failure::input(format!(
                "pictures of data set {source} have {it} of labels, the model knows {model}. Give data as it was trained on"
            )));
        }
        if data.labels != self.labels {
            let (ours, theirs) = (self.labels.join(", "), data.labels.join(", "));
            return Err(Failure::input(format!(
                "data set {source} has the classes {theirs}, the model knows {ours}. Give data with the same classes"
            )));
        }
        Ok(data)
    }

    /// The temperature it brings, or one fitted on the fit half of validation (1 where there is none); with the
    /// number of pictures behind it.
    pub fn temperature(&self, data: &Dataset) -> Result<(f64, usize)> {
        if let Some(temperature) = self.temperature {
            return Ok((temperature, 0));
        }
        let (fit, _) = split_validation(&data.validation, self.seed);
        if fit.len() < 10 {
            return Ok((1.0, 0));
        }
        let fit = data.validation.subset(&fit);
        let logits = evaluate::logits(self.engine.as_ref(), &fit, &self.preprocess)?;
        Ok((fit_temperature(&logits, self.labels.len(), &fit.labels)?, fit.len()))
    }

    /// Measures a split.
    pub fn evaluate(&self, split: &Split, temperature: f64) -> Result<Evaluation> {
        Ok(evaluate::evaluate(self.engine.as_ref(), &self.head, split, &self.preprocess, temperature)?)
    }
}

/// The linear head of a trained network.
fn head(network: &Network) -> Result<LinearHead> {
    let graph = network.graph();
    let name = &graph.nodes[graph.logits].name;
    let state = network.state()?;
    let values = |part: &str| -> Result<Vec<f32>> {
        let tensor = state.get(&format!("{name}.{part}"));
        let tensor = tensor.ok_or_else(|| Failure::input(format!("network node {name} has no {part}. Train again")))?;
        Ok(tensor.flatten_all().and_then(|t| t.to_vec1()).map_err(excon_train::Error::from)?)
    };
    let (classes, channels) = (graph.channels(graph.logits), graph.channels(graph.pooled));
    Ok(LinearHead::new(classes, channels, values("weight")?, values("bias")?)?)
}

impl Evaluate {
    /// Measures.
    pub fn run(&self, format: Format) -> Result<()> {
        if self.attacks && !self.model.is_dir() {
            return Err(Failure::usage(
                "--attacks needs gradients, which a bundle has not. Give the run it was made from",
            ));
        }
        let model = Model::open(&self.model)?;
        let data = model.data(&self.data)?;
        let split = match self.split {
            Which::Test => &data.test,
            Which::Validation => &data.validation,
            Which::Train => &data.train,
        };
        let split = &self.limited(split);
        let name = format!("{:?}", self.split).to_lowercase();
        if data.is_multi_label() {
            if self.attacks || self.corruptions || self.probe {
                return Err(Failure::usage(
                    "--attacks, --corruptions and --probe are defined for one class per picture; this run has sets of labels",
                ));
            }
            return multi_label::evaluate(&self.model, &model, &data, split, &name, format);
        }
        let progress = Progress::start("evaluate", 1);
        progress.say(&format!("{} pictures", split.len()), true);
        let (temperature, fitted_on) = model.temperature(&data)?;
        let e = model.evaluate(split, temperature)?;
        let plain =
            Metrics::measure(&softmax_rows(&e.logits, model.labels.len(), 1.0), model.labels.len(), &split.labels)?;
        progress.finish(&format!("{} pictures with {}", split.len(), e.engine));
        let (engine, preprocess, seed) = (model.engine.as_ref(), &model.preprocess, model.seed);
        let attacks = match self.attacks {
            true => {
                Some(robustness::attack(&Run::open(&self.model)?.network()?, split, preprocess, temperature, seed)?)
            }
            false => None,
        };
        let corruptions = match self.corruptions {
            true => Some(robustness::corrupt(engine, split, preprocess, temperature, seed)?),
            false => None,
        };
        let probe = match self.probe {
            true => Some(evaluate::probe(engine, &data, split, preprocess, seed)?),
            false => None,
        };
        let m = &e.metrics;
        if format == Format::Json {
            return terminal::json(&json!({ "schema": "excon.evaluation/1", "model": self.model, "data": data.name,
                "data_digest": data.digest, "split": name, "evaluation": e,
                "temperature_fitted_on": fitted_on, "unscaled": plain, "attacks": attacks, "corruptions": corruptions,
                "probe": probe }));
        }
        let source =
            if fitted_on > 0 { format!("fitted on {fitted_on} validation pictures") } else { "the model's own".into() };
        terminal::rows(&[
            ("pictures", format!("{} ({name} of {})", m.count, data.name)),
            ("accuracy", with_interval(m.accuracy, e.intervals.accuracy)),
            ("macro accuracy", percent(m.macro_accuracy)),
            (
                "ECE",
                format!("{}, 15 bins; {} before scaling", with_interval(m.ece, e.intervals.ece), percent(plain.ece)),
            ),
            ("NLL", format!("{:.3}  ({:.3} before scaling)", m.nll, plain.nll)),
            ("Brier", format!("{:.3}", m.brier)),
            (
                "explanation",
                format!(
                    "drop {}, increase {}  (top 15 % kept)",
                    percent(e.faithfulness.drop),
                    percent(e.faithfulness.increase)
                ),
            ),
            ("completeness", format!("{:.1e}  (allowed 1e-4)", e.completeness_residual)),
            ("temperature", format!("{temperature:.3}, {source}")),
            ("time", duration(e.seconds)),
        ])?;
        if let Some(p) = &probe {
            terminal::heading(&format!("Features, fitted on {} training pictures", p.train))?;
            terminal::rows(&[
                ("linear probe", format!("{}  (L2 {})", percent(p.linear), p.l2)),
                ("neighbours", format!("{}  ({} vote)", percent(p.neighbours), p.voters)),
            ])?;
        }
        attacks.as_deref().map_or(Ok(()), robustness::print_attacks)?;
        corruptions.as_ref().map_or(Ok(()), robustness::print_corruptions)?;
        let model = self.model.display();
        terminal::next(&[if self.model.is_dir() {
            format!("excon convert {model} --data {} --target cpu --out {model}.excon", self.data)
        } else {
            format!("excon-edge predict {model} IMAGE --explain maps")
        }])
    }

    /// As many pictures as are asked for, spread evenly.
    fn limited(&self, split: &Split) -> Split {
        match self.limit {
            Some(limit) if (limit as usize) < split.len() => {
                let limit = limit as usize;
                split.subset(&(0..limit).map(|i| i * split.len() / limit).collect::<Vec<_>>())
            }
            _ => split.clone(),
        }
    }
}
