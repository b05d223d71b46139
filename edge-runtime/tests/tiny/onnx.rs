//! A tiny network written as ONNX, float or int8, for tests: the forms `excon convert` writes, without training.
//!
//! `input → conv 3×3/2 + ReLU → conv 3×3 + skip, ReLU =
//! features → global average → linear`; weights come from a small generator with a fixed seed.

use prost::Message;
use tract_onnx::pb::{
    AttributeProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto, TensorProto, TensorShapeProto, TypeProto,
    ValueInfoProto, attribute_proto::AttributeType, tensor_proto::DataType, tensor_shape_proto, type_proto,
};

pub const SIZE: usize = 8;
pub const CHANNELS: usize = 6;
pub const MAP: usize = 4;
pub const CLASSES: usize = 3;

/// Numbers in −1..1, the same on every machine.
pub struct Noise(pub u64);

impl Noise {
    pub fn next(&mut self) -> f32 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((self.0 >> 40) as f32 / (1u64 << 23) as f32) - 1.0
    }

    pub fn take(&mut self, count: usize) -> Vec<f32> {
        (0..count).map(|_| self.next()).collect()
    }
}

/// Normalised pictures, planar.
pub fn images(count: usize) -> Vec<f32> {
    Noise(11).take(count * 3 * SIZE * SIZE)
}

/// The linear head: weight `CLASSES × CHANNELS`, bias.
pub fn head() -> (Vec<f32>, Vec<f32>) {
    (Noise(5).take(CLASSES * CHANNELS), Noise(6).take(CLASSES))
}

/// A model under construction.
pub struct Onnx {
    pub model: ModelProto,
}

impl Onnx {
    pub fn graph(&mut self) -> &mut GraphProto {
        self.model.graph.as_mut().unwrap()
    }

    pub fn bytes(&self) -> Vec<u8> {
        self.model.encode_to_vec()
    }

    pub fn node(&mut self, op: &str, inputs: &[&str], output: &str, ints: &[(&str, &[i64])]) {
        let attribute = ints
            .iter()
            .map(|(name, values)| AttributeProto {
                name: name.to_string(),
                r#type: if values.len() == 1 { AttributeType::Int } else { AttributeType::Ints } as i32,
                i: values[0],
                ints: if values.len() == 1 { vec![] } else { values.to_vec() },
                ..Default::default()
            })
            .collect();
        self.graph().node.push(NodeProto {
            name: format!("{output}_node"),
            op_type: op.into(),
            input: inputs.iter().map(|s| s.to_string()).collect(),
            output: vec![output.into()],
            attribute,
            ..Default::default()
        });
    }

    pub fn floats(&mut self, name: &str, dims: &[usize], values: &[f32]) {
        let raw = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        self.tensor(name, dims, DataType::Float, raw);
    }

    pub fn tensor(&mut self, name: &str, dims: &[usize], kind: DataType, raw_data: Vec<u8>) {
        self.graph().initializer.push(TensorProto {
            name: name.into(),
            dims: dims.iter().map(|&d| d as i64).collect(),
            data_type: kind as i32,
            raw_data,
            ..Default::default()
        });
    }

    /// A weight: as it is, or as per-channel symmetric int8 behind a DequantizeLinear.
    fn weight(&mut self, name: &str, dims: &[usize], values: &[f32], int8: bool) {
        if !int8 {
            return self.floats(name, dims, values);
        }
        let row = values.len() / dims[0];
        let scales: Vec<f32> = values.chunks(row).map(|r| r.iter().fold(0f32, |m, v| m.max(v.abs())) / 127.0).collect();
        let codes = values.iter().enumerate().map(|(i, v)| (v / scales[i / row]).round_ties_even() as i8 as u8);
        self.tensor(&format!("{name}_q"), dims, DataType::Int8, codes.collect());
        self.floats(&format!("{name}_s"), &[dims[0]], &scales);
        self.tensor(&format!("{name}_z"), &[dims[0]], DataType::Int8, vec![0; dims[0]]);
        let inputs = [format!("{name}_q"), format!("{name}_s"), format!("{name}_z")];
        let inputs: Vec<&str> = inputs.iter().map(String::as_str).collect();
        self.node("DequantizeLinear", &inputs, name, &[("axis", &[0])]);
    }

    /// An activation: `to` is `from`, or `from` behind a quantize–dequantize pair of one scale.
    fn activation(&mut self, from: &str, to: &str, scale: f32, int8: bool) {
        if !int8 {
            return self.node("Identity", &[from], to, &[]);
        }
        let (s, z, q) = (format!("{to}_s"), format!("{to}_z"), format!("{to}_q"));
        self.floats(&s, &[], &[scale]);
        self.tensor(&z, &[], DataType::Int8, vec![0]);
        self.node("QuantizeLinear", &[from, &s, &z], &q, &[]);
        self.node("DequantizeLinear", &[&q, &s, &z], to, &[]);
    }
}

pub fn value(name: &str, dims: &[usize]) -> ValueInfoProto {
    let fixed = |&d: &usize| tensor_shape_proto::dimension::Value::DimValue(d as i64);
    let batch = tensor_shape_proto::dimension::Value::DimParam("N".into());
    let dim = std::iter::once(batch).chain(dims.iter().map(fixed));
    let dim = dim.map(|v| tensor_shape_proto::Dimension { value: Some(v), ..Default::default() }).collect();
    let tensor = type_proto::Tensor { elem_type: DataType::Float as i32, shape: Some(TensorShapeProto { dim }) };
    let kind = TypeProto { value: Some(type_proto::Value::TensorType(tensor)), ..Default::default() };
    ValueInfoProto { name: name.into(), r#type: Some(kind), ..Default::default() }
}

/// The tiny network; the outputs are declared in the order features, logits.
pub fn network(int8: bool) -> Onnx {
    let graph = GraphProto {
        name: "tiny".into(),
        input: vec![value("input", &[3, SIZE, SIZE])],
        output: vec![value("features", &[CHANNELS, MAP, MAP]), value("logits", &[CLASSES])],
        ..Default::default()
    };
    let mut onnx = Onnx {
        model: ModelProto {
            ir_version: 8,
            opset_import: vec![OperatorSetIdProto { domain: String::new(), version: 17 }],
            graph: Some(graph),
            ..Default::default()
        },
    };
    let conv = |stride: i64| -> [(&str, Vec<i64>); 3] {
        [("kernel_shape", vec![3, 3]), ("strides", vec![stride; 2]), ("pads", vec![1; 4])]
    };
    fn borrowed<'a>(list: &'a [(&'a str, Vec<i64>); 3]) -> Vec<(&'a str, &'a [i64])> {
        list.iter().map(|(n, v)| (*n, v.as_slice())).collect()
    }
    onnx.weight("w1", &[CHANNELS, 3, 3, 3], &Noise(1).take(CHANNELS * 27), int8);
    onnx.floats("b1", &[CHANNELS], &Noise(2).take(CHANNELS));
    let second: Vec<f32> = Noise(3).take(CHANNELS * CHANNELS * 9).iter().map(|v| 0.3 * v).collect();
    onnx.weight("w2", &[CHANNELS, CHANNELS, 3, 3], &second, int8);
    onnx.floats("b2", &[CHANNELS], &Noise(4).take(CHANNELS));
    onnx.activation("input", "x", 1.0 / 127.0, int8);
    onnx.node("Conv", &["x", "w1", "b1"], "c1", &borrowed(&conv(2)));
    onnx.node("Relu", &["c1"], "r1", &[]);
    onnx.activation("r1", "a1", 0.05, int8);
    onnx.node("Conv", &["a1", "w2", "b2"], "c2", &borrowed(&conv(1)));
    onnx.activation("c2", "d2", 0.0813, int8);
    onnx.node("Add", &["d2", "a1"], "s2", &[]);
    onnx.node("Relu", &["s2"], "r2", &[]);
    onnx.activation("r2", "features", 0.0977, int8);
    let (weight, bias) = head();
    onnx.floats("fc_w", &[CLASSES, CHANNELS], &weight);
    onnx.floats("fc_b", &[CLASSES], &bias);
    onnx.node("GlobalAveragePool", &["features"], "pool", &[]);
    onnx.node("Flatten", &["pool"], "flat", &[("axis", &[1])]);
    onnx.node("Gemm", &["flat", "fc_w", "fc_b"], "logits", &[("transB", &[1])]);
    onnx
}
