//! The training loop: batches, steps, the learning rate, validation after each epoch, the best weights, the final head.
//!
//! Nothing is printed; an [`Observer`] hears of every step and epoch. A run repeats exactly for equal configuration,
//! data, machine and thread count: all randomness is keyed by (seed, purpose, epoch, picture). So does one that was
//! killed and resumed: it begins again after its last finished epoch.

pub(crate) mod accelerator;
mod order;

use crate::augment::{View, ViewSeed, render_from};
use crate::checkpoint::{self, LAST, Last, Progress, Run, RunManifest, RunWriter, SCHEMA, State};
use crate::config::{Select, TrainConfig};
use crate::dataset::{Dataset, Split, split_validation};
use crate::evaluate::{self, refit};
use crate::log::RunLog;
use crate::network::{self, Network};
use crate::optimizer::Sgd;
use crate::recipe::{self, Batch, Draw, Purpose, Recipe, Sample, Slot, Trains, stream};
use crate::{Error, Result};
use accelerator::{Accelerator, Job, Outcome, Wanted};
use candle_core::{Device, Tensor};
use excon_edge::image::Preprocess;
use order::order;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
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
    /// The run folder and its logs, where there is one.
    out: Option<PathBuf>,
    log: Option<RunLog>,
    /// Makes the steps, where the CPU does not. After each epoch the numbers above are its own.
    accelerator: Option<Box<dyn Accelerator>>,
}

impl<'a> Session<'a> {
    /// A fresh one, or one that goes on after `last`.
    fn new(config: &'a TrainConfig, data: &'a Dataset, out: Option<&Path>, last: Option<&Last>) -> Result<Self> {
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
        let mut recipe = recipe::build(config, data)?;
        let learns =
            |name: &str| !frozen.iter().any(|n| name.strip_prefix(n).is_some_and(|rest| rest.starts_with('.')));
        let (with_head, rest): (Vec<_>, Vec<_>) =
            network.parameters().into_iter().filter(|(n, _)| learns(n)).partition(|(n, _)| n.starts_with(&head));
        let (mut encoder, mut classifier) = if recipe.trains(1) == Trains::Together {
            (Sgd::new([rest, with_head].concat(), config.optimizer)?, None)
        } else {
            (Sgd::new(rest, config.optimizer)?, Some(Sgd::new(with_head, config.optimizer)?))
        };
        if let Some(last) = last {
            encoder.load(&last.encoder)?;
            classifier.as_mut().map_or(Ok(()), |sgd| sgd.load(&last.classifier))?;
            recipe.load(&network, &last.recipe)?;
        }
        let (fit, _) = split_validation(&data.validation, config.seed);
        let fit = if fit.is_empty() { data.validation.clone() } else { data.validation.subset(&fit) };
        let accelerator = accelerator::open(&accelerator::Start {
            config,
            data,
            network: &network,
            encoder: &encoder,
            classifier: classifier.as_ref(),
        })?;
        let out = out.map(Path::to_path_buf);
        Ok(Self { config, data, recipe, network, encoder, classifier, fit, log: None, out, accelerator })
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
            recipe: self.recipe.state()?,
            best: best.cloned(),
        })
    }

    /// Writes an epoch and its steps to the logs.
    fn write_log(&mut self, record: &EpochRecord) -> Result<()> {
        let steps = self.data.train.len().div_ceil(self.config.batch);
        self.log.as_mut().map_or(Ok(()), |log| log.epoch(record, steps))
    }

    /// Tells log and observer of a step.
    fn tell(&mut self, record: &StepRecord, observer: &mut dyn Observer) -> Result<()> {
        observer.step(record);
        self.log.as_mut().map_or(Ok(()), |log| log.step(record))
    }

    /// The error of a loss that is no number any more.
    fn diverged(&self, epoch: usize, step: usize, loss: f32, draws: &[Draw]) -> Error {
        let mut batch: Vec<&str> = draws.iter().take(3).map(|d| self.data.train.names[d.index].as_str()).collect();
        let more = format!("{} more", draws.len().saturating_sub(3));
        batch.extend((draws.len() > 3).then_some(more.as_str()));
        let kept = match &self.out {
            Some(out) if epoch > 1 => {
                format!("the last good checkpoint, after epoch {}, is {}", epoch - 1, out.join(LAST).display())
            }
            _ => "nothing was learned before".into(),
        };
        Error::Diverged { epoch, step, loss, batch: batch.join(", "), kept }
    }

    /// An order of the training pictures, as many as there are.
    fn order(&self, epoch: usize, purpose: Purpose, power: f64) -> Vec<Draw> {
        order(&self.data.train.labels, power, &mut stream(self.config.seed, purpose, epoch, 0))
    }

    fn rate(&self, epoch: usize, step: usize, steps: usize) -> f64 {
        let (epoch, epochs) = self.recipe.on_schedule(epoch, self.config.epochs);
        self.config.schedule.rate(self.config.learning_rate, epoch, epochs, step, steps)
    }

    /// Renders one view of these pictures as a tensor.
    fn view(&self, draws: &[Draw], view: &View, epoch: usize, slot: Slot) -> Result<Tensor> {
        let Dataset { mean, std, ref train, .. } = *self.data;
        let seed = self.config.seed;
        let keys: Vec<usize> = draws.iter().map(|draw| draw.key).collect();
        let picture = |row: usize| self.recipe.picture(train, Sample { draw: draws[row], slot, seed, epoch });
        let view_seed = ViewSeed { seed, epoch: epoch as u64, view: slot as u64 };
        let values = render_from(train.size, &keys, picture, view, (mean, std), view_seed);
        Ok(Tensor::from_vec(values, (draws.len(), train.size, train.size, 3), &Device::Cpu)?)
    }

    /// The views that the recipe needs of these pictures, and of `balanced` where it has such a branch.
    fn batch(&self, draws: &[Draw], balanced: &[Draw], epoch: usize) -> Result<Batch> {
        let needs = self.recipe.needs(epoch);
        let labels = |draws: &[Draw]| draws.iter().map(|d| self.data.train.labels[d.index]).collect();
        let standard = needs.standard.map(|view| self.view(draws, &view, epoch, Slot::Standard)).transpose()?;
        let first = self.view(draws, &needs.first, epoch, Slot::First)?;
        let second = needs.second.map(|view| self.view(draws, &view, epoch, Slot::Second)).transpose()?;
        let drawn = needs.balanced.map(|view| self.view(balanced, &view, epoch, Slot::Balanced)).transpose()?;
        Ok(Batch {
            standard,
            second: second.unwrap_or_else(|| first.clone()),
            first,
            labels: labels(draws),
            draws: draws.to_vec(),
            balanced: drawn.map(|images| (images, labels(balanced))),
            seed: self.config.seed,
            epoch,
        })
    }

    fn epoch(&mut self, epoch: usize, observer: &mut dyn Observer) -> Result<EpochRecord> {
        let started = Instant::now();
        let config = self.config;
        self.recipe.begin(&self.network, self.data, epoch)?;
        let trains = self.recipe.trains(epoch);
        let power = config.sampler.power;
        let (order, balanced) = match self.recipe.needs(epoch).balanced {
            Some(_) => (self.order(epoch, Purpose::Order, 1.0), self.order(epoch, Purpose::Balanced, power)),
            None => (self.order(epoch, Purpose::Order, power), vec![]),
        };
        let steps = order.len().div_ceil(config.batch);
        let mut sums = Sums::default();
        let encoded = if trains.encoder() { &order[..] } else { &[] };
        let told = Told { epoch, order: encoded, steps: true };
        for (step, draws) in encoded.chunks(config.batch).enumerate() {
            let from = (step * config.batch).min(balanced.len());
            let balanced = &balanced[from..(from + draws.len()).min(balanced.len())];
            let outcomes = self.step(&Job { draws, balanced, epoch, rate: self.rate(epoch, step, steps) })?;
            self.hear(outcomes, &mut sums, &told, observer)?;
        }
        let outcomes = self.finish()?;
        self.hear(outcomes, &mut sums, &told, observer)?;
        let own = if trains.own_pass() { self.classifier_epoch(epoch, &order, observer)? } else { None };
        let on_fit = self.validate()?;
        if !on_fit.nll.is_finite() {
            let last = order.chunks(config.batch).last().unwrap_or(&[]);
            return Err(self.diverged(epoch, steps, on_fit.nll as f32, last));
        }
        let n = order.len() as f64;
        Ok(EpochRecord {
            epoch,
            epochs: config.epochs,
            learning_rate: self.rate(epoch, steps - 1, steps),
            loss: if trains.encoder() { sums.loss / n } else { own.as_ref().map_or(0.0, |own| own.loss / n) },
            contrastive: sums.contrastive.map(|v| v / n),
            cross_entropy: sums.cross_entropy.map(|v| v / n).or(own.as_ref().map(|own| own.loss / n)),
            train_accuracy: share(sums.classified).or(own.and_then(|own| share(own.classified))),
            passing: share(sums.explained),
            validation_accuracy: on_fit.accuracy,
            validation_nll: on_fit.nll,
            validation_map: on_fit.map,
            best: false,
            seconds: started.elapsed().as_secs_f64(),
        })
    }

    /// Sums up what steps came to, tells of them, and stops where the loss is no number or the observer says so. Outcomes
    /// of an accelerator's steps come later than the steps, in their order.
    fn hear(
        &mut self,
        outcomes: Vec<Outcome>,
        sums: &mut Sums,
        told: &Told,
        observer: &mut dyn Observer,
    ) -> Result<()> {
        let Told { epoch, order, .. } = *told;
        let steps = order.len().div_ceil(self.config.batch);
        for outcome in outcomes {
            let step = sums.steps;
            if !outcome.loss.is_finite() {
                let draws = order.chunks(self.config.batch).nth(step).unwrap_or(&[]);
                return Err(self.diverged(epoch, step + 1, outcome.loss as f32, draws));
            }
            sums.add(&outcome);
            if told.steps {
                let learning_rate = self.rate(epoch, step, steps);
                let record = StepRecord { epoch, step: step + 1, steps, loss: outcome.loss, learning_rate };
                self.tell(&record, observer)?;
            }
            if observer.stop() {
                return Err(Error::Interrupted { epoch, step: if told.steps { step + 1 } else { steps } });
            }
        }
        Ok(())
    }

    /// A step of the encoder, or what an accelerator tells of earlier ones when it is asked for this one.
    fn step(&mut self, job: &Job) -> Result<Vec<Outcome>> {
        if let Some(accelerator) = &mut self.accelerator {
            return accelerator.step(job);
        }
        let batch = self.batch(job.draws, job.balanced, job.epoch)?;
        let outcome = self.recipe.step(&self.network, &batch)?;
        let loss = outcome.loss.to_scalar::<f32>()?;
        if loss.is_finite() {
            self.encoder.step(&outcome.loss.backward()?, job.rate)?;
            self.recipe.follow(&self.network)?;
        }
        Ok(vec![Outcome::of(&outcome, loss, job.draws.len())])
    }

    /// As [`Self::step`], of the classifier alone, on frozen features.
    fn classifier_step(&mut self, job: &Job) -> Result<Vec<Outcome>> {
        if let Some(accelerator) = &mut self.accelerator {
            return accelerator.classifier_step(job);
        }
        let view = View::Random(self.config.classifier_views.clone());
        let images = self.view(job.draws, &view, job.epoch, Slot::Classifier)?;
        let labels: Vec<usize> = job.draws.iter().map(|d| self.data.train.labels[d.index]).collect();
        let (loss, right) = recipe::frozen_classifier_step(&self.network, &images, &labels)?;
        let value = loss.to_scalar::<f32>()?;
        if let (true, Some(sgd)) = (value.is_finite(), &mut self.classifier) {
            sgd.step(&loss.backward()?, job.rate)?;
        }
        let (pictures, loss) = (labels.len(), f64::from(value));
        Ok(vec![Outcome { pictures, loss, classified: (pictures, right), ..Outcome::default() }])
    }

    /// The outcomes that an accelerator has not told yet.
    fn finish(&mut self) -> Result<Vec<Outcome>> {
        self.accelerator.as_mut().map_or(Ok(vec![]), |accelerator| accelerator.finish())
    }

    /// Figures on the fit half of validation. Brings an accelerator's numbers home.
    fn validate(&mut self) -> Result<evaluate::Validation> {
        let Some(accelerator) = &mut self.accelerator else {
            return evaluate::validate(&self.network, self.data, &self.fit);
        };
        accelerator.store(&mut self.network, &mut self.encoder, self.classifier.as_mut())?;
        let logits = accelerator.infer(&self.fit, false, Wanted::Logits)?;
        Ok(evaluate::Validation::of(&logits, self.data, &self.fit))
    }

    /// The classifier's own pass over train on frozen features, or `None` when it is joint.
    fn classifier_epoch(&mut self, epoch: usize, order: &[Draw], observer: &mut dyn Observer) -> Result<Option<Sums>> {
        if self.classifier.is_none() {
            return Ok(None);
        }
        let config = self.config;
        let steps = order.len().div_ceil(config.batch);
        let mut sums = Sums::default();
        let told = Told { epoch, order, steps: !self.recipe.trains(epoch).encoder() };
        for (step, draws) in order.chunks(config.batch).enumerate() {
            let job = Job { draws, balanced: &[], epoch, rate: self.rate(epoch, step, steps) };
            let outcomes = self.classifier_step(&job)?;
            self.hear(outcomes, &mut sums, &told, observer)?;
        }
        let outcomes = self.finish()?;
        self.hear(outcomes, &mut sums, &told, observer)?;
        Ok(Some(sums))
    }
}

/// A pass over train whose steps are heard of.
struct Told<'a> {
    epoch: usize,
    order: &'a [Draw],
    /// Whether each step is told of, and not only the pass.
    steps: bool,
}

/// Sums over the steps of a pass, weighted by pictures.
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
    fn add(&mut self, step: &Outcome) {
        let pictures = step.pictures as f64;
        let weighted = |sum: Option<f64>, part: Option<f64>| part.map(|p| sum.unwrap_or(0.0) + p * pictures).or(sum);
        let both = |a: (usize, usize), b: (usize, usize)| (a.0 + b.0, a.1 + b.1);
        self.steps += 1;
        self.loss += step.loss * pictures;
        self.contrastive = weighted(self.contrastive, step.contrastive);
        self.cross_entropy = weighted(self.cross_entropy, step.cross_entropy);
        self.classified = both(self.classified, step.classified);
        self.explained = both(self.explained, step.explained);
    }
}

fn share((all, hits): (usize, usize)) -> Option<f64> {
    (all > 0).then(|| hits as f64 / all as f64)
}

#[cfg(test)]
mod resume_tests;
#[cfg(test)]
pub(crate) mod tests;
