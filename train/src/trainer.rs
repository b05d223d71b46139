//! The training loop: batches, steps, the learning rate, validation after each epoch, the best weights, the final head.
//!
//! Nothing is printed; an [`Observer`] hears of every step and epoch. A run repeats exactly for equal configuration,
//! data, machine and thread count: all randomness is keyed by (seed, purpose, epoch, picture). So does one that was
//! killed and resumed: it begins again after its last finished epoch.

pub(crate) mod accelerator;

use crate::augment::{View, ViewSeed, render};
use crate::checkpoint::{self, LAST, Last, Progress, Run, RunManifest, RunWriter, SCHEMA, State};
use crate::config::{Select, TrainConfig};
use crate::dataset::{Dataset, Split, split_validation};
use crate::evaluate::{self, refit};
use crate::network::{self, Network};
use crate::optimizer::Sgd;
use crate::recipe::{self, Batch, Purpose, Recipe, Step, stream};
use crate::{Error, Result};
use accelerator::{Accelerator, Job, Outcome, Wanted};
use candle_core::{Device, Tensor};
use excon_edge::image::Preprocess;
use rand::seq::SliceRandom;
use serde::{Deserialize, Serialize};
use std::path::Path;
use std::time::Instant;

/// View number of the first random view, see [`ViewSeed`].
pub(crate) const FIRST: u64 = 0;
/// View number of the second random view.
pub(crate) const SECOND: u64 = 1;
/// View number of the classifier's own pass.
pub(crate) const CLASSIFIER: u64 = 2;

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
    /// Whether these are the best weights so far.
    pub best: bool,
    /// Seconds of this epoch, validation included.
    pub seconds: f64,
}

/// Progress within an epoch.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct StepRecord {
    /// From 1.
    pub epoch: usize,
    /// From 1.
    pub step: usize,
    /// Steps in this epoch.
    pub steps: usize,
    /// Loss of this step.
    pub loss: f64,
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
    let mut session = Session::new(config, data, last.as_ref())?;
    let mut manifest = session.manifest();
    let mut writer = out.map(RunWriter::create).transpose()?;
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
    if let (Some(writer), Some(state)) = (&mut writer, &best) {
        manifest.seconds = before;
        writer.save(&mut manifest, state)?;
        records.iter().try_for_each(|record| writer.log(record))?;
    } else if let Some(writer) = &writer {
        writer.checkpoint(&session.last(&records, best.as_ref(), before)?)?;
    }

    for epoch in records.len() + 1..=config.epochs {
        let mut record = session.epoch(epoch, observer)?;
        let score = |r: &EpochRecord| (r.validation_accuracy, -r.validation_nll);
        let better = records.iter().rfind(|r| r.best).is_none_or(|kept| score(&record) > score(kept));
        record.best = better || config.select == Select::Last;
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
        if let Some(writer) = &mut writer {
            writer.log(&record)?;
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

/// Everything that changes while training.
struct Session<'a> {
    config: &'a TrainConfig,
    data: &'a Dataset,
    recipe: Box<dyn Recipe>,
    network: Network,
    encoder: Sgd,
    /// The classifier's own optimizer, when it is not trained in the encoder's step.
    classifier: Option<Sgd>,
    /// Fit half of validation.
    fit: Split,
    /// Makes the steps, where the CPU does not. After each epoch the numbers above are its own.
    accelerator: Option<Box<dyn Accelerator>>,
}

impl<'a> Session<'a> {
    /// A fresh one, or one that goes on after `last`.
    fn new(config: &'a TrainConfig, data: &'a Dataset, last: Option<&Last>) -> Result<Self> {
        let classes = data.labels.len();
        if data.train.is_empty() || data.validation.len() < 2 {
            let reason = "training needs pictures in train and at least two in validation".to_string();
            return Err(Error::Setting { name: "data".into(), reason });
        }
        let graph = network::build(&config.network, classes, config.stem, config.projection)?;
        let frozen = checkpoint::frozen_nodes(&graph, config.freeze)?;
        let head = format!("{}.", graph.nodes[graph.logits].name);
        let mut network = Network::new(graph, &mut stream(config.seed, Purpose::Weights, 0, 0))?;
        match (last, &config.init) {
            (Some(last), _) => network.load(&last.network)?,
            (None, Some(source)) => drop(checkpoint::initialise(&mut network, source)?),
            (None, None) => {}
        }
        let black = std::array::from_fn(|c| -data.mean[c] / data.std[c]);
        let recipe = recipe::build(config, black)?;
        let learns =
            |name: &str| !frozen.iter().any(|n| name.strip_prefix(n).is_some_and(|rest| rest.starts_with('.')));
        let (with_head, rest): (Vec<_>, Vec<_>) =
            network.parameters().into_iter().filter(|(n, _)| learns(n)).partition(|(n, _)| n.starts_with(&head));
        let (mut encoder, mut classifier) = if recipe.trains_classifier() {
            (Sgd::new([rest, with_head].concat(), config.optimizer)?, None)
        } else {
            (Sgd::new(rest, config.optimizer)?, Some(Sgd::new(with_head, config.optimizer)?))
        };
        if let Some(last) = last {
            encoder.load(&last.encoder)?;
            classifier.as_mut().map_or(Ok(()), |sgd| sgd.load(&last.classifier))?;
        }
        let (fit, _) = split_validation(&data.validation, config.seed);
        let fit = if fit.is_empty() { data.validation.clone() } else { data.validation.subset(&fit) };
        let start =
            accelerator::Start { config, data, network: &network, encoder: &encoder, classifier: classifier.as_ref() };
        let accelerator = accelerator::open(&start)?;
        Ok(Self { config, data, recipe, network, encoder, classifier, fit, accelerator })
    }

    fn manifest(&self) -> RunManifest {
        let Dataset { mean, std, .. } = *self.data;
        RunManifest {
            schema: SCHEMA.into(),
            config: self.config.clone(),
            graph: self.network.graph().clone(),
            labels: self.data.labels.clone(),
            preprocess: Preprocess { size: self.data.train.size, mean, std },
            data: self.data.name.clone(),
            data_digest: self.data.digest.clone(),
            seed: self.config.seed,
            finished: false,
            epoch: 0,
            validation_accuracy: 0.0,
            validation_nll: 0.0,
            refit_l2: None,
            seconds: 0.0,
            weights_sha256: String::new(),
            tool: format!("excon {}", env!("CARGO_PKG_VERSION")),
        }
    }

    /// What the training can go on from, after these epochs.
    fn last(&self, records: &[EpochRecord], best: Option<&State>, seconds: f64) -> Result<Last> {
        Ok(Last {
            progress: Progress::new(self.config, &self.data.digest, seconds, records),
            network: self.network.state()?,
            encoder: self.encoder.state()?,
            classifier: self.classifier.as_ref().map_or(Ok(State::new()), Sgd::state)?,
            best: best.cloned(),
        })
    }

    /// Positions of the training pictures in the order of this epoch.
    fn order(&self, epoch: usize) -> Vec<usize> {
        let mut order: Vec<usize> = (0..self.data.train.len()).collect();
        order.shuffle(&mut stream(self.config.seed, Purpose::Order, epoch, 0));
        order
    }

    /// Renders one view of these pictures as a tensor.
    fn view(&self, indices: &[usize], view: &View, epoch: usize, number: u64) -> Result<Tensor> {
        let Dataset { mean, std, ref train, .. } = *self.data;
        let seed = ViewSeed { seed: self.config.seed, epoch: epoch as u64, view: number };
        let values = render(train, indices, view, mean, std, seed);
        Ok(Tensor::from_vec(values, (indices.len(), train.size, train.size, 3), &Device::Cpu)?)
    }

    fn batch(&self, indices: &[usize], epoch: usize) -> Result<Batch> {
        let needs = self.recipe.needs(epoch);
        let random = View::Random(self.config.views.clone());
        let standard = if needs.standard { Some(self.view(indices, &View::Standard, epoch, FIRST)?) } else { None };
        let first = self.view(indices, &random, epoch, FIRST)?;
        let second = if needs.random > 1 { self.view(indices, &random, epoch, SECOND)? } else { first.clone() };
        let labels = indices.iter().map(|&i| self.data.train.labels[i]).collect();
        Ok(Batch { standard, first, second, labels, indices: indices.to_vec(), seed: self.config.seed, epoch })
    }

    fn epoch(&mut self, epoch: usize, observer: &mut dyn Observer) -> Result<EpochRecord> {
        let started = Instant::now();
        let config = self.config;
        let order = self.order(epoch);
        let steps = order.len().div_ceil(config.batch);
        let mut sums = Sums::default();
        let mut learning_rate = 0.0;
        // Outcomes of an accelerator's steps come later than the steps, in their order.
        let mut take = |outcomes: Vec<Outcome>| -> Result<()> {
            for outcome in outcomes {
                sums.add(&outcome, epoch)?;
                observer.step(&StepRecord { epoch, step: sums.steps, steps, loss: outcome.loss });
                if observer.stop() {
                    return Err(Error::Interrupted { epoch, step: sums.steps });
                }
            }
            Ok(())
        };
        for (step, indices) in order.chunks(config.batch).enumerate() {
            learning_rate = config.schedule.rate(config.learning_rate, epoch, config.epochs, step, steps);
            take(self.step(&Job { indices, epoch, step, rate: learning_rate })?)?;
        }
        take(self.finish()?)?;
        let own = self.classifier_epoch(epoch, &order, observer)?;
        let (validation_accuracy, validation_nll) = self.validate()?;
        if !validation_nll.is_finite() {
            return Err(Error::Diverged { epoch, step: steps - 1, loss: validation_nll as f32 });
        }
        let n = order.len() as f64;
        let mean = |total: Option<f64>| total.map(|v| v / n);
        Ok(EpochRecord {
            epoch,
            epochs: config.epochs,
            learning_rate,
            loss: sums.loss / n,
            contrastive: mean(sums.contrastive),
            cross_entropy: mean(sums.cross_entropy).or(own.as_ref().map(|own| own.loss / n)),
            train_accuracy: share(sums.classified).or(own.and_then(|own| share(own.classified))),
            passing: share(sums.explained),
            validation_accuracy,
            validation_nll,
            best: false,
            seconds: started.elapsed().as_secs_f64(),
        })
    }

    /// One step of the encoder, or what an accelerator tells of earlier ones when it is asked for this one.
    fn step(&mut self, job: &Job) -> Result<Vec<Outcome>> {
        if let Some(accelerator) = &mut self.accelerator {
            return accelerator.step(job);
        }
        let batch = self.batch(job.indices, job.epoch)?;
        let outcome = self.recipe.step(&self.network, &batch)?;
        let loss = outcome.loss.to_scalar::<f32>()?;
        if !loss.is_finite() {
            return Err(Error::Diverged { epoch: job.epoch, step: job.step, loss });
        }
        self.encoder.step(&outcome.loss.backward()?, job.rate)?;
        Ok(vec![Outcome::of(&outcome, f64::from(loss), job.indices.len())])
    }

    /// The outcomes that an accelerator has not told yet.
    fn finish(&mut self) -> Result<Vec<Outcome>> {
        self.accelerator.as_mut().map_or(Ok(vec![]), |accelerator| accelerator.finish())
    }

    /// The classifier's own pass over train on frozen features, or `None` when it is joint.
    fn classifier_epoch(&mut self, epoch: usize, order: &[usize], observer: &mut dyn Observer) -> Result<Option<Sums>> {
        if self.classifier.is_none() {
            return Ok(None);
        }
        let config = self.config;
        let steps = order.len().div_ceil(config.batch);
        let mut sums = Sums::default();
        for (step, indices) in order.chunks(config.batch).enumerate() {
            let rate = config.schedule.rate(config.learning_rate, epoch, config.epochs, step, steps);
            let outcomes = self.classifier_step(&Job { indices, epoch, step, rate })?;
            outcomes.iter().try_for_each(|outcome| sums.add(outcome, epoch))?;
            if observer.stop() {
                return Err(Error::Interrupted { epoch, step: steps });
            }
        }
        self.finish()?.iter().try_for_each(|outcome| sums.add(outcome, epoch))?;
        Ok(Some(sums))
    }

    /// As [`Self::step`], of the classifier alone.
    fn classifier_step(&mut self, job: &Job) -> Result<Vec<Outcome>> {
        if let Some(accelerator) = &mut self.accelerator {
            return accelerator.classifier_step(job);
        }
        let view = View::Random(self.config.classifier_views.clone());
        let images = self.view(job.indices, &view, job.epoch, CLASSIFIER)?;
        let labels: Vec<usize> = job.indices.iter().map(|&i| self.data.train.labels[i]).collect();
        let (loss, right) = recipe::frozen_classifier_step(&self.network, &images, &labels)?;
        let value = loss.to_scalar::<f32>()?;
        if !value.is_finite() {
            return Err(Error::Diverged { epoch: job.epoch, step: job.step, loss: value });
        }
        if let Some(sgd) = &mut self.classifier {
            sgd.step(&loss.backward()?, job.rate)?;
        }
        let (pictures, loss) = (labels.len(), f64::from(value));
        Ok(vec![Outcome { pictures, loss, classified: (pictures, right), ..Outcome::default() }])
    }

    /// Accuracy and negative log-likelihood on the fit half of validation. Brings an accelerator's numbers home.
    fn validate(&mut self) -> Result<(f64, f64)> {
        let Some(accelerator) = &mut self.accelerator else {
            return evaluate::validate(&self.network, self.data, &self.fit);
        };
        accelerator.store(&mut self.network, &mut self.encoder, self.classifier.as_mut())?;
        let logits = accelerator.infer(&self.fit, false, Wanted::Logits)?;
        Ok(evaluate::accuracy_and_nll(&logits, &self.fit.labels))
    }
}

/// Sums over the steps of an epoch, weighted by pictures.
#[derive(Default)]
struct Sums {
    steps: usize,
    loss: f64,
    contrastive: Option<f64>,
    cross_entropy: Option<f64>,
    classified: (usize, usize),
    explained: (usize, usize),
}

impl Sums {
    fn add(&mut self, step: &Outcome, epoch: usize) -> Result<()> {
        if !step.loss.is_finite() {
            return Err(Error::Diverged { epoch, step: self.steps, loss: step.loss as f32 });
        }
        let pictures = step.pictures as f64;
        let weighted = |sum: Option<f64>, part: Option<f64>| part.map(|p| sum.unwrap_or(0.0) + p * pictures).or(sum);
        let both = |a: (usize, usize), b: (usize, usize)| (a.0 + b.0, a.1 + b.1);
        self.steps += 1;
        self.loss += step.loss * pictures;
        self.contrastive = weighted(self.contrastive, step.contrastive);
        self.cross_entropy = weighted(self.cross_entropy, step.cross_entropy);
        self.classified = both(self.classified, step.classified);
        self.explained = both(self.explained, step.explained);
        Ok(())
    }
}

impl Outcome {
    /// Of a step on the CPU.
    fn of(step: &Step, loss: f64, pictures: usize) -> Self {
        let passing = |e: &crate::explain::Explained| (e.passes.len(), e.passes.iter().filter(|p| **p).count());
        Self {
            pictures,
            loss,
            contrastive: step.contrastive,
            cross_entropy: step.cross_entropy,
            classified: step.classified,
            explained: step.explained.as_ref().map_or((0, 0), passing),
        }
    }
}

fn share((all, hits): (usize, usize)) -> Option<f64> {
    (all > 0).then(|| hits as f64 / all as f64)
}

#[cfg(test)]
mod resume_tests;
#[cfg(test)]
pub(crate) mod tests;
