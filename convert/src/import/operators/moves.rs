//! What only moves numbers about, and the shapes that exporters compute for it.

use super::super::constant::{Constant, Data};
use super::super::view::{Outcome, Value};
use super::{Walk, axis};
use excon_edge::engine::onnx::Attributes;
use tract_onnx::pb::NodeProto;

impl Walk<'_> {
    pub(super) fn cast(&self, node: &NodeProto) -> Outcome<Value> {
        let to = Attributes(&node.attribute).int("to", 1);
        match (self.input(node, 0)?, to) {
            (Value::View(view), 1) => Ok(Value::View(view.clone())),
            (Value::View(_), _) => Err("a map is cast to something else than 32-bit floats".into()),
            (Value::Constant(c), 1 | 11) => Ok(Value::Constant(match &c.data {
                Data::Float(_) => c.clone(),
                Data::Int(v) => Constant::new_floats(c.dims.clone(), v.iter().map(|&v| v as f32).collect()),
            })),
            (Value::Constant(c), 6 | 7) => Ok(Value::Constant(match &c.data {
                Data::Int(_) => c.clone(),
                Data::Float(v) => Constant::new_ints(c.dims.clone(), v.iter().map(|&v| v as i64).collect()),
            })),
            _ => Err("it casts to a type that is not converted".into()),
        }
    }

    /// What only moves numbers about, on maps and constants alike.
    pub(super) fn follow(&self, node: &NodeProto) -> Outcome<Value> {
        let a = Attributes(&node.attribute);
        let value = self.input(node, 0)?;
        let dims = match value {
            Value::View(view) => &view.dims,
            Value::Constant(constant) => &constant.dims,
        };
        let rank = dims.len();
        if node.op_type == "Transpose" {
            let order = match a.ints("perm") {
                Some(order) => order.iter().map(|&i| usize::try_from(i).unwrap_or(usize::MAX)).collect(),
                None => (0..rank).rev().collect::<Vec<usize>>(),
            };
            return match value {
                Value::View(view) => view.transposed(&order).map(Value::View),
                Value::Constant(constant) => constant.transposed(&order).map(Value::Constant),
            };
        }
        let target = match node.op_type.as_str() {
            "Flatten" => {
                let at = a.int("axis", 1);
                let at = usize::try_from(if at < 0 { at + rank as i64 } else { at }).ok().filter(|&at| at <= rank);
                let at = at.ok_or("its axis does not exist")?;
                vec![dims[..at].iter().product(), dims[at..].iter().product()]
            }
            "Squeeze" => {
                let axes = self.numbers(node, "axes", 1)?;
                let axes: Option<Vec<usize>> =
                    axes.map(|axes| axes.iter().map(|&i| axis(i, rank)).collect::<Outcome<_>>()).transpose()?;
                let gone = |i: usize| axes.as_ref().map_or(i > 0 && dims[i] == 1, |axes| axes.contains(&i));
                if (0..rank).any(|i| gone(i) && dims[i] != 1) {
                    return Err("it drops a dimension longer than 1".into());
                }
                (0..rank).filter(|&i| !gone(i)).map(|i| dims[i]).collect()
            }
            "Unsqueeze" => {
                let axes = self.numbers(node, "axes", 1)?.ok_or("its axes are missing")?;
                let full = rank + axes.len();
                let new: Vec<usize> = axes.iter().map(|&i| axis(i, full)).collect::<Outcome<_>>()?;
                let mut old = dims.iter().copied();
                (0..full).map(|i| if new.contains(&i) { 1 } else { old.next().unwrap_or(1) }).collect()
            }
            _ => target(dims, self.needed(node, 1)?.ints()?)?,
        };
        match value {
            Value::View(view) => view.reshaped(target).map(Value::View),
            Value::Constant(constant) => constant.reshaped(target).map(Value::Constant),
        }
    }

    /// Shapes and other whole numbers, taken apart and put together.
    pub(super) fn computed(&self, node: &NodeProto) -> Outcome<Constant> {
        let a = Attributes(&node.attribute);
        match node.op_type.as_str() {
            "Constant" => {
                if let Some(tensor) = a.get("value").and_then(|v| v.t.as_ref()) {
                    return Ok(Constant::stored(tensor));
                }
                match node.attribute.first() {
                    Some(v) if v.name == "value_int" => Ok(Constant::new_ints(vec![], vec![v.i])),
                    Some(v) if v.name == "value_ints" => Ok(Constant::new_ints(vec![v.ints.len()], v.ints.clone())),
                    Some(v) if v.name == "value_float" => Ok(Constant::new_floats(vec![], vec![v.f])),
                    Some(v) if v.name == "value_floats" => {
                        Ok(Constant::new_floats(vec![v.floats.len()], v.floats.clone()))
                    }
                    _ => Err("it holds no numbers".into()),
                }
            }
            "Shape" => {
                let dims: Vec<i64> = match self.input(node, 0)? {
                    Value::View(view) => view.dims.iter().map(|&d| d as i64).collect(),
                    Value::Constant(constant) => constant.dims.iter().map(|&d| d as i64).collect(),
                };
                let place = |name: &str, otherwise: i64| {
                    let at = a.int(name, otherwise);
                    (if at < 0 { at + dims.len() as i64 } else { at }).clamp(0, dims.len() as i64) as usize
                };
                let (start, end) = (place("start", 0), place("end", dims.len() as i64));
                let part = dims.get(start..end).unwrap_or_default().to_vec();
                Ok(Constant::new_ints(vec![part.len()], part))
            }
            "Gather" => {
                let indices = self.needed(node, 1)?;
                self.needed(node, 0)?.picked(indices.ints()?, indices.dims.is_empty())
            }
            "Slice" => {
                let row = self.needed(node, 0)?;
                let one = |name: &str, at: usize| match self.numbers(node, name, at)?.as_deref() {
                    None => Ok(None),
                    Some([value]) => Ok(Some(*value)),
                    _ => Err("only rows of constants are sliced".to_string()),
                };
                let (start, end) = (one("starts", 1)?, one("ends", 2)?);
                let (axis, step) = (one("axes", 3)?.unwrap_or(0), one("steps", 4)?.unwrap_or(1));
                let n = row.len() as i64;
                let place = |at: i64| if at < 0 { at.saturating_add(n) } else { at }.clamp(0, n);
                if axis != 0 || step != 1 {
                    return Err("only rows of constants are sliced, one by one".into());
                }
                let picked: Vec<i64> = (place(start.unwrap_or(0))..place(end.unwrap_or(n))).collect();
                row.picked(&picked, false)
            }
            "Concat" => {
                let mut parts = vec![];
                for at in 0..node.input.len() {
                    match self.input(node, at)? {
                        Value::Constant(constant) => parts.push(constant.clone()),
                        Value::View(_) => return Err("maps that are put one behind the other are not converted".into()),
                    }
                }
                Constant::joined(&parts)
            }
            _ => {
                let dims = self.needed(node, 0)?;
                let dims: Option<Vec<usize>> = dims.ints()?.iter().map(|&d| usize::try_from(d).ok()).collect();
                let count = dims.as_ref().and_then(|d| d.iter().try_fold(1usize, |n, &d| n.checked_mul(d)));
                let (Some(dims), Some(count @ ..=64)) = (dims, count) else {
                    return Err("only short constants are filled".into());
                };
                match a.get("value").and_then(|v| v.t.as_ref()).map(Constant::stored) {
                    None => Ok(Constant::new_floats(dims, vec![0.0; count])),
                    Some(Constant { data: Data::Int(v), .. }) if v.len() == 1 => {
                        Ok(Constant::new_ints(dims, vec![v[0]; count]))
                    }
                    Some(Constant { data: Data::Float(v), .. }) if v.len() == 1 => {
                        Ok(Constant::new_floats(dims, vec![v[0]; count]))
                    }
                    _ => Err("it is filled with more than one number".into()),
                }
            }
        }
    }
}

/// Dimensions of a reshape: 0 keeps one, −1 takes what is left.
fn target(dims: &[usize], wanted: &[i64]) -> Outcome<Vec<usize>> {
    let refuse = || format!("{dims:?} cannot become {wanted:?}");
    if wanted.len() > 8 {
        return Err(refuse());
    }
    let size = |(i, &d): (usize, &i64)| match d {
        -1 => Some(1),
        0 => dims.get(i).copied(),
        d => usize::try_from(d).ok(),
    };
    let mut sizes: Vec<usize> = wanted.iter().enumerate().map(size).collect::<Option<_>>().ok_or_else(refuse)?;
    if let Some(open) = wanted.iter().position(|&d| d == -1) {
        let known = sizes.iter().try_fold(1usize, |n, &d| n.checked_mul(d)).filter(|&n| n > 0).ok_or_else(refuse)?;
        sizes[open] = dims.iter().product::<usize>() / known;
    }
    Ok(sizes)
}
