//! A graph with its numbers: trainable parameters, running statistics, their initial values, saving and loading.

use super::graph::{Graph, Op};
use crate::kernel::Statistics;
use crate::{Error, Result};
use candle_core::{DType, Device, Tensor, Var};
use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use std::collections::BTreeMap;
use std::sync::{PoisonError, RwLock};

/// The numbers of one node.
pub(super) enum Numbers {
    /// The node has none.
    None,
    /// `[out, in / groups, k, k]`.
    Conv { weight: Var },
    /// Per channel; the running statistics are no parameters.
    Norm { weight: Var, bias: Var, running: RwLock<Statistics> },
    /// `[out, in]` and `[out]`.
    Linear { weight: Var, bias: Var },
}

/// A network: graph, parameters, running statistics. On the CPU, in `f32`.
pub struct Network {
    pub(super) graph: Graph,
    /// One per node.
    pub(super) numbers: Vec<Numbers>,
}

impl Network {
    /// Fresh parameters: convolutions Kaiming normal (fan-out, gain √2), norms 1 and 0, linear layers uniform in
    /// ±1/√inputs (weights and biases), running statistics 0 and 1.
    ///
    /// # Errors
    /// When tensors cannot be made.
    pub fn new(graph: Graph, rng: &mut ChaCha8Rng) -> Result<Self> {
        let mut numbers = Vec::with_capacity(graph.nodes.len());
        for node in &graph.nodes {
            numbers.push(match node.op {
                Op::Conv { input, output, kernel, groups, .. } => {
                    let shape = (output, input / groups.max(1), kernel, kernel);
                    let deviation = (2.0 * groups.max(1) as f64 / (output * kernel * kernel) as f64).sqrt();
                    let count = shape.0 * shape.1 * kernel * kernel;
                    Numbers::Conv { weight: Var::from_vec(normal(rng, count, deviation), shape, &Device::Cpu)? }
                }
                Op::Norm { channels } => Numbers::Norm {
                    weight: Var::ones(channels, DType::F32, &Device::Cpu)?,
                    bias: Var::zeros(channels, DType::F32, &Device::Cpu)?,
                    running: RwLock::new(Statistics {
                        mean: vec![0.0; channels],
                        variance: vec![1.0; channels],
                        count: 0,
                    }),
                },
                Op::Linear { input, output } => {
                    let bound = 1.0 / (input as f64).sqrt();
                    Numbers::Linear {
                        weight: Var::from_vec(uniform(rng, input * output, bound), (output, input), &Device::Cpu)?,
                        bias: Var::from_vec(uniform(rng, output, bound), output, &Device::Cpu)?,
                    }
                }
                Op::Input { .. } | Op::Relu | Op::Relu6 | Op::Add | Op::MaxPool { .. } | Op::GlobalPool => {
                    Numbers::None
                }
            });
        }
        Ok(Self { graph, numbers })
    }

    /// The graph.
    pub fn graph(&self) -> &Graph {
        &self.graph
    }

    /// Trainable parameters in the order of the graph; names as documented at [`Graph`].
    pub fn parameters(&self) -> Vec<(String, Var)> {
        let mut all = vec![];
        for (node, numbers) in self.graph.nodes.iter().zip(&self.numbers) {
            match numbers {
                Numbers::None => {}
                Numbers::Conv { weight } => all.push((format!("{}.weight", node.name), weight.clone())),
                Numbers::Norm { weight, bias, .. } | Numbers::Linear { weight, bias } => {
                    all.push((format!("{}.weight", node.name), weight.clone()));
                    all.push((format!("{}.bias", node.name), bias.clone()));
                }
            }
        }
        all
    }

    /// Copies of all parameters and running statistics.
    ///
    /// # Errors
    /// When a tensor cannot be copied.
    pub fn state(&self) -> Result<BTreeMap<String, Tensor>> {
        let mut state = BTreeMap::new();
        for (name, parameter) in self.parameters() {
            state.insert(name, parameter.as_detached_tensor().copy()?);
        }
        for (node, numbers) in self.graph.nodes.iter().zip(&self.numbers) {
            if let Numbers::Norm { running, .. } = numbers {
                let running = running.read().unwrap_or_else(PoisonError::into_inner);
                let tensor = |values: &[f32]| Tensor::from_slice(values, values.len(), &Device::Cpu);
                state.insert(format!("{}.running_mean", node.name), tensor(&running.mean)?);
                state.insert(format!("{}.running_var", node.name), tensor(&running.variance)?);
            }
        }
        Ok(state)
    }

    /// Takes over parameters and running statistics. All of them are checked first: on an error nothing has changed.
    ///
    /// # Errors
    /// When a name is missing or unknown, or a shape or type differs.
    pub fn load(&mut self, state: &BTreeMap<String, Tensor>) -> Result<()> {
        let mine = self.state()?;
        let fail = |name: &str, reason: String| Err(Error::Graph { node: name.into(), reason });
        if let Some(name) = state.keys().find(|name| !mine.contains_key(*name)) {
            return fail(name, format!("is in the file but not in network {}", self.graph.name));
        }
        for (name, old) in &mine {
            match state.get(name) {
                None => return fail(name, format!("network {} needs it and the file lacks it", self.graph.name)),
                Some(new) if new.dims() != old.dims() || new.dtype() != DType::F32 => {
                    let (new, dtype) = (new.dims(), new.dtype());
                    return fail(
                        name,
                        format!("is {new:?} of {dtype:?} in the file; needed is {:?} of F32", old.dims()),
                    );
                }
                Some(_) => {}
            }
        }
        for (name, parameter) in self.parameters() {
            parameter.set(&state[&name].copy()?)?;
        }
        for (node, numbers) in self.graph.nodes.iter().zip(&self.numbers) {
            if let Numbers::Norm { running, .. } = numbers {
                let mean = state[&format!("{}.running_mean", node.name)].to_vec1()?;
                let variance = state[&format!("{}.running_var", node.name)].to_vec1()?;
                *running.write().unwrap_or_else(PoisonError::into_inner) = Statistics { mean, variance, count: 0 };
            }
        }
        Ok(())
    }
}

fn uniform(rng: &mut ChaCha8Rng, count: usize, bound: f64) -> Vec<f32> {
    (0..count).map(|_| ((2.0 * rng.random::<f64>() - 1.0) * bound) as f32).collect()
}

/// Box–Muller: two uniform numbers give two normal ones.
fn normal(rng: &mut ChaCha8Rng, count: usize, deviation: f64) -> Vec<f32> {
    let mut values = Vec::with_capacity(count + 1);
    while values.len() < count {
        let radius = (-2.0 * (1.0 - rng.random::<f64>()).ln()).sqrt() * deviation;
        let (sin, cos) = (std::f64::consts::TAU * rng.random::<f64>()).sin_cos();
        values.extend([(radius * cos) as f32, (radius * sin) as f32]);
    }
    values.truncate(count);
    values
}
