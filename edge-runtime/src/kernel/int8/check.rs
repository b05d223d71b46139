//! What a graph must hold for the kernels to run it without looking again: every index, shape and number.

use super::{Graph, MAX_ARENA, Map, MapId, Step};
use crate::kernel::Clip;

/// Most values of one map.
const MAX_MAP: usize = 1 << 26;
/// Largest result of a step before it is clipped to codes: whole numbers of 32 bits hold the sum of two.
const LARGEST_CODE: f64 = (1 << 29) as f64;
/// Most products in one sum: 32,768 · 255 · 128 stays below 2³⁰.
const MAX_TAPS: usize = 1 << 15;

impl Graph {
    /// Checks every index, shape and number that the kernels rely on.
    ///
    /// # Errors
    /// A sentence fragment with what does not fit.
    pub fn check(&self) -> Result<(), String> {
        let mut total = 0usize;
        for map in &self.maps {
            let sizes = [map.channels, map.height, map.width];
            let values = sizes.iter().try_fold(1usize, |n, &d| n.checked_mul(d)).unwrap_or(usize::MAX);
            total = total.saturating_add(values);
            if sizes.contains(&0) || values > MAX_MAP || total > MAX_ARENA {
                return Err(format!("a map of {sizes:?} is empty or too large"));
            }
            let (low, high) = map.codes.range();
            if !(map.codes.scale.is_normal() && map.codes.scale > 0.0) || low > 0.0 || high < 0.0 {
                return Err("a scale is not positive or a zero point is no code".into());
            }
        }
        let mut written = vec![false; self.maps.len()];
        if self.maps.is_empty() {
            return Err("there is no map".into());
        }
        written[0] = true;
        for step in &self.steps {
            if step.inputs().iter().any(|&i| !written.get(i).copied().unwrap_or(false)) {
                return Err("a step reads what no step has written".into());
            }
            match written.get_mut(step.output()) {
                Some(seen) if !*seen => *seen = true,
                _ => return Err("a map is written twice".into()),
            }
            self.check_step(step)?;
        }
        let classes = self.head.bias.len();
        let last = self.maps.get(self.features).filter(|_| written[self.features]);
        match last {
            Some(m) if classes > 0 && self.head.weight.len() == classes * m.channels => Ok(()),
            _ => Err("the classifier does not fit the last map".into()),
        }
    }

    fn check_step(&self, step: &Step) -> Result<(), String> {
        let output = &self.maps[step.output()];
        let same = |id: MapId| {
            let m = &self.maps[id];
            (m.channels, m.height, m.width) == (output.channels, output.height, output.width)
        };
        let factor = |from: f32, to: f32| {
            let f = f64::from(from) / f64::from(to);
            if (1e-12..1e6).contains(&f) { Ok(()) } else { Err(format!("scales {from} and {to} are too far apart")) }
        };
        let ordered = |clip: Clip| match clip.low <= clip.high {
            true => Ok(()),
            false => Err(String::from("the limits of an activation are in the wrong order")),
        };
        match step {
            Step::Conv(c) => {
                ordered(c.clip)?;
                let input = &self.maps[c.input];
                let shape = c.window.output(input.height, input.width);
                let taps = c.window.kernel.iter().product::<usize>() * (input.channels / c.groups.max(1));
                let whole = |m: &Map| m.channels.is_multiple_of(c.groups);
                let groups = c.groups > 0 && whole(input) && whole(output);
                let counts = c.bias.len() == output.channels && c.weight_scale.len() == output.channels;
                if shape != Some([output.height, output.width]) || !groups || !counts {
                    return Err("a convolution's shapes disagree".into());
                }
                if taps == 0 || taps > MAX_TAPS || c.weight.len() != taps * output.channels {
                    return Err("a convolution's weights do not fit".into());
                }
                let first = c.residual.and_then(|r| r.between).map_or(output.codes, |(codes, _)| codes);
                let filters = c.weight.chunks_exact(taps);
                for ((scale, bias), filter) in c.weight_scale.iter().zip(&c.bias).zip(filters) {
                    factor(input.codes.scale * scale, first.scale)?;
                    let sum: i64 = filter.iter().map(|w| 255 * i64::from(w.unsigned_abs())).sum();
                    let product = f64::from(input.codes.scale) * f64::from(*scale) * sum as f64;
                    let largest = (product + f64::from(bias.abs())) / f64::from(first.scale);
                    if largest.is_nan() || largest >= LARGEST_CODE {
                        return Err("a convolution's results lie far beyond their codes".into());
                    }
                }
                if let Some(r) = c.residual {
                    r.between.map_or(Ok(()), |(_, clip)| ordered(clip))?;
                    if !same(r.map) {
                        return Err("the summands of a residual block differ in shape".into());
                    }
                    factor(self.maps[r.map].codes.scale, output.codes.scale)?;
                    factor(first.scale, output.codes.scale)?;
                }
            }
            Step::Add { inputs, clip, .. } => {
                ordered(*clip)?;
                if !inputs.iter().all(|&i| same(i)) {
                    return Err("the summands of a sum differ in shape".into());
                }
                inputs.iter().try_for_each(|&i| factor(self.maps[i].codes.scale, output.codes.scale))?;
            }
            Step::MaxPool { input, window, .. } => {
                let map = &self.maps[*input];
                let shape = window.output(map.height, map.width);
                // Every window must hold at least one pixel of the map.
                let covered = (0..2).all(|i| window.before[i] < window.kernel[i] && window.after[i] < window.kernel[i]);
                let plain = window.dilation == [1, 1] && map.channels == output.channels;
                if shape != Some([output.height, output.width]) || !covered || !plain {
                    return Err("a max pool's shapes disagree".into());
                }
                factor(map.codes.scale, output.codes.scale)?;
            }
        }
        Ok(())
    }
}
