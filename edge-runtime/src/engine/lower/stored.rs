//! Stored parts of an ONNX graph as plain numbers: windows, tensors, dequantized weights.

use super::super::onnx::{Attributes, Stored};
use super::Lowered;
use crate::kernel::graph::Window;
use tract_onnx::pb::{TensorProto, tensor_proto::DataType};

/// Dequantized weights, with their bytes where they were signed bytes around 0.
#[derive(Clone)]
pub(in crate::engine) struct Constant {
    pub dims: Vec<usize>,
    pub values: Vec<f32>,
    pub bytes: Option<(Vec<i8>, Vec<f32>)>,
}

impl Constant {
    /// A stored tensor of f32.
    pub fn plain(tensor: &TensorProto) -> Self {
        let dims = tensor.dims.iter().map(|&d| d as usize).collect();
        Self { dims, values: floats(tensor), bytes: None }
    }
}

/// Weights from stored codes, their scales and zero points.
pub(super) fn dequantize(
    attributes: &Attributes<'_>,
    tensor: &TensorProto,
    scales: &[f32],
    zeros: Option<Vec<f32>>,
) -> Lowered<Constant> {
    let dims: Vec<usize> = tensor.dims.iter().map(|&d| d as usize).collect();
    let rows = dims.first().map_or(1, |&d| d.max(1));
    let per_row = scales.len() == rows && rows > 1;
    if attributes.int("block_size", 0) != 0 || (scales.len() != 1 && !per_row) {
        return Err("weights are scaled as a whole or by output channel".into());
    }
    let axis = attributes.int("axis", 1);
    if per_row && axis != 0 && axis != -(dims.len() as i64) {
        return Err("weights are scaled along another axis than 0".into());
    }
    if zeros.is_some_and(|z| z.iter().any(|&z| z != 0.0)) {
        return Err("weights have a zero point other than 0".into());
    }
    let codes = floats(tensor);
    let row = (codes.len() / rows).max(1);
    let scale = |i: usize| if per_row { scales[i / row] } else { scales[0] };
    let bytes = (tensor.data_type == DataType::Int8 as i32).then(|| {
        let bytes = codes.iter().map(|&v| v as i8).collect();
        (bytes, (0..rows).map(|r| if per_row { scales[r] } else { scales[0] }).collect())
    });
    let values = codes.iter().enumerate().map(|(i, &v)| v * scale(i)).collect();
    Ok(Constant { dims, values, bytes })
}

/// What a kernel slides by, without automatic padding.
pub(super) fn window(attributes: &Attributes<'_>, kernel: [usize; 2]) -> Lowered<Window> {
    if !matches!(attributes.text("auto_pad"), b"" | b"NOTSET") {
        return Err("automatic padding is not supported".into());
    }
    let [top, left, bottom, right] = attributes.sizes::<4>("pads")?.unwrap_or_default();
    let window = Window {
        kernel,
        stride: attributes.sizes("strides")?.unwrap_or([1, 1]),
        dilation: attributes.sizes("dilations")?.unwrap_or([1, 1]),
        before: [top, left],
        after: [bottom, right],
    };
    if [window.kernel, window.stride, window.dilation].iter().any(|p| p.contains(&0)) {
        return Err("a kernel, stride or dilation is 0".into());
    }
    Ok(window)
}

/// Values of a stored tensor of 64-bit whole numbers, such as axes.
pub(super) fn ints(tensor: &TensorProto) -> Lowered<Vec<i64>> {
    match Stored::of(tensor) {
        Some(Stored::Integers(values)) if tensor.data_type == DataType::Int64 as i32 => Ok(values),
        _ => Err("its axes are no whole numbers".into()),
    }
}

/// Values of a stored tensor of bytes, i32 or f32; of another type none.
pub(super) fn floats(tensor: &TensorProto) -> Vec<f32> {
    let numbers = [DataType::Float, DataType::Int8, DataType::Uint8, DataType::Int32].map(|kind| kind as i32);
    let stored = numbers.contains(&tensor.data_type).then(|| Stored::of(tensor)).flatten();
    stored.map_or_else(Vec::new, Stored::into_floats)
}
