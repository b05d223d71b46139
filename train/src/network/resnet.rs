//! Residual networks by name: the CIFAR family (8, 20, 32, 56 layers; 16, 32, 64 channels), 18 and 34 with basic
//! blocks (64 … 512), 50 with bottlenecks (stride on the 3 × 3 convolution).
//!
//! Where a block changes the shape its shortcut is a 1 × 1 convolution with batch norm. Nodes are named `stem_*`,
//! `stageN.*` or, in stages of several blocks, `stageN.B.*` with B from 0.

use super::architecture::Stem;
use super::graph::{Graph, NodeId, Op};
use crate::Result;

/// What distinguishes one residual network from another.
pub(super) struct Family {
    /// Channels of each stage.
    widths: &'static [usize],
    /// Blocks of each stage.
    blocks: &'static [usize],
    bottleneck: bool,
}

/// The residual network of this name, if there is one.
pub(super) fn family(name: &str) -> Option<Family> {
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
        _ => return None,
    };
    Some(Family { widths, blocks, bottleneck })
}

/// Appends stem and blocks; returns the last map.
pub(super) fn encoder(graph: &mut Graph, family: &Family, stem: Stem) -> Result<NodeId> {
    let [kernel, stride] = match stem {
        Stem::Stride1 => [3, 1],
        Stem::Stride2 => [3, 2],
        Stem::Imagenet => [7, 2],
    };
    let names = ["stem_conv".into(), "stem_bn".into()];
    let mut x = graph.conv_norm(names, 0, family.widths[0], [kernel, stride, 1])?;
    x = graph.push("stem_relu", Op::Relu, &[x])?;
    if stem == Stem::Imagenet {
        x = graph.push("stem_pool", Op::MaxPool { kernel: 3, stride: 2, padding: 1 }, &[x])?;
    }
    for (stage, (&width, &count)) in family.widths.iter().zip(family.blocks).enumerate() {
        for at in 0..count {
            let stride = if stage > 0 && at == 0 { 2 } else { 1 };
            let prefix = if count == 1 { format!("stage{}", stage + 1) } else { format!("stage{}.{at}", stage + 1) };
            x = block(graph, &prefix, x, width, stride, family.bottleneck)?;
        }
    }
    Ok(x)
}

/// One residual block. The shortcut comes first, so that the main path's norm can take the sum along.
fn block(graph: &mut Graph, prefix: &str, x: NodeId, width: usize, stride: usize, bottleneck: bool) -> Result<NodeId> {
    let names = |conv: &str, norm: &str| [conv, norm].map(|part| format!("{prefix}.{part}"));
    let output = if bottleneck { 4 * width } else { width };
    let shortcut = if stride == 1 && graph.channels(x) == output {
        x
    } else {
        graph.conv_norm(names("short_conv", "short_bn"), x, output, [1, stride, 1])?
    };
    let layers: &[(usize, usize, usize)] = if bottleneck {
        &[(width, 1, 1), (width, 3, stride), (output, 1, 1)]
    } else {
        &[(width, 3, stride), (width, 3, 1)]
    };
    let mut y = x;
    for (i, &(channels, kernel, stride)) in layers.iter().enumerate() {
        let i = i + 1;
        y = graph.conv_norm(names(&format!("conv{i}"), &format!("bn{i}")), y, channels, [kernel, stride, 1])?;
        if i == layers.len() {
            y = graph.push(format!("{prefix}.add"), Op::Add, &[y, shortcut])?;
        }
        y = graph.push(format!("{prefix}.relu{i}"), Op::Relu, &[y])?;
    }
    Ok(y)
}
