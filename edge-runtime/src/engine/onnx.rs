//! The gate in front of the ONNX importer: a model is read as plain data and measured against an allow-list and
//! size bounds before any operator is built.
//!
//! Promises: after [`check`] succeeds the graph has one input and the two named outputs with fixed shapes, no
//! subgraphs, no functions, no external or sparse data, only operators of [`OPERATORS`], and every stored tensor
//! holds exactly the bytes its shape declares.

use super::Shapes;
use prost::Message;
use tract_onnx::pb::{
    GraphProto, ModelProto, TensorProto, ValueInfoProto, tensor_proto::DataType, tensor_shape_proto::dimension::Value,
    type_proto,
};

/// Operators an ExCon network is made of.
pub(super) const OPERATORS: [&str; 14] = [
    "Add",
    "Clip",
    "Conv",
    "DequantizeLinear",
    "Flatten",
    "Gemm",
    "GlobalAveragePool",
    "Identity",
    "MaxPool",
    "QuantizeLinear",
    "ReduceMean",
    "Relu",
    "Reshape",
    "Squeeze",
];

/// Largest model file, bytes.
pub(super) const MAX_BYTES: usize = 512 << 20;
const MAX_NODES: usize = 4_096;
const MAX_NAME: usize = 256;
const MAX_SIDE: usize = 2_048;
const MAX_CLASSES: usize = 100_000;
/// Kernel sides, strides, pads and dilations beyond this would let a short file ask for unbounded memory.
const MAX_WINDOW: i64 = 64;

/// A checked model: its protobuf, its shapes, and where the two outputs stand in the graph's list.
pub(super) struct Checked {
    pub model: ModelProto,
    pub shapes: Shapes,
    pub input: String,
    pub logits: usize,
    pub features: usize,
}

impl Checked {
    /// Whether any map or weight is stored in codes.
    pub fn is_quantized(&self) -> bool {
        let nodes = self.model.graph.iter().flat_map(|g| &g.node);
        nodes.into_iter().any(|n| matches!(n.op_type.as_str(), "QuantizeLinear" | "DequantizeLinear"))
    }
}

/// Decodes and checks a model. The error is a sentence fragment naming the offending node, tensor or field.
pub(super) fn check(bytes: &[u8]) -> Result<Checked, String> {
    if bytes.len() > MAX_BYTES {
        return Err(format!("{} bytes are more than the allowed {MAX_BYTES}", bytes.len()));
    }
    let model = ModelProto::decode(bytes).map_err(|e| format!("not an ONNX file: {e}"))?;
    if !model.functions.is_empty() || !model.training_info.is_empty() {
        return Err("local functions and training graphs are not allowed".into());
    }
    if let Some(set) = model.opset_import.iter().find(|s| !matches!(s.domain.as_str(), "" | "ai.onnx")) {
        return Err(format!("operator domain `{}` is not allowed", set.domain));
    }
    match model.opset_import.first().map(|s| s.version) {
        Some(13..=21) => {}
        Some(version) => return Err(format!("operator set {version} is outside the supported 13 to 21")),
        None => return Err("no operator set is declared".into()),
    }
    let graph = model.graph.as_ref().ok_or("it holds no graph")?;
    nodes(graph)?;
    for tensor in &graph.initializer {
        tensor_data(tensor)?;
    }
    if !graph.sparse_initializer.is_empty() || !graph.quantization_annotation.is_empty() {
        return Err("sparse tensors and quantization annotations are not allowed".into());
    }
    let (input, shapes, logits, features) = interface(graph)?;
    Ok(Checked { shapes, input, logits, features, model })
}

fn nodes(graph: &GraphProto) -> Result<(), String> {
    if graph.node.len() > MAX_NODES || graph.initializer.len() > 4 * MAX_NODES {
        return Err(format!("more than {MAX_NODES} nodes"));
    }
    for (position, node) in graph.node.iter().enumerate() {
        let fail = |reason: String| Err(format!("node {position} ({}): {reason}", shorten(&node.name)));
        if !matches!(node.domain.as_str(), "" | "ai.onnx") || !OPERATORS.contains(&node.op_type.as_str()) {
            return fail(format!("operator {} is not on the list of allowed operators", shorten(&node.op_type)));
        }
        if node.input.iter().chain(&node.output).any(|n| n.len() > MAX_NAME) || node.input.len() > 8 {
            return fail("its list of inputs or a name is too long".into());
        }
        if node.output.len() != 1 {
            return fail("it must have exactly one output".into());
        }
        for attribute in &node.attribute {
            let nested = attribute.g.is_some()
                || !attribute.graphs.is_empty()
                || attribute.t.is_some()
                || !attribute.tensors.is_empty()
                || attribute.sparse_tensor.is_some()
                || !attribute.sparse_tensors.is_empty();
            if nested || !attribute.ref_attr_name.is_empty() {
                return fail(format!("attribute {} holds a graph or tensor", shorten(&attribute.name)));
            }
            let window = matches!(attribute.name.as_str(), "kernel_shape" | "strides" | "pads" | "dilations");
            let too_wide = |&v: &i64| if window { !(0..=MAX_WINDOW).contains(&v) } else { v.abs() > 1 << 20 };
            if attribute.ints.len() > 16 || attribute.ints.iter().any(too_wide) {
                return fail(format!("attribute {} is out of range", shorten(&attribute.name)));
            }
        }
    }
    Ok(())
}

fn tensor_data(tensor: &TensorProto) -> Result<(), String> {
    let fail = |reason: &str| Err(format!("tensor {}: {reason}", shorten(&tensor.name)));
    if tensor.data_location.unwrap_or(0) != 0 || !tensor.external_data.is_empty() {
        return fail("external data is not allowed");
    }
    if tensor.segment.is_some() || !tensor.string_data.is_empty() || tensor.name.len() > MAX_NAME {
        return fail("segments, strings and long names are not allowed");
    }
    let mut count = 1usize;
    for &dim in &tensor.dims {
        let dim = usize::try_from(dim).ok().filter(|&d| d > 0 && tensor.dims.len() <= 8);
        match dim.and_then(|d| count.checked_mul(d)).filter(|&n| n <= MAX_BYTES) {
            Some(n) => count = n,
            None => return fail("its shape is out of range"),
        }
    }
    let (width, typed) = match DataType::try_from(tensor.data_type) {
        Ok(DataType::Float) => (4, tensor.float_data.len()),
        Ok(DataType::Int8 | DataType::Uint8) => (1, tensor.int32_data.len()),
        Ok(DataType::Int32) => (4, tensor.int32_data.len()),
        Ok(DataType::Int64) => (8, tensor.int64_data.len()),
        _ => return fail("only float, int8, uint8, int32 and int64 are allowed"),
    };
    let stored = if tensor.raw_data.is_empty() { typed * width } else { tensor.raw_data.len() };
    if stored != count * width {
        return fail(&format!("{stored} bytes are stored where its shape needs {}", count * width));
    }
    Ok(())
}

/// Name of the input, shapes, and positions of `logits` and `features` among the outputs.
fn interface(graph: &GraphProto) -> Result<(String, Shapes, usize, usize), String> {
    let stored = |name: &str| graph.initializer.iter().any(|t| t.name == name);
    let mut inputs = graph.input.iter().filter(|i| !stored(&i.name));
    let (Some(input), None) = (inputs.next(), inputs.next()) else {
        return Err("it must have exactly one input".into());
    };
    let position = |name: &str| {
        let found = graph.output.iter().position(|o| o.name == name);
        found.ok_or_else(|| format!("output `{name}` is missing"))
    };
    let (logits, features) = (position("logits")?, position("features")?);
    if graph.output.len() != 2 {
        return Err("it must have exactly the outputs `logits` and `features`".into());
    }
    let [channels, height, width] = shape(input)?;
    let [feature_channels, feature_height, feature_width] = shape(&graph.output[features])?;
    let [classes] = shape(&graph.output[logits])?;
    let sides = [height, width, feature_height, feature_width];
    if channels > 16 || sides.iter().any(|&s| s > MAX_SIDE) || classes > MAX_CLASSES || feature_channels > 65_536 {
        return Err("an input or output is larger than supported".into());
    }
    let shapes = Shapes {
        input: [channels, height, width],
        classes,
        features: [feature_channels, feature_height, feature_width],
    };
    Ok((input.name.clone(), shapes, logits, features))
}

/// The shape of one picture's value: `N` dimensions behind a batch dimension, all fixed and positive, in f32.
fn shape<const N: usize>(value: &ValueInfoProto) -> Result<[usize; N], String> {
    let fail = || format!("`{}` must be float with a batch dimension and {N} fixed dimensions", shorten(&value.name));
    let Some(type_proto::Value::TensorType(tensor)) = value.r#type.as_ref().and_then(|t| t.value.as_ref()) else {
        return Err(fail());
    };
    let dims = tensor.shape.as_ref().map(|s| s.dim.as_slice()).unwrap_or_default();
    if tensor.elem_type != DataType::Float as i32 || dims.len() != N + 1 {
        return Err(fail());
    }
    let mut shape = [0; N];
    for (side, dim) in shape.iter_mut().zip(&dims[1..]) {
        match dim.value {
            Some(Value::DimValue(v)) if v > 0 => *side = usize::try_from(v).map_err(|_| fail())?,
            _ => return Err(fail()),
        }
    }
    Ok(shape)
}

/// Names come from outside: keep messages short and on one line.
fn shorten(name: &str) -> String {
    name.chars().filter(|c| !c.is_control()).take(60).collect()
}
