//! A small writer of ONNX models on the protobuf types that tract ships: opset 17, IR version 8, raw little-endian
//! tensors inside the file, every initializer named. It knows operators' attributes, not what a network means.

use crate::{Error, Result};
use prost::Message;
pub use tract_onnx::pb;
use tract_onnx::pb::attribute_proto::AttributeType;
use tract_onnx::pb::tensor_proto::DataType;
use tract_onnx::pb::tensor_shape_proto::{Dimension, dimension};
use tract_onnx::pb::{
    AttributeProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto, StringStringEntryProto, TensorProto,
    TensorShapeProto, TypeProto, ValueInfoProto, type_proto,
};

/// Operator set written into every model.
pub const OPSET: i64 = 17;
/// ONNX file format version.
pub const IR_VERSION: i64 = 8;

/// Collects nodes and initializers in order.
#[derive(Debug, Default)]
pub struct Builder {
    graph: GraphProto,
}

impl Builder {
    /// An empty graph.
    pub fn new(name: &str) -> Self {
        Self { graph: GraphProto { name: name.into(), ..GraphProto::default() } }
    }

    /// Declares an input of shape `batch × dims`, f32.
    pub fn input(&mut self, name: &str, dims: &[usize]) {
        self.graph.input.push(value(name, dims));
    }

    /// Declares an output of shape `batch × dims`, f32.
    pub fn output(&mut self, name: &str, dims: &[usize]) {
        self.graph.output.push(value(name, dims));
    }

    /// Adds an f32 constant; `dims` is empty for a scalar.
    pub fn floats(&mut self, name: &str, dims: &[usize], values: &[f32]) {
        self.tensor(name, dims, DataType::Float, values.iter().flat_map(|v| v.to_le_bytes()).collect());
    }

    /// Adds an s8 constant; `dims` is empty for a scalar.
    pub fn bytes(&mut self, name: &str, dims: &[usize], values: &[i8]) {
        self.tensor(name, dims, DataType::Int8, values.iter().flat_map(|v| v.to_le_bytes()).collect());
    }

    /// Adds an s32 constant.
    pub fn integers(&mut self, name: &str, dims: &[usize], values: &[i32]) {
        self.tensor(name, dims, DataType::Int32, values.iter().flat_map(|v| v.to_le_bytes()).collect());
    }

    fn tensor(&mut self, name: &str, dims: &[usize], data_type: DataType, raw_data: Vec<u8>) {
        self.graph.initializer.push(TensorProto {
            name: name.into(),
            dims: dims.iter().map(|&d| d as i64).collect(),
            data_type: data_type as i32,
            raw_data,
            ..TensorProto::default()
        });
    }

    /// Adds a node with one output.
    pub fn node(&mut self, op: &str, name: &str, inputs: &[&str], output: &str, attributes: Vec<AttributeProto>) {
        self.graph.node.push(NodeProto {
            op_type: op.into(),
            name: name.into(),
            input: inputs.iter().map(|s| (*s).into()).collect(),
            output: vec![output.into()],
            attribute: attributes,
            ..NodeProto::default()
        });
    }

    /// The finished model with its metadata.
    pub fn finish(self, metadata: &[(&str, String)]) -> ModelProto {
        ModelProto {
            ir_version: IR_VERSION,
            opset_import: vec![OperatorSetIdProto { domain: String::new(), version: OPSET }],
            producer_name: "excon".into(),
            producer_version: env!("CARGO_PKG_VERSION").into(),
            graph: Some(self.graph),
            metadata_props: metadata
                .iter()
                .map(|(key, value)| StringStringEntryProto { key: (*key).into(), value: value.clone() })
                .collect(),
            ..ModelProto::default()
        }
    }
}

/// An integer attribute.
pub fn int(name: &str, i: usize) -> AttributeProto {
    AttributeProto { name: name.into(), r#type: AttributeType::Int as i32, i: i as i64, ..AttributeProto::default() }
}

/// An attribute of several integers.
pub fn ints(name: &str, values: &[usize]) -> AttributeProto {
    let ints = values.iter().map(|&v| v as i64).collect();
    AttributeProto { name: name.into(), r#type: AttributeType::Ints as i32, ints, ..AttributeProto::default() }
}

/// The model as a file's bytes. Equal models give equal bytes.
pub fn encode(model: &ModelProto) -> Vec<u8> {
    model.encode_to_vec()
}

/// The model in a file's bytes.
///
/// # Errors
/// When they are no ONNX model.
pub fn decode(bytes: &[u8]) -> Result<ModelProto> {
    ModelProto::decode(bytes).map_err(|e| Error::Rule { node: "model".into(), reason: format!("does not decode: {e}") })
}

/// A value of type f32 whose shape is left to the reader.
pub(crate) fn unshaped(name: &str) -> ValueInfoProto {
    typed(name, None)
}

fn value(name: &str, dims: &[usize]) -> ValueInfoProto {
    let dimension = |value| Dimension { value: Some(value), ..Dimension::default() };
    let mut dim = vec![dimension(dimension::Value::DimParam("batch".into()))];
    dim.extend(dims.iter().map(|&d| dimension(dimension::Value::DimValue(d as i64))));
    typed(name, Some(TensorShapeProto { dim }))
}

fn typed(name: &str, shape: Option<TensorShapeProto>) -> ValueInfoProto {
    let tensor = type_proto::Tensor { elem_type: DataType::Float as i32, shape };
    let r#type = Some(TypeProto { value: Some(type_proto::Value::TensorType(tensor)), ..TypeProto::default() });
    ValueInfoProto { name: name.into(), r#type, ..ValueInfoProto::default() }
}
