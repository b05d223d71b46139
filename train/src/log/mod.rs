//! What a training leaves to be read while it runs: `log.jsonl` (a line an epoch), `steps.jsonl` (a line a step) and
//! TensorBoard event files.
//!
//! All three are written when an epoch ends. After a resume each finished epoch is in them once: what an epoch left that
//! was not finished is dropped. Nothing in them is needed to go on.

mod tensorboard;

use crate::checkpoint::append;
use crate::trainer::{EpochRecord, StepRecord};
use crate::{Error, Result};
use excon_edge::file::replace;
use serde::{Deserialize, Serialize};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use tensorboard::EventFile;

const EPOCHS: &str = "log.jsonl";
const STEPS: &str = "steps.jsonl";

/// The logs of one run folder.
pub struct RunLog {
    folder: PathBuf,
    epochs: String,
    /// Lines of the epoch that is under way.
    steps: String,
    events: EventFile,
}

/// What is read back of a line of `steps.jsonl`.
#[derive(Deserialize)]
struct Position {
    epoch: usize,
    steps: usize,
}

impl RunLog {
    /// Begins the logs, or goes on after the epochs of `records`.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub fn open(folder: &Path, records: &[EpochRecord]) -> Result<Self> {
        if records.is_empty() {
            EventFile::remove_all(folder)?;
        }
        let (kept, steps) = finished_steps(&folder.join(STEPS), records.len());
        replace(&folder.join(STEPS), kept.as_bytes())?;
        let epochs = records.iter().map(line).collect::<Result<String>>()?;
        if !epochs.is_empty() {
            replace(&folder.join(EPOCHS), epochs.as_bytes())?;
        }
        let events = EventFile::create(folder, steps)?;
        Ok(Self { folder: folder.into(), epochs, steps: String::new(), events })
    }

    /// Takes a step.
    ///
    /// # Errors
    /// Only if the record is no JSON.
    pub fn step(&mut self, record: &StepRecord) -> Result<()> {
        self.steps += &line(record)?;
        let scalars = [("step/loss", record.loss), ("step/learning rate", record.learning_rate)];
        self.events.add(record.overall() as i64, &scalars);
        Ok(())
    }

    /// Writes an epoch and its steps.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub fn epoch(&mut self, record: &EpochRecord, steps: usize) -> Result<()> {
        append(&self.folder.join(STEPS), std::mem::take(&mut self.steps).as_bytes())?;
        let scalars = [
            ("epoch/loss", Some(record.loss)),
            ("epoch/contrastive", record.contrastive),
            ("epoch/cross entropy", record.cross_entropy),
            ("epoch/train accuracy", record.train_accuracy),
            ("epoch/masks that pass", record.passing),
            ("validation/accuracy", Some(record.validation_accuracy)),
            ("validation/nll", Some(record.validation_nll)),
        ];
        let scalars: Vec<_> = scalars.into_iter().filter_map(|(tag, value)| Some((tag, value?))).collect();
        self.events.add((record.epoch * steps) as i64, &scalars);
        self.events.flush()?;
        self.epochs += &line(record)?;
        Ok(replace(&self.folder.join(EPOCHS), self.epochs.as_bytes())?)
    }
}

/// The lines of the first so many epochs, and the number of steps in those epochs. A last line that is torn is not one.
fn finished_steps(path: &Path, epochs: usize) -> (String, i64) {
    let (mut kept, mut count) = (String::new(), 0);
    if epochs > 0
        && let Ok(file) = std::fs::File::open(path)
    {
        for line in BufReader::new(file).lines().map_while(|line| line.ok()) {
            let Ok(at) = serde_json::from_str::<Position>(&line) else { continue };
            if at.epoch <= epochs {
                kept = kept + &line + "\n";
                count = (epochs * at.steps) as i64;
            }
        }
    }
    (kept, count)
}

fn line(record: &impl Serialize) -> Result<String> {
    let text = serde_json::to_string(record);
    let text = text.map_err(|e| Error::Checkpoint { path: EPOCHS.into(), reason: e.to_string() })?;
    Ok(text + "\n")
}
