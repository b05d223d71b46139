//! The values of stored tensors: one reading of ONNX's encodings for engines, importer and TensorRT alike.

use tract_onnx::pb::{TensorProto, tensor_proto::DataType};

/// Values as plain numbers, by what they are.
#[derive(Debug, Clone, PartialEq)]
pub enum Stored {
    /// Of f32 and f64.
    Floats(Vec<f32>),
    /// Codes: signed or unsigned bytes.
    Bytes(Vec<i32>),
    /// Of i32, i64 and truth values.
    Integers(Vec<i64>),
}

impl Stored {
    /// Values of a tensor that the gate or the reader has found complete, raw or in fields; none of another type.
    pub fn of(tensor: &TensorProto) -> Option<Self> {
        let raw = (!tensor.raw_data.is_empty()).then_some(tensor.raw_data.as_slice());
        Some(match (DataType::try_from(tensor.data_type).ok()?, raw) {
            (DataType::Float, None) => Self::Floats(tensor.float_data.clone()),
            (DataType::Float, Some(raw)) => Self::Floats(words(raw, f32::from_le_bytes)),
            (DataType::Double, None) => Self::Floats(tensor.double_data.iter().map(|&v| v as f32).collect()),
            (DataType::Double, Some(raw)) => Self::Floats(words(raw, |b| f64::from_le_bytes(b) as f32)),
            (DataType::Int8 | DataType::Uint8, None) => Self::Bytes(tensor.int32_data.clone()),
            (DataType::Int8, Some(raw)) => Self::Bytes(raw.iter().map(|&b| i32::from(b as i8)).collect()),
            (DataType::Uint8, Some(raw)) => Self::Bytes(raw.iter().map(|&b| i32::from(b)).collect()),
            (DataType::Int32 | DataType::Bool, None) => {
                Self::Integers(tensor.int32_data.iter().map(|&v| i64::from(v)).collect())
            }
            (DataType::Bool, Some(raw)) => Self::Integers(raw.iter().map(|&b| i64::from(b)).collect()),
            (DataType::Int32, Some(raw)) => Self::Integers(words(raw, |b| i64::from(i32::from_le_bytes(b)))),
            (DataType::Int64, None) => Self::Integers(tensor.int64_data.clone()),
            (DataType::Int64, Some(raw)) => Self::Integers(words(raw, i64::from_le_bytes)),
            _ => return None,
        })
    }

    /// All of them as f32.
    pub fn into_floats(self) -> Vec<f32> {
        match self {
            Self::Floats(values) => values,
            Self::Bytes(values) => values.into_iter().map(|v| v as f32).collect(),
            Self::Integers(values) => values.into_iter().map(|v| v as f32).collect(),
        }
    }
}

fn words<const N: usize, T>(raw: &[u8], value: impl Fn([u8; N]) -> T) -> Vec<T> {
    raw.as_chunks().0.iter().map(|b| value(*b)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn raw_bytes_and_fields_are_the_same_values() {
        let tensor = |kind: DataType, raw: &[u8]| {
            Stored::of(&TensorProto { data_type: kind as i32, raw_data: raw.to_vec(), ..TensorProto::default() })
        };
        let fields = |kind: DataType| TensorProto {
            data_type: kind as i32,
            float_data: vec![-1.5],
            double_data: vec![-1.5],
            int32_data: vec![-2],
            int64_data: vec![-2],
            ..TensorProto::default()
        };
        let pairs: [(DataType, &[u8]); 5] = [
            (DataType::Float, &(-1.5f32).to_le_bytes()),
            (DataType::Double, &(-1.5f64).to_le_bytes()),
            (DataType::Int8, &[254]),
            (DataType::Int32, &(-2i32).to_le_bytes()),
            (DataType::Int64, &(-2i64).to_le_bytes()),
        ];
        for (kind, raw) in pairs {
            assert_eq!(tensor(kind, raw), Stored::of(&fields(kind)), "{kind:?}");
        }
        assert_eq!(tensor(DataType::Uint8, &[254]), Some(Stored::Bytes(vec![254])));
        assert_eq!(tensor(DataType::Bool, &[1, 0]), Some(Stored::Integers(vec![1, 0])));
        assert_eq!(tensor(DataType::String, &[1]), None);
        assert_eq!(Stored::Bytes(vec![-3]).into_floats(), [-3.0]);
    }
}
