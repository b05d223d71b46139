//! The golden vectors, for tests: named tensors of one safetensors file as plain vectors, and the JSON beside.
#![allow(clippy::unwrap_used)]

use safetensors::{Dtype, SafeTensors};
use std::path::PathBuf;

/// Path of a fixture, such as `image/rgb.png`.
pub fn path(name: &str) -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/fixtures")).join(name)
}

/// The JSON fixture `name`.
pub fn json(name: &str) -> serde_json::Value {
    serde_json::from_slice(&std::fs::read(path(name)).unwrap()).unwrap()
}

/// One safetensors fixture, in memory.
pub struct Golden {
    bytes: Vec<u8>,
}

impl Golden {
    /// Opens `name`, such as `explain/maps.safetensors`.
    pub fn open(name: &str) -> Self {
        Self { bytes: std::fs::read(path(name)).unwrap() }
    }

    /// Shape of a tensor.
    pub fn shape(&self, name: &str) -> Vec<usize> {
        SafeTensors::deserialize(&self.bytes).unwrap().tensor(name).unwrap().shape().to_vec()
    }

    /// Values of a tensor of any stored type, as f64.
    pub fn f64(&self, name: &str) -> Vec<f64> {
        let file = SafeTensors::deserialize(&self.bytes).unwrap();
        let tensor = file.tensor(name).unwrap_or_else(|e| panic!("{name}: {e}"));
        let data = tensor.data();
        match tensor.dtype() {
            Dtype::F64 => data.as_chunks().0.iter().map(|b| f64::from_le_bytes(*b)).collect(),
            Dtype::F32 => data.as_chunks().0.iter().map(|b| f64::from(f32::from_le_bytes(*b))).collect(),
            Dtype::I64 => data.as_chunks().0.iter().map(|b| i64::from_le_bytes(*b) as f64).collect(),
            Dtype::U8 => data.iter().map(|b| f64::from(*b)).collect(),
            other => panic!("{name} has type {other:?}"),
        }
    }

    /// The same as f32; exact for f32 and u8 tensors.
    pub fn f32(&self, name: &str) -> Vec<f32> {
        self.f64(name).into_iter().map(|v| v as f32).collect()
    }

    /// The same as bytes.
    pub fn u8(&self, name: &str) -> Vec<u8> {
        self.f64(name).into_iter().map(|v| v as u8).collect()
    }

    /// The same as indices.
    pub fn index(&self, name: &str) -> Vec<usize> {
        self.f64(name).into_iter().map(|v| v as usize).collect()
    }

    /// The same as truth values.
    pub fn mask(&self, name: &str) -> Vec<bool> {
        self.f64(name).into_iter().map(|v| v != 0.0).collect()
    }
}

/// Largest absolute difference of two equally long sequences.
pub fn gap<A: Copy + Into<f64>, B: Copy + Into<f64>>(a: &[A], b: &[B]) -> f64 {
    assert_eq!(a.len(), b.len(), "lengths differ");
    a.iter().zip(b).map(|(a, b)| ((*a).into() - (*b).into()).abs()).fold(0.0, f64::max)
}
