//! MobileNetV2 (Sandler et al., 2018, table 2): inverted residual blocks of a 1 × 1 expansion, a 3 × 3 depthwise
//! convolution and a linear 1 × 1 projection, ReLU6 behind the first two, a sum where the shapes allow it.
//!
//! The strides reduce the sides by 8 for [`Stem::Stride1`] (32 → 4: stem and stage 2 at stride 1), by 16 for
//! [`Stem::Stride2`] (64 → 4) and by 32 for [`Stem::Imagenet`] (224 → 7). Nodes are named `stem_*`, `stageN.*` or
//! `stageN.B.*` as in the residual networks, and `last_*` for the closing 1 × 1 convolution.

use super::architecture::Stem;
use super::graph::{Graph, NodeId, Op};
use crate::{Error, Result};

const NAME: &str = "mobilenetv2";
/// Width multipliers that are built.
const WIDTHS: std::ops::RangeInclusive<f64> = 0.1..=4.0;
/// Expansion, channels, blocks, stride of the first block.
const STAGES: [[usize; 4]; 7] =
    [[1, 16, 1, 1], [6, 24, 2, 2], [6, 32, 3, 2], [6, 64, 4, 2], [6, 96, 3, 1], [6, 160, 3, 2], [6, 320, 1, 1]];
/// Channels of the stem and of the last map. The latter does not shrink with the width, as the paper has it.
const STEM: usize = 32;
const LAST: usize = 1280;

/// The width multiplier in a name such as `mobilenetv2-0.5`, 1 without; nothing for another family's name.
///
/// # Errors
/// When what follows the family's name is no width.
pub(super) fn width(name: &str) -> Result<Option<f64>> {
    let Some(rest) = name.strip_prefix(NAME) else { return Ok(None) };
    if rest.is_empty() {
        return Ok(Some(1.0));
    }
    let width = rest.strip_prefix('-').and_then(|text| text.parse().ok()).filter(|width| WIDTHS.contains(width));
    width.map(Some).ok_or_else(|| Error::Setting {
        name: "network".into(),
        reason: format!(
            "{name:?} has no width from {} to {} behind {NAME}; write {NAME}-0.5 or {NAME}",
            WIDTHS.start(),
            WIDTHS.end()
        ),
    })
}

/// `channels · width` as the nearest multiple of 8, at least 8 and not under 90 % of it.
fn scaled(channels: usize, width: f64) -> usize {
    let exact = channels as f64 * width;
    let near = ((exact + 4.0) as usize / 8 * 8).max(8);
    if (near as f64) < 0.9 * exact { near + 8 } else { near }
}

/// Appends stem, blocks and closing convolution; returns the last map.
pub(super) fn encoder(graph: &mut Graph, width: f64, stem: Stem) -> Result<NodeId> {
    let stride = if stem == Stem::Stride1 { 1 } else { 2 };
    let mut x = graph.conv_norm(["stem_conv".into(), "stem_bn".into()], 0, scaled(STEM, width), [3, stride, 1])?;
    x = graph.push("stem_relu", Op::Relu6, &[x])?;
    for (stage, [expansion, channels, blocks, stride]) in STAGES.into_iter().enumerate() {
        for at in 0..blocks {
            let kept = at > 0 || (stage == 1 && stem != Stem::Imagenet);
            let prefix = if blocks == 1 { format!("stage{}", stage + 1) } else { format!("stage{}.{at}", stage + 1) };
            x = block(graph, &prefix, x, expansion, scaled(channels, width), if kept { 1 } else { stride })?;
        }
    }
    let last = scaled(LAST, width.max(1.0));
    x = graph.conv_norm(["last_conv".into(), "last_bn".into()], x, last, [1, 1, 1])?;
    graph.push("last_relu", Op::Relu6, &[x])
}

/// One inverted residual block.
fn block(graph: &mut Graph, prefix: &str, x: NodeId, expansion: usize, output: usize, stride: usize) -> Result<NodeId> {
    let input = graph.channels(x);
    let inner = input * expansion;
    let names = |layer: &str| ["conv", "bn"].map(|part| format!("{prefix}.{layer}_{part}"));
    let mut y = x;
    if expansion > 1 {
        y = graph.conv_norm(names("expand"), y, inner, [1, 1, 1])?;
        y = graph.push(format!("{prefix}.expand_relu"), Op::Relu6, &[y])?;
    }
    y = graph.conv_norm(names("depthwise"), y, inner, [3, stride, inner])?;
    y = graph.push(format!("{prefix}.depthwise_relu"), Op::Relu6, &[y])?;
    y = graph.conv_norm(names("project"), y, output, [1, 1, 1])?;
    if stride == 1 && input == output { graph.push(format!("{prefix}.add"), Op::Add, &[y, x]) } else { Ok(y) }
}
