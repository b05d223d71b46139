//! Named f64 tensors: how score model and reference travel in a bundle and in a saved state.
//!
//! Bytes are safetensors, sorted by name, so equal tensors give equal bytes and digests.

use crate::{Error, Result};
use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use std::collections::BTreeMap;

/// Name → shape and row-major values.
pub type Tensors = BTreeMap<String, (Vec<usize>, Vec<f64>)>;

fn refuse(reason: String) -> Error {
    Error::Data { what: "shift tensors", reason }
}

/// The tensors as safetensors bytes.
///
/// # Errors
/// When a shape and its number of values disagree.
pub fn to_bytes(tensors: &Tensors) -> Result<Vec<u8>> {
    let raw: Vec<(&String, &Vec<usize>, Vec<u8>)> = tensors
        .iter()
        .map(|(name, (shape, values))| (name, shape, values.iter().flat_map(|v| v.to_le_bytes()).collect()))
        .collect();
    let views = raw
        .iter()
        .map(|(name, shape, bytes)| {
            let view =
                TensorView::new(Dtype::F64, (*shape).clone(), bytes).map_err(|e| refuse(format!("{name}: {e}")))?;
            Ok((name.as_str(), view))
        })
        .collect::<Result<Vec<_>>>()?;
    safetensors::serialize(views, None).map_err(|e| refuse(e.to_string()))
}

/// Reads what [`to_bytes`] wrote.
///
/// # Errors
/// When the bytes are no safetensors or a tensor is not f64.
pub fn from_bytes(bytes: &[u8]) -> Result<Tensors> {
    let file = SafeTensors::deserialize(bytes).map_err(|e| refuse(e.to_string()))?;
    let mut tensors = Tensors::new();
    for (name, view) in file.tensors() {
        if view.dtype() != Dtype::F64 {
            return Err(refuse(format!("{name} is {:?}, expected F64", view.dtype())));
        }
        let values = view.data().chunks_exact(8).map(|b| {
            let mut word = [0; 8];
            word.copy_from_slice(b);
            f64::from_le_bytes(word)
        });
        tensors.insert(name, (view.shape().to_vec(), values.collect()));
    }
    Ok(tensors)
}

/// One tensor by name, its shape checked (`None` accepts any length of that axis).
pub(crate) fn take<'a>(tensors: &'a Tensors, name: &str, shape: &[Option<usize>]) -> Result<(&'a [usize], &'a [f64])> {
    let (found, values) = tensors.get(name).ok_or_else(|| refuse(format!("{name} is missing")))?;
    let fits = found.len() == shape.len() && found.iter().zip(shape).all(|(f, s)| s.is_none_or(|s| s == *f));
    if !fits || found.iter().product::<usize>() != values.len() {
        return Err(refuse(format!("{name} has shape {found:?} and {} values", values.len())));
    }
    Ok((found, values))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn bytes_come_back_bit_for_bit() {
        let mut tensors = Tensors::new();
        tensors.insert("b".into(), (vec![2, 1], vec![0.1, f64::INFINITY]));
        tensors.insert("a".into(), (vec![0], vec![]));
        let bytes = to_bytes(&tensors).unwrap();
        assert_eq!(from_bytes(&bytes).unwrap(), tensors);
        for cut in 0..bytes.len() {
            assert!(from_bytes(&bytes[..cut]).is_err());
        }
        tensors.insert("c".into(), (vec![3], vec![1.0]));
        assert!(to_bytes(&tensors).is_err());
    }
}
