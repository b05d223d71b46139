//! A network's numbers on the device: parameters, momentum and gradients in flat buffers, so that one launch moves a whole
//! range of them and one copy brings all of them home.
//!
//! Order: weights of convolutions (O × K × K × I, input channels filled up with zeros to whole packs), gammas of all norms,
//! betas of all norms, linear layers, the classifier last. Weights of convolutions are held twice, in `f32` and as the
//! working copy in the maps' precision, which is also their gradient's. What fills up stays 0: its gradient is.

use super::device::Address;
use super::kernels::{Machine, NormAt, PACK, Sgd};
use super::memory::Block;
use crate::network::{Graph, Network, NodeId, Op};
use crate::{Error, Result};
use candle_core::{Device, Tensor};
use std::collections::BTreeMap;
use std::ops::Range;

type State = BTreeMap<String, Tensor>;

/// Parameters begin at multiples of this.
const ALIGNMENT: usize = 64;

/// One parameter.
struct Slot {
    name: String,
    at: Range<usize>,
    /// As the network has it.
    shape: Vec<usize>,
    /// For a convolution: output channels, area of the kernel, input channels, the same filled up.
    convolution: Option<[usize; 4]>,
}

impl Slot {
    /// From the network's order to the device's.
    fn pack(&self, values: &[f32], to: &mut [f32]) {
        let Some([outputs, area, inputs, wide]) = self.convolution else { return to.copy_from_slice(values) };
        for (o, i, p) in places(outputs, inputs, area) {
            to[(o * area + p) * wide + i] = values[(o * inputs + i) * area + p];
        }
    }

    /// From the device's order to the network's.
    fn unpack(&self, from: &[f32]) -> Result<Tensor> {
        let values = match self.convolution {
            None => from.to_vec(),
            Some([outputs, area, inputs, wide]) => {
                places(outputs, inputs, area).map(|(o, i, p)| from[(o * area + p) * wide + i]).collect()
            }
        };
        Ok(Tensor::from_vec(values, self.shape.clone(), &Device::Cpu)?)
    }
}

/// Output channel, input channel and place in the kernel of every weight, in the network's order.
fn places(outputs: usize, inputs: usize, area: usize) -> impl Iterator<Item = (usize, usize, usize)> {
    (0..outputs).flat_map(move |o| (0..inputs).flat_map(move |i| (0..area).map(move |p| (o, i, p))))
}

/// The numbers of one network.
pub(super) struct Parameters {
    machine: Machine,
    slots: Vec<Slot>,
    /// Per node: where its weight lies, where its bias lies, which channels of all norms are its own.
    weight: Vec<usize>,
    bias: Vec<usize>,
    norm: Vec<Option<Range<usize>>>,
    /// Names of the norms, in order.
    norms: Vec<(String, Range<usize>)>,
    /// Length of the convolutions' part, of all parameters, and of all norms.
    convolutions: usize,
    len: usize,
    channels: usize,
    gammas: usize,
    values: Block,
    momentum: Block,
    copy: Block,
    copy_gradient: Block,
    gradient: Block,
    mean: Block,
    variance: Block,
    scale: Block,
    shift: Block,
}

impl Parameters {
    /// Room for the numbers of a graph, all 0.
    ///
    /// # Errors
    /// When the graph has a convolution that the device's maps cannot hold, or memory is short.
    pub fn new(machine: &Machine, graph: &Graph) -> Result<Self> {
        let mut slots = vec![];
        let mut end = 0;
        let count = graph.nodes.len();
        let (mut weight, mut bias, mut norm) = (vec![0; count], vec![0; count], vec![None; count]);
        let push = |slots: &mut Vec<Slot>,
                    end: &mut usize,
                    name: String,
                    shape: Vec<usize>,
                    convolution: Option<[usize; 4]>| {
            let len = match convolution {
                Some([outputs, area, _, wide]) => outputs * area * wide,
                None => shape.iter().product(),
            };
            let from = *end;
            slots.push(Slot { name, at: from..from + len, shape, convolution });
            *end = (from + len).next_multiple_of(ALIGNMENT);
            from
        };
        for (id, node) in graph.nodes.iter().enumerate() {
            if let Op::Conv { input, output, kernel, groups, .. } = node.op {
                let inputs = input / groups.max(1);
                let wide = if groups == 1 { inputs.next_multiple_of(PACK) } else { inputs };
                let reads_picture = matches!(graph.nodes[node.inputs[0]].op, Op::Input { .. });
                if output % PACK != 0 || (input % PACK != 0 && !reads_picture) {
                    let reason =
                        format!("maps on the graphics card have multiples of {PACK} channels, not {input} → {output}");
                    return Err(Error::Graph { node: node.name.clone(), reason });
                }
                let shape = vec![output, inputs, kernel, kernel];
                let convolution = Some([output, kernel * kernel, inputs, wide]);
                weight[id] = push(&mut slots, &mut end, format!("{}.weight", node.name), shape, convolution);
            }
        }
        let convolutions = end;
        let mut norms = vec![];
        let mut channels = 0;
        for (id, node) in graph.nodes.iter().enumerate() {
            if let Op::Norm { channels: own } = node.op {
                norm[id] = Some(channels..channels + own);
                norms.push((node.name.clone(), channels..channels + own));
                channels += own;
            }
        }
        // Without gaps, so that all norms are folded at once.
        let gammas = end;
        for part in ["weight", "bias"] {
            for (name, own) in &norms {
                let at = end + own.start..end + own.end;
                slots.push(Slot { name: format!("{name}.{part}"), at, shape: vec![own.len()], convolution: None });
            }
            end += channels;
        }
        end = end.next_multiple_of(ALIGNMENT);
        let linear = |id: &NodeId| matches!(graph.nodes[*id].op, Op::Linear { .. });
        let others = (0..count).filter(|&id| id != graph.logits);
        for id in others.chain([graph.logits]).filter(linear) {
            let node = &graph.nodes[id];
            if let Op::Linear { input, output } = node.op {
                let mut add =
                    |part: &str, shape| push(&mut slots, &mut end, format!("{}.{part}", node.name), shape, None);
                weight[id] = add("weight", vec![output, input]);
                bias[id] = add("bias", vec![output]);
            }
        }
        let pool = &machine.pool;
        let of_maps = convolutions * machine.device().precision().bytes();
        let this = Self {
            machine: machine.clone(),
            slots,
            weight,
            bias,
            norm,
            norms,
            convolutions,
            len: end,
            channels,
            gammas,
            values: pool.floats(end)?,
            momentum: pool.floats(end)?,
            copy: pool.take(of_maps)?,
            copy_gradient: pool.take(of_maps)?,
            gradient: pool.floats(end - convolutions)?,
            mean: pool.floats(channels)?,
            variance: pool.floats(channels)?,
            scale: pool.floats(channels)?,
            shift: pool.floats(channels)?,
        };
        for block in [&this.values, &this.momentum, &this.copy, &this.copy_gradient, &this.gradient] {
            block.clear()?;
        }
        Ok(this)
    }

    /// Takes over parameters and running statistics.
    ///
    /// # Errors
    /// When a tensor is missing or the copy fails.
    pub fn load(&self, network: &Network) -> Result<()> {
        let state = network.state()?;
        self.values.write(&self.packed(|name| Ok(state.get(name).cloned()))?)?;
        self.machine.to_maps(self.values.address(), self.convolutions, self.copy.address())?;
        let all = |part: &str| -> Result<Vec<f32>> {
            let of = |(name, _): &(String, Range<usize>)| Ok(state[&format!("{name}.{part}")].to_vec1::<f32>()?);
            Ok(self.norms.iter().map(of).collect::<Result<Vec<_>>>()?.concat())
        };
        self.mean.write(&all("running_mean")?)?;
        self.variance.write(&all("running_var")?)
    }

    /// Parameters and running statistics, as [`Network::load`] takes them.
    ///
    /// # Errors
    /// When the copy fails.
    pub fn state(&self) -> Result<State> {
        let mut state = self.named(&self.values.get(self.len)?, |_| true, "")?;
        let statistics: [(_, Vec<f32>); 2] =
            [("running_mean", self.mean.get(self.channels)?), ("running_var", self.variance.get(self.channels)?)];
        for (part, values) in statistics {
            for (name, own) in &self.norms {
                let tensor = Tensor::from_slice(&values[own.clone()], own.len(), &Device::Cpu)?;
                state.insert(format!("{name}.{part}"), tensor);
            }
        }
        Ok(state)
    }

    /// Takes over momentum named `momentum.PARAMETER`; what is not named has none.
    ///
    /// # Errors
    /// When the copy fails.
    pub fn load_momentum(&self, states: &[State]) -> Result<()> {
        let find = |name: &str| states.iter().find_map(|s| s.get(&format!("momentum.{name}")).cloned());
        self.momentum.write(&self.packed(|name| Ok(find(name)))?)
    }

    /// Momentum of the chosen parameters, as the optimizer of the CPU takes it.
    ///
    /// # Errors
    /// When the copy fails.
    pub fn momentum(&self, of: impl Fn(&str) -> bool) -> Result<State> {
        self.named(&self.momentum.get(self.len)?, of, "momentum.")
    }

    /// Gradients of the last backward pass.
    #[cfg(test)]
    pub fn gradients(&self) -> Result<State> {
        let mut flat = super::tests::floats(&self.machine, &self.copy_gradient, self.convolutions)?;
        flat.extend(self.gradient.get::<f32>(self.len - self.convolutions)?);
        self.named(&flat, |_| true, "")
    }

    fn packed(&self, find: impl Fn(&str) -> Result<Option<Tensor>>) -> Result<Vec<f32>> {
        let mut flat = vec![0f32; self.len];
        for slot in &self.slots {
            if let Some(tensor) = find(&slot.name)? {
                slot.pack(&tensor.flatten_all()?.to_vec1::<f32>()?, &mut flat[slot.at.clone()]);
            }
        }
        Ok(flat)
    }

    fn named(&self, flat: &[f32], of: impl Fn(&str) -> bool, prefix: &str) -> Result<State> {
        let slots = self.slots.iter().filter(|slot| of(&slot.name));
        slots.map(|slot| Ok((format!("{prefix}{}", slot.name), slot.unpack(&flat[slot.at.clone()])?))).collect()
    }

    /// Stretches of parameters that learn together. `learns` is asked by name.
    pub fn ranges(&self, learns: impl Fn(&str) -> bool) -> Vec<Range<usize>> {
        let mut ranges: Vec<Range<usize>> = vec![];
        for slot in self.slots.iter().filter(|slot| learns(&slot.name)) {
            let same_part = |r: &Range<usize>| (r.start < self.convolutions) == (slot.at.start < self.convolutions);
            match ranges.last_mut() {
                Some(last) if last.end.next_multiple_of(ALIGNMENT) >= slot.at.start && same_part(last) => {
                    last.end = slot.at.end;
                }
                _ => ranges.push(slot.at.clone()),
            }
        }
        ranges
    }

    /// Moves these stretches by their gradients.
    ///
    /// # Errors
    /// When the device refuses.
    pub fn step(&self, ranges: &[Range<usize>], step: Sgd) -> Result<()> {
        let floats = |block: &Block, at: usize| block.address() + 4 * at as Address;
        for range in ranges {
            let (value, momentum) = (floats(&self.values, range.start), floats(&self.momentum, range.start));
            if range.start < self.convolutions {
                let [gradient, copy] = [&self.copy_gradient, &self.copy].map(|b| self.in_maps(b, range.start));
                self.machine.sgd_weights(value, momentum, gradient, copy, range.len(), step)?;
            } else {
                let gradient = floats(&self.gradient, range.start - self.convolutions);
                self.machine.sgd(value, momentum, gradient, range.len(), step)?;
            }
        }
        Ok(())
    }

    fn in_maps(&self, block: &Block, at: usize) -> Address {
        block.address() + (at * self.machine.device().precision().bytes()) as Address
    }

    /// Working copy and gradient of a convolution's weights.
    pub fn convolution(&self, id: NodeId) -> (Address, Address) {
        (self.in_maps(&self.copy, self.weight[id]), self.in_maps(&self.copy_gradient, self.weight[id]))
    }

    /// Weight and bias of a linear layer.
    pub fn linear(&self, id: NodeId) -> (Address, Address) {
        let floats = |at: usize| self.values.address() + 4 * at as Address;
        (floats(self.weight[id]), floats(self.bias[id]))
    }

    /// Gradients of weight and bias of a linear layer.
    pub fn linear_gradient(&self, id: NodeId) -> (Address, Address) {
        let floats = |at: usize| self.gradient.address() + 4 * (at - self.convolutions) as Address;
        (floats(self.weight[id]), floats(self.bias[id]))
    }

    /// Numbers of a norm, and gradients of its gamma and beta.
    ///
    /// # Errors
    /// When the node is no norm.
    pub fn norm(&self, id: NodeId) -> Result<(NormAt, (Address, Address))> {
        let own = self.own_channels(id)?.start;
        let floats = |block: &Block, at: usize| block.address() + 4 * at as Address;
        let gradient = |at: usize| floats(&self.gradient, at - self.convolutions);
        let (gamma, beta) = (self.gammas + own, self.gammas + self.channels + own);
        let norm = NormAt {
            gamma: floats(&self.values, gamma),
            beta: floats(&self.values, beta),
            mean: floats(&self.mean, own),
            variance: floats(&self.variance, own),
        };
        Ok((norm, (gradient(gamma), gradient(beta))))
    }

    /// Brings [`Self::folded`] up to date.
    ///
    /// # Errors
    /// When the device refuses.
    pub fn fold(&self) -> Result<()> {
        let floats = |at: usize| self.values.address() + 4 * at as Address;
        let all = NormAt {
            gamma: floats(self.gammas),
            beta: floats(self.gammas + self.channels),
            mean: self.mean.address(),
            variance: self.variance.address(),
        };
        self.machine.norm_fold(all, self.channels, self.scale.address(), self.shift.address())
    }

    /// Factors and summands of a norm with running statistics.
    ///
    /// # Errors
    /// When the node is no norm.
    pub fn folded(&self, id: NodeId) -> Result<(Address, Address)> {
        let at = 4 * self.own_channels(id)?.start as Address;
        Ok((self.scale.address() + at, self.shift.address() + at))
    }

    fn own_channels(&self, id: NodeId) -> Result<&Range<usize>> {
        let missing = || Error::Graph { node: format!("number {id}"), reason: "is no batch norm".into() };
        self.norm[id].as_ref().ok_or_else(missing)
    }
}
