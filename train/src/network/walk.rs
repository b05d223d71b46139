//! Executes a graph: only the nodes that the asked-for ones need, in order.
//!
//! A chain convolution → norm → [sum] → activation, none of whose inner results anyone else reads, runs as one step: norm,
//! sum and activation as one operation, and without autograd in `Eval` mode the convolution with it, the norm folded into its
//! weights.

use super::graph::{Graph, NodeId, Op};
use super::parameters::{Network, Numbers};
use crate::kernel::{
    EPSILON, Link, Source, Statistics, batch_norm, chain, chain_folded, conv2d, conv2d_fused, global_pool, max_pool,
};
use crate::{Error, Result};
use candle_core::{Tensor, Var};
use excon_edge::kernel::Clip;
use std::sync::PoisonError;

/// Share of the new batch in the running statistics.
const MOMENTUM: f32 = 0.1;

/// Which statistics batch norm uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NormMode {
    /// The batch's, which also move the running ones.
    Train,
    /// The batch's; the running ones stay.
    Batch,
    /// The running ones.
    Eval,
}

/// What is done at a node.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Step {
    /// Nothing: not needed.
    Skip,
    /// Nothing here: a later node's chain includes it.
    Absorbed,
    /// The node alone.
    Single,
    /// [convolution →] norm [→ sum with the residual] [→ activation], ending at this node.
    Chain { conv: Option<NodeId>, norm: NodeId, residual: Option<NodeId>, clip: Clip },
}

/// Consecutive chains, from the result of `entry` to the graph's features, that nobody else reads inside.
struct Region {
    entry: NodeId,
    /// Per link: its convolution and its norm.
    nodes: Vec<(NodeId, NodeId)>,
    links: Vec<Link>,
}

/// Steps per node, and the node after which each result can be dropped.
struct Plan {
    steps: Vec<Step>,
    last_use: Vec<NodeId>,
}

impl Plan {
    /// `kept` results must exist by themselves: they are asked for, or gradients are taken there.
    fn new(graph: &Graph, fetch: &[NodeId], leaf: Option<NodeId>) -> Self {
        let count = graph.nodes.len();
        let mut kept = vec![false; count];
        let mut uses = vec![0; count];
        let mut steps = vec![Step::Skip; count];
        for &id in fetch.iter().chain(&leaf) {
            kept[id] = true;
            steps[id] = Step::Single;
        }
        for id in (0..count).rev() {
            if steps[id] == Step::Single {
                for &input in &graph.nodes[id].inputs {
                    steps[input] = Step::Single;
                    uses[input] += 1;
                }
            }
        }
        let inner = |id: NodeId| uses[id] == 1 && !kept[id];
        let is_norm = |id: NodeId| matches!(graph.nodes[id].op, Op::Norm { .. });
        for id in (0..count).rev() {
            if steps[id] != Step::Single {
                continue;
            }
            let clip = graph.clip(id);
            let mut absorbed = vec![];
            // The node that ends the linear part.
            let end = if clip.is_some() { graph.nodes[id].inputs[0] } else { id };
            if clip.is_some() && !inner(end) {
                continue;
            }
            let (norm, residual) = match &graph.nodes[end].op {
                Op::Norm { .. } => (end, None),
                Op::Add => {
                    let (a, b) = (graph.nodes[end].inputs[0], graph.nodes[end].inputs[1]);
                    // The later norm takes the sum along; the other operand then exists.
                    let (first, second) = if a > b { (a, b) } else { (b, a) };
                    match [(first, second), (second, first)].into_iter().find(|&(n, _)| is_norm(n) && inner(n)) {
                        Some((norm, residual)) => (norm, Some(residual)),
                        None => continue,
                    }
                }
                _ => continue,
            };
            absorbed.extend([end, norm].into_iter().filter(|&n| n != id));
            let before = graph.nodes[norm].inputs[0];
            let plain = match graph.nodes[before].op {
                Op::Conv { input, output, groups, .. } => groups == 1 || (groups == input && groups == output),
                _ => false,
            };
            let conv = (plain && inner(before)).then_some(before);
            absorbed.extend(conv);
            for id in absorbed {
                steps[id] = Step::Absorbed;
            }
            steps[id] = Step::Chain { conv, norm, residual, clip: clip.unwrap_or(Clip::NONE) };
        }
        let mut last_use: Vec<NodeId> = (0..count).collect();
        for (id, step) in steps.iter().enumerate() {
            let inputs = &graph.nodes[id].inputs;
            match *step {
                Step::Single => inputs.iter().for_each(|&i| last_use[i] = id),
                Step::Chain { conv, norm, residual, .. } => {
                    last_use[graph.nodes[conv.unwrap_or(norm)].inputs[0]] = id;
                    residual.into_iter().for_each(|r| last_use[r] = id);
                }
                Step::Skip | Step::Absorbed => {}
            }
        }
        for (id, kept) in kept.iter().enumerate() {
            if *kept {
                last_use[id] = count;
            }
        }
        Self { steps, last_use }
    }

    /// The part that runs as one operation in training and inference, if the plan has such a part.
    fn region(&self, graph: &Graph) -> Option<Region> {
        let exit = graph.features;
        let entry = self.steps[..exit].iter().rposition(|&s| s == Step::Single)?;
        let mut ends = vec![];
        let mut region = Region { entry, nodes: vec![], links: vec![] };
        for end in entry + 1..=exit {
            let Step::Chain { conv, norm, residual, clip } = self.steps[end] else { continue };
            let conv = conv?;
            let &Op::Conv { input, output, kernel, stride, padding, groups } = &graph.nodes[conv].op else {
                return None;
            };
            let source = |id: NodeId| match id == entry {
                true => Some(Source::Entry),
                false => ends.iter().position(|&e| e == id).map(Source::Link),
            };
            let residual = match residual {
                Some(id) => Some(source(id)?),
                None => None,
            };
            region.links.push(Link {
                input: source(graph.nodes[conv].inputs[0])?,
                residual,
                clip,
                depthwise: groups > 1,
                inputs: input,
                outputs: output,
                kernel,
                stride,
                padding,
            });
            region.nodes.push((conv, norm));
            if end != exit && self.last_use[end] > exit {
                return None;
            }
            ends.push(end);
        }
        (ends.last() == Some(&exit)).then_some(region)
    }
}

impl Network {
    /// Outputs of the nodes `fetch` for an N × H × W × C batch, tracked by autograd back to the parameters.
    ///
    /// # Errors
    /// When the batch does not fit the graph or a node does not exist.
    pub fn forward(&self, x: &Tensor, norm: NormMode, fetch: &[NodeId]) -> Result<Vec<Tensor>> {
        Ok(self.walk(x, norm, fetch, None, true)?.1)
    }

    /// As [`Self::forward`] without autograd; in `Eval` mode norms are folded into the convolutions.
    ///
    /// # Errors
    /// When the batch does not fit the graph or a node does not exist.
    pub fn infer(&self, x: &Tensor, norm: NormMode, fetch: &[NodeId]) -> Result<Vec<Tensor>> {
        Ok(self.walk(&x.detach(), norm, fetch, None, false)?.1)
    }

    /// As [`Self::infer`], but the output of `leaf` is a variable that the fetched outputs are tracked back to: for the
    /// gradient with respect to an inner map. Parameters get no gradient.
    ///
    /// # Errors
    /// When the batch does not fit the graph or a node does not exist.
    pub fn forward_from_leaf(
        &self,
        x: &Tensor,
        norm: NormMode,
        leaf: NodeId,
        fetch: &[NodeId],
    ) -> Result<(Var, Vec<Tensor>)> {
        match self.walk(&x.detach(), norm, fetch, Some(leaf), false)? {
            (Some(var), outputs) => Ok((var, outputs)),
            (None, _) => Err(Error::Graph { node: self.graph.name.clone(), reason: format!("has no node {leaf}") }),
        }
    }

    fn walk(
        &self,
        x: &Tensor,
        norm: NormMode,
        fetch: &[NodeId],
        leaf: Option<NodeId>,
        tracked: bool,
    ) -> Result<(Option<Var>, Vec<Tensor>)> {
        let graph = &self.graph;
        if let Some(&missing) = fetch.iter().chain(&leaf).find(|&&id| id >= graph.nodes.len()) {
            return Err(Error::Graph { node: graph.name.clone(), reason: format!("has no node {missing}") });
        }
        if x.rank() != 4 || x.dims()[3] != graph.channels(0) || x.elem_count() == 0 {
            let reason = format!("takes batches N × H × W × {} and is given {:?}", graph.channels(0), x.dims());
            return Err(Error::Graph { node: graph.nodes[0].name.clone(), reason });
        }
        let plan = Plan::new(graph, fetch, leaf);
        let whole = leaf.is_none() && (norm != NormMode::Eval || !tracked);
        let region = if whole { plan.region(graph) } else { None };
        let mut values: Vec<Option<Tensor>> = vec![None; graph.nodes.len()];
        let mut variable = None;
        for id in 0..graph.nodes.len() {
            if region.as_ref().is_some_and(|r| r.entry < id && id < graph.features) {
                continue;
            }
            let mut value = match plan.steps[id] {
                Step::Chain { .. } if region.is_some() && id == graph.features => {
                    let Some(region) = &region else { continue };
                    self.region(value_of(graph, &values, region.entry)?, region, norm, tracked)?
                }
                Step::Skip | Step::Absorbed => continue,
                Step::Single if id == 0 => x.clone(),
                Step::Single => self.single(id, &values, tracked)?,
                Step::Chain { conv, norm: node, residual, clip } => {
                    let input = value_of(graph, &values, graph.nodes[conv.unwrap_or(node)].inputs[0])?;
                    let residual = residual.map(|r| value_of(graph, &values, r)).transpose()?;
                    self.chain(input, conv, node, residual, clip, norm, tracked)?
                }
            };
            if leaf == Some(id) {
                let var = Var::from_tensor(&value)?;
                value = var.as_tensor().clone();
                variable = Some(var);
            }
            values[id] = Some(value);
            for earlier in 0..id {
                if plan.last_use[earlier] == id {
                    values[earlier] = None;
                }
            }
        }
        let outputs: Result<Vec<_>> = fetch.iter().map(|&id| value_of(graph, &values, id).cloned()).collect();
        Ok((variable, outputs?))
    }

    fn single(&self, id: NodeId, values: &[Option<Tensor>], tracked: bool) -> Result<Tensor> {
        let node = &self.graph.nodes[id];
        let input = |i: usize| value_of(&self.graph, values, node.inputs[i]);
        let parameter = |var: &Var| if tracked { var.as_tensor().clone() } else { var.as_detached_tensor() };
        let value = match (&node.op, &self.numbers[id]) {
            (&Op::Conv { stride, padding, groups, .. }, Numbers::Conv { weight }) => {
                conv2d(input(0)?, &parameter(weight), stride, padding, groups)?
            }
            (Op::Linear { .. }, Numbers::Linear { weight, bias }) => {
                input(0)?.matmul(&parameter(weight).t()?)?.broadcast_add(&parameter(bias))?
            }
            (Op::Relu, _) => input(0)?.relu()?,
            (Op::Relu6, _) => input(0)?.clamp(0f32, 6f32)?,
            (Op::Add, _) => input(0)?.add(input(1)?)?,
            (&Op::MaxPool { kernel, stride, padding }, _) => max_pool(input(0)?, kernel, stride, padding)?,
            (Op::GlobalPool, _) => global_pool(input(0)?)?,
            // Norms always run as chains, and the input is not computed.
            (op, _) => {
                return Err(Error::Graph { node: node.name.clone(), reason: format!("cannot run {op:?} alone") });
            }
        };
        Ok(value)
    }

    fn chain(
        &self,
        input: &Tensor,
        conv: Option<NodeId>,
        norm: NodeId,
        residual: Option<&Tensor>,
        clip: Clip,
        mode: NormMode,
        tracked: bool,
    ) -> Result<Tensor> {
        let lacking =
            |id: NodeId| Error::Graph { node: self.graph.nodes[id].name.clone(), reason: "has no parameters".into() };
        let Numbers::Norm { weight: scale, bias, running } = &self.numbers[norm] else { return Err(lacking(norm)) };
        let fixed = match mode {
            NormMode::Eval => Some(running.read().unwrap_or_else(PoisonError::into_inner).clone()),
            NormMode::Train | NormMode::Batch => None,
        };
        let mut x = input.clone();
        if let Some(conv) = conv {
            let (&Op::Conv { stride, padding, groups, .. }, Numbers::Conv { weight }) =
                (&self.graph.nodes[conv].op, &self.numbers[conv])
            else {
                return Err(lacking(conv));
            };
            let free = !tracked && !input.track_op() && !residual.is_some_and(Tensor::track_op);
            if let (true, Some(fixed)) = (free, &fixed) {
                let (weight, bias) = fold(weight, scale, bias, fixed)?;
                return Ok(conv2d_fused(input, &weight, stride, padding, groups, &bias, residual, clip)?);
            }
            let weight = if tracked { weight.as_tensor().clone() } else { weight.as_detached_tensor() };
            x = conv2d(input, &weight, stride, padding, groups)?;
        }
        let (scale, bias) = if tracked {
            (scale.as_tensor().clone(), bias.as_tensor().clone())
        } else {
            (scale.as_detached_tensor(), bias.as_detached_tensor())
        };
        let output = batch_norm(&x, &scale, &bias, residual, clip, fixed.as_ref())?;
        if let (NormMode::Train, Some(batch)) = (mode, &output.batch) {
            self.follow(norm, batch);
        }
        Ok(output.y)
    }

    fn region(&self, input: &Tensor, region: &Region, mode: NormMode, tracked: bool) -> Result<Tensor> {
        let (mut parts, mut folded) = (vec![], vec![]);
        for &(conv, norm) in &region.nodes {
            if let (Numbers::Conv { weight }, Numbers::Norm { weight: scale, bias, running }) =
                (&self.numbers[conv], &self.numbers[norm])
            {
                if mode == NormMode::Eval {
                    let fixed = running.read().unwrap_or_else(PoisonError::into_inner);
                    folded.push(fold(weight, scale, bias, &fixed)?);
                    continue;
                }
                for var in [weight, scale, bias] {
                    parts.push(if tracked { var.flatten_all()? } else { var.as_detached_tensor().flatten_all()? });
                }
            }
        }
        if mode == NormMode::Eval {
            return Ok(chain_folded(input, &folded, &region.links)?);
        }
        let (y, batches) = chain(input, &Tensor::cat(&parts, 0)?, &region.links)?;
        if mode == NormMode::Train {
            region.nodes.iter().zip(&batches).for_each(|(&(_, norm), batch)| self.follow(norm, batch));
        }
        Ok(y)
    }

    /// Moves a norm's running statistics towards the batch's; the variance that they take is the unbiased one.
    fn follow(&self, norm: NodeId, batch: &Statistics) {
        let Numbers::Norm { running, .. } = &self.numbers[norm] else { return };
        let mut running = running.write().unwrap_or_else(PoisonError::into_inner);
        let unbiased = batch.count as f32 / (batch.count.max(2) - 1) as f32;
        for c in 0..batch.mean.len() {
            running.mean[c] += MOMENTUM * (batch.mean[c] - running.mean[c]);
            running.variance[c] += MOMENTUM * (batch.variance[c] * unbiased - running.variance[c]);
        }
    }
}

fn value_of<'a>(graph: &Graph, values: &'a [Option<Tensor>], id: NodeId) -> Result<&'a Tensor> {
    values[id].as_ref().ok_or_else(|| Error::Graph {
        node: graph.nodes[id].name.clone(),
        reason: "was needed before it was computed; the graph's order is wrong".into(),
    })
}

/// Weights and biases of the convolution that equals convolution then norm with fixed statistics.
fn fold(weight: &Var, scale: &Var, bias: &Var, fixed: &Statistics) -> Result<(Tensor, Vec<f32>)> {
    let (scale, bias): (Vec<f32>, Vec<f32>) = (scale.to_vec1()?, bias.to_vec1()?);
    let factors: Vec<f32> = scale
        .iter()
        .zip(&fixed.variance)
        .map(|(s, v)| (f64::from(*s) / (f64::from(*v) + EPSILON).sqrt()) as f32)
        .collect();
    let biases = (0..bias.len()).map(|c| bias[c] - fixed.mean[c] * factors[c]).collect();
    let factors = Tensor::from_vec(factors, (bias.len(), 1, 1, 1), weight.device())?;
    Ok((weight.as_detached_tensor().broadcast_mul(&factors)?, biases))
}
