//! The rules of the QDQ form, asserted node by node on a finished model.

use super::{Codes, broken, whole};
use crate::Result;
use crate::export::{FEATURES, INPUT, LOGITS};
use crate::onnx::{IR_VERSION, OPSET, pb};
use pb::tensor_proto::DataType;
use std::collections::HashMap;

/// Asserts the rules in the first paragraph of [`quantize`](crate::quantize) on a finished model.
///
/// # Errors
/// [`Error::Rule`](crate::Error::Rule) naming the node that breaks one.
pub fn check(model: &pb::ModelProto, codes: Codes) -> Result<()> {
    check_mixed(model, codes, &[])
}

/// Asserts the rules of [`quantize`](crate::quantize) on a finished model whose convolutions of these names are float.
///
/// # Errors
/// [`Error::Rule`](crate::Error::Rule) naming the node that breaks one.
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
