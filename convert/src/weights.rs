//! Named f32 arrays of a trained network, read from safetensors. Every array is finite; [`Weights::get`] hands one out
//! only in the shape its node needs, so nothing behind this module meets a wrong size.

use crate::{Error, Result};
use safetensors::{Dtype, SafeTensors};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Largest weights file that is read, bytes.
const LIMIT: u64 = 2 << 30;

/// The parameters and running statistics of one network.
#[derive(Debug, Clone)]
pub struct Weights {
    path: PathBuf,
    arrays: BTreeMap<String, Array>,
}

#[derive(Debug, Clone)]
struct Array {
    shape: Vec<usize>,
    values: Vec<f32>,
}

impl Weights {
    /// Reads a safetensors file. Integer tensors (PyTorch's `num_batches_tracked`) are skipped.
    ///
    /// # Errors
    /// When the file cannot be read, is no safetensors file, or holds a value that is not finite.
    pub fn read(path: &Path) -> Result<Self> {
        let read = |source| excon_edge::Error::Read { path: path.to_path_buf(), source };
        let size = std::fs::metadata(path).map_err(read)?.len();
        if size > LIMIT {
            return Err(Error::Weights { path: path.into(), reason: format!("{size} bytes, more than {LIMIT}") });
        }
        Self::from_bytes(path, &std::fs::read(path).map_err(read)?)
    }

    /// Parses safetensors bytes; `path` appears in errors.
    ///
    /// # Errors
    /// As [`Weights::read`].
    pub fn from_bytes(path: &Path, bytes: &[u8]) -> Result<Self> {
        let fail = |reason: String| Error::Weights { path: path.to_path_buf(), reason };
        let file = SafeTensors::deserialize(bytes).map_err(|e| fail(format!("not a safetensors file ({e})")))?;
        let mut arrays = Vec::new();
        for (name, view) in file.iter() {
            match view.dtype() {
                Dtype::F32 => {}
                Dtype::I64 => continue,
                other => return Err(fail(format!("tensor {name} is {other:?} where f32 is needed"))),
            }
            let (chunks, _) = view.data().as_chunks::<4>();
            let values: Vec<f32> = chunks.iter().map(|c| f32::from_le_bytes(*c)).collect();
            arrays.push((name.to_string(), view.shape().to_vec(), values));
        }
        Self::from_arrays(path, arrays)
    }

    /// Takes over named arrays with their shapes; `path` appears in errors.
    ///
    /// # Errors
    /// When a shape does not fit its values, or a value is not finite.
    pub fn from_arrays(path: &Path, arrays: Vec<(String, Vec<usize>, Vec<f32>)>) -> Result<Self> {
        let fail = |reason: String| Error::Weights { path: path.to_path_buf(), reason };
        let mut named = BTreeMap::new();
        for (name, shape, values) in arrays {
            if shape.iter().product::<usize>() != values.len() {
                return Err(fail(format!("tensor {name} has {} values for shape {shape:?}", values.len())));
            }
            if let Some(at) = values.iter().position(|v| !v.is_finite()) {
                return Err(fail(format!("tensor {name} holds {} at position {at}", values[at])));
            }
            named.insert(name, Array { shape, values });
        }
        Ok(Self { path: path.to_path_buf(), arrays: named })
    }

    /// The array of this name.
    ///
    /// # Errors
    /// When it is missing or has another shape.
    pub fn get(&self, name: &str, shape: &[usize]) -> Result<&[f32]> {
        let fail = |reason: String| Error::Weights { path: self.path.clone(), reason };
        let array = self.arrays.get(name).ok_or_else(|| fail(format!("tensor {name} is missing")))?;
        if array.shape != shape {
            return Err(fail(format!("tensor {name} has shape {:?} where the graph needs {shape:?}", array.shape)));
        }
        Ok(&array.values)
    }

    /// Every array: name, shape, values.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &[usize], &[f32])> {
        self.arrays.iter().map(|(name, a)| (name.as_str(), a.shape.as_slice(), a.values.as_slice()))
    }

    /// Where the weights were read from.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn file(values: &[f32]) -> Vec<u8> {
        let data: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        let view = safetensors::tensor::TensorView::new(Dtype::F32, vec![values.len()], &data).unwrap();
        safetensors::serialize([("a", view)], None).unwrap()
    }

    #[test]
    fn shapes_and_names_are_checked() {
        let w = Weights::from_bytes(Path::new("w"), &file(&[1.0, -2.0])).unwrap();
        assert_eq!(w.get("a", &[2]).unwrap(), [1.0, -2.0]);
        assert!(w.get("a", &[1, 2]).unwrap_err().to_string().contains("shape [2]"));
        assert!(w.get("b", &[2]).unwrap_err().to_string().contains("b is missing"));
    }

    #[test]
    fn damaged_files_are_typed_errors() {
        let good = file(&[1.0, 2.0, 3.0]);
        for end in 0..good.len() {
            assert!(matches!(Weights::from_bytes(Path::new("w"), &good[..end]), Err(Error::Weights { .. })), "{end}");
        }
        let text = Weights::from_bytes(Path::new("w"), &file(&[1.0, f32::NAN])).unwrap_err().to_string();
        assert!(text.contains("NaN at position 1"), "{text}");
    }
}
