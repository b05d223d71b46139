//! A training on the device: the pictures lie there as bytes, views are drawn on the host with the CPU's generators and
//! rendered on the device, steps are asked for one after the other and their losses read two steps later.

use super::device::Device;
use super::kernels::{MAX_SIDE, Machine, Map, PACK, Sgd as SgdStep};
use super::memory::{Block, Copying, Plain};
use super::step::{Batch, Method};
use super::walk::{Walker, Wanted as Pass};
use crate::augment::{Operation, RandomView, ViewSeed, draw};
use crate::config::TrainConfig;
use crate::dataset::Split;
use crate::network::{Network, NormMode, Plan, Step};
use crate::optimizer::Sgd;
use crate::recipe::{Draw, Purpose, Slot, stream};
use crate::trainer::accelerator::{Accelerator, Job, Outcome, Start, Wanted};
use crate::{Error, Result};
use rand::RngExt;
use rayon::prelude::*;
use std::collections::{BTreeSet, VecDeque};
use std::ops::Range;
use std::rc::Rc;

/// Steps that may be under way while their outcomes are not known.
const AHEAD: usize = 2;
/// Pictures per pass of an inference.
const BATCH: usize = 256;

/// A view as `augment.cu` reads it.
#[derive(Debug, Clone, Copy, Default)]
#[repr(C)]
pub(super) struct ViewWords {
    picture: i32,
    top: i32,
    left: i32,
    height: i32,
    width: i32,
    mirror: i32,
    grey: i32,
    order: i32,
    factors: [f32; 4],
    standard: i32,
    reserved: [i32; 3],
}

// SAFETY: sixteen numbers of four bytes without padding; any bits are a value.
unsafe impl Plain for ViewWords {}

impl ViewWords {
    /// The clean picture, or its mirror image.
    pub fn standard(picture: usize, mirror: bool) -> Self {
        Self { picture: picture as i32, mirror: mirror.into(), standard: 1, ..Self::default() }
    }

    /// A random view of a picture of `size` × `size`, as the CPU draws it.
    pub fn random(size: usize, view: &RandomView, seed: ViewSeed, of: Draw) -> Self {
        /// No operation.
        const NONE: i32 = 15;
        let drawn = draw(size, view, seed, of.key);
        let (mut order, mut factors) = (0, [0.0; 4]);
        for (place, operation) in drawn.colours.operations.into_iter().enumerate() {
            let number = match operation {
                None => NONE,
                Some(operation) => {
                    let (number, factor) = match operation {
                        Operation::Brightness(factor) => (0, factor),
                        Operation::Contrast(factor) => (1, factor),
                        Operation::Saturation(factor) => (2, factor),
                        Operation::Hue(turn) => (3, turn),
                    };
                    factors[number] = factor;
                    number as i32
                }
            };
            order |= number << (4 * place);
        }
        let [picture, top, left, height, width] =
            [of.index, drawn.crop.top, drawn.crop.left, drawn.crop.height, drawn.crop.width].map(|v| v as i32);
        let (mirror, grey) = (drawn.mirror.into(), drawn.colours.grey.into());
        Self { picture, top, left, height, width, mirror, grey, order, factors, standard: 0, reserved: [0; 3] }
    }
}

/// A step whose outcome is on its way.
struct UnderWay {
    pictures: usize,
    /// Rows that were classified and pictures that were explained.
    classified: usize,
    explained: usize,
    contrastive: bool,
    /// Weight of the cross entropy in the loss.
    entropy: f64,
    totals: Copying<f32>,
}

impl UnderWay {
    fn outcome(self) -> Result<Outcome> {
        let totals = self.totals.wait()?;
        let [terms, entropies, hits, passing] = [0, 1, 2, 3].map(|i| f64::from(totals[i]));
        let contrastive = self.contrastive.then_some(terms);
        let cross_entropy = (self.classified > 0).then(|| entropies / self.classified as f64);
        Ok(Outcome {
            pictures: self.pictures,
            loss: contrastive.unwrap_or(0.0) + cross_entropy.map_or(0.0, |e| self.entropy * e),
            contrastive,
            cross_entropy,
            classified: (self.classified, hits as usize),
            explained: (self.explained, passing as usize),
        })
    }
}

/// See the module's first paragraph.
pub(super) struct Engine {
    pub(super) walker: Walker,
    config: TrainConfig,
    method: Method,
    colours: ([f32; 3], [f32; 3]),
    size: usize,
    pictures: Block,
    labels: Vec<i32>,
    /// Parameters that the encoder's steps move, their names, and those of the classifier's own.
    encoder: (Vec<Range<usize>>, BTreeSet<String>),
    classifier: (Vec<Range<usize>>, BTreeSet<String>),
    under_way: VecDeque<UnderWay>,
    /// Whether there is momentum to bring home.
    moved: [bool; 2],
}

impl Engine {
    /// Brings a training to a device.
    ///
    /// # Errors
    /// When a setting, the network or the pictures do not fit the device.
    pub fn new(device: Rc<dyn Device>, start: &Start) -> Result<Self> {
        let Start { config, data, network, encoder, classifier } = *start;
        let black = std::array::from_fn(|c| -data.mean[c] / data.std[c]);
        let method = Method::of(config, black)?;
        let size = data.train.size;
        if size > MAX_SIDE {
            let reason = format!("pictures of {size} pixels are wider than {MAX_SIDE}, the most on the graphics card");
            return Err(Error::Setting { name: "image_size".into(), reason });
        }
        let machine = Machine::new(device);
        let graph = network.graph();
        let walker = Walker::new(&machine, graph)?;
        walker.parameters.load(network)?;
        let momentum = [encoder.state()?, classifier.map_or(Ok(Default::default()), Sgd::state)?];
        walker.parameters.load_momentum(&momentum)?;
        // As on the CPU, what gets no gradient in a step does not move, not even by weight decay.
        let steps = Plan::new(graph, &method.outputs(&walker), None).steps;
        let reached = |name: &str| {
            let node = name.rsplit_once('.').map_or(name, |(node, _)| node);
            graph.find(node).is_some_and(|id| steps[id] != Step::Skip)
        };
        let group = |names: BTreeSet<String>| (walker.parameters.ranges(|name| names.contains(name)), names);
        let of_encoder = encoder.names().filter(|name| reached(name)).map(String::from).collect();
        let of_classifier = classifier.into_iter().flat_map(Sgd::names).map(String::from).collect();
        Ok(Self {
            encoder: group(of_encoder),
            classifier: group(of_classifier),
            config: config.clone(),
            method,
            colours: (data.mean, data.std),
            size,
            pictures: machine.pool.put(&data.train.rgb)?,
            labels: data.train.labels.iter().map(|&label| label as i32).collect(),
            under_way: VecDeque::new(),
            moved: momentum.map(|state| !state.is_empty()),
            walker,
        })
    }

    fn machine(&self) -> &Machine {
        &self.walker.machine
    }

    /// Renders these views of training pictures into `to`, from row `row` on.
    fn render(&self, views: &[ViewWords], to: &Map, row: usize) -> Result<()> {
        let words = self.machine().pool.put(views)?;
        self.machine().views(&self.pictures, &words, views.len(), self.colours, to, row)
    }

    fn random(&self, job: &Job, view: &RandomView, slot: Slot) -> Vec<ViewWords> {
        let seed = ViewSeed { seed: self.config.seed, epoch: job.epoch as u64, view: slot as u64 };
        let size = self.size;
        job.draws.par_iter().map(|&draw| ViewWords::random(size, view, seed, draw)).collect()
    }

    fn batch(&self, job: &Job) -> Result<Batch> {
        let count = job.draws.len();
        let machine = self.machine();
        let side = self.size;
        let views = machine.map([self.method.rows(count, job.epoch), side, side, PACK])?;
        let explain = self.method.explains(job.epoch);
        let clean = || job.draws.iter().map(|draw| ViewWords::standard(draw.index, false)).collect::<Vec<_>>();
        let first = self.random(job, &self.config.views, Slot::First);
        let mut standard = None;
        let mut mirror = None;
        match (self.method, explain) {
            (Method::CrossEntropy, _) => self.render(&first, &views, 0)?,
            (Method::Contrast { .. }, explain) => {
                match explain {
                    Some(e) if e.unmasked => self.render(&clean(), &views, 0)?,
                    _ => self.render(&self.random(job, &self.config.views, Slot::Second), &views, 0)?,
                }
                self.render(&first, &views, count)?;
                if let Some(explain) = explain.filter(|e| !e.unmasked) {
                    let map = machine.map([count, side, side, PACK])?;
                    self.render(&clean(), &map, 0)?;
                    standard = Some(map);
                    let drawn = |draw: &Draw| {
                        u8::from(stream(self.config.seed, Purpose::MaskedFlip, job.epoch, draw.key).random_bool(0.5))
                    };
                    let flips = || job.draws.iter().map(drawn).collect::<Vec<_>>();
                    mirror = if explain.flip { Some(machine.pool.put(&flips())?) } else { None };
                }
            }
        }
        Ok(Batch { views, standard, labels: self.labels_of(job)?, count, mirror, epoch: job.epoch })
    }

    fn labels_of(&self, job: &Job) -> Result<Block> {
        self.machine().pool.put(&job.draws.iter().map(|draw| self.labels[draw.index]).collect::<Vec<_>>())
    }

    fn sgd(&self, rate: f64) -> SgdStep {
        let crate::optimizer::SgdConfig { momentum, weight_decay, nesterov } = self.config.optimizer;
        SgdStep { rate: rate as f32, momentum: momentum as f32, decay: weight_decay as f32, nesterov }
    }

    /// Outcomes of all but the last [`AHEAD`] steps.
    fn known(&mut self, ahead: usize) -> Result<Vec<Outcome>> {
        let mut known = vec![];
        while self.under_way.len() > ahead {
            known.extend(self.under_way.pop_front().map(UnderWay::outcome).transpose()?);
        }
        Ok(known)
    }
}

impl Accelerator for Engine {
    fn step(&mut self, job: &Job) -> Result<Vec<Outcome>> {
        let batch = self.batch(job)?;
        let totals = self.method.step(&self.walker, &batch, &self.encoder.0, self.sgd(job.rate))?;
        let (contrastive, classified, entropy) = match self.method {
            Method::CrossEntropy => (false, batch.count, 1.0),
            Method::Contrast { joint: Some(weight), .. } => (true, 2 * batch.count, f64::from(weight)),
            Method::Contrast { joint: None, .. } => (true, 0, 0.0),
        };
        let explained = if batch.standard.is_some() { batch.count } else { 0 };
        let totals = totals.read(4)?;
        let pictures = batch.count;
        self.under_way.push_back(UnderWay { pictures, classified, explained, contrastive, entropy, totals });
        self.moved[0] = true;
        self.known(AHEAD)
    }

    fn classifier_step(&mut self, job: &Job) -> Result<Vec<Outcome>> {
        let (graph, machine) = (&self.walker.graph, self.machine());
        let count = job.draws.len();
        let views = machine.map([count, self.size, self.size, PACK])?;
        self.render(&self.random(job, &self.config.classifier_views, Slot::Classifier), &views, 0)?;
        let labels = self.labels_of(job)?;
        let fetch = [graph.pooled, graph.logits];
        let wanted = Pass { mode: NormMode::Eval, fetch: &fetch, weights: None, backward: false };
        let pass = self.walker.forward(&views, &wanted)?;
        let logits = pass.matrix(graph, graph.logits)?;
        let (gradient, losses, hits) = machine.cross_entropy(logits, &labels, count, count, 1.0)?;
        self.walker.linear_backward(graph.logits, &gradient, pass.matrix(graph, graph.pooled)?)?;
        self.walker.parameters.step(&self.classifier.0, self.sgd(job.rate))?;
        let totals = machine.totals(None, Some((&losses, &hits, count)), None, &labels, count)?.read(4)?;
        let (contrastive, entropy) = (false, 1.0);
        let of = UnderWay { pictures: count, classified: count, explained: 0, contrastive, entropy, totals };
        self.under_way.push_back(of);
        self.moved[1] = true;
        self.known(AHEAD)
    }

    fn finish(&mut self) -> Result<Vec<Outcome>> {
        self.known(0)
    }

    fn load(&mut self, network: &Network) -> Result<()> {
        self.walker.parameters.load(network)
    }

    fn infer(&mut self, split: &Split, mirror: bool, wanted: Wanted) -> Result<Vec<f32>> {
        let (graph, machine) = (&self.walker.graph, self.machine());
        let fetch = [if wanted == Wanted::Logits { graph.logits } else { graph.pooled }];
        let pictures = machine.pool.put(&split.rgb)?;
        let x = machine.map([BATCH, split.size, split.size, PACK])?;
        let mut values = vec![];
        for indices in (0..split.len()).collect::<Vec<_>>().chunks(BATCH) {
            // Always a whole batch, whose convolutions are planned once: the last picture fills it up.
            let all = indices.iter().chain(std::iter::repeat(&indices[indices.len() - 1])).take(BATCH);
            let views: Vec<ViewWords> = all.map(|&index| ViewWords::standard(index, mirror)).collect();
            machine.views(&pictures, &machine.pool.put(&views)?, BATCH, self.colours, &x, 0)?;
            let pass = self
                .walker
                .forward(&x, &Pass { mode: NormMode::Eval, fetch: &fetch, weights: None, backward: false })?;
            let rows = pass.matrix(graph, fetch[0])?;
            values.extend(rows.block.get::<f32>(indices.len() * rows.columns)?);
        }
        Ok(values)
    }

    fn store(&self, network: &mut Network, encoder: &mut Sgd, classifier: Option<&mut Sgd>) -> Result<()> {
        let parameters = &self.walker.parameters;
        network.load(&parameters.state()?)?;
        if self.moved[0] {
            encoder.load(&parameters.momentum(|name| self.encoder.1.contains(name))?)?;
        }
        if let (true, Some(classifier)) = (self.moved[1], classifier) {
            classifier.load(&parameters.momentum(|name| self.classifier.1.contains(name))?)?;
        }
        Ok(())
    }
}
