//! The training loop: batches, steps, the learning rate, validation after each epoch, the best weights, the final head.
//!
//! Nothing is printed; an [`Observer`] hears of every step and epoch. A run repeats exactly for equal configuration,
//! data, machine and thread count: all randomness is keyed by (seed, purpose, epoch, picture).

use crate::augment::{View, ViewSeed, render};
use crate::checkpoint::{self, RunManifest, RunWriter, SCHEMA, State};
use crate::config::{Select, TrainConfig};
use crate::dataset::{Dataset, Split, split_validation};
use crate::evaluate::{self, refit};
use crate::network::{self, Network};
use crate::optimizer::Sgd;
use crate::recipe::{self, Batch, Purpose, Recipe, Step, stream};
use crate::{Error, Result};
use candle_core::{Device, Tensor};
use excon_edge::image::Preprocess;
use rand::seq::SliceRandom;
use serde::{Deserialize, Serialize};
use std::path::Path;
use std::time::Instant;

/// View number of the first random view, see [`ViewSeed`].
const FIRST: u64 = 0;
/// View number of the second random view.
const SECOND: u64 = 1;
/// View number of the classifier's own pass.
const CLASSIFIER: u64 = 2;

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

/// Trains by `config` on `data`; writes the run folder `out` where one is given.
///
/// # Errors
/// On settings that do not fit the data, on a loss that is not finite ([`Error::Diverged`]; the last good checkpoint
/// stays), and when the run folder cannot be written.
pub fn train(config: &TrainConfig, data: &Dataset, out: Option<&Path>, observer: &mut dyn Observer) -> Result<Trained> {
    config.check()?;
    let started = Instant::now();
    let mut session = Session::new(config, data)?;
    let mut writer = out.map(RunWriter::create).transpose()?;
    let mut manifest = session.manifest();
    let mut best: Option<(f64, f64, State)> = None;
    let mut records: Vec<EpochRecord> = Vec::with_capacity(config.epochs);

    for epoch in 1..=config.epochs {
        let mut record = session.epoch(epoch, observer)?;
        let (accuracy, nll) = (record.validation_accuracy, record.validation_nll);
        let better = best.as_ref().is_none_or(|(a, n, _)| (accuracy, -nll) > (*a, -*n));
        record.best = better || config.select == Select::Last;
        if record.best {
            let state = copy(&session.network.state()?)?;
            (manifest.epoch, manifest.validation_accuracy, manifest.validation_nll) = (epoch, accuracy, nll);
            manifest.seconds = started.elapsed().as_secs_f64();
            if let Some(writer) = &writer {
                writer.save(&mut manifest, &state)?;
            }
            best = Some((accuracy, nll, state));
        }
        if let Some(writer) = &mut writer {
            writer.log(&record)?;
        }
        observer.epoch(&record);
        records.push(record);
    }
    let Session { mut network, fit, .. } = session;
    if let Some((_, _, state)) = &best {
        network.load(state)?;
    }
    if config.refit_head {
        observer.refitting();
        if let Some(fitted) = refit::refit_head(&mut network, data, &fit)? {
            manifest.refit_l2 = Some(fitted.l2);
            (manifest.validation_accuracy, manifest.validation_nll) = (fitted.accuracy, fitted.nll);
        }
    }
    manifest.finished = true;
    manifest.seconds = started.elapsed().as_secs_f64();
    if let Some(writer) = &writer {
        writer.save(&mut manifest, &network.state()?)?;
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
}

impl<'a> Session<'a> {
    fn new(config: &'a TrainConfig, data: &'a Dataset) -> Result<Self> {
        let classes = data.labels.len();
        if data.train.is_empty() || data.validation.len() < 2 {
            let reason = "training needs pictures in train and at least two in validation".to_string();
            return Err(Error::Setting { name: "data".into(), reason });
        }
        let graph = network::build(&config.network, classes, config.stem, config.projection)?;
        let frozen = checkpoint::frozen_nodes(&graph, config.freeze)?;
        let head = format!("{}.", graph.nodes[graph.logits].name);
        let mut network = Network::new(graph, &mut stream(config.seed, Purpose::Weights, 0, 0))?;
        if let Some(source) = &config.init {
            checkpoint::initialise(&mut network, source)?;
        }
        let black = std::array::from_fn(|c| -data.mean[c] / data.std[c]);
        let recipe = recipe::build(config, black)?;
        let learns =
            |name: &str| !frozen.iter().any(|n| name.strip_prefix(n).is_some_and(|rest| rest.starts_with('.')));
        let (with_head, rest): (Vec<_>, Vec<_>) =
            network.parameters().into_iter().filter(|(n, _)| learns(n)).partition(|(n, _)| n.starts_with(&head));
        let (encoder, classifier) = if recipe.trains_classifier() {
            (Sgd::new([rest, with_head].concat(), config.optimizer)?, None)
        } else {
            (Sgd::new(rest, config.optimizer)?, Some(Sgd::new(with_head, config.optimizer)?))
        };
        let (fit, _) = split_validation(&data.validation, config.seed);
        let fit = if fit.is_empty() { data.validation.clone() } else { data.validation.subset(&fit) };
        Ok(Self { config, data, recipe, network, encoder, classifier, fit })
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
        for (step, indices) in order.chunks(config.batch).enumerate() {
            let batch = self.batch(indices, epoch)?;
            let outcome = self.recipe.step(&self.network, &batch)?;
            let loss = outcome.loss.to_scalar::<f32>()?;
            if !loss.is_finite() {
                return Err(Error::Diverged { epoch, step, loss });
            }
            learning_rate = config.schedule.rate(config.learning_rate, epoch, config.epochs, step, steps);
            self.encoder.step(&outcome.loss.backward()?, learning_rate)?;
            sums.add(&outcome, f64::from(loss), indices.len());
            observer.step(&StepRecord { epoch, step: step + 1, steps, loss: f64::from(loss) });
        }
        let own = self.classifier_epoch(epoch, &order)?;
        let (validation_accuracy, validation_nll) = evaluate::validate(&self.network, self.data, &self.fit)?;
        if !validation_nll.is_finite() {
            return Err(Error::Diverged { epoch, step: steps - 1, loss: validation_nll as f32 });
        }
        let n = order.len() as f64;
        Ok(EpochRecord {
            epoch,
            epochs: config.epochs,
            learning_rate,
            loss: sums.loss / n,
            contrastive: sums.contrastive.map(|v| v / n),
            cross_entropy: sums.cross_entropy.map(|v| v / n).or(own.map(|(loss, _)| loss)),
            train_accuracy: share(sums.classified).or(own.map(|(_, accuracy)| accuracy)),
            passing: share(sums.explained),
            validation_accuracy,
            validation_nll,
            best: false,
            seconds: started.elapsed().as_secs_f64(),
        })
    }

    /// The classifier's own pass over train on frozen features: mean loss and accuracy, or `None` when it is joint.
    fn classifier_epoch(&mut self, epoch: usize, order: &[usize]) -> Result<Option<(f64, f64)>> {
        let Some(mut sgd) = self.classifier.take() else { return Ok(None) };
        let config = self.config;
        let steps = order.len().div_ceil(config.batch);
        let view = View::Random(config.classifier_views.clone());
        let (mut total, mut hits) = (0.0, 0);
        for (step, indices) in order.chunks(config.batch).enumerate() {
            let images = self.view(indices, &view, epoch, CLASSIFIER)?;
            let labels: Vec<usize> = indices.iter().map(|&i| self.data.train.labels[i]).collect();
            let (loss, right) = recipe::frozen_classifier_step(&self.network, &images, &labels)?;
            let value = loss.to_scalar::<f32>()?;
            if !value.is_finite() {
                return Err(Error::Diverged { epoch, step, loss: value });
            }
            let rate = config.schedule.rate(config.learning_rate, epoch, config.epochs, step, steps);
            sgd.step(&loss.backward()?, rate)?;
            total += f64::from(value) * indices.len() as f64;
            hits += right;
        }
        self.classifier = Some(sgd);
        let n = order.len() as f64;
        Ok(Some((total / n, hits as f64 / n)))
    }
}

/// Sums over the steps of an epoch, weighted by pictures.
#[derive(Default)]
struct Sums {
    loss: f64,
    contrastive: Option<f64>,
    cross_entropy: Option<f64>,
    classified: (usize, usize),
    explained: (usize, usize),
}

impl Sums {
    fn add(&mut self, step: &Step, loss: f64, pictures: usize) {
        let weighted =
            |sum: Option<f64>, part: Option<f64>| part.map(|p| sum.unwrap_or(0.0) + p * pictures as f64).or(sum);
        self.loss += loss * pictures as f64;
        self.contrastive = weighted(self.contrastive, step.contrastive);
        self.cross_entropy = weighted(self.cross_entropy, step.cross_entropy);
        self.classified = (self.classified.0 + step.classified.0, self.classified.1 + step.classified.1);
        if let Some(explained) = &step.explained {
            let passing = explained.passes.iter().filter(|p| **p).count();
            self.explained = (self.explained.0 + explained.passes.len(), self.explained.1 + passing);
        }
    }
}

fn share((all, hits): (usize, usize)) -> Option<f64> {
    (all > 0).then(|| hits as f64 / all as f64)
}

/// Copies that do not share storage with the network's variables.
fn copy(state: &State) -> Result<State> {
    state.iter().map(|(name, tensor)| Ok((name.clone(), tensor.copy()?))).collect()
}

#[cfg(test)]
mod tests;
