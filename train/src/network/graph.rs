//! The graph: named nodes in execution order. It holds no numbers; parameters are named after their node.
//!
//! Invariants, checked by [`Graph::push`]: a node's inputs come before it, names are unique, channels agree.
//! Parameter names follow the node: `NAME.weight` (`[out, in / groups, k, k]` for a convolution, `[out, in]` for a
//! linear layer), `NAME.bias`, and for batch norm `NAME.weight`, `NAME.bias`, `NAME.running_mean`, `NAME.running_var`.

use crate::{Error, Result};
use excon_edge::kernel::Clip;
use serde::{Deserialize, Serialize};

/// Position of a node in its graph.
pub type NodeId = usize;

/// What a node computes. Maps are N × H × W × C inside the trainer and N × C × H × W in ONNX.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "kebab-case")]
pub enum Op {
    /// The normalised picture.
    Input {
        /// Channels, 3 for RGB.
        channels: usize,
    },
    /// Convolution without bias, square kernel, symmetric zero padding.
    Conv {
        /// Input channels.
        input: usize,
        /// Output channels.
        output: usize,
        /// Kernel side.
        kernel: usize,
        /// Stride in both directions.
        stride: usize,
        /// Zero padding on every side.
        padding: usize,
        /// Groups; `input` for a depthwise convolution.
        groups: usize,
    },
    /// Batch norm, eps 1e-5, running momentum 0.1.
    Norm {
        /// Channels.
        channels: usize,
    },
    /// `max(x, 0)`.
    Relu,
    /// `min(max(x, 0), 6)`.
    Relu6,
    /// Sum of two maps of one shape.
    Add,
    /// Max pooling, padding by −∞.
    MaxPool {
        /// Window side.
        kernel: usize,
        /// Stride.
        stride: usize,
        /// Padding on every side.
        padding: usize,
    },
    /// Mean over the map: N × C.
    GlobalPool,
    /// `x · weightᵀ + bias`.
    Linear {
        /// Input features.
        input: usize,
        /// Output features.
        output: usize,
    },
}

/// One node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Node {
    /// Unique name; prefix of its parameters' names.
    pub name: String,
    /// What it computes.
    #[serde(flatten)]
    pub op: Op,
    /// Nodes it reads.
    pub inputs: Vec<NodeId>,
}

/// A network as data.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Graph {
    /// Short name such as `resnet8`.
    pub name: String,
    /// Nodes in execution order; node 0 is the input.
    pub nodes: Vec<Node>,
    /// The last feature map: what the pool reads, and what the exact class-activation map explains.
    pub features: NodeId,
    /// Global average of `features`.
    pub pooled: NodeId,
    /// Output of the linear classifier on `pooled`.
    pub logits: NodeId,
    /// Output of the projection head on `pooled`, before L2 normalisation. Not exported.
    pub projection: NodeId,
    /// The convolution whose output the released ExCon code explains (`paper` mode): spec section 1.4.
    pub paper_cam: NodeId,
}

impl Graph {
    /// Appends convolution and batch norm, padded so that stride 1 keeps the sides. Returns the norm.
    ///
    /// # Errors
    /// As [`Self::push`].
    pub(super) fn conv_norm(
        &mut self,
        [conv, norm]: [String; 2],
        x: NodeId,
        output: usize,
        [kernel, stride, groups]: [usize; 3],
    ) -> Result<NodeId> {
        let input = self.channels(x);
        let op = Op::Conv { input, output, kernel, stride, padding: kernel / 2, groups };
        let conv = self.push(conv, op, &[x])?;
        self.push(norm, Op::Norm { channels: output }, &[conv])
    }

    /// An empty graph with its input node; the role fields are set by the builder.
    pub fn new(name: impl Into<String>, channels: usize) -> Self {
        let input = Node { name: "input".into(), op: Op::Input { channels }, inputs: vec![] };
        Self { name: name.into(), nodes: vec![input], features: 0, pooled: 0, logits: 0, projection: 0, paper_cam: 0 }
    }

    /// Appends a node and returns its position.
    ///
    /// # Errors
    /// When an input does not exist yet, the name is taken, the number of inputs is wrong or channels disagree.
    pub fn push(&mut self, name: impl Into<String>, op: Op, inputs: &[NodeId]) -> Result<NodeId> {
        let name = name.into();
        let fail = |reason: String| Err(Error::Graph { node: name.clone(), reason });
        if let Some(&missing) = inputs.iter().find(|&&i| i >= self.nodes.len()) {
            return fail(format!("reads node {missing}, which does not come before it"));
        }
        if self.nodes.iter().any(|n| n.name == name) {
            return fail("the name is taken".into());
        }
        let wanted = if op == Op::Add { 2 } else { 1 };
        if inputs.len() != wanted {
            return fail(format!("has {} inputs instead of {wanted}", inputs.len()));
        }
        let given = self.channels(inputs[0]);
        let expected = match &op {
            Op::Input { .. } => return fail("a graph has one input".into()),
            Op::Conv { input, .. } | Op::Linear { input, .. } => *input,
            Op::Norm { channels } => *channels,
            Op::Add => self.channels(inputs[1]),
            Op::Relu | Op::Relu6 | Op::MaxPool { .. } | Op::GlobalPool => given,
        };
        if given != expected {
            return fail(format!("expects {expected} channels and is given {given}"));
        }
        self.nodes.push(Node { name, op, inputs: inputs.to_vec() });
        Ok(self.nodes.len() - 1)
    }

    /// Channels of a node's output.
    pub fn channels(&self, id: NodeId) -> usize {
        let node = &self.nodes[id];
        match &node.op {
            Op::Input { channels } | Op::Norm { channels } => *channels,
            Op::Conv { output, .. } | Op::Linear { output, .. } => *output,
            Op::Relu | Op::Relu6 | Op::Add | Op::MaxPool { .. } | Op::GlobalPool => self.channels(node.inputs[0]),
        }
    }

    /// The activation that a node is, if it is one.
    pub fn clip(&self, id: NodeId) -> Option<Clip> {
        match self.nodes[id].op {
            Op::Relu => Some(Clip::RELU),
            Op::Relu6 => Some(Clip::RELU6),
            _ => None,
        }
    }

    /// Position of the node with this name.
    pub fn find(&self, name: &str) -> Option<NodeId> {
        self.nodes.iter().position(|n| n.name == name)
    }
}
