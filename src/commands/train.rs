//! `excon train`: a network from photographs, written as a run folder.

use crate::failure::{Failure, INTERRUPTED, Result};
use crate::settings::Flags;
use crate::terminal::{self, Format, duration, percent};
use crate::training::{Training, open, write_page};
use clap::Args;
use excon_train::Error;
use excon_train::checkpoint::RunWriter;
use excon_train::config::{RecipeName, TrainConfig};
use excon_train::trainer::{self, Start};
use serde_json::json;
use std::path::PathBuf;

/// Trains a network and writes a run folder
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  excon train --data trashnet --out runs/trashnet
  excon train --data PHOTOS --recipe excon --network resnet20 --epochs 60 --out runs/mine
  excon train --data cifar-100-binary.tar.gz --mode paper --network resnet18 --out runs/cifar100
  excon train --data trashnet --recipe leoclr --set queue.length=2048 --out runs/leoclr
  excon train --config runs/mine.toml --seed 2 --out runs/mine-2
  excon train --resume --out runs/mine

The run folder holds run.json (settings, network, data digest), model.safetensors (the best epoch on validation),
report.html, log.jsonl and steps.jsonl (a line an epoch, a line a step), TensorBoard event files (tensorboard --logdir
runs), and while it is unfinished last.safetensors, from which --resume goes on bit for bit. Ctrl-C finishes the step and
stops; an epoch that was not finished is repeated. Ctrl-C twice stops at once.
Settings: file < EXCON_* environment < flag.")]
pub struct Train {
    #[command(flatten)]
    flags: Flags,
    /// Run folder to write
    #[arg(long, value_name = "RUN", env = "EXCON_OUT", hide_env_values = true)]
    out: PathBuf,
    /// Go on with the run in the folder after its last finished epoch, with its settings and the same pictures
    #[arg(long, conflicts_with = "overwrite")]
    resume: bool,
    /// Train anew where the folder holds a run already
    #[arg(long)]
    overwrite: bool,
}

impl Train {
    /// Trains.
    pub fn run(&self, format: Format) -> Result<()> {
        let start = match (self.resume, self.overwrite) {
            (true, _) => Start::Resume,
            (_, true) => Start::Overwrite,
            _ => Start::New,
        };
        if start == Start::New {
            RunWriter::require_vacant(&self.out)?;
        }
        let run = if self.resume { Some(trainer::settings_of(&self.out)?) } else { None };
        let config = self.flags.resolve(run.as_ref())?;
        let data = open(&config)?;
        let mut progress = Training::start(&config).interruptible()?;
        let trained = trainer::train_in(&config, &data, &self.out, start, &mut progress);
        let trained = trained.map_err(|e| self.stopped(e, &config))?;
        let m = &trained.manifest;
        let kept = trained.epochs.iter().rfind(|record| record.best);
        let map = kept.and_then(|record| record.validation_map);
        let said = match map {
            Some(map) => format!("mAP {}, whole sets {}", percent(map), percent(m.validation_accuracy)),
            None => format!("accuracy {}", percent(m.validation_accuracy)),
        };
        progress.finish(&format!("{}, validation {said}", config.title()));
        let (run, source) = (self.out.display(), &config.data);
        let probe = if config.recipe == RecipeName::Leoclr { " --probe" } else { "" };
        let mut next = vec![format!("excon evaluate {run} --data {source}{probe}")];
        if map.is_none() {
            next.push(format!("excon convert {run} --data {source} --target cpu --out {run}.excon"));
        }
        write_page(&self.out, &trained, &data, &next)?;
        if format == Format::Json {
            return terminal::json(&json!({ "schema": "excon.training/1", "run": self.out, "recipe": config.title(),
                "network": config.network, "data": m.data, "data_digest": m.data_digest, "pictures": data.train.len(),
                "seed": m.seed, "epoch": m.epoch, "epochs": trained.epochs,
                "validation_accuracy": m.validation_accuracy, "validation_nll": m.validation_nll,
                "validation_map": map, "seconds": m.seconds }));
        }
        terminal::rows(&[
            ("recipe", config.title()),
            ("network", config.network.clone()),
            ("data", format!("{}, {} pictures, {} classes", m.data, data.train.len(), m.labels.len())),
            ("kept", format!("epoch {} of {}", m.epoch, config.epochs)),
            ("validation", format!("{said}, NLL {:.3}", m.validation_nll)),
            ("time", duration(m.seconds)),
            ("report", self.out.join("report.html").display().to_string()),
        ])?;
        terminal::next(&next)
    }
}

impl Train {
    /// An interruption in the words of this command, with what to type next.
    fn stopped(&self, error: Error, config: &TrainConfig) -> Failure {
        let Error::Interrupted { epoch, .. } = error else { return error.into() };
        let again = if epoch > config.epochs { String::new() } else { format!("; epoch {epoch} begins anew") };
        let message = format!(
            "Stopped. {} of {} epochs are saved{again}. Go on with\n  excon train --resume --out {}",
            epoch - 1,
            config.epochs,
            self.out.display()
        );
        Failure { message, code: INTERRUPTED }
    }
}
