//! A trained network on the device, behind the same traits as on the CPU, so that the measurements that take many passes
//! run there: a thread owns the device and answers one question after the other.
//!
//! Picturess go in batches of one size, the last one filled up, so that every shape is planned once and a picture's answer
//! does not depend on the others.

use super::kernels::{Machine, Map, PACK};
use super::walk::{Walker, Wanted};
use super::{device, fail};
use crate::Result;
use crate::config::Precision;
use crate::evaluate::WhiteBox;
use crate::network::{Graph, Network, NodeId, NormMode};
use candle_core::Tensor;
use excon_edge::engine::{Engine, Outputs, Shapes};
use std::sync::mpsc::{Sender, channel};

/// Picturess per pass.
const BATCH: usize = 64;

type Task = Box<dyn FnOnce(&Walker) + Send>;

/// See the module's first paragraph.
pub(crate) struct CudaNetwork {
    tasks: Sender<Task>,
    shapes: Shapes,
}

impl CudaNetwork {
    /// Brings a network to the device, for pictures of `size × size`.
    ///
    /// # Errors
    /// When the device is missing or the network does not run there.
    pub fn open(network: Network, size: usize, precision: Precision) -> Result<Self> {
        let (tasks, inbox) = channel::<Task>();
        let (ready, opened) = channel();
        std::thread::spawn(move || {
            let walker = device(precision).and_then(|device| {
                let walker = Walker::new(&Machine::new(device), network.graph())?;
                walker.parameters.load(&network)?;
                Ok(walker)
            });
            match walker {
                Ok(walker) => {
                    // Whoever asked may have gone; then nobody asks again.
                    let _ = ready.send(Ok(()));
                    inbox.iter().for_each(|task| task(&walker));
                }
                Err(e) => drop(ready.send(Err(e))),
            }
        });
        opened.recv().map_err(|_| gone())??;
        let mut this = Self { tasks, shapes: Shapes { input: [PACK, size, size], classes: 0, features: [0; 3] } };
        this.shapes = this.ask(move |walker| {
            let graph = &walker.graph;
            let x = Pictures::zeros(size).upload(walker)?;
            let pass = walker.forward(&x, &wanted(&[graph.features], false))?;
            let Map { height, width, channels, .. } = *pass.map(graph, graph.features)?;
            let input = [graph.channels(0), size, size];
            Ok(Shapes { input, classes: graph.channels(graph.logits), features: [channels, height, width] })
        })?;
        Ok(this)
    }

    fn ask<T: Send + 'static>(&self, task: impl FnOnce(&Walker) -> Result<T> + Send + 'static) -> Result<T> {
        let (to, answer) = channel();
        // As above.
        let task = Box::new(move |walker: &Walker| drop(to.send(task(walker))));
        self.tasks.send(task).map_err(|_| gone())?;
        answer.recv().map_err(|_| gone())?
    }

    /// Logits and planar features of one batch.
    fn outputs(&self, x: Pictures) -> Result<Outputs> {
        self.ask(move |walker| {
            let graph = &walker.graph;
            let rows = x.rows;
            let pass = walker.forward(&x.upload(walker)?, &wanted(&[graph.features, graph.logits], false))?;
            let map = pass.map(graph, graph.features)?;
            let (area, channels) = (map.area(), map.channels);
            let pixels = floats(map, rows)?;
            let mut features = vec![0f32; pixels.len()];
            for (to, from) in features.chunks_exact_mut(area * channels).zip(pixels.chunks_exact(area * channels)) {
                for (pixel, values) in from.chunks_exact(channels).enumerate() {
                    for (channel, value) in values.iter().enumerate() {
                        to[channel * area + pixel] = *value;
                    }
                }
            }
            Ok(Outputs { logits: logits_of(graph, &pass, rows)?, features })
        })
    }

    /// Batches of an N × H × W × C tensor.
    fn batches(&self, x: &Tensor) -> Result<Vec<Pictures>> {
        let (_, size, _, channels) = x.dims4()?;
        let values = x.flatten_all()?.to_vec1::<f32>()?;
        Ok(values
            .chunks(BATCH * size * size * channels)
            .map(|batch| Pictures::interleaved(batch, channels, size))
            .collect())
    }
}

fn gone() -> crate::Error {
    fail("the graphics card", "stopped answering. Try again, or use --device cpu")
}

fn wanted(fetch: &[NodeId], backward: bool) -> Wanted<'_> {
    Wanted { mode: NormMode::Eval, fetch, weights: None, backward }
}

fn logits_of(graph: &Graph, pass: &super::walk::Pass, rows: usize) -> Result<Vec<f32>> {
    let logits = pass.matrix(graph, graph.logits)?;
    logits.block.get(rows * logits.columns)
}

/// A batch on the host: [`BATCH`] pictures of [`PACK`] channels, of which `rows` count.
struct Pictures {
    rows: usize,
    size: usize,
    values: Vec<f32>,
}

impl Pictures {
    fn zeros(size: usize) -> Self {
        Self { rows: 0, size, values: vec![0.0; BATCH * size * size * PACK] }
    }

    fn planar(images: &[f32], channels: usize, size: usize) -> Self {
        let area = size * size;
        let mut batch = Self::zeros(size);
        batch.rows = images.len() / (channels * area);
        for (to, from) in batch.values.chunks_exact_mut(area * PACK).zip(images.chunks_exact(channels * area)) {
            for (channel, plane) in from.chunks_exact(area).enumerate() {
                to.iter_mut().skip(channel).step_by(PACK).zip(plane).for_each(|(to, from)| *to = *from);
            }
        }
        batch
    }

    fn interleaved(pixels: &[f32], channels: usize, size: usize) -> Self {
        let mut batch = Self::zeros(size);
        batch.rows = pixels.len() / (channels * size * size);
        for (to, from) in batch.values.chunks_exact_mut(PACK).zip(pixels.chunks_exact(channels)) {
            to[..channels].copy_from_slice(from);
        }
        batch
    }

    fn upload(&self, walker: &Walker) -> Result<Map> {
        let map = walker.machine.map([BATCH, self.size, self.size, PACK])?;
        map.block.write(&self.values)?;
        Ok(map)
    }
}

impl Engine for CudaNetwork {
    fn name(&self) -> &str {
        "cuda"
    }

    fn shapes(&self) -> Shapes {
        self.shapes
    }

    fn run(&self, images: &[f32]) -> excon_edge::Result<Outputs> {
        let fail = |reason: String| excon_edge::Error::Engine { engine: self.name().into(), reason };
        let [channels, size, _] = self.shapes.input;
        let each = channels * size * size;
        if images.is_empty() || !images.len().is_multiple_of(each) {
            return Err(fail(format!("{} values are no whole number of pictures of {each}", images.len())));
        }
        let mut all = Outputs { logits: vec![], features: vec![] };
        for batch in images.chunks(BATCH * each) {
            let outputs = self.outputs(Pictures::planar(batch, channels, size)).map_err(|e| fail(e.to_string()))?;
            all.logits.extend(outputs.logits);
            all.features.extend(outputs.features);
        }
        Ok(all)
    }
}

impl WhiteBox for CudaNetwork {
    fn logits(&self, x: &Tensor) -> Result<Tensor> {
        let mut logits = vec![];
        for batch in self.batches(x)? {
            logits.extend(self.ask(move |walker| {
                let graph = &walker.graph;
                let pass = walker.forward(&batch.upload(walker)?, &wanted(&[graph.logits], false))?;
                logits_of(graph, &pass, batch.rows)
            })?);
        }
        Ok(Tensor::from_vec(logits, (x.dim(0)?, self.shapes.classes), x.device())?)
    }

    fn gradient(&self, x: &Tensor, labels: &[usize]) -> Result<Tensor> {
        let (_, _, _, channels) = x.dims4()?;
        let mut gradient = vec![];
        for (batch, labels) in self.batches(x)?.into_iter().zip(labels.chunks(BATCH)) {
            let labels: Vec<i32> = labels.iter().map(|&label| label as i32).collect();
            let pixels = self.ask(move |walker| batch.gradient(walker, labels))?;
            gradient.extend(pixels.chunks_exact(PACK).flat_map(|pixel| pixel[..channels].iter().copied()));
        }
        Ok(Tensor::from_vec(gradient, x.shape(), x.device())?)
    }
}

impl Pictures {
    /// The gradient of the sum of the cross entropies, in [`PACK`] channels.
    fn gradient(&self, walker: &Walker, mut labels: Vec<i32>) -> Result<Vec<f32>> {
        let (graph, machine) = (&walker.graph, &walker.machine);
        labels.resize(BATCH, 0);
        let pass = walker.forward(&self.upload(walker)?, &wanted(&[graph.logits], true))?;
        let labels = machine.pool.put(&labels)?;
        // The kernel's loss is a mean over the rows.
        let (slope, ..) =
            machine.cross_entropy(pass.matrix(graph, graph.logits)?, &labels, BATCH, BATCH, BATCH as f32)?;
        let missing = || fail("the network", "gives its pictures no gradient");
        let dx = walker.backward(pass, vec![(graph.logits, slope)])?.ok_or_else(missing)?;
        floats(&dx, self.rows)
    }
}

/// The numbers of the first rows of a map of `f32`.
fn floats(map: &Map, rows: usize) -> Result<Vec<f32>> {
    map.block.get(rows * map.area() * map.channels)
}
