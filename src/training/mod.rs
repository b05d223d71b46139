//! A training as a person follows it: live lines in a terminal, plain lines elsewhere, a page at the end.

mod page;

pub use page::{curves, network_name, write_page};

use crate::failure::{Failure, INTERNAL, INTERRUPTED, Result};
use crate::terminal::{self, Progress, percent, sparkline};
use excon_train::config::TrainConfig;
use excon_train::dataset::{self, Dataset};
use excon_train::trainer::{EpochRecord, Observer, StepRecord};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

/// Values that a sparkline shows at most.
const RECENT: usize = 40;

/// The progress of a training: a bar of all steps with curves below it, where there is a terminal.
pub struct Training {
    progress: Progress,
    epochs: usize,
    batch: usize,
    last: String,
    /// Mean losses of finished epochs, and the running mean of the one under way.
    losses: Vec<f64>,
    running: f64,
    validation: Vec<f64>,
    best: Option<(f64, usize)>,
    passing: Option<f64>,
    speed: Option<f64>,
    step_began: Option<Instant>,
    stop: Arc<AtomicBool>,
}

impl Training {
    /// Starts the bar.
    pub fn start(config: &TrainConfig) -> Self {
        Self {
            progress: Progress::start("train", 0),
            epochs: config.epochs,
            batch: config.batch,
            last: "first epoch".into(),
            losses: vec![],
            running: 0.0,
            validation: vec![],
            best: None,
            passing: None,
            speed: None,
            step_began: None,
            stop: Arc::default(),
        }
    }

    /// Lets Ctrl-C end the training after the step, and a second one the process.
    pub fn interruptible(self) -> Result<Self> {
        let stop = Arc::clone(&self.stop);
        let on_interrupt = move || {
            if stop.swap(true, Ordering::Relaxed) {
                std::process::exit(INTERRUPTED.into());
            }
            terminal::note("Finishing the step. Ctrl-C again stops at once.");
        };
        let cannot = |e| Failure { message: format!("cannot listen for Ctrl-C: {e}"), code: INTERNAL };
        ctrlc::set_handler(on_interrupt).map_err(cannot)?;
        Ok(self)
    }

    /// Ends it with one line.
    pub fn finish(self, detail: &str) {
        self.progress.finish(detail);
    }

    /// The lines below the bar.
    fn show(&self, learning_rate: f64) {
        let losses = [&self.losses[..], &[self.running]].concat();
        let mut lines = vec![format!("loss        {:>7.3}  {}", self.running, sparkline(tail(&losses)))];
        if let (Some(now), Some((best, epoch))) = (self.validation.last(), self.best) {
            let curve = sparkline(tail(&self.validation));
            let best = percent(best);
            lines.push(format!("validation  {:>7}  {curve}  best {best}, epoch {epoch}", percent(*now)));
        }
        let speed = self.speed.map_or(String::new(), |s| format!("{s:.0} pictures/s, "));
        let passing = self.passing.map_or(String::new(), |p| format!(", {} of the masks pass", percent(p)));
        lines.push(format!("speed       {speed}learning rate {learning_rate:.2e}{passing}"));
        self.progress.below(&lines);
    }
}

fn tail(values: &[f64]) -> &[f64] {
    &values[values.len().saturating_sub(RECENT)..]
}

impl Observer for Training {
    fn step(&mut self, record: &StepRecord) {
        if record.step == 1 {
            self.progress.units((self.epochs * record.steps) as u64);
            self.progress.say(&format!("epoch {}/{}, {}", record.epoch, self.epochs, self.last), false);
            self.running = record.loss;
        }
        // A running mean over about ten steps: a curve that can be read, a speed that does not flicker.
        let mean = |old: f64, new: f64| old + 0.1 * (new - old);
        self.running = mean(self.running, record.loss);
        if let Some(began) = self.step_began.filter(|_| record.step > 1) {
            let now = self.batch as f64 / began.elapsed().as_secs_f64().max(1e-9);
            self.speed = Some(self.speed.map_or(now, |old| mean(old, now)));
        }
        self.step_began = Some(Instant::now());
        self.progress.at(record.overall() as u64);
        if self.progress.is_live() {
            self.show(record.learning_rate);
        }
    }

    fn epoch(&mut self, record: &EpochRecord) {
        self.losses.push(record.loss);
        self.validation.push(record.validation_accuracy);
        self.passing = record.passing;
        if record.best {
            self.best = Some((record.validation_accuracy, record.epoch));
        }
        let validated = match record.validation_map {
            Some(map) => format!("mAP {}", percent(map)),
            None => percent(record.validation_accuracy),
        };
        self.last = format!("loss {:.3}, validation {validated}", record.loss);
        self.progress.say(&format!("epoch {}/{}, {}", record.epoch, self.epochs, self.last), true);
    }

    fn stop(&mut self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    fn refitting(&mut self) {
        self.progress.below(&[]);
        self.progress.say("refitting the linear head on frozen features", true);
    }
}

/// The data set of a configuration, with training pictures.
pub fn open(config: &TrainConfig) -> Result<Dataset> {
    let data = dataset::open(&config.data, &config.open_options())?;
    data.require_training()?;
    Ok(data)
}
