//! Constants of an ONNX graph and the arithmetic on them that exporters leave in a file: shapes taken apart and put
//! together, weights that are transposed or stored in codes. What it writes is charged to the network's budget
//! (`Build::spend`).

use super::view::{Outcome, axis};
use excon_edge::engine::onnx::{Attributes, Stored};
use std::sync::Arc;
use tract_onnx::pb::TensorProto;

/// A tensor of known values.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Constant {
    pub dims: Vec<usize>,
    pub data: Data,
}

/// Its values. Codes of one byte are held as the floats they are.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Data {
    Float(Arc<[f32]>),
    Int(Arc<[i64]>),
}

/// Picks `at` of a tensor's values, whatever they are.
macro_rules! rearranged {
    ($data:expr, $values:ident => $made:expr) => {
        match $data {
            Data::Float($values) => Data::Float($made),
            Data::Int($values) => Data::Int($made),
        }
    };
}

impl Constant {
    pub fn new_ints(dims: Vec<usize>, values: Vec<i64>) -> Self {
        Self { dims, data: Data::Int(values.into()) }
    }

    pub fn new_floats(dims: Vec<usize>, values: Vec<f32>) -> Self {
        Self { dims, data: Data::Float(values.into()) }
    }

    /// A stored tensor; the reader has checked that it is complete.
    pub fn stored(tensor: &TensorProto) -> Self {
        let dims = tensor.dims.iter().map(|&d| d as usize).collect();
        let data = match Stored::of(tensor) {
            Some(Stored::Integers(values)) => Data::Int(values.into()),
            Some(numbers) => Data::Float(numbers.into_floats().into()),
            None => Data::Int(Arc::new([])),
        };
        Self { dims, data }
    }

    pub fn len(&self) -> usize {
        match &self.data {
            Data::Float(v) => v.len(),
            Data::Int(v) => v.len(),
        }
    }

    pub fn floats(&self) -> Outcome<&[f32]> {
        match &self.data {
            Data::Float(values) => Ok(values),
            Data::Int(_) => Err("a constant holds whole numbers where floats are needed".into()),
        }
    }

    /// Finite floats of exactly this shape.
    pub fn weights(&self, dims: &[usize]) -> Outcome<&[f32]> {
        if self.dims != dims {
            return Err(format!("a constant has shape {:?} where {dims:?} is needed", self.dims));
        }
        let values = self.floats()?;
        if values.iter().any(|v| !v.is_finite()) {
            return Err("its weights are not all finite".into());
        }
        Ok(values)
    }

    pub fn ints(&self) -> Outcome<&[i64]> {
        match &self.data {
            Data::Int(values) => Ok(values),
            Data::Float(_) => Err("a constant holds floats where whole numbers are needed".into()),
        }
    }

    /// One finite number.
    pub fn number(&self) -> Outcome<f64> {
        match &self.data {
            Data::Float(v) if v.len() == 1 && v[0].is_finite() => Ok(f64::from(v[0])),
            Data::Int(v) if v.len() == 1 => Ok(v[0] as f64),
            _ => Err("a constant is not one finite number".into()),
        }
    }

    pub fn reshaped(&self, dims: Vec<usize>) -> Outcome<Self> {
        if dims.iter().try_fold(1usize, |n, &d| n.checked_mul(d)) != Some(self.len()) {
            return Err(format!("a constant of {:?} cannot become {dims:?}", self.dims));
        }
        Ok(Self { dims, data: self.data.clone() })
    }

    pub fn transposed(&self, order: &[usize]) -> Outcome<Self> {
        let mut seen = order.to_vec();
        seen.sort_unstable();
        if !seen.into_iter().eq(0..self.dims.len()) {
            return Err(format!("its order {order:?} does not fit {:?}", self.dims));
        }
        let mut strides = vec![1; self.dims.len()];
        for i in (1..self.dims.len()).rev() {
            strides[i - 1] = strides[i] * self.dims[i];
        }
        let dims: Vec<usize> = order.iter().map(|&i| self.dims[i]).collect();
        let source = |mut at: usize| {
            let mut from = 0;
            for (d, &axis) in order.iter().enumerate().rev() {
                from += at % dims[d] * strides[axis];
                at /= dims[d];
            }
            from
        };
        let data = rearranged!(&self.data, v => (0..v.len()).map(|at| v[source(at)]).collect());
        Ok(Self { dims, data })
    }

    /// Elements of a row (Gather, Slice).
    pub fn picked(&self, indices: &[i64], scalar: bool) -> Outcome<Self> {
        let n = self.len() as i64;
        let at: Option<Vec<usize>> = indices
            .iter()
            .map(|&i| usize::try_from(if i < 0 { i + n } else { i }).ok().filter(|&i| i < n as usize))
            .collect();
        let at = at.filter(|_| self.dims.len() == 1).ok_or("it picks what is not there, or not from a row")?;
        let dims = if scalar { vec![] } else { vec![at.len()] };
        Ok(Self { dims, data: rearranged!(&self.data, v => at.iter().map(|&i| v[i]).collect()) })
    }

    /// Rows and numbers, one behind the other.
    pub fn joined(parts: &[Self]) -> Outcome<Self> {
        if parts.iter().any(|p| p.dims.len() != 1) || parts.iter().map(Self::len).sum::<usize>() > 64 {
            return Err("only short rows of constants are joined".into());
        }
        let mut all = vec![];
        for part in parts {
            all.extend_from_slice(part.ints()?);
        }
        Ok(Self::new_ints(vec![all.len()], all))
    }

    /// Arithmetic of equal shapes, or with one number on a side.
    pub fn arithmetic(operator: &str, a: &Self, b: &Self) -> Outcome<Self> {
        let dims = if a.len() >= b.len() { a.dims.clone() } else { b.dims.clone() };
        let n = a.len().max(b.len());
        if [a, b].iter().any(|c| c.len() != 1 && c.dims != dims) {
            return Err("constants of different shapes are not combined".into());
        }
        let at = |c: &Self, i: usize| if c.len() == 1 { 0 } else { i };
        match (&a.data, &b.data) {
            (Data::Int(x), Data::Int(y)) => {
                let one = |i: usize| {
                    let (x, y) = (x[at(a, i)], y[at(b, i)]);
                    match operator {
                        "Add" => x.checked_add(y),
                        "Sub" => x.checked_sub(y),
                        "Mul" => x.checked_mul(y),
                        _ => x.checked_div(y),
                    }
                };
                let values: Option<Vec<i64>> = (0..n).map(one).collect();
                Ok(Self::new_ints(dims, values.ok_or("its constants overflow")?))
            }
            _ => {
                let (x, y) = (a.floats()?, b.floats()?);
                let one = |i: usize| {
                    let (x, y) = (x[at(a, i)], y[at(b, i)]);
                    match operator {
                        "Add" => x + y,
                        "Sub" => x - y,
                        "Mul" => x * y,
                        _ => x / y,
                    }
                };
                Ok(Self::new_floats(dims, (0..n).map(one).collect()))
            }
        }
    }

    /// `(code − zero point) · scale`, as a whole or along an axis.
    pub fn dequantized(&self, scale: &Self, zero: Option<&Self>, attributes: &Attributes<'_>) -> Outcome<Self> {
        if attributes.int("block_size", 0) != 0 {
            return Err("blocks of codes are not supported".into());
        }
        let as_f64 = |c: &Self| -> Vec<f64> {
            match &c.data {
                Data::Float(v) => v.iter().map(|&v| f64::from(v)).collect(),
                Data::Int(v) => v.iter().map(|&v| v as f64).collect(),
            }
        };
        let (scales, zeros) = (as_f64(scale), zero.map(as_f64));
        if zeros.as_ref().is_some_and(|z| z.len() != scales.len()) {
            return Err("scale and zero point are of different length".into());
        }
        let axis = axis(attributes.int("axis", 1), self.dims.len().max(1))?;
        let run = self.dims.iter().skip(axis + 1).product::<usize>().max(1);
        let along = self.dims.get(axis).copied().unwrap_or(1);
        if scales.len() != 1 && scales.len() != along {
            return Err("its scales do not fit its codes".into());
        }
        let group = |i: usize| if scales.len() == 1 { 0 } else { i / run % along };
        let value = |(i, code): (usize, f64)| {
            let g = group(i);
            ((code - zeros.as_ref().map_or(0.0, |z| z[g])) * scales[g]) as f32
        };
        Ok(Self::new_floats(self.dims.clone(), as_f64(self).into_iter().enumerate().map(value).collect()))
    }
}
