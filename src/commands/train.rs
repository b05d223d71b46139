//! `excon train`: a network from photographs, written as a run folder.

use crate::failure::Result;
use crate::settings::Flags;
use crate::terminal::{self, Format, Progress, duration, percent};
use clap::Args;
use excon_train::config::TrainConfig;
use excon_train::dataset::{self, Dataset, OpenOptions};
use excon_train::trainer::{self, EpochRecord, Observer, StepRecord};
use serde_json::json;
use std::path::PathBuf;

/// Trains a network and writes a run folder
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  excon train --data trashnet --out runs/trashnet
  excon train --data PHOTOS --recipe excon --network resnet20 --epochs 60 --out runs/mine
  excon train --data cifar-100-binary.tar.gz --mode paper --network resnet18 --out runs/cifar100
  excon train --config runs/mine.toml --seed 2 --out runs/mine-2

The run folder holds run.json (settings, network, data digest), model.safetensors and log.jsonl.
Settings: file < EXCON_* environment < flag.")]
pub struct Train {
    #[command(flatten)]
    flags: Flags,
    /// Run folder to write
    #[arg(long, value_name = "RUN", env = "EXCON_OUT", hide_env_values = true)]
    out: PathBuf,
}

impl Train {
    /// Trains.
    pub fn run(&self, format: Format) -> Result<()> {
        let config = self.flags.resolve()?;
        let data = open(&config)?;
        let mut progress = Training::start(&config);
        let trained = trainer::train(&config, &data, Some(&self.out), &mut progress)?;
        let m = &trained.manifest;
        progress.finish(&format!("{}, validation accuracy {}", config.title(), percent(m.validation_accuracy)));
        if format == Format::Json {
            return terminal::json(&json!({ "schema": "excon.training/1", "run": self.out, "recipe": config.title(),
                "network": config.network, "data": m.data, "data_digest": m.data_digest, "pictures": data.train.len(),
                "seed": m.seed, "epoch": m.epoch, "epochs": trained.epochs,
                "validation_accuracy": m.validation_accuracy, "validation_nll": m.validation_nll, "seconds": m.seconds }));
        }
        terminal::rows(&[
            ("recipe", config.title()),
            ("network", config.network.clone()),
            ("data", format!("{}, {} pictures, {} classes", m.data, data.train.len(), m.labels.len())),
            ("kept", format!("epoch {} of {}", m.epoch, config.epochs)),
            ("validation", format!("accuracy {}, NLL {:.3}", percent(m.validation_accuracy), m.validation_nll)),
            ("time", duration(m.seconds)),
            ("run", self.out.display().to_string()),
        ])?;
        let (run, data) = (self.out.display(), &config.data);
        terminal::next(&[
            format!("excon evaluate {run} --data {data}"),
            format!("excon convert {run} --data {data} --target cpu --out {run}.excon"),
        ])
    }
}

/// The data set of a configuration, with training pictures.
pub fn open(config: &TrainConfig) -> Result<Dataset> {
    let TrainConfig { image_size, seed, validation, classes, .. } = *config;
    let data = dataset::open(&config.data, &OpenOptions { image_size, seed, validation, classes })?;
    data.require_training()?;
    Ok(data)
}

/// Training as a progress bar, one unit a step.
pub struct Training {
    progress: Progress,
    epochs: usize,
    last: String,
}

impl Training {
    /// Starts the bar.
    pub fn start(config: &TrainConfig) -> Self {
        Self { progress: Progress::start("train", 0), epochs: config.epochs, last: "first epoch".into() }
    }

    /// Ends it with one line.
    pub fn finish(self, detail: &str) {
        self.progress.finish(detail);
    }
}

impl Observer for Training {
    fn step(&mut self, record: &StepRecord) {
        if record.step == 1 {
            self.progress.units((self.epochs * record.steps) as u64);
            self.progress.say(&format!("epoch {}/{}, {}", record.epoch, self.epochs, self.last), false);
        }
        self.progress.at(((record.epoch - 1) * record.steps + record.step) as u64);
    }

    fn epoch(&mut self, record: &EpochRecord) {
        self.last = format!("loss {:.3}, validation {}", record.loss, percent(record.validation_accuracy));
        self.progress.say(&format!("epoch {}/{}, {}", record.epoch, self.epochs, self.last), true);
    }

    fn refitting(&mut self) {
        self.progress.say("refitting the linear head on frozen features", true);
    }
}
