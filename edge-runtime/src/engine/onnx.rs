//! The gate in front of the ONNX importer: a model is read as plain data and measured against an allow-list and
//! size bounds before any operator is built.
//!
//! Promises: after `check` succeeds the graph has one input and the two named outputs with fixed shapes, no
//! subgraphs, no functions, no external or sparse data, only operators of `OPERATORS`, and every stored tensor
//! holds exactly the bytes its shape declares.

mod attributes;
mod read;
mod stored;
mod wire;

use super::Shapes;
pub use attributes::Attributes;
pub use read::{MAX_BYTES, MAX_NODES, operator_set, read, shorten};
pub use stored::Stored;
use tract_onnx::pb::{
    GraphProto, ModelProto, ValueInfoProto, tensor_proto::DataType, tensor_shape_proto::dimension::Value, type_proto,
};
pub use wire::{MAX_FIELDS, MAX_MESSAGES};

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

const MAX_SIDE: usize = 2_048;
const MAX_CLASSES: usize = 100_000;

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
    let model = read(bytes)?;
    if let Some(set) = model.opset_import.iter().find(|s| !read::is_standard(&s.domain)) {
        return Err(format!("operator domain `{}` is not allowed", shorten(&set.domain)));
    }
    match operator_set(&model) {
        Some(13..=21) => {}
        Some(version) => return Err(format!("operator set {version} is outside the supported 13 to 21")),
        None => return Err("no operator set is declared".into()),
    }
    let graph = model.graph.as_ref().ok_or("it holds no graph")?;
    nodes(graph)?;
    let other = [DataType::Double as i32, DataType::Bool as i32];
    if let Some(tensor) = graph.initializer.iter().find(|t| other.contains(&t.data_type)) {
        return Err(format!("tensor {}: double and bool are not allowed", shorten(&tensor.name)));
    }
    let (input, shapes, logits, features) = interface(graph)?;
    Ok(Checked { shapes, input, logits, features, model })
}

fn nodes(graph: &GraphProto) -> Result<(), String> {
    for (position, node) in graph.node.iter().enumerate() {
        let fail = |reason: String| Err(format!("node {position} ({}): {reason}", shorten(&node.name)));
        if !OPERATORS.contains(&node.op_type.as_str()) {
            return fail(format!("operator {} is not on the list of allowed operators", shorten(&node.op_type)));
        }
        if node.input.len() > 8 || node.output.len() != 1 {
            return fail("it must have at most eight inputs and exactly one output".into());
        }
        if let Some(attribute) = node.attribute.iter().find(|a| a.t.is_some()) {
            return fail(format!("attribute {} holds a tensor", shorten(&attribute.name)));
        }
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
