//! The explicit QDQ model, by rules that TensorRT, ONNX Runtime, OpenVINO and tract all accept.
//!
//! Activations: signed bytes, one scale a tensor, zero point 0; in the form for CPUs, zero point −128 for maps that are
//! never negative, so that all 256 codes are theirs ([`Codes`]). Weights: signed bytes in `[-127, 127]`, one scale an
//! output channel (axis 0). Biases stay float and are whole steps of the accumulator (input scale · weight scale): engines
//! that keep them as integers, as ONNX Runtime does unasked, compute the same sums. Every map goes through
//! quantize–dequantize exactly once, behind its activation: so every input of a convolution and both inputs of a sum are
//! dequantized bytes, and nothing stands between a convolution and its activation, whose limits the codes then clip to.
//! `features` is the dequantized last map, exactly what the pool reads; pool and classifier are float.
//!
//! In a mixed model some convolutions are float: weights without a pair, bias as trained. A map stays float where such a
//! convolution (or nothing: the picture) computes it and nothing but such convolutions or the pool reads it; every other
//! map is quantized as above, for sums, max pools and int8 convolutions read bytes alone. ONNX Runtime takes it upon itself
//! to round the weights of a convolution that reads a dequantized map, with one scale for all, unless its bias is no stored
//! float: so there the bias is stored as whole numbers and a power of two each, which stand for the same floats.
//! [`check`] and [`check_mixed`] assert all of this on a finished model.

use crate::export::{self, FEATURES, INPUT, LOGITS};
use crate::fold::{Folded, Layer, LayerId, LayerOp};
use crate::onnx::{Builder, IR_VERSION, OPSET, int, pb};
use crate::range::{LEVELS, scale_of};
use crate::{Error, Result};
use pb::tensor_proto::DataType;
use std::borrow::Cow;
use std::collections::{BTreeSet, HashMap};

const ZERO: &str = "zero_point";
const LOWEST: &str = "zero_point_lowest";

/// How the codes of activations are used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Codes {
    /// Zero point 0 everywhere, as TensorRT demands. A map behind a ReLU has 7 of its 8 bits.
    Symmetric,
    /// Zero point −128 for such a map, which then has all of them: half the rounding error, at no cost on a CPU.
    Full,
}

impl Codes {
    /// The step of a map, from the symmetric one.
    fn scale(self, symmetric: f32, never_negative: bool) -> f32 {
        match (self, never_negative) {
            (Self::Full, true) => symmetric * (LEVELS as f32 / 255.0),
            _ => symmetric,
        }
    }

    fn zero_point(self, never_negative: bool) -> &'static str {
        match (self, never_negative) {
            (Self::Full, true) => LOWEST,
            _ => ZERO,
        }
    }
}

/// `clamp(round_half_even(x / scale) + zero_point, low, high)`, the rule of ONNX QuantizeLinear. Divides: multiplying by a
/// reciprocal rounds differently. `x` is no NaN.
pub fn quantize(x: f32, scale: f32, zero_point: i32, low: i32, high: i32) -> i32 {
    (f64::from((x / scale).round_ties_even()) + f64::from(zero_point)).clamp(f64::from(low), f64::from(high)) as i32
}

/// `(q − zero_point) · scale`.
pub fn dequantize(q: i32, scale: f32, zero_point: i32) -> f32 {
    (q - zero_point) as f32 * scale
}

/// Bytes and scales of a weight tensor with `outputs` output channels along axis 0.
pub fn quantize_weight(weight: &[f32], outputs: usize) -> (Vec<i8>, Vec<f32>) {
    let filters = weight.chunks_exact((weight.len() / outputs.max(1)).max(1));
    let scales: Vec<f32> = filters.clone().map(|f| scale_of(f.iter().fold(0.0, |m: f32, w| m.max(w.abs())))).collect();
    let level = LEVELS as i32;
    let bytes = filters.zip(&scales).flat_map(|(f, &s)| f.iter().map(move |&w| quantize(w, s, 0, -level, level) as i8));
    (bytes.collect(), scales)
}

/// The int8 model. `scales` holds one symmetric scale for every map, as [`crate::range::Observed::scales`] gives them.
///
/// # Errors
/// When a map has no scale or one that is not a positive number.
pub fn int8(network: &Folded, scales: &[Option<f32>], codes: Codes, labels: &[String]) -> Result<pb::ModelProto> {
    mixed(network, scales, codes, &BTreeSet::new(), labels)
}

/// The model with these convolutions in float and the rest in int8; `scales` as for [`int8`].
///
/// # Errors
/// As [`int8`], and when one of them is no convolution.
pub fn mixed(
    network: &Folded,
    scales: &[Option<f32>],
    codes: Codes,
    float: &BTreeSet<LayerId>,
    labels: &[String],
) -> Result<pb::ModelProto> {
    let mut builder = Builder::new(&network.name);
    builder.input(INPUT, &network.input_shape());
    builder.bytes(ZERO, &[], &[0]);
    if codes == Codes::Full {
        builder.bytes(LOWEST, &[], &[i8::MIN]);
    }
    let quantized = quantized(network, float);
    let value = |id: LayerId| match id {
        0 if !quantized[0] => INPUT.to_string(),
        _ => export::value_name(network, id),
    };
    let scale = |id: LayerId| {
        let scale = scales.get(id).copied().flatten().map(|s| codes.scale(s, network.never_negative(id)));
        let scale = scale.filter(|s| s.is_normal() && *s > 0.0);
        scale.ok_or_else(|| broken(&network.layers[id].name, "every map needs a positive scale"))
    };
    for (id, layer) in network.layers.iter().enumerate() {
        let name = &layer.name;
        let mut layer = Cow::Borrowed(layer);
        let inputs: Vec<String> = layer.inputs.iter().map(|&i| value(i)).collect();
        let weight_value = format!("{name}.weight");
        let bias_value = format!("{name}.bias");
        match &network.layers[id].op {
            LayerOp::Conv { weight, .. } if !float.contains(&id) => {
                let (bytes, weight_scales) = quantize_weight(weight, layer.shape[0]);
                layer = Cow::Owned(with_whole_bias(&layer, scale(layer.inputs[0])?, &weight_scales));
                let part = |part: &str| format!("{name}.weight_{part}");
                builder.bytes(&part("quantized"), &export::weight_dims(&layer, weight.len()), &bytes);
                builder.floats(&part("scale"), &[weight_scales.len()], &weight_scales);
                builder.bytes(&part("zero_point"), &[weight_scales.len()], &vec![0; weight_scales.len()]);
                let read = [part("quantized"), part("scale"), part("zero_point")];
                let read: Vec<&str> = read.iter().map(String::as_str).collect();
                builder.node("DequantizeLinear", &part("dequantize"), &read, &weight_value, vec![int("axis", 0)]);
            }
            LayerOp::Conv { weight, .. } | LayerOp::Linear { weight, .. } => {
                builder.floats(&weight_value, &export::weight_dims(&layer, weight.len()), weight);
            }
            _ => {}
        }
        match &layer.op {
            LayerOp::Conv { bias, .. } if float.contains(&id) && quantized[layer.inputs[0]] => {
                let (integers, powers): (Vec<i32>, Vec<f32>) = bias.iter().map(|&b| whole_and_power(b)).unzip();
                let part = |part: &str| format!("{name}.bias_{part}");
                builder.integers(&part("integers"), &[bias.len()], &integers);
                builder.floats(&part("powers"), &[bias.len()], &powers);
                let read = [part("integers"), part("powers")];
                let read: Vec<&str> = read.iter().map(String::as_str).collect();
                builder.node("DequantizeLinear", &part("dequantize"), &read, &bias_value, vec![int("axis", 0)]);
            }
            LayerOp::Conv { bias, .. } | LayerOp::Linear { bias, .. } => {
                builder.floats(&bias_value, &[bias.len()], bias);
            }
            _ => {}
        }
        if !quantized[id] {
            export::emit(&mut builder, &layer, &inputs, &weight_value, &value(id));
            continue;
        }
        let computed = if id == 0 { INPUT.to_string() } else { format!("{name}.float") };
        export::emit(&mut builder, &layer, &inputs, &weight_value, &computed);
        let (scale_name, bytes) = (format!("{name}.scale"), format!("{name}.quantized"));
        builder.floats(&scale_name, &[], &[scale(id)?]);
        let node = |part: &str| format!("{name}.{part}");
        let zero = codes.zero_point(network.never_negative(id));
        builder.node("QuantizeLinear", &node("quantize"), &[&computed, &scale_name, zero], &bytes, vec![]);
        builder.node("DequantizeLinear", &node("dequantize"), &[&bytes, &scale_name, zero], &value(id), vec![]);
    }
    export::outputs(&mut builder, network);
    let model = builder.finish(&export::metadata(network, labels));
    let names: Vec<&str> = float.iter().filter_map(|&id| Some(network.layers.get(id)?.name.as_str())).collect();
    check_mixed(&model, codes, &names)?;
    Ok(model)
}

/// Whether each layer's result is held in bytes, with these convolutions in float.
fn quantized(network: &Folded, float: &BTreeSet<LayerId>) -> Vec<bool> {
    let maps = export::maps(network);
    let stays = |id: LayerId| {
        let mut readers = (0..network.layers.len()).filter(|&r| network.layers[r].inputs.contains(&id));
        let computed = id == 0 || float.contains(&id);
        computed && readers.all(|r| float.contains(&r) || matches!(network.layers[r].op, LayerOp::GlobalPool))
    };
    (0..network.layers.len()).map(|id| maps.contains(&id) && !stays(id)).collect()
}

/// A number as a whole one of 24 bits times a power of two, exactly, down to 2⁻¹⁰³.
fn whole_and_power(value: f32) -> (i32, f32) {
    let exponent = (value.to_bits() >> 23 & 0xff) as i32 - 127;
    let power = f32::from_bits((((exponent - 23).max(-126) + 127) as u32) << 23);
    ((value / power).round_ties_even() as i32, power)
}

/// The bias in whole steps; one too large for an i32 stays as it is.
fn whole(bias: f32, step: f32) -> f32 {
    let steps = (bias / step).round_ties_even();
    if steps.abs() < i32::MAX as f32 { steps * step } else { bias }
}

/// A convolution with [`whole`] biases.
fn with_whole_bias(layer: &Layer, input_scale: f32, weight_scales: &[f32]) -> Layer {
    let mut layer = layer.clone();
    if let LayerOp::Conv { bias, .. } = &mut layer.op {
        bias.iter_mut().zip(weight_scales).for_each(|(bias, &scale)| *bias = whole(*bias, input_scale * scale));
    }
    layer
}

fn broken(node: &str, reason: &str) -> Error {
    Error::Rule { node: node.into(), reason: reason.into() }
}

/// Asserts the rules in this module's first paragraph on a finished model.
///
/// # Errors
/// [`Error::Rule`] naming the node that breaks one.
pub fn check(model: &pb::ModelProto, codes: Codes) -> Result<()> {
    check_mixed(model, codes, &[])
}

/// Asserts the rules of this module on a finished model whose convolutions of these names are float.
///
/// # Errors
/// [`Error::Rule`] naming the node that breaks one.
pub fn check_mixed(model: &pb::ModelProto, codes: Codes, float: &[&str]) -> Result<()> {
    let graph = model.graph.as_ref().ok_or_else(|| broken("model", "has no graph"))?;
    if model.ir_version != IR_VERSION || model.opset_import.iter().any(|o| !o.domain.is_empty() || o.version != OPSET) {
        return Err(broken("model", "IR version 8 and operator set 17 only"));
    }
    let conv = |name: &&&str| graph.node.iter().any(|n| n.op_type == "Conv" && n.name == **name);
    if let Some(name) = float.iter().find(|name| !conv(name)) {
        return Err(broken(name, "only convolutions stay float"));
    }
    Walk::new(graph, codes, float).check()
}

/// A graph with its look-up tables.
struct Walk<'a> {
    graph: &'a pb::GraphProto,
    codes: Codes,
    /// Convolutions that are float.
    float: &'a [&'a str],
    producer: HashMap<&'a str, &'a pb::NodeProto>,
    constant: HashMap<&'a str, &'a pb::TensorProto>,
}

impl<'a> Walk<'a> {
    fn new(graph: &'a pb::GraphProto, codes: Codes, float: &'a [&'a str]) -> Self {
        let producer = graph.node.iter().flat_map(|n| n.output.iter().map(move |o| (o.as_str(), n))).collect();
        let constant = graph.initializer.iter().map(|t| (t.name.as_str(), t)).collect();
        Self { graph, codes, float, producer, constant }
    }

    fn check(&self) -> Result<()> {
        for node in &self.graph.node {
            let rule = |holds: bool, reason: &str| if holds { Ok(()) } else { Err(broken(&node.name, reason)) };
            let made_by = |i: usize, op: &str| self.made_by(&node.input[i], op);
            let float_constant = |i: usize| {
                self.constant.get(node.input[i].as_str()).is_some_and(|t| t.data_type == DataType::Float as i32)
            };
            match node.op_type.as_str() {
                "QuantizeLinear" => {
                    self.check_scale(node, None)?;
                    let behind = self.readers(&node.output[0]);
                    rule(behind == ["DequantizeLinear"], "a quantized map is read by one DequantizeLinear only")?;
                    let source = &node.input[0];
                    rule(!self.made_by(source, "DequantizeLinear"), "a map is quantized once")?;
                    let others: Vec<&str> = self.readers(source);
                    rule(others == ["QuantizeLinear"], "a map is read only in its quantized form")?;
                    let pooled = self.made_by(source, "GlobalAveragePool") || self.made_by(source, "Gemm");
                    rule(!pooled, "pool and classifier stay float")?;
                }
                "DequantizeLinear" => match self.constant.get(node.input[0].as_str()) {
                    Some(bias) if bias.data_type == DataType::Int32 as i32 => {
                        let powers = node.input.get(1).and_then(|name| self.constant.get(name.as_str()));
                        let each = node.input.len() == 2 && powers.is_some_and(|p| p.dims == bias.dims);
                        rule(each, "a bias of whole numbers has a power each")?;
                        let read =
                            self.reading(&node.output[0]).all(|n| self.is_float(n) && n.input[2] == node.output[0]);
                        rule(read, "whole numbers are the bias of a float convolution")?;
                    }
                    Some(weight) => {
                        self.check_scale(node, Some(weight.dims.first().copied().unwrap_or(0)))?;
                        let axis = node.attribute.iter().find(|a| a.name == "axis").map(|a| a.i);
                        rule(axis == Some(0), "weights are scaled along axis 0")?;
                        let bytes = weight.data_type == DataType::Int8 as i32 && !weight.raw_data.contains(&0x80);
                        rule(bytes, "weights are signed bytes in -127..=127")?;
                    }
                    None => {
                        self.check_scale(node, None)?;
                        rule(made_by(0, "QuantizeLinear"), "only quantized values are dequantized")?;
                        let quantize = self.producer[node.input[0].as_str()];
                        rule(
                            quantize.input[1..] == node.input[1..],
                            "both halves of a pair share scale and zero point",
                        )?;
                    }
                },
                "Conv" if self.is_float(node) => {
                    let map = made_by(0, "DequantizeLinear") || self.is_float_map(&node.input[0]);
                    rule(map, "a float convolution reads a dequantized map or that of a float one")?;
                    rule(
                        node.input.len() == 3 && float_constant(1),
                        "a float convolution's weights are float constants",
                    )?;
                    // Else ONNX Runtime rounds its weights.
                    let bias =
                        if made_by(0, "DequantizeLinear") { made_by(2, "DequantizeLinear") } else { float_constant(2) };
                    rule(
                        bias,
                        "a float convolution's bias is whole numbers where it reads a dequantized map, else float",
                    )?;
                    self.check_activation(node)?;
                }
                "Conv" => {
                    rule(made_by(0, "DequantizeLinear"), "a convolution reads a dequantized map")?;
                    rule(made_by(1, "DequantizeLinear"), "a convolution's weights are dequantized")?;
                    rule(node.input.len() == 3 && float_constant(2), "a convolution's bias is a float constant")?;
                    rule(self.has_whole_bias(node), "a convolution's bias is whole steps of its accumulator")?;
                    self.check_activation(node)?;
                }
                "Add" => {
                    let both = made_by(0, "DequantizeLinear") && made_by(1, "DequantizeLinear");
                    rule(both, "both inputs of a sum are dequantized")?;
                    self.check_activation(node)?;
                }
                "Relu" | "Clip" => {
                    rule(
                        made_by(0, "Conv") || made_by(0, "Add"),
                        "an activation stands behind a convolution or a sum",
                    )?;
                    let limits = node.op_type == "Relu" || node.input.len() == 3 && (1..3).all(float_constant);
                    rule(limits, "the limits of an activation are float constants")?;
                }
                "MaxPool" => rule(made_by(0, "DequantizeLinear"), "max pooling reads a dequantized map")?,
                "GlobalAveragePool" => {
                    let map = made_by(0, "DequantizeLinear") || self.is_float_map(&node.input[0]);
                    rule(node.input[0] == FEATURES && map, "the pool reads `features`, the dequantized last map")?;
                }
                "Flatten" => rule(made_by(0, "GlobalAveragePool"), "only the pooled vector is flattened")?,
                "Gemm" => {
                    let float = float_constant(1) && float_constant(2) && made_by(0, "Flatten");
                    rule(
                        float && node.output[0] == LOGITS,
                        "the classifier is float, on the pool, and gives `logits`",
                    )?;
                }
                _ => return Err(broken(&node.name, "is an operator the exporter does not write")),
            }
        }
        if self.readers(INPUT) != ["QuantizeLinear"] && !self.reading(INPUT).all(|n| self.is_float(n)) {
            return Err(broken(INPUT, "the input is quantized, or float convolutions alone read it"));
        }
        Ok(())
    }

    /// Scale: positive, scalar or `channels` long. Zero point: signed bytes of the same shape, all 0; with all codes in use
    /// that of a map may also be the lowest.
    fn check_scale(&self, node: &pb::NodeProto, channels: Option<i64>) -> Result<()> {
        let constant = |i: usize| node.input.get(i).and_then(|name| self.constant.get(name.as_str()));
        let (Some(scale), Some(zero)) = (constant(1), constant(2)) else {
            return Err(broken(&node.name, "scale and zero point are constants"));
        };
        let dims: Vec<i64> = channels.into_iter().collect();
        if scale.dims != dims || zero.dims != dims {
            return Err(broken(&node.name, "scale and zero point are scalars, or one an output channel"));
        }
        let (values, _) = scale.raw_data.as_chunks::<4>();
        if values.is_empty() || !values.iter().all(|v| f32::from_le_bytes(*v).is_normal() && v[3] & 0x80 == 0) {
            return Err(broken(&node.name, "scales are positive"));
        }
        let lowest = channels.is_none() && self.codes == Codes::Full;
        let allowed = |b: u8| b == 0 || lowest && b as i8 == i8::MIN;
        if zero.data_type != DataType::Int8 as i32 || !zero.raw_data.iter().all(|&b| allowed(b)) {
            return Err(broken(&node.name, "zero points are signed and 0, for CPUs also -128"));
        }
        Ok(())
    }

    fn has_whole_bias(&self, conv: &pb::NodeProto) -> bool {
        let scales = |i: usize| self.floats(&self.producer.get(conv.input[i].as_str())?.input[1]);
        let (Some(input), Some(weight), Some(bias)) = (scales(0), scales(1), self.floats(&conv.input[2])) else {
            return false;
        };
        bias.len() == weight.len() && bias.iter().zip(&weight).all(|(&b, w)| whole(b, input[0] * w) == b)
    }

    fn floats(&self, constant: &str) -> Option<Vec<f32>> {
        let (values, _) = self.constant.get(constant)?.raw_data.as_chunks::<4>();
        Some(values.iter().map(|v| f32::from_le_bytes(*v)).collect())
    }

    /// Where an activation reads a layer, nothing else does.
    fn check_activation(&self, node: &pb::NodeProto) -> Result<()> {
        let readers = self.readers(&node.output[0]);
        if readers.iter().any(|r| ["Relu", "Clip"].contains(r)) && readers.len() > 1 {
            return Err(broken(&node.name, "nothing stands beside an activation"));
        }
        Ok(())
    }

    fn made_by(&self, value: &str, op: &str) -> bool {
        self.producer.get(value).is_some_and(|n| n.op_type == op)
    }

    /// Operators that read a value.
    fn readers(&self, value: &str) -> Vec<&'a str> {
        self.reading(value).map(|n| n.op_type.as_str()).collect()
    }

    fn reading(&self, value: &str) -> impl Iterator<Item = &'a pb::NodeProto> {
        self.graph.node.iter().filter(move |n| n.input.iter().any(|i| i == value))
    }

    fn is_float(&self, node: &pb::NodeProto) -> bool {
        node.op_type == "Conv" && self.float.contains(&node.name.as_str())
    }

    /// Whether a value is the picture, or what a float convolution gives, its activation included.
    fn is_float_map(&self, value: &str) -> bool {
        let producer = |value: &str| self.producer.get(value);
        let computed = match producer(value) {
            Some(n) if ["Relu", "Clip"].contains(&n.op_type.as_str()) => producer(&n.input[0]),
            other => other,
        };
        value == INPUT || computed.is_some_and(|n| self.is_float(n))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bias_of_whole_numbers_and_powers_is_the_same_bias() {
        let mut value = 1.0f32;
        for step in 0..20_000 {
            // From 1e30 down to 1e-30, of both signs, and 0.
            value = (value * -1.618_034) % 1e6;
            let value = if step % 7 == 0 { 0.0 } else { value * 10f32.powi(step % 60 - 30) };
            let (whole, power) = whole_and_power(value);
            assert_eq!(whole as f32 * power, value, "{whole} {power}");
            assert!(power.is_normal() && whole.unsigned_abs() < 1 << 24);
        }
    }
}
