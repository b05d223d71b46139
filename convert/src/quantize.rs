//! The explicit QDQ model, by rules that TensorRT, ONNX Runtime, OpenVINO and tract all accept.
//!
//! Activations: signed bytes, one scale a tensor, zero point 0; in the form for CPUs, zero point −128 for maps that are
//! never negative, so that all 256 codes are theirs ([`Codes`]). Weights: signed bytes in `[-127, 127]`, one scale an
//! output channel (axis 0). Biases stay float and are whole steps of the accumulator (input scale · weight scale): engines
//! that keep them as integers, as ONNX Runtime does unasked, compute the same sums. Every map goes through
//! quantize–dequantize exactly once, behind its activation: so every input of a convolution and both inputs of a sum are
//! dequantized bytes, and nothing stands between a convolution and its activation, whose limits the codes then clip to.
//! `features` is the dequantized last map, exactly what the pool reads; pool and classifier are float.
//!
//! In a mixed model some convolutions are float: weights without a pair, bias as trained. A map stays float where such a
//! convolution (or nothing: the picture) computes it and nothing but such convolutions or the pool reads it; every other
//! map is quantized as above, for sums, max pools and int8 convolutions read bytes alone. ONNX Runtime takes it upon itself
//! to round the weights of a convolution that reads a dequantized map, with one scale for all, unless its bias is no stored
//! float: so there the bias is stored as whole numbers and a power of two each, which stand for the same floats.
//! [`check`] and [`check_mixed`] assert all of this on a finished model.

mod check;

use crate::export::{self, INPUT};
use crate::fold::{Folded, Layer, LayerId, LayerOp};
use crate::onnx::{Builder, int, pb};
use crate::range::{LEVELS, scale_of};
use crate::{Error, Result};
pub use check::{check, check_mixed};
use std::borrow::Cow;
use std::collections::BTreeSet;

const ZERO: &str = "zero_point";
const LOWEST: &str = "zero_point_lowest";

/// How the codes of activations are used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Codes {
    /// Zero point 0 everywhere, as TensorRT demands. A map behind a ReLU has 7 of its 8 bits.
    Symmetric,
    /// Zero point −128 for such a map, which then has all of them: half the rounding error, at no cost on a CPU.
    Full,
}

impl Codes {
    /// The step of a map, from the symmetric one.
    fn scale(self, symmetric: f32, never_negative: bool) -> f32 {
        match (self, never_negative) {
            (Self::Full, true) => symmetric * (LEVELS as f32 / 255.0),
            _ => symmetric,
        }
    }

    fn zero_point(self, never_negative: bool) -> &'static str {
        match (self, never_negative) {
            (Self::Full, true) => LOWEST,
            _ => ZERO,
        }
    }
}

/// `clamp(round_half_even(x / scale) + zero_point, low, high)`, the rule of ONNX QuantizeLinear. Divides: multiplying by a
/// reciprocal rounds differently. `x` is no NaN.
pub fn quantize(x: f32, scale: f32, zero_point: i32, low: i32, high: i32) -> i32 {
    (f64::from((x / scale).round_ties_even()) + f64::from(zero_point)).clamp(f64::from(low), f64::from(high)) as i32
}

/// `(q − zero_point) · scale`.
pub fn dequantize(q: i32, scale: f32, zero_point: i32) -> f32 {
    (q - zero_point) as f32 * scale
}

/// Bytes and scales of a weight tensor with `outputs` output channels along axis 0.
pub fn quantize_weight(weight: &[f32], outputs: usize) -> (Vec<i8>, Vec<f32>) {
    let filters = weight.chunks_exact((weight.len() / outputs.max(1)).max(1));
    let scales: Vec<f32> = filters.clone().map(|f| scale_of(f.iter().fold(0.0, |m: f32, w| m.max(w.abs())))).collect();
    let level = LEVELS as i32;
    let bytes = filters.zip(&scales).flat_map(|(f, &s)| f.iter().map(move |&w| quantize(w, s, 0, -level, level) as i8));
    (bytes.collect(), scales)
}

/// The int8 model. `scales` holds one symmetric scale for every map, as [`crate::range::Observed::scales`] gives them.
///
/// # Errors
/// When a map has no scale or one that is not a positive number.
pub fn int8(network: &Folded, scales: &[Option<f32>], codes: Codes, labels: &[String]) -> Result<pb::ModelProto> {
    mixed(network, scales, codes, &BTreeSet::new(), labels)
}

/// The model with these convolutions in float and the rest in int8; `scales` as for [`int8`].
///
/// # Errors
/// As [`int8`], and when one of them is no convolution.
pub fn mixed(
    network: &Folded,
    scales: &[Option<f32>],
    codes: Codes,
    float: &BTreeSet<LayerId>,
    labels: &[String],
) -> Result<pb::ModelProto> {
    let mut builder = Builder::new(&network.name);
    builder.input(INPUT, &network.input_shape());
    builder.bytes(ZERO, &[], &[0]);
    if codes == Codes::Full {
        builder.bytes(LOWEST, &[], &[i8::MIN]);
    }
    let quantized = quantized(network, float);
    let value = |id: LayerId| match id {
        0 if !quantized[0] => INPUT.to_string(),
        _ => export::value_name(network, id),
    };
    let scale = |id: LayerId| {
        let scale = scales.get(id).copied().flatten().map(|s| codes.scale(s, network.never_negative(id)));
        let scale = scale.filter(|s| s.is_normal() && *s > 0.0);
        scale.ok_or_else(|| broken(&network.layers[id].name, "every map needs a positive scale"))
    };
    for (id, layer) in network.layers.iter().enumerate() {
        let name = &layer.name;
        let mut layer = Cow::Borrowed(layer);
        let inputs: Vec<String> = layer.inputs.iter().map(|&i| value(i)).collect();
        let weight_value = format!("{name}.weight");
        let bias_value = format!("{name}.bias");
        match &network.layers[id].op {
            LayerOp::Conv { weight, .. } if !float.contains(&id) => {
                let (bytes, weight_scales) = quantize_weight(weight, layer.shape[0]);
                layer = Cow::Owned(with_whole_bias(&layer, scale(layer.inputs[0])?, &weight_scales));
                let part = |part: &str| format!("{name}.weight_{part}");
                builder.bytes(&part("quantized"), &export::weight_dims(&layer, weight.len()), &bytes);
                builder.floats(&part("scale"), &[weight_scales.len()], &weight_scales);
                builder.bytes(&part("zero_point"), &[weight_scales.len()], &vec![0; weight_scales.len()]);
                let read = [part("quantized"), part("scale"), part("zero_point")];
                let read: Vec<&str> = read.iter().map(String::as_str).collect();
                builder.node("DequantizeLinear", &part("dequantize"), &read, &weight_value, vec![int("axis", 0)]);
            }
            LayerOp::Conv { weight, .. } | LayerOp::Linear { weight, .. } => {
                builder.floats(&weight_value, &export::weight_dims(&layer, weight.len()), weight);
            }
            _ => {}
        }
        match &layer.op {
            LayerOp::Conv { bias, .. } if float.contains(&id) && quantized[layer.inputs[0]] => {
                let (integers, powers): (Vec<i32>, Vec<f32>) = bias.iter().map(|&b| whole_and_power(b)).unzip();
                let part = |part: &str| format!("{name}.bias_{part}");
                builder.integers(&part("integers"), &[bias.len()], &integers);
                builder.floats(&part("powers"), &[bias.len()], &powers);
                let read = [part("integers"), part("powers")];
                let read: Vec<&str> = read.iter().map(String::as_str).collect();
                builder.node("DequantizeLinear", &part("dequantize"), &read, &bias_value, vec![int("axis", 0)]);
            }
            LayerOp::Conv { bias, .. } | LayerOp::Linear { bias, .. } => {
                builder.floats(&bias_value, &[bias.len()], bias);
            }
            _ => {}
        }
        if !quantized[id] {
            export::emit(&mut builder, &layer, &inputs, &weight_value, &value(id));
            continue;
        }
        let computed = if id == 0 { INPUT.to_string() } else { format!("{name}.float") };
        export::emit(&mut builder, &layer, &inputs, &weight_value, &computed);
        let (scale_name, bytes) = (format!("{name}.scale"), format!("{name}.quantized"));
        builder.floats(&scale_name, &[], &[scale(id)?]);
        let node = |part: &str| format!("{name}.{part}");
        let zero = codes.zero_point(network.never_negative(id));
        builder.node("QuantizeLinear", &node("quantize"), &[&computed, &scale_name, zero], &bytes, vec![]);
        builder.node("DequantizeLinear", &node("dequantize"), &[&bytes, &scale_name, zero], &value(id), vec![]);
    }
    export::outputs(&mut builder, network);
    let model = builder.finish(&export::metadata(network, labels));
    let names: Vec<&str> = float.iter().filter_map(|&id| Some(network.layers.get(id)?.name.as_str())).collect();
    check_mixed(&model, codes, &names)?;
    Ok(model)
}

/// Whether each layer's result is held in bytes, with these convolutions in float.
fn quantized(network: &Folded, float: &BTreeSet<LayerId>) -> Vec<bool> {
    let maps = export::maps(network);
    let stays = |id: LayerId| {
        let mut readers = (0..network.layers.len()).filter(|&r| network.layers[r].inputs.contains(&id));
        let computed = id == 0 || float.contains(&id);
        computed && readers.all(|r| float.contains(&r) || matches!(network.layers[r].op, LayerOp::GlobalPool))
    };
    (0..network.layers.len()).map(|id| maps.contains(&id) && !stays(id)).collect()
}

/// A number as a whole one of 24 bits times a power of two, exactly, down to 2⁻¹⁰³.
fn whole_and_power(value: f32) -> (i32, f32) {
    let exponent = (value.to_bits() >> 23 & 0xff) as i32 - 127;
    let power = f32::from_bits((((exponent - 23).max(-126) + 127) as u32) << 23);
    ((value / power).round_ties_even() as i32, power)
}

/// The bias in whole steps; one too large for an i32 stays as it is.
fn whole(bias: f32, step: f32) -> f32 {
    let steps = (bias / step).round_ties_even();
    if steps.abs() < i32::MAX as f32 { steps * step } else { bias }
}

/// A convolution with [`whole`] biases.
fn with_whole_bias(layer: &Layer, input_scale: f32, weight_scales: &[f32]) -> Layer {
    let mut layer = layer.clone();
    if let LayerOp::Conv { bias, .. } = &mut layer.op {
        bias.iter_mut().zip(weight_scales).for_each(|(bias, &scale)| *bias = whole(*bias, input_scale * scale));
    }
    layer
}

fn broken(node: &str, reason: &str) -> Error {
    Error::Rule { node: node.into(), reason: reason.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bias_of_whole_numbers_and_powers_is_the_same_bias() {
        let mut value = 1.0f32;
        for step in 0..20_000 {
            // From 1e30 down to 1e-30, of both signs, and 0.
            value = (value * -1.618_034) % 1e6;
            let value = if step % 7 == 0 { 0.0 } else { value * 10f32.powi(step % 60 - 30) };
            let (whole, power) = whole_and_power(value);
            assert_eq!(whole as f32 * power, value, "{whole} {power}");
            assert!(power.is_normal() && whole.unsigned_abs() < 1 << 24);
        }
    }
}
