//! What nodes read that is stored in the file: scales, zero points, weights, axes.

use super::precision::Precision;
use super::stored::{Constant, dequantize, floats, ints};
use super::{Lowered, Lowering, Value};
use crate::engine::onnx::Attributes;
use crate::kernel::int8::Codes;
use tract_onnx::pb::{NodeProto, TensorProto, tensor_proto::DataType};

impl<F: Precision> Lowering<'_, F> {
    /// Scale and zero point of a pair's node. `signed` is known where the codes are; else the zero point's type says it.
    pub(super) fn codes(&self, node: &NodeProto, signed: Option<bool>) -> Lowered<Codes> {
        let stored = |i: usize| match node.input.get(i).filter(|n| !n.is_empty()).map(|n| self.values.get(n.as_str())) {
            None => Ok(None),
            Some(Some(Value::Stored(tensor))) if floats(tensor).len() == 1 => Ok(Some(*tensor)),
            _ => Err("its scale and zero point are no stored numbers".to_string()),
        };
        if Attributes(&node.attribute).int("block_size", 0) != 0 {
            return Err("blocks of codes are not supported".into());
        }
        let scale = stored(1)?.ok_or("its scale is missing")?;
        let zero = stored(2)?;
        let kind = zero.map(|t| t.data_type == DataType::Int8 as i32);
        if zero.is_some_and(|t| ![DataType::Int8 as i32, DataType::Uint8 as i32].contains(&t.data_type)) {
            return Err("its codes are no bytes".into());
        }
        if let (Some(a), Some(b)) = (signed, kind)
            && a != b
        {
            return Err("its zero point is of another type than its codes".into());
        }
        let zero = zero.map_or(0.0, |t| floats(t)[0]) as i32;
        Ok(Codes { scale: floats(scale)[0], zero, signed: signed.or(kind).unwrap_or(false) })
    }

    /// Weights of a pair that reads a stored tensor.
    pub(super) fn dequantize(&self, node: &NodeProto, tensor: &TensorProto) -> Lowered<Constant> {
        let stored = |i: usize| match node.input.get(i).filter(|n| !n.is_empty()).map(|n| self.values.get(n.as_str())) {
            None => Ok(None),
            Some(Some(Value::Stored(tensor))) => Ok(Some(floats(tensor))),
            _ => Err("its scale and zero point are not stored".to_string()),
        };
        dequantize(&Attributes(&node.attribute), tensor, &stored(1)?.ok_or("its scale is missing")?, stored(2)?)
    }

    /// A stored or computed constant.
    pub(super) fn constant(&self, name: &str) -> Lowered<Constant> {
        match self.values.get(name) {
            Some(Value::Constant(c)) => Ok(c.clone()),
            Some(Value::Stored(t)) if t.data_type == DataType::Float as i32 => Ok(Constant::plain(t)),
            _ => Err(format!("`{name}` is no constant")),
        }
    }
}

/// Whole numbers of a stored tensor.
pub(super) fn axes_of(value: &Value<'_>) -> Lowered<Vec<i64>> {
    match value {
        Value::Stored(tensor) => ints(tensor),
        _ => Err("its axes are not stored".into()),
    }
}
