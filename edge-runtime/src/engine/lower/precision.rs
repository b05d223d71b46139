//! What tells a float network from a quantized one while it is lowered.

use super::Lowered;
use super::stored::Constant;
use crate::kernel::float::Float;
use crate::kernel::graph::Format;
use crate::kernel::int8::{Codes, Int8};
use crate::kernel::mixed::Mixed;

/// A format that files are lowered to.
pub(in crate::engine) trait Precision: Format {
    /// Name of its kernels.
    const NAME: &'static str;
    /// Codes of maps that no pair quantizes, where the format has such maps.
    const PLAIN: Option<Self::Codes>;

    /// What quantizing gives, where the format has it.
    fn codes(codes: Codes) -> Option<Self::Codes>;

    /// Weights of a convolution.
    fn weights(constant: Constant) -> Lowered<(Vec<Self::Weight>, Self::Scales)>;
}

impl Precision for Float {
    const NAME: &'static str = "float";
    const PLAIN: Option<()> = Some(());

    fn codes(_: Codes) -> Option<()> {
        None
    }

    fn weights(constant: Constant) -> Lowered<(Vec<f32>, ())> {
        Ok((constant.values, ()))
    }
}

impl Precision for Int8 {
    const NAME: &'static str = "int8";
    const PLAIN: Option<Codes> = None;

    fn codes(codes: Codes) -> Option<Codes> {
        Some(codes)
    }

    fn weights(constant: Constant) -> Lowered<(Vec<i8>, Vec<f32>)> {
        constant.bytes.ok_or_else(|| "its weights are no signed bytes".into())
    }
}

impl Precision for Mixed {
    const NAME: &'static str = "mixed";
    const PLAIN: Option<Option<Codes>> = Some(None);

    fn codes(codes: Codes) -> Option<Option<Codes>> {
        Some(Some(codes))
    }

    fn weights(constant: Constant) -> Lowered<(Vec<f32>, Option<Vec<f32>>)> {
        Ok(match constant.bytes {
            Some((bytes, scales)) => (bytes.into_iter().map(f32::from).collect(), Some(scales)),
            None => (constant.values, None),
        })
    }
}
