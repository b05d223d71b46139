//! A run or a bundle, ready to be measured: its engine, head, classes, preprocessing and how its data were split.

use crate::failure::{Failure, Result};
use excon_edge::bundle::Bundle;
use excon_edge::engine::Engine;
use excon_edge::image::Preprocess;
use excon_edge::probability::{FEWEST, Scaling, fit_temperature};
use excon_edge::saliency::LinearHead;
use excon_train::checkpoint::Run;
use excon_train::config::{Device, RecipeName};
use excon_train::dataset::{self, Dataset, OpenOptions, Split, split_validation};
use excon_train::evaluate::{self, Evaluation, WhiteBox};
use excon_train::explain::network_head;
use std::path::Path;
use std::sync::Arc;

/// A device by its name, as the command line gives it.
pub fn device(name: &str) -> std::result::Result<Device, String> {
    match name {
        "cpu" => Ok(Device::Cpu),
        "cuda" => Ok(Device::Cuda),
        _ => Err("give cpu or cuda".into()),
    }
}

/// A network ready to be measured.
#[derive(Clone)]
pub struct Model {
    /// Executes it.
    pub engine: Arc<dyn Engine>,
    /// The same, where it is a run's network.
    pub white_box: Option<Arc<dyn WhiteBox>>,
    /// Its linear head.
    pub head: LinearHead,
    /// Class names.
    pub labels: Vec<String>,
    /// From picture to input.
    pub preprocess: Preprocess,
    /// Calibration it brings; none for a run.
    pub scaling: Option<Scaling>,
    /// SHA-256 of a run's weights or a bundle's manifest.
    pub digest: String,
    /// Seed and validation share of the splits it was made with.
    pub seed: u64,
    validation: f64,
    classes: Option<usize>,
    multi_label: bool,
}

impl Model {
    /// Opens a bundle (a file) or a run (a folder with `run.json`) for a device.
    pub fn open(path: &Path, device: Device) -> Result<Self> {
        if path.is_dir() && path.join("run.json").is_file() {
            return Self::from_run(&Run::open(path)?, device);
        }
        if path.is_dir() && !path.join("manifest.json").is_file() {
            return Err(Failure::input(format!(
                "{} is neither a run folder (no run.json) nor a bundle. Give what `excon train --out` or \
                 `excon convert --out` wrote",
                path.display()
            )));
        }
        if device != Device::Cpu {
            return Err(Failure::usage("a bundle is measured by the engine that runs it; --device is for runs"));
        }
        Self::from_bundle(&Bundle::open(path)?, path)
    }

    /// The network of a bundle that lies at `path`.
    pub fn from_bundle(bundle: &Bundle, path: &Path) -> Result<Self> {
        let m = &bundle.manifest;
        Ok(Self {
            engine: excon_edge::engine::open(&bundle.model, &path.display().to_string())?.into(),
            white_box: None,
            head: bundle.head.clone(),
            labels: m.labels.clone(),
            preprocess: m.preprocess.clone(),
            scaling: Some(m.calibration.scaling()),
            digest: bundle.digest.clone(),
            seed: m.provenance.seed,
            validation: OpenOptions::default().validation,
            classes: None,
            multi_label: false,
        })
    }

    /// The trained network of a run.
    pub fn from_run(run: &Run, device: Device) -> Result<Self> {
        let m = &run.manifest;
        let network = run.network()?;
        let head = network_head(&network)?;
        let network = evaluate::open(network, m.preprocess.size, device)?;
        Ok(Self {
            head,
            engine: network.clone(),
            white_box: Some(network),
            labels: m.labels.clone(),
            preprocess: m.preprocess.clone(),
            scaling: None,
            digest: m.weights_sha256.clone(),
            seed: m.seed,
            validation: m.config.validation,
            classes: m.config.classes,
            multi_label: m.config.recipe == RecipeName::MultiLabel,
        })
    }

    /// The same classes and pictures on another engine; its calibration is not known.
    pub fn on(&self, engine: Arc<dyn Engine>) -> Self {
        Self { engine, white_box: None, scaling: None, ..self.clone() }
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

    /// The calibration it brings, or a temperature fitted on the fit half of validation (1 where there is none); with the
    /// number of pictures behind it.
    pub fn scaling(&self, data: &Dataset) -> Result<(Scaling, usize)> {
        if let Some(scaling) = &self.scaling {
            return Ok((scaling.clone(), 0));
        }
        let (fit, _) = split_validation(&data.validation, self.seed);
        if fit.len() < FEWEST {
            return Ok((Scaling::default(), 0));
        }
        let fit = data.validation.subset(&fit);
        let logits = evaluate::logits(self.engine.as_ref(), &fit, &self.preprocess)?;
        Ok((fit_temperature(&logits, self.labels.len(), &fit.labels)?.into(), fit.len()))
    }

    /// Measures a split.
    pub fn evaluate(&self, split: &Split, scaling: &Scaling) -> Result<Evaluation> {
        Ok(evaluate::evaluate(self.engine.as_ref(), &self.head, split, &self.preprocess, scaling)?)
    }
}
