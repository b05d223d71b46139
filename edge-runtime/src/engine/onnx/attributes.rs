//! A node's attributes by name, as engine and importer read them.

use tract_onnx::pb::AttributeProto;

/// The attributes of one node.
#[derive(Clone, Copy)]
pub struct Attributes<'a>(pub &'a [AttributeProto]);

impl<'a> Attributes<'a> {
    /// The attribute itself.
    pub fn get(&self, name: &str) -> Option<&'a AttributeProto> {
        self.0.iter().find(|a| a.name == name)
    }

    /// A whole number.
    pub fn int(&self, name: &str, otherwise: i64) -> i64 {
        self.get(name).map_or(otherwise, |a| a.i)
    }

    /// A number.
    pub fn float(&self, name: &str, otherwise: f32) -> f32 {
        self.get(name).map_or(otherwise, |a| a.f)
    }

    /// Whole numbers.
    pub fn ints(&self, name: &str) -> Option<&'a [i64]> {
        self.get(name).map(|a| a.ints.as_slice())
    }

    /// A word; empty where there is none.
    pub fn text(&self, name: &str) -> &'a [u8] {
        self.get(name).map_or(&[], |a| a.s.as_slice())
    }

    /// `N` sizes.
    ///
    /// # Errors
    /// When there are more or fewer, or one is negative.
    pub fn sizes<const N: usize>(&self, name: &str) -> Result<Option<[usize; N]>, String> {
        let Some(ints) = self.ints(name) else { return Ok(None) };
        let sizes: Option<Vec<usize>> = ints.iter().map(|&v| usize::try_from(v).ok()).collect();
        let sizes = sizes.and_then(|s| s.try_into().ok());
        let refuse = || format!("attribute {name} is not {N} sizes; only two-dimensional pictures are taken");
        sizes.map(Some).ok_or_else(refuse)
    }
}
