//! Walks a network's graph on the device: the same plan as on the CPU, and the backward pass from it.
//!
//! A chain convolution → norm → [sum] → ReLU is a convolution and two kernels forward, two kernels and two convolutions
//! backward. Where two gradients of a map meet they stay two maps, and the kernel that needs their sum adds them as it
//! reads.

use super::device::{Convolution, Direction};
use super::kernels::{Machine, Map, Matrix, NormAt, Weights, Windows};
use super::memory::Block;
use super::parameters::Parameters;
use crate::network::{Graph, MOMENTUM, NodeId, NormMode, Op, Plan, Step};
use crate::{Error, Result};

/// What a node's output is.
#[derive(Clone)]
pub(super) enum Value {
    Map(Map),
    Matrix(Matrix),
}

/// What the backward pass needs of a norm with batch statistics: its input and its statistics.
struct Saved {
    x: Map,
    statistics: Block,
}

/// A forward pass.
pub(super) struct Pass {
    plan: Plan,
    values: Vec<Option<Value>>,
    /// By the node that ends the chain.
    saved: Vec<Option<Saved>>,
    weights: Option<Weights>,
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
    /// Whether [`backward`] follows; it needs batch statistics.
    pub backward: bool,
}

/// A gradient on its way: maps that are still to be added, or a matrix.
enum Gradient {
    Maps(Vec<Map>),
    Matrix(Matrix),
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
        let mut pass = Pass { plan, values: vec![None; count], saved: vec![], weights: wanted.weights.cloned() };
        pass.saved.resize_with(count, || None);
        for id in 0..count {
            let value = match pass.plan.steps[id] {
                Step::Skip | Step::Absorbed => continue,
                Step::Single if id == 0 => Value::Map(x.clone()),
                Step::Single => self.single(&pass, id)?,
                Step::Chain { conv, norm, residual, relu } => {
                    let input = pass.map(graph, graph.nodes[conv.unwrap_or(norm)].inputs[0])?.clone();
                    let residual = residual.map(|r| pass.map(graph, r).cloned()).transpose()?;
                    let x = match conv {
                        Some(conv) => self.convolve(conv, &input)?,
                        None => input,
                    };
                    // Nobody else reads the convolution's result, and without a backward pass nobody will.
                    let y = if conv.is_some() && !wanted.backward { x.clone() } else { self.machine.like(&x)? };
                    let statistics = self.normalise(norm, &x, residual.as_ref(), relu, wanted, &y)?;
                    if wanted.backward {
                        let Some(statistics) = statistics else {
                            return Err(unfit(graph, norm, "has no backward pass with running statistics"));
                        };
                        pass.saved[id] = Some(Saved { x, statistics });
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

    /// Writes `relu?(norm(x) + residual?)` to `y`; the statistics where they are the batch's.
    fn normalise(
        &self,
        norm: NodeId,
        x: &Map,
        residual: Option<&Map>,
        relu: bool,
        wanted: &Wanted,
        y: &Map,
    ) -> Result<Option<Block>> {
        let (at, _): (NormAt, _) = self.parameters.norm(norm)?;
        let momentum = match wanted.mode {
            NormMode::Eval => {
                self.machine.norm_apply(x, residual, self.parameters.folded(norm)?, relu, y)?;
                return Ok(None);
            }
            NormMode::Train => Some(MOMENTUM),
            NormMode::Batch => None,
        };
        let statistics = self.machine.norm_statistics(x, wanted.weights, at, momentum)?;
        let part = |n: usize| statistics.address() + (4 * n * x.channels) as u64;
        self.machine.norm_apply(x, residual, (part(2), part(3)), relu, y)?;
        Ok(Some(statistics))
    }

    fn single(&self, pass: &Pass, id: NodeId) -> Result<Value> {
        let (graph, machine) = (&self.graph, &self.machine);
        let node = &graph.nodes[id];
        let input = node.inputs[0];
        Ok(match (&node.op, &pass.values[input]) {
            (Op::Conv { .. }, Some(Value::Map(x))) => Value::Map(self.convolve(id, x)?),
            (Op::Relu, Some(Value::Map(x))) => {
                let y = machine.like(x)?;
                machine.add(x, None, true, &y)?;
                Value::Map(y)
            }
            (Op::Add, Some(Value::Map(a))) => {
                let y = machine.like(a)?;
                machine.add(a, Some(pass.map(graph, node.inputs[1])?), false, &y)?;
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
                machine.product(shape, [false, true], (x.at(), weight, y.at()), (1.0, false, false))?;
                machine.bias(&y, bias)?;
                Value::Matrix(y)
            }
            (Op::Relu, Some(Value::Matrix(x))) => Value::Matrix(machine.relu_matrix(x)?),
            _ => return Err(unfit(graph, id, "cannot run alone on the graphics card")),
        })
    }

    fn shape(&self, id: NodeId, x: &Map) -> Result<Convolution> {
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

    /// Gradients of all parameters that the pass used, from those of its outputs. Gradients of maps live as short as they
    /// can, and so do the pass's values.
    ///
    /// # Errors
    /// When a node cannot run, or the device refuses.
    pub fn backward(&self, mut pass: Pass, outputs: Vec<(NodeId, Matrix)>) -> Result<()> {
        let mut gradients: Vec<Option<Gradient>> = vec![];
        gradients.resize_with(self.graph.nodes.len(), || None);
        for (id, gradient) in outputs {
            gradients[id] = Some(Gradient::Matrix(gradient));
        }
        for id in (0..self.graph.nodes.len()).rev() {
            match (pass.plan.steps[id], gradients[id].take()) {
                (Step::Single, Some(Gradient::Matrix(g))) => self.single_backward(&pass, id, g, &mut gradients)?,
                (Step::Single, Some(Gradient::Maps(g))) if id > 0 => {
                    let g = self.sum(g)?;
                    self.map_backward(&pass, id, g, &mut gradients)?;
                }
                (Step::Chain { conv, norm, residual, relu }, Some(Gradient::Maps(g))) => {
                    let saved = pass.saved[id].take().ok_or_else(|| unfit(&self.graph, id, "kept nothing"))?;
                    self.chain_backward(&pass, id, (conv, norm, residual, relu), g, saved, &mut gradients)?;
                }
                _ => {}
            }
            pass.values[id] = None;
        }
        Ok(())
    }

    fn chain_backward(
        &self,
        pass: &Pass,
        id: NodeId,
        (conv, norm, residual, relu): (Option<NodeId>, NodeId, Option<NodeId>, bool),
        mut gradient: Vec<Map>,
        saved: Saved,
        gradients: &mut [Option<Gradient>],
    ) -> Result<()> {
        let graph = &self.graph;
        if gradient.len() > 2 {
            gradient = vec![self.sum(gradient)?];
        }
        let gate = if relu { Some(pass.map(graph, id)?) } else { None };
        let (at, to) = self.parameters.norm(norm)?;
        let both = [gradient.first(), gradient.get(1)];
        let weights = pass.weights.as_ref();
        let (dx, dresidual) = self.machine.norm_gradient(
            both,
            gate,
            &saved.x,
            &saved.statistics,
            weights,
            at.gamma,
            to,
            residual.is_some(),
        )?;
        if let (Some(residual), Some(dresidual)) = (residual, dresidual) {
            push(gradients, residual, dresidual);
        }
        match conv {
            Some(conv) => self.convolution_backward(pass, conv, &dx, gradients),
            None => {
                push(gradients, graph.nodes[norm].inputs[0], dx);
                Ok(())
            }
        }
    }

    fn convolution_backward(
        &self,
        pass: &Pass,
        id: NodeId,
        gradient: &Map,
        gradients: &mut [Option<Gradient>],
    ) -> Result<()> {
        let input = self.graph.nodes[id].inputs[0];
        let x = pass.map(&self.graph, input)?;
        let shape = self.shape(id, x)?;
        let (weight, weight_gradient) = self.parameters.convolution(id);
        let device = self.machine.device();
        device.convolve(Direction::Weights, &shape, [x.at(), gradient.at()], weight_gradient)?;
        if input > 0 {
            let dx = self.machine.like(x)?;
            device.convolve(Direction::Input, &shape, [gradient.at(), weight], dx.at())?;
            push(gradients, input, dx);
        }
        Ok(())
    }

    /// Backward of a node alone whose output is a map.
    fn map_backward(&self, pass: &Pass, id: NodeId, g: Map, gradients: &mut [Option<Gradient>]) -> Result<()> {
        let (graph, machine) = (&self.graph, &self.machine);
        let node = &graph.nodes[id];
        let input = node.inputs[0];
        match node.op {
            Op::Conv { .. } => return self.convolution_backward(pass, id, &g, gradients),
            Op::Relu => push(gradients, input, machine.gate(&g, pass.map(graph, id)?)?),
            Op::Add => {
                push(gradients, input, g.clone());
                push(gradients, node.inputs[1], g);
            }
            Op::MaxPool { kernel, stride, padding } => {
                let (x, y) = (pass.map(graph, input)?, pass.map(graph, id)?);
                push(gradients, input, machine.max_pool_gradient(x, y, &g, Windows { kernel, stride, padding })?);
            }
            _ => return Err(unfit(graph, id, "has no backward pass on the graphics card")),
        }
        Ok(())
    }

    /// Backward of a node alone whose output is a matrix.
    fn single_backward(&self, pass: &Pass, id: NodeId, g: Matrix, gradients: &mut [Option<Gradient>]) -> Result<()> {
        let (graph, machine) = (&self.graph, &self.machine);
        let node = &graph.nodes[id];
        let input = node.inputs[0];
        match node.op {
            Op::GlobalPool => push(gradients, input, machine.global_pool_gradient(&g, pass.map(graph, input)?)?),
            Op::Relu => {
                machine.gate_matrix(&g, pass.matrix(graph, id)?)?;
                gradients[input] = Some(Gradient::Matrix(g));
            }
            Op::Linear { input: columns, output } => {
                let x = pass.matrix(graph, input)?;
                self.linear_backward(id, &g, x)?;
                let (weight, _) = self.parameters.linear(id);
                let (dx, add) = match gradients[input].take() {
                    Some(Gradient::Matrix(there)) => (there, true),
                    _ => (machine.matrix(g.rows, columns)?, false),
                };
                let shape = [g.rows, columns, output];
                machine.product(shape, [false, false], (g.at(), weight, dx.at()), (1.0, add, false))?;
                gradients[input] = Some(Gradient::Matrix(dx));
            }
            _ => return Err(unfit(graph, id, "has no backward pass on the graphics card")),
        }
        Ok(())
    }

    /// Gradients of weight and bias of a linear layer on `x`.
    ///
    /// # Errors
    /// When the device refuses.
    pub fn linear_backward(&self, id: NodeId, g: &Matrix, x: &Matrix) -> Result<()> {
        let (weight, bias) = self.parameters.linear_gradient(id);
        self.machine.column_sums(g, bias)?;
        let shape = [g.columns, x.columns, g.rows];
        self.machine.product(shape, [true, false], (g.at(), x.at(), weight), (1.0, false, false))
    }

    /// One map from several that are to be added.
    fn sum(&self, maps: Vec<Map>) -> Result<Map> {
        let mut maps = maps.into_iter();
        let Some(mut sum) = maps.next() else {
            return Err(unfit(&self.graph, 0, "was given no gradient"));
        };
        for map in maps {
            // A new map: the summands may be shared.
            let to = self.machine.like(&sum)?;
            self.machine.add(&sum, Some(&map), false, &to)?;
            sum = to;
        }
        Ok(sum)
    }
}

fn push(gradients: &mut [Option<Gradient>], id: NodeId, map: Map) {
    match &mut gradients[id] {
        Some(Gradient::Maps(maps)) => maps.push(map),
        place => *place = Some(Gradient::Maps(vec![map])),
    }
}

fn unfit(graph: &Graph, id: NodeId, reason: &str) -> Error {
    Error::Graph { node: graph.nodes[id].name.clone(), reason: reason.into() }
}
