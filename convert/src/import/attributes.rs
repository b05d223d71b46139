//! A node's attributes by name.

use super::view::Outcome;
use tract_onnx::pb::AttributeProto;

pub(super) struct Attributes<'a>(pub &'a [AttributeProto]);

impl<'a> Attributes<'a> {
    pub fn get(&self, name: &str) -> Option<&'a AttributeProto> {
        self.0.iter().find(|a| a.name == name)
    }

    pub fn int(&self, name: &str, otherwise: i64) -> i64 {
        self.get(name).map_or(otherwise, |a| a.i)
    }

    pub fn float(&self, name: &str, otherwise: f32) -> f32 {
        self.get(name).map_or(otherwise, |a| a.f)
    }

    pub fn ints(&self, name: &str) -> Option<&'a [i64]> {
        self.get(name).map(|a| a.ints.as_slice())
    }

    pub fn text(&self, name: &str) -> &'a [u8] {
        self.get(name).map_or(&[], |a| a.s.as_slice())
    }

    /// An axis of a tensor of `rank` dimensions, from the end where it is negative.
    pub fn axis(&self, name: &str, otherwise: i64, rank: usize) -> Outcome<usize> {
        axis(self.int(name, otherwise), rank)
    }

    /// `N` sizes.
    pub fn sizes<const N: usize>(&self, name: &str) -> Outcome<Option<[usize; N]>> {
        let Some(ints) = self.ints(name) else { return Ok(None) };
        let sizes: Option<Vec<usize>> = ints.iter().map(|&v| usize::try_from(v).ok()).collect();
        let sizes = sizes.and_then(|s| s.try_into().ok());
        sizes
            .map(Some)
            .ok_or_else(|| format!("attribute {name} is not {N} sizes; only two-dimensional pictures are converted"))
    }
}

/// An axis, counted from the end where it is negative.
pub(super) fn axis(axis: i64, rank: usize) -> Outcome<usize> {
    let from_start = if axis < 0 { axis + rank as i64 } else { axis };
    usize::try_from(from_start).ok().filter(|&a| a < rank).ok_or_else(|| format!("it has no axis {axis}"))
}
