//! The backward pass of a walk, from the plan of the forward pass.
//!
//! Where two gradients of a map meet they stay two maps, and the kernel that needs their sum adds them as it reads. A pass
//! with batch statistics yields the parameters' gradients, one with running statistics that of the pictures alone, which
//! an attack follows.

use super::device::Direction;
use super::kernels::{After, Map, Matrix, Windows};
use super::walk::{Pass, Saved, Walker, unfit};
use crate::Result;
use crate::network::{NodeId, NormMode, Op, Step};
use excon_edge::kernel::Clip;

/// A gradient on its way: maps that are still to be added, or a matrix.
enum Gradient {
    Maps(Vec<Map>),
    Matrix(Matrix),
}

impl Walker {
    /// Gradients of all parameters that the pass used, from those of its outputs; after a pass with running statistics
    /// that of the pictures instead, which is returned. Gradients of maps live as short as they can, and so do the pass's
    /// values.
    ///
    /// # Errors
    /// When a node cannot run, or the device refuses.
    pub fn backward(&self, mut pass: Pass, outputs: Vec<(NodeId, Matrix)>) -> Result<Option<Map>> {
        let mut gradients: Vec<Option<Gradient>> = vec![];
        gradients.resize_with(self.graph.nodes.len(), || None);
        for (id, gradient) in outputs {
            gradients[id] = Some(Gradient::Matrix(gradient));
        }
        for id in (0..self.graph.nodes.len()).rev() {
            match (pass.plan.steps[id], gradients[id].take()) {
                (Step::Single, Some(Gradient::Matrix(g))) => self.single_backward(&pass, id, g, &mut gradients)?,
                (Step::Single, Some(Gradient::Maps(g))) if id == 0 => return Ok(Some(self.sum(g)?)),
                (Step::Single, Some(Gradient::Maps(g))) => {
                    let g = self.sum(g)?;
                    self.map_backward(&pass, id, g, &mut gradients)?;
                }
                (Step::Chain { conv, norm, residual, clip }, Some(Gradient::Maps(g))) => {
                    let saved = pass.saved[id].take();
                    self.chain_backward(&pass, id, (conv, norm, residual, clip), g, saved, &mut gradients)?;
                }
                _ => {}
            }
            pass.values[id] = None;
        }
        Ok(None)
    }

    fn chain_backward(
        &self,
        pass: &Pass,
        id: NodeId,
        (conv, norm, residual, clip): (Option<NodeId>, NodeId, Option<NodeId>, Clip),
        mut gradient: Vec<Map>,
        saved: Option<Saved>,
        gradients: &mut [Option<Gradient>],
    ) -> Result<()> {
        let graph = &self.graph;
        if gradient.len() > 2 {
            gradient = vec![self.sum(gradient)?];
        }
        let gate = if clip == Clip::NONE { None } else { Some((pass.map(graph, id)?, clip.high)) };
        let after = After { gradient: [gradient.first(), gradient.get(1)], gate, residual: residual.is_some() };
        let (dx, dresidual) = match saved {
            Some(Saved { x, statistics }) => {
                let (at, to) = self.parameters.norm(norm)?;
                self.machine.norm_gradient(&after, &x, &statistics, pass.weights.as_ref(), at.gamma, to)?
            }
            None => self.machine.norm_eval_gradient(&after, self.parameters.folded(norm)?.0)?,
        };
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
        if learns(pass) {
            device.convolve(Direction::Weights, &shape, [x.at(), gradient.at()], weight_gradient)?;
        }
        if input > 0 || !learns(pass) {
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
            Op::Relu | Op::Relu6 => {
                let high = graph.clip(id).unwrap_or(Clip::NONE).high;
                push(gradients, input, machine.gate(&g, pass.map(graph, id)?, high)?);
            }
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
                if learns(pass) {
                    self.linear_backward(id, &g, x)?;
                }
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
            self.machine.add(&sum, Some(&map), Clip::NONE, &to)?;
            sum = to;
        }
        Ok(sum)
    }
}

/// Whether the pass yields gradients of parameters.
fn learns(pass: &Pass) -> bool {
    pass.mode != NormMode::Eval
}

fn push(gradients: &mut [Option<Gradient>], id: NodeId, map: Map) {
    match &mut gradients[id] {
        Some(Gradient::Maps(maps)) => maps.push(map),
        place => *place = Some(Gradient::Maps(vec![map])),
    }
}
