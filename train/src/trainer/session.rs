//! Everything that changes while training, and how an epoch changes it: orders, views and batches, steps of the encoder
//! and of a classifier of its own, validation.

use super::accelerator::{self, Accelerator, Job, Outcome, Wanted};
use super::order::order;
use super::{EpochRecord, Observer, StepRecord};
use crate::augment::{View, ViewSeed, render_from};
use crate::checkpoint::{self, LAST, Last, Progress, RunManifest, SCHEMA, State};
use crate::config::TrainConfig;
use crate::dataset::{Dataset, Split, split_validation};
use crate::evaluate;
use crate::log::RunLog;
use crate::network::{self, Network};
use crate::optimizer::Sgd;
use crate::recipe::{self, Batch, Draw, Purpose, Recipe, Sample, Slot, Trains, stream};
use crate::{Error, Result};
use candle_core::{Device, Tensor};
use excon_edge::image::Preprocess;
use std::path::{Path, PathBuf};
use std::time::Instant;

/// Everything that changes while training.
pub(super) struct Session<'a> {
    config: &'a TrainConfig,
    data: &'a Dataset,
    pub(super) recipe: Box<dyn Recipe>,
    pub(super) network: Network,
    encoder: Sgd,
    /// The classifier's own optimizer, when it is not trained in the encoder's step.
    classifier: Option<Sgd>,
    /// Fit half of validation.
    pub(super) fit: Split,
    /// The run folder and its logs, where there is one.
    out: Option<PathBuf>,
    pub(super) log: Option<RunLog>,
    /// Makes the steps, where the CPU does not. After each epoch the numbers above are its own.
    pub(super) accelerator: Option<Box<dyn Accelerator>>,
}

impl<'a> Session<'a> {
    /// A fresh one, or one that goes on after `last`.
    pub(super) fn new(
        config: &'a TrainConfig,
        data: &'a Dataset,
        out: Option<&Path>,
        last: Option<&Last>,
    ) -> Result<Self> {
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

    pub(super) fn manifest(&self) -> RunManifest {
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
    pub(super) fn last(&self, records: &[EpochRecord], best: Option<&State>, seconds: f64) -> Result<Last> {
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
    pub(super) fn write_log(&mut self, record: &EpochRecord) -> Result<()> {
        let steps = self.data.train.len().div_ceil(self.config.batch);
        self.log.as_mut().map_or(Ok(()), |log| log.epoch(record, steps))
    }

    /// Tells log and observer of a step.
    fn tell(&mut self, record: &StepRecord, observer: &mut dyn Observer) -> Result<()> {
        observer.step(record);
        self.log.as_mut().map_or(Ok(()), |log| log.step(record))
    }

    /// The error of a loss that is no number any more.
    pub(super) fn diverged(&self, epoch: usize, step: usize, loss: f32, draws: &[Draw]) -> Error {
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
    pub(super) fn order(&self, epoch: usize, purpose: Purpose, power: f64) -> Vec<Draw> {
        order(&self.data.train.labels, power, &mut stream(self.config.seed, purpose, epoch, 0))
    }

    fn rate(&self, epoch: usize, step: usize, steps: usize) -> f64 {
        let (epoch, epochs) = self.recipe.on_schedule(epoch, self.config.epochs);
        self.config.schedule.rate(self.config.learning_rate, epoch, epochs, step, steps)
    }

    /// Renders one view of these pictures as a tensor.
    pub(super) fn view(&self, draws: &[Draw], view: &View, epoch: usize, slot: Slot) -> Result<Tensor> {
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

    pub(super) fn epoch(&mut self, epoch: usize, observer: &mut dyn Observer) -> Result<EpochRecord> {
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
