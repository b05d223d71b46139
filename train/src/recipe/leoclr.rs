//! LeOCLR: no labels. The whole picture, with its colours changed, is the query; two random crops of it are keys of a
//! momentum encoder; a queue of earlier keys are the negatives.
//!
//! `loss = InfoNCE(q, k1) + InfoNCE(q, k2)`. After each step the momentum encoder moves: θ ← m θ + (1 − m) θ_query. Its
//! batch norms use its own batches, keys of both crops in one. Both crops' keys enter the queue. Encoder and queue are
//! saved in the checkpoint. Labels serve the classifier on frozen features alone, which chooses the best epoch: judge the
//! encoder by `excon evaluate RUN --probe`.
//!
//! Source: arXiv 2403.06813 (abstract, and its pseudocode at second hand); momentum, queue and temperature of MoCo v2
//! (arXiv 2003.04297). Unknown: the paper's hyper-parameters, which keys it queues, and its blur, which our views lack.
//! One machine has no shuffled batch norm, MoCo's guard against a leak through batch statistics. Cost: 5 units a picture
//! to SupCon's 6 (one pass with gradient, two without), and one a picture and epoch for the classifier.

use super::views::value;
use super::{Batch, Needs, Purpose, Recipe, RecipeState, Step, Trains, stream};
use crate::augment::View;
use crate::config::{QueueConfig, TrainConfig};
use crate::dataset::Dataset;
use crate::network::{Network, NormMode};
use crate::{Error, Result, loss};
use candle_core::{Device, Tensor};
use rand_distr::{Distribution, StandardNormal};

/// Prefix of the momentum encoder's tensors in the recipe's state.
const ENCODER: &str = "momentum.";
const QUEUE: &str = "queue";

/// The recipe.
pub(super) struct Leoclr {
    settings: QueueConfig,
    seed: u64,
    whole: View,
    crop: View,
    /// From the first epoch on.
    momentum: Option<Momentum>,
}

/// What changes from step to step.
struct Momentum {
    encoder: Network,
    /// `length × projection`, unit rows, the oldest first.
    queue: Vec<f32>,
}

impl Leoclr {
    pub fn new(config: &TrainConfig) -> Self {
        Self {
            settings: config.queue,
            seed: config.seed,
            whole: View::Random(config.views.uncropped()),
            crop: View::Random(config.views.clone()),
            momentum: None,
        }
    }

    fn momentum(&mut self) -> Result<&mut Momentum> {
        self.momentum.as_mut().ok_or_else(|| super::missing("the momentum encoder and its queue"))
    }
}

impl Recipe for Leoclr {
    fn needs(&self, _: usize) -> Needs {
        Needs { standard: Some(self.whole.clone()), ..Needs::two(self.crop.clone()) }
    }

    fn trains(&self, _: usize) -> Trains {
        Trains::InTurn
    }

    fn begin(&mut self, network: &Network, _: &Dataset, _: usize) -> Result<()> {
        if self.momentum.is_none() {
            // The queue begins with random directions.
            let columns = network.graph().channels(network.graph().projection);
            let mut rng = stream(self.seed, Purpose::Queue, 0, 0);
            let numbers: Vec<f32> = StandardNormal.sample_iter(&mut rng).take(self.settings.length * columns).collect();
            let rows = Tensor::from_vec(numbers, (self.settings.length, columns), &Device::Cpu)?;
            let queue = loss::unit_rows(&rows)?.flatten_all()?.to_vec1()?;
            self.momentum = Some(Momentum { encoder: copy(network, &network.state()?)?, queue });
        }
        Ok(())
    }

    fn step(&mut self, network: &Network, batch: &Batch) -> Result<Step> {
        let QueueConfig { length, temperature, .. } = self.settings;
        let projection = network.graph().projection;
        let momentum = self.momentum()?;
        let query = network.forward(batch.uncropped()?, NormMode::Train, &[projection])?.remove(0);
        let crops = Tensor::cat(&[&batch.first, &batch.second], 0)?;
        let keys = loss::unit_rows(&momentum.encoder.infer(&crops, NormMode::Train, &[projection])?[0])?;
        let (rows, columns) = query.dims2()?;
        let queue = Tensor::from_slice(&momentum.queue, (length, columns), query.device())?;
        let both = [keys.narrow(0, 0, rows)?, keys.narrow(0, rows, rows)?];
        let loss = loss::info_nce(&query, &both, &queue, temperature)?;
        momentum.queue.extend(keys.flatten_all()?.to_vec1::<f32>()?);
        momentum.queue.drain(..momentum.queue.len() - length * columns);
        let contrastive = Some(value(&loss)?);
        Ok(Step { loss, contrastive, cross_entropy: None, classified: (0, 0), passes: None })
    }

    fn follow(&mut self, network: &Network) -> Result<()> {
        let share = self.settings.momentum;
        for ((_, old), (_, new)) in self.momentum()?.encoder.parameters().into_iter().zip(network.parameters()) {
            old.set(&((old.as_detached_tensor() * share)? + (new.as_detached_tensor() * (1.0 - share))?)?)?;
        }
        Ok(())
    }

    fn state(&self) -> Result<RecipeState> {
        let Some(Momentum { encoder, queue }) = &self.momentum else { return Ok(RecipeState::new()) };
        let mut state: RecipeState =
            encoder.state()?.into_iter().map(|(name, tensor)| (format!("{ENCODER}{name}"), tensor)).collect();
        let shape = (self.settings.length, queue.len() / self.settings.length);
        state.insert(QUEUE.into(), Tensor::from_slice(queue, shape, &Device::Cpu)?);
        Ok(state)
    }

    fn load(&mut self, network: &Network, state: &RecipeState) -> Result<()> {
        if state.is_empty() {
            self.momentum = None;
            return Ok(());
        }
        let columns = network.graph().channels(network.graph().projection);
        let wanted = [self.settings.length, columns];
        let fits = |queue: &&Tensor| queue.dims() == wanted;
        let Some(queue) = state.get(QUEUE).filter(fits) else {
            return Err(Error::Graph { node: QUEUE.into(), reason: format!("is not {wanted:?} in the checkpoint") });
        };
        let named = |(name, tensor): (&String, &Tensor)| Some((name.strip_prefix(ENCODER)?.into(), tensor.clone()));
        let encoder = copy(network, &state.iter().filter_map(named).collect())?;
        self.momentum = Some(Momentum { encoder, queue: queue.flatten_all()?.to_vec1()? });
        Ok(())
    }
}

/// A network of the same graph with these numbers.
fn copy(network: &Network, state: &RecipeState) -> Result<Network> {
    let mut copy = Network::new(network.graph().clone(), &mut stream(0, Purpose::Weights, 0, 0))?;
    copy.load(state)?;
    Ok(copy)
}
