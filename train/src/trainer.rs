//! The training loop: an epoch after the other, the best weights, the final head; what an epoch does is the session's matter.
//!
//! Nothing is printed; an [`Observer`] hears of every step and epoch. A run repeats exactly for equal configuration,
//! data, machine and thread count: all randomness is keyed by (seed, purpose, epoch, picture). So does one that was
//! killed and resumed: it begins again after its last finished epoch.

pub(crate) mod accelerator;
mod order;
mod session;

use crate::checkpoint::{self, LAST, Last, Run, RunManifest, RunWriter, State};
use crate::config::{Select, TrainConfig};
use crate::dataset::Dataset;
use crate::evaluate::refit;
use crate::log::RunLog;
use crate::network::Network;
use crate::recipe::Trains;
use crate::{Error, Result};
use serde::{Deserialize, Serialize};
use session::Session;
use std::path::Path;
use std::time::Instant;

/// What one epoch came to: a line of `log.jsonl`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EpochRecord {
    /// From 1.
    pub epoch: usize,
    /// Of so many.
    pub epochs: usize,
    /// Learning rate of the last step.
    pub learning_rate: f64,
    /// Mean loss of the encoder's steps.
    pub loss: f64,
    /// Its contrastive part.
    pub contrastive: Option<f64>,
    /// Cross entropy: of the encoder's steps, or of the classifier's own pass.
    pub cross_entropy: Option<f64>,
    /// Share of training views that the classifier got right.
    pub train_accuracy: Option<f64>,
    /// Share of masked pictures that pass the label-consistency test, where pictures were masked.
    pub passing: Option<f64>,
    /// Accuracy on the fit half of validation.
    pub validation_accuracy: f64,
    /// Negative log-likelihood on the fit half of validation, nats.
    pub validation_nll: f64,
    /// Mean average precision there, of sets of labels; the two above are then those of whole sets and single labels.
    pub validation_map: Option<f64>,
    /// Whether these are the best weights so far.
    pub best: bool,
    /// Seconds of this epoch, validation included.
    pub seconds: f64,
}

/// Progress within an epoch: a line of `steps.jsonl`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct StepRecord {
    /// From 1.
    pub epoch: usize,
    /// From 1.
    pub step: usize,
    /// Steps in this epoch.
    pub steps: usize,
    /// Loss of this step.
    pub loss: f64,
    /// Learning rate of this step.
    pub learning_rate: f64,
}

impl StepRecord {
    /// Number of the step within the run, from 1.
    pub fn overall(&self) -> usize {
        (self.epoch - 1) * self.steps + self.step
    }
}

/// Hears of the progress of a training.
pub trait Observer {
    /// After every step.
    fn step(&mut self, _record: &StepRecord) {}
    /// After every epoch.
    fn epoch(&mut self, _record: &EpochRecord) {}
    /// When the linear head is about to be refitted.
    fn refitting(&mut self) {}
    /// Asked after every step and epoch: whether to stop here. Training then ends with [`Error::Interrupted`]; a run
    /// folder keeps the finished epochs.
    fn stop(&mut self) -> bool {
        false
    }
}

/// An observer that does not care.
impl Observer for () {}

/// A finished training.
pub struct Trained {
    /// The network with the kept weights, head refitted.
    pub network: Network,
    /// What is written to `run.json`.
    pub manifest: RunManifest,
    /// One record per epoch.
    pub epochs: Vec<EpochRecord>,
}

/// What a training does with its run folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// Begins a run; refuses a folder that holds one.
    New,
    /// Begins a run; one that is in the folder stays until it is replaced, file by file.
    Overwrite,
    /// Goes on with the run in the folder after its last finished epoch. A finished one is read and returned.
    Resume,
}

/// Trains by `config` on `data`; writes the run folder `out` where one is given, over what is there.
///
/// # Errors
/// On settings that do not fit the data, on a loss that is not finite ([`Error::Diverged`]; the last good checkpoint
/// stays), and when the run folder cannot be written.
pub fn train(config: &TrainConfig, data: &Dataset, out: Option<&Path>, observer: &mut dyn Observer) -> Result<Trained> {
    match out {
        Some(out) => train_in(config, data, out, Start::Overwrite, observer),
        None => run(config, data, None, None, observer),
    }
}

/// As [`train`], into the run folder `out`, which may hold a run already.
///
/// # Errors
/// As [`train`]; besides [`Error::Occupied`] on a new run where one is, and when resuming [`Error::Setting`] on another
/// setting than the run was begun with, [`Error::Dataset`] on other pictures, [`Error::Checkpoint`] on a damaged file or
/// where there is no run.
pub fn train_in(
    config: &TrainConfig,
    data: &Dataset,
    out: &Path,
    start: Start,
    observer: &mut dyn Observer,
) -> Result<Trained> {
    let mut last = None;
    if start == Start::New {
        RunWriter::require_vacant(out)?;
    }
    if start == Start::Resume {
        last = Last::find(out)?;
        match &last {
            Some(last) => last.check(config, data)?,
            None => return finished(config, data, out),
        }
    }
    run(config, data, Some(out), last, observer)
}

/// Settings of the run in a folder, to go on with: those of its checkpoint, or of `run.json` when it is finished.
///
/// # Errors
/// [`Error::Checkpoint`] when there is no run, or a file is damaged.
pub fn settings_of(out: &Path) -> Result<TrainConfig> {
    match Last::find(out)? {
        Some(last) => Ok(last.progress.config),
        None => Ok(open_finished(out)?.manifest.config),
    }
}

fn open_finished(out: &Path) -> Result<Run> {
    let refuse = |reason: &str| Error::Checkpoint { path: out.join(LAST), reason: reason.into() };
    if !out.join("run.json").exists() {
        return Err(refuse("it does not exist, so there is no run to resume"));
    }
    let run = Run::open(out)?;
    if !run.manifest.finished {
        return Err(refuse("it is missing, and the run beside it is unfinished"));
    }
    Ok(run)
}

/// The finished run in a folder, if it is the one that is asked for.
fn finished(config: &TrainConfig, data: &Dataset, out: &Path) -> Result<Trained> {
    let run = open_finished(out)?;
    checkpoint::same(&run.manifest.config, &run.manifest.data_digest, config, data)?;
    let path = out.join("log.jsonl");
    let log = std::fs::read_to_string(&path);
    let log = log.map_err(|e| Error::Checkpoint { path: path.clone(), reason: e.to_string() })?;
    let record =
        |line| serde_json::from_str(line).map_err(|e| Error::Checkpoint { path: path.clone(), reason: e.to_string() });
    let epochs = log.lines().map(record).collect::<Result<_>>()?;
    Ok(Trained { network: run.network()?, manifest: run.manifest, epochs })
}

fn run(
    config: &TrainConfig,
    data: &Dataset,
    out: Option<&Path>,
    last: Option<Last>,
    observer: &mut dyn Observer,
) -> Result<Trained> {
    config.check()?;
    let started = Instant::now();
    let mut session = Session::new(config, data, out, last.as_ref())?;
    let mut manifest = session.manifest();
    let writer = out.map(RunWriter::create).transpose()?;
    let mut records: Vec<EpochRecord> = Vec::with_capacity(config.epochs);
    let mut best: Option<State> = None;
    let mut before = 0.0;
    if let Some(last) = last {
        (records, best, before) = (last.progress.records, last.best, last.progress.seconds);
    }
    let seconds = || before + started.elapsed().as_secs_f64();
    if let Some(kept) = records.iter().rfind(|r| r.best) {
        manifest.keep(kept);
    }
    // After a resume the files are put right, whichever of them the interruption left old or missing.
    session.log = out.map(|out| RunLog::open(out, &records)).transpose()?;
    if let Some(writer) = &writer {
        if let Some(state) = &best {
            manifest.seconds = before;
            writer.save(&mut manifest, state)?;
        }
        if records.is_empty() {
            writer.checkpoint(&session.last(&records, None, before)?)?;
        }
    }

    for epoch in records.len() + 1..=config.epochs {
        let mut record = session.epoch(epoch, observer)?;
        let score = |r: &EpochRecord| (r.validation_map.unwrap_or(r.validation_accuracy), -r.validation_nll);
        let better = records.iter().rfind(|r| r.best).is_none_or(|kept| score(&record) > score(kept));
        // A classifier that no epoch has trained yet says nothing about the weights.
        let counts = session.recipe.trains(epoch) != Trains::Encoder;
        record.best = counts && (better || config.select == Select::Last);
        records.push(record.clone());
        if record.best {
            let state = session.network.state()?;
            manifest.keep(&record);
            manifest.seconds = seconds();
            if let Some(writer) = &writer {
                writer.save(&mut manifest, &state)?;
            }
            best = Some(state);
        }
        if let Some(writer) = &writer {
            session.write_log(&record)?;
            writer.checkpoint(&session.last(&records, best.as_ref(), seconds())?)?;
        }
        observer.epoch(&record);
        if observer.stop() {
            return Err(Error::Interrupted { epoch: epoch + 1, step: 0 });
        }
    }
    let Session { mut network, fit, mut accelerator, .. } = session;
    if let Some(state) = &best {
        network.load(state)?;
    }
    if config.refit_head {
        observer.refitting();
        if let Some(fitted) = refit::refit_head(&mut network, data, &fit, &mut accelerator)? {
            manifest.refit_l2 = Some(fitted.l2);
            (manifest.validation_accuracy, manifest.validation_nll) = (fitted.accuracy, fitted.nll);
        }
    }
    manifest.finished = true;
    manifest.seconds = seconds();
    if let Some(writer) = &writer {
        writer.save(&mut manifest, &network.state()?)?;
        writer.finish()?;
    }
    Ok(Trained { network, manifest, epochs: records })
}

#[cfg(test)]
mod resume_tests;
#[cfg(test)]
pub(crate) mod tests;
