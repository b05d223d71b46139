//! Batch norm folded into the convolution before it, and activations attached to the layer they follow.
//!
//! A [`Folded`] network is what the exporters write: the part of the graph that `logits` and `features` need, with every
//! number in it and every shape known. Folding is done in f64:
//! `weight' = weight · γ / √(σ² + ε)`, `bias' = β − μ · γ / √(σ² + ε)`.

use crate::weights::Weights;
use crate::{Error, Result};
use excon_edge::kernel::Clip;
use excon_edge::kernel::graph::Window;
use excon_edge::saliency::LinearHead;
use excon_train::network::{Graph, NodeId, Op};

/// Added to the running variance, as in training.
const EPSILON: f64 = 1e-5;
/// Largest side of a map; guards shape arithmetic against absurd settings.
const LARGEST_SIDE: usize = 1 << 14;

/// Position of a layer in its network.
pub type LayerId = usize;

/// A network without batch norm, in execution order.
#[derive(Debug, Clone, PartialEq)]
pub struct Folded {
    /// Short name such as `resnet8`.
    pub name: String,
    /// Layers; layer 0 is the input.
    pub layers: Vec<Layer>,
    /// The last feature map.
    pub features: LayerId,
    /// The classifier.
    pub logits: LayerId,
}

/// One layer.
#[derive(Debug, Clone, PartialEq)]
pub struct Layer {
    /// Name of the graph's node.
    pub name: String,
    /// What it computes.
    pub op: LayerOp,
    /// Layers it reads.
    pub inputs: Vec<LayerId>,
    /// The activation behind it, if there is one.
    pub activation: Option<Activation>,
    /// Channels, height, width of one output; `[channels, 1, 1]` behind the pool.
    pub shape: [usize; 3],
}

/// An activation behind a layer.
#[derive(Debug, Clone, PartialEq)]
pub struct Activation {
    /// Name of the graph's node.
    pub name: String,
    /// ReLU or ReLU6.
    pub clip: Clip,
}

/// What a layer computes, with its numbers.
#[derive(Debug, Clone, PartialEq)]
pub enum LayerOp {
    /// The normalised picture.
    Input,
    /// Convolution with bias.
    Conv {
        /// `output × input / groups × rows × columns`.
        weight: Vec<f32>,
        /// One per output channel.
        bias: Vec<f32>,
        /// Geometry; padding by zeros.
        window: Window,
        /// Groups.
        groups: usize,
    },
    /// Sum of two maps.
    Add,
    /// Max pooling, padding by −∞.
    MaxPool {
        /// Geometry.
        window: Window,
    },
    /// Mean over the map.
    GlobalPool,
    /// `x · weightᵀ + bias`.
    Linear {
        /// `output × input`.
        weight: Vec<f32>,
        /// One per output.
        bias: Vec<f32>,
    },
}

impl Folded {
    /// Folds `graph` with `weights` for pictures of `size × size`.
    ///
    /// # Errors
    /// When a tensor is missing or mis-shaped, a map would vanish, or the graph has a form the exporter does not write.
    pub fn new(graph: &Graph, weights: &Weights, size: usize) -> Result<Self> {
        check_roles(graph)?;
        let readers = readers(graph);
        let mut layers: Vec<Layer> = Vec::new();
        let mut layer_of: Vec<Option<LayerId>> = vec![None; graph.nodes.len()];
        for (id, node) in graph.nodes.iter().enumerate() {
            if readers[id] == 0 && id != graph.logits {
                continue; // the projection head, and whatever else only training needs
            }
            let fail = |reason: &str| Err(Error::Network { node: node.name.clone(), reason: reason.into() });
            let inputs: Vec<LayerId> = node.inputs.iter().filter_map(|&i| layer_of[i]).collect();
            if inputs.len() != node.inputs.len() {
                return fail("reads a node that comes later");
            }
            let before = inputs.first().map_or([0; 3], |&i| layers[i].shape);
            let get = |part: &str, shape: &[usize]| weights.get(&format!("{}.{part}", node.name), shape);
            let (op, shape) = match node.op {
                Op::Input { channels } => {
                    if size == 0 || size > LARGEST_SIDE {
                        return fail("the picture's side must be in 1..=16384");
                    }
                    (LayerOp::Input, [channels, size, size])
                }
                Op::Conv { input, output, kernel, stride, padding, groups } => {
                    if groups == 0 || input % groups != 0 || output % groups != 0 {
                        return fail("its groups do not divide its channels");
                    }
                    let weight = get("weight", &[output, input / groups, kernel, kernel])?.to_vec();
                    let window = square(kernel, stride, padding);
                    let Some(shape) = slide(before, output, &window) else {
                        return fail("its input is smaller than its kernel; use larger pictures or another stem");
                    };
                    (LayerOp::Conv { weight, bias: vec![0.0; output], window, groups }, shape)
                }
                Op::Norm { channels } => {
                    let read = |part: &str| get(part, &[channels]);
                    let (gamma, beta) = (read("weight")?, read("bias")?);
                    let (mean, variance) = (read("running_mean")?, read("running_var")?);
                    if variance.iter().any(|&v| v < 0.0) {
                        return Err(Error::Weights {
                            path: weights.path().into(),
                            reason: format!("tensor {}.running_var holds a negative variance", node.name),
                        });
                    }
                    let alone = readers[node.inputs[0]] == 1;
                    match &mut layers[inputs[0]] {
                        Layer { op: LayerOp::Conv { weight, bias, .. }, activation: None, .. } if alone => {
                            fold(weight, bias, gamma, beta, mean, variance);
                        }
                        _ => return fail("batch norm is written only behind a convolution that nothing else reads"),
                    }
                    layer_of[id] = Some(inputs[0]);
                    continue;
                }
                Op::Relu | Op::Relu6 => {
                    let alone = readers[node.inputs[0]] == 1;
                    match (&mut layers[inputs[0]], graph.clip(id)) {
                        (
                            Layer { op: LayerOp::Conv { .. } | LayerOp::Add, activation: activation @ None, .. },
                            Some(clip),
                        ) if alone => *activation = Some(Activation { name: node.name.clone(), clip }),
                        _ => {
                            let reason =
                                "an activation is written only behind a convolution or sum that nothing else reads";
                            return fail(reason);
                        }
                    }
                    layer_of[id] = Some(inputs[0]);
                    continue;
                }
                Op::Add => {
                    if layers[inputs[1]].shape != before {
                        return fail("adds two maps of different shape");
                    }
                    (LayerOp::Add, before)
                }
                Op::MaxPool { kernel, stride, padding } => {
                    if padding >= kernel {
                        return fail("its padding is not smaller than its window");
                    }
                    let window = square(kernel, stride, padding);
                    let Some(shape) = slide(before, before[0], &window) else {
                        return fail("its input is smaller than its window; use larger pictures or another stem");
                    };
                    (LayerOp::MaxPool { window }, shape)
                }
                Op::GlobalPool => (LayerOp::GlobalPool, [before[0], 1, 1]),
                Op::Linear { input, output } => {
                    let weight = get("weight", &[output, input])?.to_vec();
                    (LayerOp::Linear { weight, bias: get("bias", &[output])?.to_vec() }, [output, 1, 1])
                }
            };
            layer_of[id] = Some(layers.len());
            layers.push(Layer { name: node.name.clone(), op, inputs, activation: None, shape });
        }
        match (layer_of[graph.features], layer_of[graph.logits]) {
            (Some(features), Some(logits)) => Ok(Self { name: graph.name.clone(), layers, features, logits }),
            _ => Err(Error::Network { node: graph.name.clone(), reason: "has no path to its logits".into() }),
        }
    }

    /// Channels, height, width of the input.
    pub fn input_shape(&self) -> [usize; 3] {
        self.layers[0].shape
    }

    /// Number of classes.
    pub fn classes(&self) -> usize {
        self.layers[self.logits].shape[0]
    }

    /// Whether a layer's map holds no negative number, whatever the picture.
    pub fn never_negative(&self, id: LayerId) -> bool {
        let layer = &self.layers[id];
        match layer.op {
            LayerOp::MaxPool { .. } => layer.inputs.iter().all(|&input| self.never_negative(input)),
            _ => layer.activation.as_ref().is_some_and(|activation| activation.clip.low >= 0.0),
        }
    }

    /// The classifier on the pooled map, which also gives the exact class-activation map.
    pub fn head(&self) -> LinearHead {
        let (weight, bias) = match &self.layers[self.logits].op {
            LayerOp::Linear { weight, bias } => (weight.clone(), bias.clone()),
            // `check_roles` lets only a linear layer be the logits.
            _ => (vec![], vec![]),
        };
        LinearHead { classes: self.classes(), channels: self.layers[self.features].shape[0], weight, bias }
    }
}

/// How many nodes that lead to the logits read each node; 0 for nodes that do not lead there.
fn readers(graph: &Graph) -> Vec<usize> {
    let mut count = vec![0; graph.nodes.len()];
    for (id, node) in graph.nodes.iter().enumerate().rev() {
        if id == graph.logits || count[id] > 0 {
            node.inputs.iter().filter(|&&i| i < id).for_each(|&i| count[i] += 1);
        }
    }
    count
}

/// The exporter's picture of a classifier: features → pool → linear.
fn check_roles(graph: &Graph) -> Result<()> {
    let role = |id: NodeId, wanted: &str, good: fn(&Op) -> bool, reads: NodeId| {
        let node = graph.nodes.get(id);
        match node {
            Some(n) if good(&n.op) && n.inputs == [reads] => Ok(()),
            _ => Err(Error::Network {
                node: node.map_or_else(|| graph.name.clone(), |n| n.name.clone()),
                reason: format!("is not {wanted}"),
            }),
        }
    };
    role(graph.pooled, "the global pool of the last feature map", |op| *op == Op::GlobalPool, graph.features)?;
    role(graph.logits, "a linear layer on the pool", |op| matches!(op, Op::Linear { .. }), graph.pooled)
}

/// A window of equal sides.
fn square(kernel: usize, stride: usize, padding: usize) -> Window {
    let padding = [padding.min(LARGEST_SIDE); 2];
    Window { kernel: [kernel; 2], stride: [stride; 2], dilation: [1; 2], before: padding, after: padding }
}

/// Shape behind a sliding window; `None` when nothing is left.
pub(crate) fn slide(before: [usize; 3], channels: usize, window: &Window) -> Option<[usize; 3]> {
    window.output(before[1], before[2]).map(|[rows, columns]| [channels, rows, columns])
}

fn fold(weight: &mut [f32], bias: &mut [f32], gamma: &[f32], beta: &[f32], mean: &[f32], variance: &[f32]) {
    let per_channel = weight.len() / bias.len().max(1);
    for (c, filter) in weight.chunks_exact_mut(per_channel.max(1)).enumerate() {
        let scale = f64::from(gamma[c]) / (f64::from(variance[c]) + EPSILON).sqrt();
        filter.iter_mut().for_each(|w| *w = (f64::from(*w) * scale) as f32);
        bias[c] = (f64::from(beta[c]) + (f64::from(bias[c]) - f64::from(mean[c])) * scale) as f32;
    }
}
