//! What takes several cells of a map together, and padding.

use super::super::build::ONE;
use super::super::view::{AXES, Axis, Of, Outcome, View};
use super::{Walk, axis};
use crate::fold::{LayerOp, slide};
use excon_edge::engine::onnx::Attributes;
use excon_edge::kernel::graph::Window;
use tract_onnx::pb::NodeProto;

impl Walk<'_> {
    pub(super) fn pool(&mut self, node: &NodeProto, name: &str) -> Outcome<View> {
        let view = self.view(node, 0)?;
        view.demand_map()?;
        let a = Attributes(&node.attribute);
        let kernel = a.sizes("kernel_shape")?.ok_or("its kernel is missing")?;
        let (from, mut window) = self.window(&view, &a, kernel, name)?;
        let [channels, rows, columns] = self.build.layers[from].shape;
        let average = node.op_type == "AveragePool";
        if window.dilation != [1, 1] || a.int("storage_order", 0) != 0 {
            return Err("a dilated pool is not converted".into());
        }
        if let Of::Padded(..) = view.of
            && !average
            && self.build.range(&View { of: Of::Layer(from), ..view.clone() }).low < 0.0
        {
            return Err("zeros around a map that has negative values change its maxima".into());
        }
        if a.int("ceil_mode", 0) != 0 {
            for (i, side) in [rows, columns].into_iter().enumerate() {
                let padded = side + window.before[i] + window.after[i];
                let beyond = padded.checked_sub(window.kernel[i]).ok_or("its window does not fit its input")?;
                let missing = (window.stride[i] - beyond % window.stride[i]) % window.stride[i];
                // A window that would start in the padding is left out, as the standard says.
                let starts_inside = beyond + missing < side + window.before[i];
                if missing > 0 && starts_inside && average {
                    return Err("an average pool that rounds up is not converted".into());
                }
                window.after[i] += if starts_inside { missing } else { 0 };
            }
        }
        if average && (window.kernel, window.before, window.after) == ([rows, columns], [0; 2], [0; 2]) {
            return Ok(View { of: Of::Mean(from), ..View::map(Of::Mean(from), [channels, 1, 1]) });
        }
        let padded = window.before != [0; 2] || window.after != [0; 2];
        if average {
            let counted = a.int("count_include_pad", 0) != 0;
            if padded && (!counted || matches!(view.of, Of::Padded(..))) {
                return Err("an average pool that leaves its padding out of the count is not converted".into());
            }
            let share = 1.0 / (window.kernel[0] * window.kernel[1]) as f64;
            let id = self.build.depthwise(name, from, window, &vec![share; channels], &vec![0.0; channels])?;
            return Ok(View::map(Of::Layer(id), self.build.layers[id].shape));
        }
        if (0..2).any(|i| window.before[i] >= window.kernel[i] || window.after[i] >= window.kernel[i]) {
            return Err("its padding is not smaller than its window".into());
        }
        self.max_pool(name, from, window)
    }

    fn max_pool(&mut self, name: &str, from: usize, window: Window) -> Outcome<View> {
        let before = self.build.layers[from].shape;
        let shape = slide(before, before[0], &window).ok_or("its window does not fit its input")?;
        let id = self.build.push(name, LayerOp::MaxPool { window }, vec![from], shape)?;
        Ok(View::map(Of::Layer(id), shape))
    }

    pub(super) fn global_pool(&mut self, node: &NodeProto, name: &str) -> Outcome<View> {
        let view = self.view(node, 0)?;
        view.demand_map()?;
        let from = self.build.layer(name, &view)?;
        let [channels, rows, columns] = view.shape;
        if node.op_type == "GlobalAveragePool" {
            return Ok(View::map(Of::Mean(from), [channels, 1, 1]));
        }
        self.max_pool(name, from, Window { kernel: [rows, columns], ..ONE })
    }

    pub(super) fn mean(&mut self, node: &NodeProto) -> Outcome<View> {
        let view = self.view(node, 0)?;
        let rank = view.dims.len();
        let axes = self.numbers(node, "axes", 1)?.ok_or("it averages over everything, channels too")?;
        let mut over = axes.iter().map(|&a| axis(a, rank)).collect::<Outcome<Vec<usize>>>()?;
        over.sort_unstable();
        over.dedup();
        let groups = view.groups()?;
        let mut averaged: Vec<Axis> = over.iter().flat_map(|&i| groups[i].clone()).collect();
        averaged.sort_unstable();
        let spatial: Vec<Axis> =
            AXES.into_iter().filter(|a| *a != Axis::Channel && view.shape[*a as usize] > 1).collect();
        let keep = Attributes(&node.attribute).int("keepdims", 1) != 0;
        let kept = |(i, &d): (usize, &usize)| if !over.contains(&i) { Some(d) } else { keep.then_some(1) };
        let dims: Vec<usize> = view.dims.iter().enumerate().filter_map(kept).collect();
        if averaged.is_empty() {
            return view.reshaped(dims);
        }
        if averaged != spatial {
            return Err("only the mean over rows and columns is converted".into());
        }
        let from = self.build.layer(&node.name, &view)?;
        View::map(Of::Mean(from), [view.shape[0], 1, 1]).reshaped(dims)
    }

    pub(super) fn pad(&mut self, node: &NodeProto) -> Outcome<View> {
        let view = self.view(node, 0)?;
        let a = Attributes(&node.attribute);
        if !matches!(a.text("mode"), b"" | b"constant") {
            return Err("only padding by zeros is converted".into());
        }
        let fill = match self.constant(node, 2)? {
            Some(constant) => constant.number()?,
            None => f64::from(a.float("value", 0.0)),
        };
        let pads = self.numbers(node, "pads", 1)?.ok_or("its pads are missing")?;
        if self.constant(node, 3)?.is_some() {
            return Err("padding of chosen axes is not converted".into());
        }
        let rank = view.dims.len();
        if fill != 0.0 || pads.len() != 2 * rank || pads.iter().any(|p| !(0..=64).contains(p)) {
            return Err("only padding by up to 64 zeros is converted".into());
        }
        let (mut before, mut after) = ([0; 2], [0; 2]);
        let groups = view.groups()?;
        for i in 0..rank {
            let pair = (pads[i] as usize, pads[i + rank] as usize);
            match groups[i][..] {
                _ if pair == (0, 0) => {}
                [Axis::Row] => (before[0], after[0]) = pair,
                [Axis::Column] => (before[1], after[1]) = pair,
                _ => return Err("only rows and columns are padded".into()),
            }
        }
        if before == [0; 2] && after == [0; 2] {
            return Ok(view);
        }
        let id = self.build.layer(&node.name, &view)?;
        let [channels, rows, columns] = view.shape;
        let shape = [channels, rows + before[0] + after[0], columns + before[1] + after[1]];
        let sizes = |g: &Vec<Axis>| g.iter().map(|&a| shape[a as usize]).product();
        Ok(View { of: Of::Padded(id, before, after), shape, dims: groups.iter().map(sizes).collect(), ..view })
    }
}
