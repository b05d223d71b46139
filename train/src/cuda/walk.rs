//! Walks a network's graph forward on the device, by the same plan as on the CPU.
//!
//! A chain convolution → norm → [sum] → activation is a convolution and two kernels; backward (`backward.rs`) it is two
//! kernels and two convolutions.

use super::device::{Convolution, Direction};
use super::kernels::{Machine, Map, Matrix, NormAt, Weights, Windows};
use super::memory::Block;
use super::parameters::Parameters;
use crate::network::{Graph, MOMENTUM, NodeId, NormMode, Op, Plan, Step};
use crate::{Error, Result};
use excon_edge::kernel::Clip;

/// What a node's output is.
#[derive(Clone)]
pub(super) enum Value {
    Map(Map),
    Matrix(Matrix),
}

/// What the backward pass needs of a norm with batch statistics: its input and its statistics.
pub(super) struct Saved {
    pub x: Map,
    pub statistics: Block,
}

/// A forward pass.
pub(super) struct Pass {
    pub(super) mode: NormMode,
    pub(super) plan: Plan,
    pub(super) values: Vec<Option<Value>>,
    /// By the node that ends the chain; nothing with running statistics.
    pub(super) saved: Vec<Option<Saved>>,
    pub(super) weights: Option<Weights>,
}

impl Pass {
    /// The output of a node that was asked for.
    ///
    /// # Errors
    /// When it is no map.
    pub fn map(&self, graph: &Graph, id: NodeId) -> Result<&Map> {
        match &self.values[id] {
            Some(Value::Map(map)) => Ok(map),
            _ => Err(unfit(graph, id, "is no map here")),
        }
    }

    /// The output of a node that was asked for.
    ///
    /// # Errors
    /// When it is no matrix.
    pub fn matrix(&self, graph: &Graph, id: NodeId) -> Result<&Matrix> {
        match &self.values[id] {
            Some(Value::Matrix(matrix)) => Ok(matrix),
            _ => Err(unfit(graph, id, "is no matrix here")),
        }
    }
}

/// What is wanted of a forward pass.
pub(super) struct Wanted<'a> {
    pub mode: NormMode,
    /// Nodes whose outputs are kept.
    pub fetch: &'a [NodeId],
    /// Rows that do not count once in batch statistics.
    pub weights: Option<&'a Weights>,
    /// Whether [`Walker::backward`] follows.
    pub backward: bool,
}

/// A graph with its numbers on a device.
pub(super) struct Walker {
    pub graph: Graph,
    pub machine: Machine,
    pub parameters: Parameters,
}

impl Walker {
    /// A graph on a device, its numbers all 0.
    ///
    /// # Errors
    /// When the device cannot hold its maps, or memory is short.
    pub fn new(machine: &Machine, graph: &Graph) -> Result<Self> {
        let parameters = Parameters::new(machine, graph)?;
        Ok(Self { graph: graph.clone(), machine: machine.clone(), parameters })
    }

    /// Outputs of nodes for a batch of normalised pictures, a map of [`super::kernels::PACK`] channels.
    ///
    /// # Errors
    /// When a node cannot run, or the device refuses.
    pub fn forward(&self, x: &Map, wanted: &Wanted) -> Result<Pass> {
        let graph = &self.graph;
        let plan = Plan::new(graph, wanted.fetch, None);
        if wanted.mode == NormMode::Eval {
            self.parameters.fold()?;
        }
        let count = graph.nodes.len();
        let (mode, weights) = (wanted.mode, wanted.weights.cloned());
        let mut pass = Pass { mode, plan, values: vec![None; count], saved: vec![], weights };
        pass.saved.resize_with(count, || None);
        for id in 0..count {
            let value = match pass.plan.steps[id] {
                Step::Skip | Step::Absorbed => continue,
                Step::Single if id == 0 => Value::Map(x.clone()),
                Step::Single => self.single(&pass, id)?,
                Step::Chain { conv, norm, residual, clip } => {
                    let input = pass.map(graph, graph.nodes[conv.unwrap_or(norm)].inputs[0])?.clone();
                    let residual = residual.map(|r| pass.map(graph, r).cloned()).transpose()?;
                    let x = match conv {
                        Some(conv) => self.convolve(conv, &input)?,
                        None => input,
                    };
                    // Nobody else reads the convolution's result, and but for the gradients of statistics nobody will.
                    let last = conv.is_some() && (!wanted.backward || mode == NormMode::Eval);
                    let y = if last { x.clone() } else { self.machine.like(&x)? };
                    let statistics = self.normalise(norm, &x, residual.as_ref(), clip, wanted, &y)?;
                    if wanted.backward {
                        pass.saved[id] = statistics.map(|statistics| Saved { x, statistics });
                    }
                    Value::Map(y)
                }
            };
            pass.values[id] = Some(value);
            if !wanted.backward {
                for earlier in 0..id {
                    if pass.plan.last_use[earlier] == id {
                        pass.values[earlier] = None;
                    }
                }
            }
        }
        Ok(pass)
    }

    /// Writes `clip(norm(x) + residual?)` to `y`; the statistics where they are the batch's.
    fn normalise(
        &self,
        norm: NodeId,
        x: &Map,
        residual: Option<&Map>,
        clip: Clip,
        wanted: &Wanted,
        y: &Map,
    ) -> Result<Option<Block>> {
        let (at, _): (NormAt, _) = self.parameters.norm(norm)?;
        let momentum = match wanted.mode {
            NormMode::Eval => {
                self.machine.norm_apply(x, residual, self.parameters.folded(norm)?, clip, y)?;
                return Ok(None);
            }
            NormMode::Train => Some(MOMENTUM),
            NormMode::Batch => None,
        };
        let statistics = self.machine.norm_statistics(x, wanted.weights, at, momentum)?;
        let part = |n: usize| statistics.address() + (4 * n * x.channels) as u64;
        self.machine.norm_apply(x, residual, (part(2), part(3)), clip, y)?;
        Ok(Some(statistics))
    }

    fn single(&self, pass: &Pass, id: NodeId) -> Result<Value> {
        let (graph, machine) = (&self.graph, &self.machine);
        let node = &graph.nodes[id];
        let input = node.inputs[0];
        Ok(match (&node.op, &pass.values[input]) {
            (Op::Conv { .. }, Some(Value::Map(x))) => Value::Map(self.convolve(id, x)?),
            (Op::Relu | Op::Relu6, Some(Value::Map(x))) => {
                let y = machine.like(x)?;
                machine.add(x, None, graph.clip(id).unwrap_or(Clip::NONE), &y)?;
                Value::Map(y)
            }
            (Op::Add, Some(Value::Map(a))) => {
                let y = machine.like(a)?;
                machine.add(a, Some(pass.map(graph, node.inputs[1])?), Clip::NONE, &y)?;
                Value::Map(y)
            }
            (&Op::MaxPool { kernel, stride, padding }, Some(Value::Map(x))) => {
                Value::Map(machine.max_pool(x, Windows { kernel, stride, padding })?)
            }
            (Op::GlobalPool, Some(Value::Map(x))) => Value::Matrix(machine.global_pool(x)?),
            (&Op::Linear { input, output }, Some(Value::Matrix(x))) => {
                let (weight, bias) = self.parameters.linear(id);
                let y = machine.matrix(x.rows, output)?;
                let shape = [x.rows, output, input];
                // What is answered is not rounded: a map adds up to its logit.
                let exact = pass.mode == NormMode::Eval;
                machine.product(shape, [false, true], (x.at(), weight, y.at()), (1.0, false, exact))?;
                machine.bias(&y, bias)?;
                Value::Matrix(y)
            }
            (Op::Relu, Some(Value::Matrix(x))) => Value::Matrix(machine.relu_matrix(x)?),
            _ => return Err(unfit(graph, id, "cannot run alone on the graphics card")),
        })
    }

    pub(super) fn shape(&self, id: NodeId, x: &Map) -> Result<Convolution> {
        let Op::Conv { output, kernel, stride, padding, groups, .. } = self.graph.nodes[id].op else {
            return Err(unfit(&self.graph, id, "is no convolution"));
        };
        let Map { rows, height, width, channels, .. } = *x;
        if height.min(width) + 2 * padding < kernel {
            return Err(unfit(&self.graph, id, &format!("has a kernel larger than its {height} × {width} map")));
        }
        Ok(Convolution { rows, height, width, input: channels, output, kernel, stride, padding, groups })
    }

    fn convolve(&self, id: NodeId, x: &Map) -> Result<Map> {
        let shape = self.shape(id, x)?;
        let (height, width) = shape.sides();
        let y = self.machine.map([x.rows, height, width, shape.output])?;
        let (weight, _) = self.parameters.convolution(id);
        self.machine.device().convolve(Direction::Forward, &shape, [x.at(), weight], y.at())?;
        Ok(y)
    }
}

pub(super) fn unfit(graph: &Graph, id: NodeId, reason: &str) -> Error {
    Error::Graph { node: graph.nodes[id].name.clone(), reason: reason.into() }
}
