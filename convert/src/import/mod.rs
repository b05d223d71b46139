//! An ONNX classifier of another program as a [`Folded`] network, from where everything is shared with our own runs.
//!
//! The file passes the reader that the runtime's gate uses (bounded sizes, no subgraphs, no foreign data), then is walked
//! once: what only moves numbers about is followed, not copied (`view`); what computes becomes a layer (`build`), with
//! batch norm and other affine steps folded in. What cannot be converted is refused by node, operator and reason.
//!
//! A head that is linear on the mean of the last map keeps its class-activation map. Any other head of linear layers is
//! written so that the last map has a single cell: predictions are the same, and a map of one cell explains nothing, which
//! the runtime says.

mod build;
mod constant;
mod operators;
mod view;

use crate::fold::{Folded, Layer, LayerOp};
use crate::{Error, Result};
use build::Build;
use excon_edge::engine::onnx;
use operators::Walk;
use std::collections::HashMap;
use std::path::Path;
use tract_onnx::pb::{GraphProto, NodeProto, ValueInfoProto, tensor_shape_proto::dimension, type_proto};
use view::{Of, Outcome, Value, View};

/// Operator sets that are read.
const OPERATOR_SETS: std::ops::RangeInclusive<i64> = 9..=21;
/// Sides of a picture.
const SIDES: std::ops::RangeInclusive<usize> = 8..=1024;
const MAX_CLASSES: usize = 100_000;
/// Most classes of a network that does not end in a linear layer.
const MAX_IDENTITY: usize = 1_024;

/// What an ONNX file holds.
#[derive(Debug, Clone)]
pub struct Imported {
    /// The network, without its final softmax.
    pub network: Folded,
    /// Side of the square pictures it takes.
    pub size: usize,
    /// `x · scale + shift` of each channel that the network itself begins with. It is left to the preprocessing.
    pub input: Option<([f64; 3], [f64; 3])>,
    /// Name of the output that was taken.
    pub output: String,
    /// What the file itself gives there.
    pub scores: Scores,
    /// What was done on the way, in words.
    pub notes: Vec<String>,
}

/// What an output says of the classes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scores {
    /// What the last layer computes.
    Logits,
    /// The softmax of it.
    Probabilities,
    /// The logarithm of the softmax of it.
    LogProbabilities,
}

/// Imports the bytes of an ONNX file. `size` is the side of its pictures, needed where the file leaves it open; `path`
/// appears in errors.
///
/// # Errors
/// [`Error::Node`] for the first node that cannot be converted, [`Error::Model`] when the file cannot be used at all.
pub fn import(path: &Path, bytes: &[u8], size: Option<usize>) -> Result<Imported> {
    let refuse = |reason: String| Error::Model { path: path.to_path_buf(), reason };
    let model = onnx::read(bytes).map_err(refuse)?;
    match onnx::operator_set(&model) {
        Some(version) if OPERATOR_SETS.contains(&version) => {}
        version => {
            let said = version.map_or("no standard operator set".into(), |v| format!("operator set {v}"));
            return Err(refuse(format!("{said} is declared; 9 to 21 are supported")));
        }
    }
    let graph = model.graph.as_ref().ok_or_else(|| refuse("it holds no graph".into()))?;
    let output = output(graph).map_err(refuse)?;
    let (input, picture) = input(graph, size).map_err(refuse)?;
    let size = picture.shape[1];
    let inside = graph.node.iter().flat_map(|n| &n.attribute).filter_map(|a| a.t.as_ref());
    let stored = graph.initializer.iter().chain(inside).map(|t| t.dims.iter().product::<i64>() as usize).sum();
    let mut walk = Walk::new(Build::new(picture.shape, stored), uses(graph));
    for tensor in &graph.initializer {
        walk.stored(tensor);
    }
    walk.set(input, Value::View(picture));
    for (position, node) in graph.node.iter().enumerate() {
        walk.node(node).map_err(|reason| node_error(node, position, reason))?;
    }
    let last = graph.node.iter().enumerate().find(|(_, n)| n.output.contains(&output.name));
    let fail = |reason: String| match last {
        Some((position, node)) => node_error(node, position, reason),
        None => refuse(reason),
    };
    let scores = walk.scores;
    let (value, build, mut notes) = walk.finish(&output.name);
    let view = value.ok_or_else(|| refuse(format!("its output `{}` is not computed", onnx::shorten(&output.name))))?;
    let network = head(build, &graph.name, view, &mut notes).map_err(fail)?;
    if graph.output.len() > 1 {
        notes.push(format!("of its {} outputs, `{}` is taken", graph.output.len(), onnx::shorten(&output.name)));
    }
    Ok(Imported { network: network.0, size, input: network.1, output: output.name.clone(), scores, notes })
}

fn node_error(node: &NodeProto, position: usize, reason: String) -> Error {
    let node_name = if node.name.is_empty() { format!("number {position}") } else { onnx::shorten(&node.name) };
    Error::Node { node: node_name, operator: onnx::shorten(&node.op_type), reason }
}

/// How many nodes and outputs read each value.
fn uses(graph: &GraphProto) -> HashMap<&str, usize> {
    let read = graph.node.iter().flat_map(|n| &n.input).chain(graph.output.iter().map(|o| &o.name));
    let mut uses = HashMap::new();
    read.for_each(|name| *uses.entry(name.as_str()).or_default() += 1);
    uses
}

/// The class scores: the only output, or the one called `logits`, or the first.
fn output(graph: &GraphProto) -> Outcome<&ValueInfoProto> {
    let named = graph.output.iter().find(|o| o.name == "logits");
    named.or(graph.output.first()).ok_or_else(|| "it has no output".into())
}

/// Name of the picture's input, and its view: channels first or last.
fn input(graph: &GraphProto, size: Option<usize>) -> Outcome<(&str, View)> {
    let stored = |name: &str| graph.initializer.iter().any(|t| t.name == name);
    let mut inputs = graph.input.iter().filter(|i| !stored(&i.name));
    let (Some(input), None) = (inputs.next(), inputs.next()) else {
        return Err("it must have exactly one input, the picture".into());
    };
    let tensor = match input.r#type.as_ref().and_then(|t| t.value.as_ref()) {
        Some(type_proto::Value::TensorType(tensor)) if tensor.elem_type == 1 => tensor,
        _ => return Err("its input is no tensor of 32-bit floats".into()),
    };
    let dims = tensor.shape.as_ref().map(|s| s.dim.as_slice()).unwrap_or_default();
    let known = |i: usize| match dims.get(i).and_then(|d| d.value.as_ref()) {
        Some(dimension::Value::DimValue(v)) if *v > 0 => Some(*v as usize),
        _ => None,
    };
    if dims.len() != 4 || known(0).is_some_and(|batch| batch != 1) {
        return Err(
            "its input must be one picture, or an open number of them: export it with batch 1 or a dynamic batch"
                .into(),
        );
    }
    let last = known(3) == Some(3) && known(1) != Some(3);
    let [channels, rows, columns] = if last { [3, 1, 2] } else { [1, 2, 3] }.map(known);
    if channels != Some(3) {
        return Err("its input must have three channels, red, green and blue".into());
    }
    let declared = rows.or(columns);
    let side = match (size, declared) {
        (Some(size), Some(side)) if size != side => return Err(format!("its pictures have side {side}, not {size}")),
        (size, side) => size.or(side).ok_or("it leaves the size of its pictures open: give it with --size")?,
    };
    if [rows, columns].into_iter().flatten().any(|s| s != side) || !SIDES.contains(&side) {
        return Err("its pictures must be square, of side 8 to 1024".into());
    }
    let view = View::map(Of::Layer(0), [3, side, side]);
    let view = if last { view.transposed(&[0, 2, 3, 1])? } else { view };
    Ok((&input.name, view))
}

/// The finished network and the affine step it began with.
type Finished = (Folded, Option<([f64; 3], [f64; 3])>);

/// Pool and classifier behind the last map, whatever the file's own tail looks like.
fn head(mut build: Build, name: &str, view: View, notes: &mut Vec<String>) -> Outcome<Finished> {
    let classes = view.shape[0];
    if view.shape[1] * view.shape[2] != 1 {
        return Err(format!("the output {:?} is no row of class scores", view.dims));
    }
    if !(2..=MAX_CLASSES).contains(&classes) {
        return Err(format!("the output has {classes} values; a classifier has 2 to {MAX_CLASSES}"));
    }
    let identity = || {
        let weight = (0..classes * classes).map(|i| f32::from(u8::from(i % (classes + 1) == 0))).collect();
        (weight, vec![0.0; classes])
    };
    if !matches!(view.of, Of::Linear { .. }) && classes > MAX_IDENTITY {
        return Err(format!("more than {MAX_IDENTITY} classes need a linear layer on the mean of the last map"));
    }
    let (map, (weight, bias)) = match view.of {
        Of::Linear { map, weight, bias } => (map, (weight.to_vec(), bias)),
        Of::Mean(map) | Of::Layer(map) => (map, identity()),
        Of::Padded(..) => return Err("the output is a padded map".into()),
    };
    if map == 0 {
        return Err("no convolution stands before the classifier".into());
    }
    let [channels, rows, columns] = build.layers[map].shape;
    if rows * columns == 1 {
        notes.push(
            "the head is not linear on the mean of a map: predictions are the network's own, a class-activation map is \
             not available"
                .into(),
        );
    }
    let pooled = build.push("pool", LayerOp::GlobalPool, vec![map], [channels, 1, 1])?;
    let logits = build.push("classifier", LayerOp::Linear { weight, bias }, vec![pooled], [classes, 1, 1])?;
    let name: String = onnx::shorten(name);
    let name = if name.trim().is_empty() { "imported".into() } else { name };
    Ok((reachable(Folded { name, layers: build.layers, features: map, logits }), build.input))
}

/// Only what the logits need: other outputs' layers go.
fn reachable(network: Folded) -> Folded {
    let Folded { name, layers, features, logits } = network;
    let mut needed = vec![false; layers.len()];
    (needed[0], needed[logits]) = (true, true);
    for id in (0..layers.len()).rev() {
        if needed[id] {
            layers[id].inputs.iter().for_each(|&i| needed[i] = true);
        }
    }
    let mut place = vec![0; layers.len()];
    let mut kept: Vec<Layer> = vec![];
    for (id, mut layer) in layers.into_iter().enumerate().filter(|(id, _)| needed[*id]) {
        place[id] = kept.len();
        layer.inputs.iter_mut().for_each(|i| *i = place[*i]);
        kept.push(layer);
    }
    Folded { name, layers: kept, features: place[features], logits: place[logits] }
}
