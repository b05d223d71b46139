//! A folded network as a float ONNX model: input `input` (`batch × C × H × W`), outputs `logits` and `features`.
//!
//! Nodes carry the names of the graph, ReLU6 as `Clip`; a node's value is `NAME.output`, its parameters `NAME.weight` and `NAME.bias`, so
//! no name can collide with the three public ones. The labels travel in the metadata as a JSON array.

use crate::fold::{Activation, Folded, Layer, LayerId, LayerOp};
use crate::onnx::{Builder, int, ints, pb::AttributeProto, pb::ModelProto};
use excon_edge::kernel::Clip;
use excon_edge::kernel::graph::Window;

/// ONNX name of the input.
pub const INPUT: &str = "input";
/// ONNX name of the logits.
pub const LOGITS: &str = "logits";
/// ONNX name of the last feature map.
pub const FEATURES: &str = "features";

/// The float model. `labels` go to the metadata.
pub fn float(network: &Folded, labels: &[String]) -> ModelProto {
    emit_float(network, labels, false)
}

/// The float model with every map as an output, for the range search: behind `logits` and `features` come the layers of
/// [`maps`] in order, without the input and without `features` itself.
pub fn observed(network: &Folded) -> ModelProto {
    emit_float(network, &[], true)
}

/// Layers whose output is a map that a quantized model holds in 8 bits.
pub fn maps(network: &Folded) -> Vec<LayerId> {
    let is_map = |layer: &Layer| !matches!(layer.op, LayerOp::GlobalPool | LayerOp::Linear { .. });
    (0..network.layers.len()).filter(|&i| is_map(&network.layers[i])).collect()
}

fn emit_float(network: &Folded, labels: &[String], observe: bool) -> ModelProto {
    let mut builder = Builder::new(&network.name);
    builder.input(INPUT, &network.input_shape());
    let name = |id: LayerId| if id == 0 { INPUT.to_string() } else { value_name(network, id) };
    for (id, layer) in network.layers.iter().enumerate() {
        if let LayerOp::Conv { weight, bias, .. } | LayerOp::Linear { weight, bias, .. } = &layer.op {
            builder.floats(&format!("{}.weight", layer.name), &weight_dims(layer, weight.len()), weight);
            builder.floats(&format!("{}.bias", layer.name), &[bias.len()], bias);
        }
        let inputs: Vec<String> = layer.inputs.iter().map(|&i| name(i)).collect();
        emit(&mut builder, layer, &inputs, &format!("{}.weight", layer.name), &name(id));
    }
    outputs(&mut builder, network);
    if observe {
        for id in maps(network).into_iter().filter(|&id| id != 0 && id != network.features) {
            builder.output(&name(id), &network.layers[id].shape);
        }
    }
    builder.finish(&metadata(network, labels))
}

/// Name of a layer's value, its activation included; in a quantized model that of its dequantized form.
pub fn value_name(network: &Folded, id: LayerId) -> String {
    match id {
        _ if id == network.features => FEATURES.to_string(),
        _ if id == network.logits => LOGITS.to_string(),
        _ => format!("{}.output", network.layers[id].name),
    }
}

/// Declares the two public outputs.
pub(crate) fn outputs(builder: &mut Builder, network: &Folded) {
    builder.output(LOGITS, &[network.classes()]);
    builder.output(FEATURES, &network.layers[network.features].shape);
}

/// What every model says about itself.
pub(crate) fn metadata(network: &Folded, labels: &[String]) -> Vec<(&'static str, String)> {
    let labels = serde_json::Value::from(labels.to_vec()).to_string();
    vec![("excon.network", network.name.clone()), ("excon.labels", labels)]
}

/// Shape of a layer's weight tensor holding `length` values.
pub(crate) fn weight_dims(layer: &Layer, length: usize) -> Vec<usize> {
    let out = layer.shape[0];
    match layer.op {
        LayerOp::Conv { window: Window { kernel: [rows, columns], .. }, .. } => {
            vec![out, length / (out * rows * columns).max(1), rows, columns]
        }
        _ => vec![out, length / out.max(1)],
    }
}

/// Writes the nodes of one layer: its operator, then its activation. `weight` names the (possibly dequantized) weight value,
/// the bias is `NAME.bias`.
pub(crate) fn emit(builder: &mut Builder, layer: &Layer, inputs: &[String], weight: &str, output: &str) {
    let name = layer.name.as_str();
    let sum = format!("{name}.output");
    // Before an activation the layer's own value is an inner one.
    let inner = if layer.activation.is_some() { format!("{name}.before_relu") } else { output.to_string() };
    let bias_name = format!("{name}.bias");
    match &layer.op {
        LayerOp::Input => {}
        LayerOp::Conv { window, groups, .. } => {
            let mut attributes = geometry(window);
            attributes.insert(0, ints("dilations", &window.dilation));
            attributes.insert(1, int("group", *groups));
            builder.node("Conv", name, &[&inputs[0], weight, &bias_name], &inner, attributes);
        }
        LayerOp::Add => builder.node("Add", name, &[&inputs[0], &inputs[1]], &inner, vec![]),
        LayerOp::MaxPool { window } => builder.node("MaxPool", name, &[&inputs[0]], &inner, geometry(window)),
        LayerOp::GlobalPool => {
            let pooled = format!("{name}.pooled");
            builder.node("GlobalAveragePool", name, &[&inputs[0]], &pooled, vec![]);
            builder.node("Flatten", &format!("{name}.flatten"), &[&pooled], &sum, vec![int("axis", 1)]);
        }
        LayerOp::Linear { .. } => {
            builder.node("Gemm", name, &[&inputs[0], weight, &bias_name], &inner, vec![int("transB", 1)]);
        }
    }
    match &layer.activation {
        None => {}
        Some(a) if a.clip == Clip::RELU => builder.node("Relu", &a.name, &[&inner], output, vec![]),
        Some(Activation { name, clip }) => {
            let limits = [("low", clip.low), ("high", clip.high)].map(|(part, value)| {
                let limit = format!("{name}.{part}");
                builder.floats(&limit, &[], &[value]);
                limit
            });
            builder.node("Clip", name, &[&inner, &limits[0], &limits[1]], output, vec![]);
        }
    }
}

/// Attributes of a window, in the order of their names.
fn geometry(window: &Window) -> Vec<AttributeProto> {
    let [[top, left], [bottom, right]] = [window.before, window.after];
    vec![
        ints("kernel_shape", &window.kernel),
        ints("pads", &[top, left, bottom, right]),
        ints("strides", &window.stride),
    ]
}
