//! Architectures by name: stem and blocks of one family, then what all share: pool, classifier, projection head.

use super::graph::{Graph, NodeId, Op};
use super::{mobilenet, resnet};
use crate::{Error, Result};

/// How a network begins. The words are the residual networks'; MobileNetV2's stems are always 3 × 3 and reduce the sides
/// as much: see each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Stem {
    /// 3 × 3, stride 1, as for CIFAR: 32 × 32 stays 32 × 32.
    Stride1,
    /// 3 × 3, stride 2: a quarter of the work, for 64 × 64 pictures on boards.
    Stride2,
    /// 7 × 7, stride 2, then max pooling 3 × 3, stride 2. MobileNetV2: stride 2 in the stem and in its second stage.
    Imagenet,
}

/// The names [`build`] knows; `mobilenetv2` also with a width, such as `mobilenetv2-0.5`.
pub const NAMES: [&str; 8] =
    ["resnet8", "resnet20", "resnet32", "resnet56", "resnet18", "resnet34", "resnet50", "mobilenetv2"];

/// The graph of a network: encoder, linear classifier of `classes`, projection head d – d – `projection`.
///
/// [`Graph::paper_cam`] is the last convolution of the stage with 16 × 16 maps for [`Stem::Stride1`], made for 32 × 32
/// pictures, and the encoder's last convolution otherwise; [`last_convolution`] finds another stage's.
///
/// # Errors
/// When the name is unknown or a size is 0.
pub fn build(name: &str, classes: usize, stem: Stem, projection: usize) -> Result<Graph> {
    for (key, value) in [("classes", classes), ("projection", projection)] {
        if value == 0 {
            return Err(Error::Setting { name: key.into(), reason: "must be at least 1".into() });
        }
    }
    let mut graph = Graph::new(name, 3);
    let (x, middle) = if let Some(family) = resnet::family(name) {
        (resnet::encoder(&mut graph, &family, stem)?, 2)
    } else if let Some(width) = mobilenet::width(name)? {
        (mobilenet::encoder(&mut graph, width, stem)?, 3)
    } else {
        let near = NAMES.iter().max_by(|a, b| strsim::jaro(a, name).total_cmp(&strsim::jaro(b, name)));
        let near = near.copied().unwrap_or_default();
        let reason = format!("{name:?} is not known; did you mean {near}? Known: {}", NAMES.join(", "));
        return Err(Error::Setting { name: "network".into(), reason });
    };
    let d = graph.channels(x);
    graph.features = x;
    graph.pooled = graph.push("pool", Op::GlobalPool, &[x])?;
    graph.logits = graph.push("fc", Op::Linear { input: d, output: classes }, &[graph.pooled])?;
    let hidden = graph.push("head.0", Op::Linear { input: d, output: d }, &[graph.pooled])?;
    let hidden = graph.push("head.1", Op::Relu, &[hidden])?;
    graph.projection = graph.push("head.2", Op::Linear { input: d, output: projection }, &[hidden])?;
    let last = graph.nodes.iter().rposition(|n| matches!(n.op, Op::Conv { .. }) && !is_shortcut(&n.name));
    let explained = if stem == Stem::Stride1 { last_convolution(&graph, middle) } else { last };
    graph.paper_cam = explained.unwrap_or(graph.features);
    Ok(graph)
}

/// The last convolution on the main path of a stage (from 1) of a graph made by [`build`]: what the released ExCon code
/// explains, in stage 2 at 32 × 32 and in the last stage at 64 × 64 pictures.
pub fn last_convolution(graph: &Graph, stage: usize) -> Option<NodeId> {
    let prefix = format!("stage{stage}.");
    graph.nodes.iter().rposition(|node| {
        matches!(node.op, Op::Conv { .. }) && node.name.starts_with(&prefix) && !is_shortcut(&node.name)
    })
}

fn is_shortcut(name: &str) -> bool {
    name.ends_with("short_conv")
}
