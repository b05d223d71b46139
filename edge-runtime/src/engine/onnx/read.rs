//! Other people's ONNX bytes as plain data: what the runtime's gate and the converter's importer share.
//!
//! [`read`] promises that the graph has at most [`MAX_NODES`] nodes of the standard operator set, that names and lists
//! are short, that there are no subgraphs, functions, external, sparse or string tensors, and that every stored tensor
//! holds exactly the bytes its shape declares. Which operators are meant, and what they mean, is for the caller.

use super::wire;
use prost::Message;
use tract_onnx::pb::{AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto, tensor_proto::DataType};

/// Largest model file, bytes.
pub const MAX_BYTES: usize = 512 << 20;
/// Most nodes of a graph.
pub const MAX_NODES: usize = 4_096;
const MAX_NAME: usize = 256;
/// Kernel sides, strides, pads and dilations beyond this would let a short file ask for unbounded memory.
const MAX_WINDOW: i64 = 64;

/// Decodes and checks a model.
///
/// # Errors
/// A sentence fragment naming the offending node, tensor or field.
pub fn read(bytes: &[u8]) -> Result<ModelProto, String> {
    if bytes.len() > MAX_BYTES {
        return Err(format!("{} bytes are more than the allowed {MAX_BYTES}", bytes.len()));
    }
    wire::scan(bytes)?;
    let model = ModelProto::decode(bytes).map_err(|e| format!("not an ONNX file: {e}"))?;
    if model.opset_import.is_empty() {
        return Err("no operator set is declared".into());
    }
    let graph = model.graph.as_ref().ok_or("it holds no graph")?;
    if graph.node.len() > MAX_NODES || graph.initializer.len() > 4 * MAX_NODES {
        return Err(format!("more than {MAX_NODES} nodes"));
    }
    nodes(graph)?;
    graph.initializer.iter().try_for_each(tensor)?;
    Ok(model)
}

/// Version of the standard operator set.
pub fn operator_set(model: &ModelProto) -> Option<i64> {
    model.opset_import.iter().find(|s| is_standard(&s.domain)).map(|s| s.version)
}

pub(super) fn is_standard(domain: &str) -> bool {
    matches!(domain, "" | "ai.onnx")
}

fn nodes(graph: &GraphProto) -> Result<(), String> {
    for (position, node) in graph.node.iter().enumerate() {
        let fail = |reason: String| Err(format!("node {position} ({}): {reason}", shorten(&node.name)));
        if !is_standard(&node.domain) {
            let (operator, domain) = (shorten(&node.op_type), shorten(&node.domain));
            return fail(format!("operator {operator} of domain `{domain}` is not on the list of allowed operators"));
        }
        if let Err(reason) = node_sizes(node).and_then(|()| node.attribute.iter().try_for_each(attribute)) {
            return fail(reason);
        }
    }
    Ok(())
}

fn node_sizes(node: &NodeProto) -> Result<(), String> {
    let long = node.input.iter().chain(&node.output).any(|n| n.len() > MAX_NAME);
    if long || node.input.len() > 64 || node.output.len() > 8 || node.attribute.len() > 32 {
        return Err("its list of inputs, outputs or attributes or a name is too long".into());
    }
    Ok(())
}

fn attribute(attribute: &AttributeProto) -> Result<(), String> {
    let fail = |reason: &str| Err(format!("attribute {} {reason}", shorten(&attribute.name)));
    if !attribute.tensors.is_empty() || !attribute.ref_attr_name.is_empty() {
        return fail("holds a list of tensors or a reference");
    }
    if let Some(stored) = &attribute.t {
        tensor(stored)?;
    }
    let window = matches!(attribute.name.as_str(), "kernel_shape" | "strides" | "pads" | "dilations");
    let too_wide = |&v: &i64| if window { !(0..=MAX_WINDOW).contains(&v) } else { v.unsigned_abs() > 1 << 20 };
    // Slices that reach "to the end" are written with the largest number there is.
    let open_end = matches!(attribute.name.as_str(), "ends" | "starts" | "value_ints");
    if attribute.ints.len() > 16 || (!open_end && attribute.ints.iter().any(too_wide)) || attribute.floats.len() > 1024
    {
        return fail("is out of range");
    }
    Ok(())
}

fn tensor(tensor: &TensorProto) -> Result<(), String> {
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
        Ok(DataType::Double) => (8, tensor.double_data.len()),
        Ok(DataType::Int8 | DataType::Uint8 | DataType::Bool) => (1, tensor.int32_data.len()),
        Ok(DataType::Int32) => (4, tensor.int32_data.len()),
        Ok(DataType::Int64) => (8, tensor.int64_data.len()),
        _ => return fail("only float, double, bool, int8, uint8, int32 and int64 are allowed"),
    };
    let stored = if tensor.raw_data.is_empty() { typed * width } else { tensor.raw_data.len() };
    if stored != count * width {
        return fail(&format!("{stored} bytes are stored where its shape needs {}", count * width));
    }
    Ok(())
}

/// Names come from outside: keep messages short and on one line.
pub fn shorten(name: &str) -> String {
    name.chars().filter(|c| !c.is_control()).take(60).collect()
}
