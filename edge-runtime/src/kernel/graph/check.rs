//! What a graph must hold for the kernels to run it without looking again: every index, shape and number.

use super::{Format, Graph, Map, MapId, Step};
use crate::kernel::Clip;

/// Most values of one map.
const MAX_MAP: usize = 1 << 26;
/// Most values of all maps together that an arena is made for.
pub(in crate::kernel) const MAX_ARENA: usize = 1 << 28;

impl<F: Format> Graph<F> {
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
            F::check_codes(&map.codes)?;
        }
        let mut written = vec![false; self.maps.len()];
        if !(1..=self.maps.len()).contains(&self.given) {
            return Err("there is no map".into());
        }
        written[..self.given].fill(true);
        for step in &self.steps {
            if step.inputs().iter().any(|&i| !written.get(i).copied().unwrap_or(false)) {
                return Err("a step reads what no step has written".into());
            }
            match written.get_mut(step.output()) {
                Some(seen) if !*seen => *seen = true,
                _ => return Err("a map is written twice".into()),
            }
            check_shapes(step, &self.maps)?;
            F::check_numbers(step, &self.maps)?;
        }
        if self.handed.iter().any(|&m| !written.get(m).copied().unwrap_or(false)) {
            return Err("a map is handed on that no step has written".into());
        }
        let last = self.maps.get(self.features).filter(|_| written[self.features]);
        match last {
            Some(m) if self.head.weight.len() == self.head.bias.len() * m.channels => Ok(()),
            _ => Err("the classifier does not fit the last map".into()),
        }
    }
}

fn check_shapes<F: Format>(step: &Step<F>, maps: &[Map<F>]) -> Result<(), String> {
    let output = &maps[step.output()];
    let same = |id: MapId| {
        let m = &maps[id];
        (m.channels, m.height, m.width) == (output.channels, output.height, output.width)
    };
    let ordered = |clip: Clip| match clip.low <= clip.high {
        true => Ok(()),
        false => Err(String::from("the limits of an activation are in the wrong order")),
    };
    match step {
        Step::Conv(c) => {
            ordered(c.clip)?;
            let input = &maps[c.input];
            let shape = c.window.output(input.height, input.width);
            let taps = c.window.kernel.iter().product::<usize>() * (input.channels / c.groups.max(1));
            let whole = |m: &Map<F>| m.channels.is_multiple_of(c.groups);
            let groups = c.groups > 0 && whole(input) && whole(output);
            if shape != Some([output.height, output.width]) || !groups || c.bias.len() != output.channels {
                return Err("a convolution's shapes disagree".into());
            }
            if taps == 0 || c.weight.len() != taps * output.channels {
                return Err("a convolution's weights do not fit".into());
            }
            if let Some(r) = c.residual {
                r.between.map_or(Ok(()), |(_, clip)| ordered(clip))?;
                if !same(r.map) {
                    return Err("the summands of a residual block differ in shape".into());
                }
            }
        }
        Step::Add { inputs, clip, .. } => {
            ordered(*clip)?;
            if !inputs.iter().all(|&i| same(i)) {
                return Err("the summands of a sum differ in shape".into());
            }
        }
        Step::MaxPool { input, window, .. } => {
            let map = &maps[*input];
            let shape = window.output(map.height, map.width);
            // Every window must hold at least one pixel of the map.
            let covered = (0..2).all(|i| window.before[i] < window.kernel[i] && window.after[i] < window.kernel[i]);
            let plain = window.dilation == [1, 1] && map.channels == output.channels;
            if shape != Some([output.height, output.width]) || !covered || !plain {
                return Err("a max pool's shapes disagree".into());
            }
        }
    }
    Ok(())
}
