//! A bundle's network in the form that TensorRT's parser takes: one picture a batch, and each stored weight in codes as a
//! float weight behind a quantize–dequantize pair, which older parsers demand.
//!
//! The change loses nothing: a code times its scale, divided by the scale again, rounds to the same code. Files that
//! TensorRT cannot take for another reason, such as unsigned bytes, are refused with the node.

use crate::engine::onnx::Stored;
use crate::engine::{Shapes, onnx};
use crate::file;
use prost::Message;
use std::collections::HashMap;
use tract_onnx::pb::{
    AttributeProto, GraphProto, NodeProto, TensorProto, ValueInfoProto, attribute_proto::AttributeType,
    tensor_proto::DataType, tensor_shape_proto::dimension::Value, type_proto,
};

/// A network ready for the parser.
#[derive(Debug, Clone)]
pub struct Master {
    /// The ONNX file.
    pub bytes: Vec<u8>,
    /// Shapes, of one picture.
    pub shapes: Shapes,
    /// Whether it holds quantize–dequantize pairs.
    pub int8: bool,
    /// Names of the file's nodes, in order.
    pub nodes: Vec<String>,
    /// Names of the nodes behind `features`.
    pub head: Vec<String>,
    /// SHA-256 of the file, lower-case hex.
    pub digest: String,
}

impl Master {
    /// From the bytes of a bundle's model; the error is a sentence fragment.
    pub fn new(model: &[u8]) -> Result<Self, String> {
        let checked = onnx::check(model)?;
        let (shapes, int8) = (checked.shapes, checked.is_quantized());
        let mut model = checked.model;
        let graph = model.graph.as_mut().ok_or("it holds no graph")?;
        graph.input.iter_mut().chain(&mut graph.output).for_each(one_picture);
        pair_weights(graph)?;
        let nodes = graph.node.iter().map(|n| n.name.clone()).collect();
        let head = head(graph);
        let bytes = model.encode_to_vec();
        let digest = file::digest(&bytes);
        Ok(Self { bytes, shapes, int8, nodes, head, digest })
    }
}

/// Fixes the batch to one picture.
fn one_picture(value: &mut ValueInfoProto) {
    if let Some(type_proto::Value::TensorType(tensor)) = value.r#type.as_mut().and_then(|t| t.value.as_mut())
        && let Some(batch) = tensor.shape.as_mut().and_then(|s| s.dim.first_mut())
    {
        batch.value = Some(Value::DimValue(1));
    }
}

/// Names of the nodes that compute from `features`.
fn head(graph: &GraphProto) -> Vec<String> {
    let mut behind = vec!["features".to_string()];
    let mut names = Vec::new();
    for node in &graph.node {
        if node.input.iter().any(|i| behind.contains(i)) {
            behind.extend(node.output.iter().cloned());
            names.push(node.name.clone());
        }
    }
    names
}

/// See the module's first paragraph.
fn pair_weights(graph: &mut GraphProto) -> Result<(), String> {
    let stored: HashMap<String, TensorProto> = graph.initializer.iter().map(|t| (t.name.clone(), t.clone())).collect();
    let mut nodes = Vec::with_capacity(graph.node.len());
    for mut node in std::mem::take(&mut graph.node) {
        if !matches!(node.op_type.as_str(), "QuantizeLinear" | "DequantizeLinear") {
            nodes.push(node);
            continue;
        }
        let fail = |reason: &str| format!("node {}: {reason}", onnx::shorten(&node.name));
        let scale =
            node.input.get(1).and_then(|name| stored.get(name)).ok_or_else(|| fail("its scale is not stored"))?;
        let scales = floats(scale).map_err(fail)?;
        if scales.iter().any(|s| !s.is_normal() || *s < 0.0) {
            return Err(fail("a scale is not a positive number"));
        }
        if scales.len() > 1 && onnx::Attributes(&node.attribute).int("axis", 1) != 0 {
            return Err(fail("scales by channel must lie along axis 0"));
        }
        match node.input.get(2).filter(|name| !name.is_empty()) {
            None => {
                let name = format!("{}.zero", node.output[0]);
                graph.initializer.push(zeros(&name, &scale.dims));
                node.input.truncate(2);
                node.input.push(name);
            }
            Some(name) => {
                let zero = stored.get(name).ok_or_else(|| fail("its zero point is not stored"))?;
                let signed = [DataType::Int8 as i32, DataType::Int32 as i32].contains(&zero.data_type);
                if !signed || zero.raw_data.iter().any(|&b| b != 0) || !zero.int32_data.iter().all(|&v| v == 0) {
                    return Err(fail(
                        "TensorRT takes signed bytes with zero point 0 alone, as `--target tensorrt` writes them",
                    ));
                }
            }
        }
        let codes = if node.op_type == "DequantizeLinear" { stored.get(&node.input[0]) } else { None };
        let Some(codes) = codes else {
            nodes.push(node);
            continue;
        };
        let signed = [DataType::Int8 as i32, DataType::Int32 as i32].contains(&codes.data_type);
        let values = signed.then(|| Stored::of(codes)).flatten().map(Stored::into_floats);
        let values = values.ok_or_else(|| fail("TensorRT takes weights in signed bytes alone"))?;
        let row = values.len() / scales.len().max(1);
        let real: Vec<f32> = values.iter().enumerate().map(|(i, v)| v * scales[i / row.max(1)]).collect();
        if codes.data_type == DataType::Int32 as i32 {
            // A bias in codes: TensorRT wants it in float.
            let name = node.output[0].clone();
            graph.initializer.push(tensor(&name, &codes.dims, &real));
            continue;
        }
        let back = |(i, (r, v)): (usize, (&f32, &f32))| (r / scales[i / row.max(1)]).round_ties_even() == *v;
        if !real.iter().zip(&values).enumerate().all(back) {
            return Err(fail("its scales are too small to hold the weights in float"));
        }
        let (weight, pair) = (format!("{}.real", node.output[0]), format!("{}.codes", node.output[0]));
        graph.initializer.push(tensor(&weight, &codes.dims, &real));
        nodes.push(NodeProto {
            name: format!("{}.quantize", node.name),
            op_type: "QuantizeLinear".into(),
            input: vec![weight, node.input[1].clone(), node.input[2].clone()],
            output: vec![pair.clone()],
            attribute: vec![AttributeProto {
                name: "axis".into(),
                r#type: AttributeType::Int as i32,
                i: 0,
                ..AttributeProto::default()
            }],
            ..NodeProto::default()
        });
        node.input[0] = pair;
        nodes.push(node);
    }
    // What nothing reads any more would only take memory.
    let read: std::collections::HashSet<&String> = nodes.iter().flat_map(|n| &n.input).collect();
    graph.initializer.retain(|t| read.contains(&t.name));
    graph.node = nodes;
    Ok(())
}

fn floats(tensor: &TensorProto) -> Result<Vec<f32>, &'static str> {
    if tensor.data_type != DataType::Float as i32 {
        return Err("its scale is not 32-bit float");
    }
    let values = Stored::of(tensor).map_or_else(Vec::new, Stored::into_floats);
    if values.is_empty() { Err("its scale is empty") } else { Ok(values) }
}

fn tensor(name: &str, dims: &[i64], values: &[f32]) -> TensorProto {
    TensorProto {
        name: name.into(),
        dims: dims.to_vec(),
        data_type: DataType::Float as i32,
        raw_data: values.iter().flat_map(|v| v.to_le_bytes()).collect(),
        ..TensorProto::default()
    }
}

fn zeros(name: &str, dims: &[i64]) -> TensorProto {
    let count = dims.iter().product::<i64>().max(1) as usize;
    let data_type = DataType::Int8 as i32;
    TensorProto {
        name: name.into(),
        dims: dims.to_vec(),
        data_type,
        raw_data: vec![0; count],
        ..TensorProto::default()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::engine::tract::TractEngine;
    use crate::engine::{Engine, Outputs};
    use crate::tiny;

    fn run(model: &[u8]) -> Outputs {
        TractEngine::from_onnx(model, "tiny").unwrap().run(&tiny::images(8)).unwrap()
    }

    #[test]
    fn it_computes_the_same_to_the_bit() {
        for int8 in [false, true] {
            let model = tiny::network(int8).bytes();
            let master = Master::new(&model).unwrap();
            assert_eq!(master.int8, int8);
            assert_eq!(run(&master.bytes), run(&model));
            assert_eq!(master.head, ["pool_node", "flat_node", "logits_node"]);
            assert_eq!(Master::new(&master.bytes).unwrap().digest, master.digest, "it is in that form already");
        }
    }

    #[test]
    fn weights_stand_behind_pairs_and_the_batch_is_one() {
        let master = Master::new(&tiny::network(true).bytes()).unwrap();
        let model = onnx::read(&master.bytes).unwrap();
        let graph = model.graph.unwrap();
        let stored = |name: &String| graph.initializer.iter().any(|t| &t.name == name);
        let reads = graph.node.iter().filter(|n| n.op_type == "DequantizeLinear");
        assert!(reads.clone().all(|n| !stored(&n.input[0])) && reads.count() > 2);
        for value in graph.input.iter().chain(&graph.output) {
            let Some(type_proto::Value::TensorType(tensor)) = value.r#type.clone().unwrap().value else { panic!() };
            assert_eq!(tensor.shape.unwrap().dim[0].value, Some(Value::DimValue(1)));
        }
    }

    /// A change to the int8 file, and words of the refusal; none where it is taken.
    type Change = (&'static str, fn(&mut tiny::Onnx));

    #[test]
    fn what_tensorrt_cannot_take_is_named() {
        fn stored<'a>(o: &'a mut tiny::Onnx, name: &str) -> &'a mut TensorProto {
            o.graph().initializer.iter_mut().find(|t| t.name == name).unwrap()
        }
        let changes: [Change; 4] = [
            ("node a1_q_node: TensorRT takes signed bytes", |o| {
                stored(o, "a1_z").data_type = DataType::Uint8 as i32;
            }),
            ("zero point 0 alone", |o| stored(o, "x_z").raw_data = vec![3]),
            ("a scale is not a positive number", |o| stored(o, "w2_s").raw_data[..4].copy_from_slice(&[0; 4])),
            ("must lie along axis 0", |o| {
                let node = o.graph().node.iter_mut().find(|n| n.output[0] == "w1").unwrap();
                node.attribute[0].i = 1;
            }),
        ];
        for (words, change) in changes {
            let mut onnx = tiny::network(true);
            change(&mut onnx);
            let error = Master::new(&onnx.bytes()).unwrap_err();
            assert!(error.contains(words), "expected `{words}` in {error}");
        }
    }

    #[test]
    fn a_bias_in_codes_becomes_float() {
        let mut onnx = tiny::network(true);
        let bytes = [40i32, -300, 7, 0, 1000, -5].iter().flat_map(|v| v.to_le_bytes()).collect();
        onnx.tensor("b2_q", &[tiny::CHANNELS], DataType::Int32, bytes);
        onnx.floats("b2_s", &[], &[0.003]);
        onnx.node("DequantizeLinear", &["b2_q", "b2_s"], "b2_real", &[]);
        let read = onnx.graph().node.pop().unwrap();
        onnx.graph().node.insert(0, read);
        onnx.graph().node.iter_mut().find(|n| n.output[0] == "c2").unwrap().input[2] = "b2_real".into();
        let master = Master::new(&onnx.bytes()).unwrap();
        assert!(!master.nodes.contains(&"b2_real_node".to_string()));
        assert_eq!(run(&master.bytes), run(&onnx.bytes()));
    }
}
