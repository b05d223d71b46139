//! Named tensors as they travel in a bundle: safetensors, with the four number types a bundle uses.
//!
//! Writing equal tensors gives equal bytes. Reading checks shapes against data, so a [`Tensor`] from a file can be
//! used without further checks on its length.

use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use std::collections::BTreeMap;

/// A set of named tensors.
pub type Tensors = BTreeMap<String, Tensor>;

/// A dense tensor, row-major.
#[derive(Debug, Clone, PartialEq)]
pub struct Tensor {
    /// Extents; empty for a scalar.
    pub shape: Vec<usize>,
    /// As many values as the product of `shape`.
    pub data: Data,
}

/// Values of a tensor.
#[derive(Debug, Clone, PartialEq)]
pub enum Data {
    /// 32-bit float.
    F32(Vec<f32>),
    /// 64-bit float.
    F64(Vec<f64>),
    /// Signed 64-bit integers, such as labels.
    I64(Vec<i64>),
    /// Bytes, such as pictures.
    U8(Vec<u8>),
}

impl Data {
    fn len(&self) -> usize {
        match self {
            Self::F32(v) => v.len(),
            Self::F64(v) => v.len(),
            Self::I64(v) => v.len(),
            Self::U8(v) => v.len(),
        }
    }
}

impl Tensor {
    /// A 32-bit float tensor.
    pub fn f32(shape: &[usize], values: Vec<f32>) -> Self {
        Self { shape: shape.to_vec(), data: Data::F32(values) }
    }

    /// A 64-bit float tensor.
    pub fn f64(shape: &[usize], values: Vec<f64>) -> Self {
        Self { shape: shape.to_vec(), data: Data::F64(values) }
    }

    /// A tensor of 64-bit integers.
    pub fn i64(shape: &[usize], values: Vec<i64>) -> Self {
        Self { shape: shape.to_vec(), data: Data::I64(values) }
    }

    /// A tensor of bytes.
    pub fn u8(shape: &[usize], values: Vec<u8>) -> Self {
        Self { shape: shape.to_vec(), data: Data::U8(values) }
    }

    /// The values when they are finite 32-bit floats of exactly this shape.
    pub fn finite_f32(&self, shape: &[usize]) -> Result<&[f32], String> {
        match &self.data {
            Data::F32(values) if self.shape == shape && values.iter().all(|v| v.is_finite()) => Ok(values),
            Data::F32(_) if self.shape == shape => Err("holds a value that is not finite".into()),
            Data::F32(_) => Err(format!("has shape {:?} instead of {shape:?}", self.shape)),
            _ => Err("is not 32-bit float".into()),
        }
    }
}

/// Writes a set of tensors.
///
/// # Errors
/// A sentence fragment, when a tensor's shape does not fit its data.
pub fn encode(tensors: &Tensors) -> Result<Vec<u8>, String> {
    let mut stored = Vec::with_capacity(tensors.len());
    for (name, tensor) in tensors {
        if tensor.shape.iter().product::<usize>() != tensor.data.len() {
            return Err(format!("tensor {name} has {} values for shape {:?}", tensor.data.len(), tensor.shape));
        }
        let (dtype, bytes): (_, Vec<u8>) = match &tensor.data {
            Data::F32(v) => (Dtype::F32, v.iter().flat_map(|x| x.to_le_bytes()).collect()),
            Data::F64(v) => (Dtype::F64, v.iter().flat_map(|x| x.to_le_bytes()).collect()),
            Data::I64(v) => (Dtype::I64, v.iter().flat_map(|x| x.to_le_bytes()).collect()),
            Data::U8(v) => (Dtype::U8, v.clone()),
        };
        stored.push((name.as_str(), dtype, tensor.shape.clone(), bytes));
    }
    let mut views = Vec::with_capacity(stored.len());
    for (name, dtype, shape, bytes) in &stored {
        let view = TensorView::new(*dtype, shape.clone(), bytes).map_err(|e| format!("tensor {name}: {e}"))?;
        views.push((*name, view));
    }
    safetensors::serialize(views, None).map_err(|e| e.to_string())
}

/// Reads a set of tensors.
///
/// # Errors
/// A sentence fragment naming the tensor, when the bytes are no safetensors file or use another number type.
pub fn decode(bytes: &[u8]) -> Result<Tensors, String> {
    fn words<const N: usize, T>(bytes: &[u8], convert: fn([u8; N]) -> T) -> Vec<T> {
        bytes.as_chunks::<N>().0.iter().map(|&word| convert(word)).collect()
    }
    let file = SafeTensors::deserialize(bytes).map_err(|e| format!("not a safetensors file: {e}"))?;
    let mut tensors = Tensors::new();
    for (name, view) in file.iter() {
        let data = match view.dtype() {
            Dtype::F32 => Data::F32(words(view.data(), f32::from_le_bytes)),
            Dtype::F64 => Data::F64(words(view.data(), f64::from_le_bytes)),
            Dtype::I64 => Data::I64(words(view.data(), i64::from_le_bytes)),
            Dtype::U8 => Data::U8(view.data().to_vec()),
            other => return Err(format!("tensor {name} has the unsupported type {other:?}")),
        };
        tensors.insert(name.to_string(), Tensor { shape: view.shape().to_vec(), data });
    }
    Ok(tensors)
}
