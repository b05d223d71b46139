//! What the numbers of a quantized graph must hold for the kernels to run it without looking again.

use super::{Codes, Conv, Int8, Map, Step};
use crate::kernel::graph::Format;

/// Largest result of a step before it is clipped to codes: whole numbers of 32 bits hold the sum of two.
const LARGEST_CODE: f64 = (1 << 29) as f64;
/// Most products in one sum: 32,768 · 255 · 128 stays below 2³⁰.
const MAX_TAPS: usize = 1 << 15;

impl Format for Int8 {
    type Codes = Codes;
    type Weight = i8;
    type Scales = Vec<f32>;

    fn check_codes(codes: &Codes) -> Result<(), String> {
        let (low, high) = codes.range();
        if !(codes.scale.is_normal() && codes.scale > 0.0) || low > 0.0 || high < 0.0 {
            return Err("a scale is not positive or a zero point is no code".into());
        }
        Ok(())
    }

    fn check_numbers(step: &Step, maps: &[Map]) -> Result<(), String> {
        let output = &maps[step.output()].codes;
        match step {
            Step::Conv(conv) => check_conv(conv, maps),
            Step::Add { inputs, .. } => inputs.iter().try_for_each(|&i| factor(maps[i].codes.scale, output.scale)),
            Step::MaxPool { input, .. } => factor(maps[*input].codes.scale, output.scale),
        }
    }
}

fn factor(from: f32, to: f32) -> Result<(), String> {
    let f = f64::from(from) / f64::from(to);
    if (1e-12..1e6).contains(&f) { Ok(()) } else { Err(format!("scales {from} and {to} are too far apart")) }
}

fn check_conv(c: &Conv, maps: &[Map]) -> Result<(), String> {
    let (input, output) = (&maps[c.input].codes, &maps[c.output].codes);
    let taps = c.weight.len() / c.bias.len();
    if c.weight_scale.len() != c.bias.len() || taps > MAX_TAPS {
        return Err("a convolution's weights do not fit".into());
    }
    let first = c.residual.and_then(|r| r.between).map_or(*output, |(codes, _)| codes);
    let filters = c.weight.chunks_exact(taps);
    for ((scale, bias), filter) in c.weight_scale.iter().zip(&c.bias).zip(filters) {
        factor(input.scale * scale, first.scale)?;
        let sum: i64 = filter.iter().map(|w| 255 * i64::from(w.unsigned_abs())).sum();
        let product = f64::from(input.scale) * f64::from(*scale) * sum as f64;
        let largest = (product + f64::from(bias.abs())) / f64::from(first.scale);
        if largest.is_nan() || largest >= LARGEST_CODE {
            return Err("a convolution's results lie far beyond their codes".into());
        }
    }
    if let Some(r) = c.residual {
        factor(maps[r.map].codes.scale, output.scale)?;
        factor(first.scale, output.scale)?;
    }
    Ok(())
}
