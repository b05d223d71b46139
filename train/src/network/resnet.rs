//! Residual networks by name: the CIFAR family (8, 20, 32, 56 layers; 16, 32, 64 channels), 18 and 34 with basic
//! blocks (64 … 512), 50 with bottlenecks (stride on the 3 × 3 convolution).
//!
//! Where a block changes the shape its shortcut is a 1 × 1 convolution with batch norm. Nodes are named `stem_*`,
//! `stageN.*` or, in stages of several blocks, `stageN.B.*` with B from 0; then `pool`, `fc`, `head.0` … `head.2`.

use super::graph::{Graph, NodeId, Op};
use crate::{Error, Result};

/// How a network begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Stem {
    /// 3 × 3, stride 1, as for CIFAR: 32 × 32 stays 32 × 32.
    Stride1,
    /// 3 × 3, stride 2: a quarter of the work, for 64 × 64 pictures on boards.
    Stride2,
    /// 7 × 7, stride 2, then max pooling 3 × 3, stride 2.
    Imagenet,
}

/// The names [`build`] knows.
pub const NAMES: [&str; 7] = ["resnet8", "resnet20", "resnet32", "resnet56", "resnet18", "resnet34", "resnet50"];

/// The graph of a network: encoder, linear classifier of `classes`, projection head d – d – `projection`.
///
/// [`Graph::paper_cam`] is the last convolution of stage 2 for [`Stem::Stride1`], made for 32 × 32 pictures, and of the
/// last stage otherwise; [`last_convolution`] finds another stage's.
///
/// # Errors
/// When the name is unknown or a size is 0.
pub fn build(name: &str, classes: usize, stem: Stem, projection: usize) -> Result<Graph> {
    const CIFAR: &[usize] = &[16, 32, 64];
    const LARGE: &[usize] = &[64, 128, 256, 512];
    let (widths, blocks, bottleneck): (_, &[usize], _) = match name {
        "resnet8" => (CIFAR, &[1, 1, 1], false),
        "resnet20" => (CIFAR, &[3, 3, 3], false),
        "resnet32" => (CIFAR, &[5, 5, 5], false),
        "resnet56" => (CIFAR, &[9, 9, 9], false),
        "resnet18" => (LARGE, &[2, 2, 2, 2], false),
        "resnet34" => (LARGE, &[3, 4, 6, 3], false),
        "resnet50" => (LARGE, &[3, 4, 6, 3], true),
        _ => {
            let near = NAMES.iter().max_by(|a, b| strsim::jaro(a, name).total_cmp(&strsim::jaro(b, name)));
            let near = near.copied().unwrap_or_default();
            let reason = format!("{name:?} is not known; did you mean {near}? Known: {}", NAMES.join(", "));
            return Err(Error::Setting { name: "network".into(), reason });
        }
    };
    for (key, value) in [("classes", classes), ("projection", projection)] {
        if value == 0 {
            return Err(Error::Setting { name: key.into(), reason: "must be at least 1".into() });
        }
    }
    let mut g = Builder { graph: Graph::new(name, 3) };
    let (kernel, stride) = match stem {
        Stem::Stride1 => (3, 1),
        Stem::Stride2 => (3, 2),
        Stem::Imagenet => (7, 2),
    };
    let mut x = g.conv_norm("stem_conv", "stem_bn", 0, widths[0], kernel, stride)?;
    x = g.graph.push("stem_relu", Op::Relu, &[x])?;
    if stem == Stem::Imagenet {
        x = g.graph.push("stem_pool", Op::MaxPool { kernel: 3, stride: 2, padding: 1 }, &[x])?;
    }
    for (stage, (&width, &count)) in widths.iter().zip(blocks).enumerate() {
        for block in 0..count {
            let stride = if stage > 0 && block == 0 { 2 } else { 1 };
            let prefix = if count == 1 { format!("stage{}", stage + 1) } else { format!("stage{}.{block}", stage + 1) };
            x = g.block(&prefix, x, width, stride, bottleneck)?;
        }
    }
    let mut graph = g.graph;
    let d = graph.channels(x);
    graph.features = x;
    graph.pooled = graph.push("pool", Op::GlobalPool, &[x])?;
    graph.logits = graph.push("fc", Op::Linear { input: d, output: classes }, &[graph.pooled])?;
    let hidden = graph.push("head.0", Op::Linear { input: d, output: d }, &[graph.pooled])?;
    let hidden = graph.push("head.1", Op::Relu, &[hidden])?;
    graph.projection = graph.push("head.2", Op::Linear { input: d, output: projection }, &[hidden])?;
    let stage = if stem == Stem::Stride1 { 2 } else { widths.len() };
    graph.paper_cam = last_convolution(&graph, stage).unwrap_or(graph.features);
    Ok(graph)
}

/// The last convolution on the main path of a stage (from 1) of a graph made by [`build`]: what the released ExCon code
/// explains, in stage 2 at 32 × 32 and in the last stage at 64 × 64 pictures.
pub fn last_convolution(graph: &Graph, stage: usize) -> Option<NodeId> {
    let prefix = format!("stage{stage}.");
    graph.nodes.iter().rposition(|node| {
        matches!(node.op, Op::Conv { .. }) && node.name.starts_with(&prefix) && !node.name.ends_with("short_conv")
    })
}

struct Builder {
    graph: Graph,
}

impl Builder {
    fn conv_norm(
        &mut self,
        conv: &str,
        norm: &str,
        x: NodeId,
        output: usize,
        kernel: usize,
        stride: usize,
    ) -> Result<NodeId> {
        let input = self.graph.channels(x);
        let op = Op::Conv { input, output, kernel, stride, padding: kernel / 2, groups: 1 };
        let conv = self.graph.push(conv, op, &[x])?;
        self.graph.push(norm, Op::Norm { channels: output }, &[conv])
    }

    /// One residual block. The shortcut comes first, so that the main path's norm can take the sum along.
    fn block(&mut self, prefix: &str, x: NodeId, width: usize, stride: usize, bottleneck: bool) -> Result<NodeId> {
        let output = if bottleneck { 4 * width } else { width };
        let shortcut = if stride == 1 && self.graph.channels(x) == output {
            x
        } else {
            self.conv_norm(&format!("{prefix}.short_conv"), &format!("{prefix}.short_bn"), x, output, 1, stride)?
        };
        let layers: &[(usize, usize, usize)] = if bottleneck {
            &[(width, 1, 1), (width, 3, stride), (output, 1, 1)]
        } else {
            &[(width, 3, stride), (width, 3, 1)]
        };
        let mut y = x;
        for (i, &(channels, kernel, stride)) in layers.iter().enumerate() {
            let i = i + 1;
            y =
                self.conv_norm(&format!("{prefix}.conv{i}"), &format!("{prefix}.bn{i}"), y, channels, kernel, stride)?;
            if i == layers.len() {
                y = self.graph.push(format!("{prefix}.add"), Op::Add, &[y, shortcut])?;
            }
            y = self.graph.push(format!("{prefix}.relu{i}"), Op::Relu, &[y])?;
        }
        Ok(y)
    }
}
