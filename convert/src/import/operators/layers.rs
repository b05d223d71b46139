//! What computes with stored numbers: convolutions, linear layers, norms, limits, arithmetic, codes.

use super::super::build::ONE;
use super::super::constant::{Constant, Data};
use super::super::view::{Axis, Of, Outcome, Value, View};
use super::Walk;
use crate::fold::LayerOp;
use excon_edge::engine::onnx::Attributes;
use excon_edge::kernel::Clip;
use excon_edge::kernel::graph::Window;
use tract_onnx::pb::NodeProto;

impl Walk<'_> {
    pub(super) fn conv(&mut self, node: &NodeProto, name: &str) -> Outcome<View> {
        let (view, weight, bias) = (self.view(node, 0)?, self.needed(node, 1)?, self.constant(node, 2)?);
        view.demand_map()?;
        let attributes = Attributes(&node.attribute);
        let [outputs, inputs, rows, columns] = weight.dims[..] else {
            return Err("its weights have not four dimensions; only two-dimensional convolutions are converted".into());
        };
        let groups = usize::try_from(attributes.int("group", 1)).unwrap_or(0);
        let channels = view.shape[0];
        if groups == 0 || inputs.checked_mul(groups) != Some(channels) || outputs % groups != 0 {
            return Err(format!("its weights {:?} in {groups} groups do not fit {channels} channels", weight.dims));
        }
        if attributes.sizes("kernel_shape")?.is_some_and(|k: [usize; 2]| k != [rows, columns]) {
            return Err("its kernel is not as large as its weights".into());
        }
        let values = weight.weights(&weight.dims)?.to_vec();
        let bias = match bias {
            Some(bias) => bias.weights(&[outputs])?.to_vec(),
            None => vec![0.0; outputs],
        };
        let (from, window) = self.window(&view, &attributes, [rows, columns], name)?;
        // The classifier of a network without linear layers.
        if groups == 1 && window == ONE && matches!(view.of, Of::Mean(_)) {
            let row = self.build.linear(name, &View { dims: vec![1, channels], ..view.clone() }, values, bias)?;
            return row.reshaped(vec![1, outputs, 1, 1]);
        }
        let id = self.build.conv(name, from, (values, bias), window, groups)?;
        Ok(View::map(Of::Layer(id), self.build.layers[id].shape))
    }

    /// The layer that a window slides over, with padding before it taken into the window.
    pub(super) fn window(
        &mut self,
        view: &View,
        a: &Attributes<'_>,
        kernel: [usize; 2],
        name: &str,
    ) -> Outcome<(usize, Window)> {
        let mut window = Window { kernel, ..ONE };
        window.stride = a.sizes("strides")?.unwrap_or([1, 1]);
        window.dilation = a.sizes("dilations")?.unwrap_or([1, 1]);
        if [window.kernel, window.stride, window.dilation].iter().any(|p| p.contains(&0)) {
            return Err("a kernel, stride or dilation is 0".into());
        }
        match a.text("auto_pad") {
            b"" | b"NOTSET" => {
                let [top, left, bottom, right] = a.sizes("pads")?.unwrap_or([0; 4]);
                (window.before, window.after) = ([top, left], [bottom, right]);
            }
            b"VALID" => {}
            b"SAME_UPPER" | b"SAME_LOWER" => {
                for i in 0..2 {
                    let (side, stride) = (view.shape[1 + i], window.stride[i]);
                    let reach = window.dilation[i] * (kernel[i] - 1) + 1;
                    let all = (side.div_ceil(stride).saturating_sub(1) * stride + reach).saturating_sub(side);
                    let small = all / 2;
                    let upper = a.text("auto_pad") == b"SAME_UPPER";
                    (window.before[i], window.after[i]) =
                        if upper { (small, all - small) } else { (all - small, small) };
                }
            }
            _ => return Err("its automatic padding is not known".into()),
        }
        if let Of::Padded(from, before, after) = view.of {
            for i in 0..2 {
                window.before[i] += before[i];
                window.after[i] += after[i];
            }
            return Ok((from, window));
        }
        Ok((self.build.layer(name, view)?, window))
    }

    pub(super) fn gemm(&mut self, node: &NodeProto, name: &str) -> Outcome<View> {
        let (view, weight, bias) = (self.view(node, 0)?, self.needed(node, 1)?, self.constant(node, 2)?);
        let a = Attributes(&node.attribute);
        if a.int("transA", 0) != 0 {
            return Err("its input is transposed".into());
        }
        let weight = if a.int("transB", 0) == 0 { weight.transposed(&[1, 0])? } else { weight };
        let outputs = weight.dims.first().copied().unwrap_or(0);
        let (alpha, beta) = (a.float("alpha", 1.0), a.float("beta", 1.0));
        let bias = match &bias {
            None => vec![0.0; outputs],
            Some(bias) => match bias.floats()? {
                [one] => vec![one * beta; outputs],
                all if all.len() == outputs => all.iter().map(|b| b * beta).collect(),
                _ => return Err("its bias is not one number for each output".into()),
            },
        };
        let inputs = view.dims.last().copied().unwrap_or(0);
        let weight = weight.weights(&[outputs, inputs])?.iter().map(|w| w * alpha).collect();
        self.build.linear(name, &view, weight, bias)
    }

    pub(super) fn matmul(&mut self, node: &NodeProto, name: &str) -> Outcome<View> {
        let (view, weight) = (self.view(node, 0)?, self.needed(node, 1)?.transposed(&[1, 0])?);
        let (outputs, inputs) = (weight.dims[0], view.dims.last().copied().unwrap_or(0));
        let weight = weight.weights(&[outputs, inputs])?.to_vec();
        self.build.linear(name, &view, weight, vec![0.0; outputs])
    }

    pub(super) fn norm(&mut self, node: &NodeProto, name: &str) -> Outcome<View> {
        let view = self.view(node, 0)?;
        let a = Attributes(&node.attribute);
        if a.int("training_mode", 0) != 0 {
            return Err("it is in training mode; export the network for inference".into());
        }
        let channels = view.shape[0];
        let by_channel = view.groups()?.get(1).is_some_and(|g| g[..] == [Axis::Channel] || channels == 1);
        if !by_channel {
            return Err("its channels are not the second dimension".into());
        }
        let mut parts = vec![];
        for at in 1..5 {
            parts.push(self.needed(node, at)?.weights(&[channels])?.to_vec());
        }
        let epsilon = f64::from(a.float("epsilon", 1e-5));
        let wide = |part: usize, c: usize| f64::from(parts[part][c]);
        let scale: Vec<f64> = (0..channels).map(|c| wide(0, c) / (wide(3, c) + epsilon).sqrt()).collect();
        let shift: Vec<f64> = (0..channels).map(|c| wide(1, c) - wide(2, c) * scale[c]).collect();
        self.build.affine(name, &view, &scale, &shift)
    }

    pub(super) fn clip(&mut self, node: &NodeProto, name: &str) -> Outcome<View> {
        let view = self.view(node, 0)?;
        let a = Attributes(&node.attribute);
        let limit = |attribute: &str, at: usize, otherwise: f32| match self.constant(node, at)? {
            Some(constant) => match constant.floats()? {
                [one] => Ok(*one),
                _ => Err("a limit is not one number".to_string()),
            },
            None => Ok(a.float(attribute, otherwise)),
        };
        let clip = Clip { low: limit("min", 1, f32::NEG_INFINITY)?, high: limit("max", 2, f32::INFINITY)? };
        self.build.clip(name, &view, clip)
    }

    pub(super) fn arithmetic(&mut self, node: &NodeProto, name: &str) -> Outcome<Value> {
        let operator = node.op_type.as_str();
        let (view, constant, constant_first) = match (self.input(node, 0)?, self.input(node, 1)?) {
            (Value::Constant(a), Value::Constant(b)) => {
                return Constant::arithmetic(operator, a, b).map(Value::Constant);
            }
            (Value::View(a), Value::View(b)) => {
                let views = [a.clone(), b.clone()];
                return self.sum(operator, views, name).map(Value::View);
            }
            (Value::View(view), Value::Constant(c)) => (view.clone(), c.clone(), false),
            (Value::Constant(c), Value::View(view)) => (view.clone(), c.clone(), true),
        };
        let values = view.per_channel(&constant)?;
        let n = values.len();
        let (scale, shift) = match (operator, constant_first) {
            ("Add", _) => (vec![1.0; n], values),
            ("Sub", false) => (vec![1.0; n], values.iter().map(|v| -v).collect()),
            ("Sub", true) => (vec![-1.0; n], values),
            ("Mul", _) => (values, vec![0.0; n]),
            ("Div", false) => (values.iter().map(|v| 1.0 / v).collect(), vec![0.0; n]),
            _ => return Err("it divides by what is computed from the picture".into()),
        };
        self.build.affine(name, &view, &scale, &shift).map(Value::View)
    }

    fn sum(&mut self, operator: &str, [a, b]: [View; 2], name: &str) -> Outcome<View> {
        if operator != "Add" {
            return Err("two maps can only be added; gates, attention and scaled maps are not converted".into());
        }
        if (a.shape, &a.dims, &a.order) != (b.shape, &b.dims, &b.order) {
            return Err(format!("it adds maps of {:?} and {:?}, or of different layout", a.dims, b.dims));
        }
        let inputs =
            vec![self.build.layer(&format!("{name}.left"), &a)?, self.build.layer(&format!("{name}.right"), &b)?];
        let id = self.build.push(name, LayerOp::Add, inputs, a.shape)?;
        Ok(View { of: Of::Layer(id), shared: false, ..a })
    }

    /// Codes of a map. Their scale is found anew; but where the lowest code stands for 0, they are an activation too.
    pub(super) fn quantize(&mut self, node: &NodeProto, name: &str) -> Outcome<View> {
        let view = self.view(node, 0)?;
        let scale = self.needed(node, 1)?.number()?;
        let (lowest, highest) = match node.input.get(2).and_then(|n| self.values.get(n.as_str())) {
            Some(Value::Constant(Constant { data: Data::Float(zero), .. })) if zero.len() == 1 => {
                // The reader has let through no other codes than bytes; signed ones are centred on 0.
                let signed = self.signed.get(node.input[2].as_str()).copied().unwrap_or(false);
                let low = if signed { -128.0 } else { 0.0 };
                (low - f64::from(zero[0]), low + 255.0 - f64::from(zero[0]))
            }
            None => (0.0, 255.0),
            _ => return Err("its codes are no bytes with one zero point".into()),
        };
        if scale <= 0.0 {
            return Err("its scale is not positive".into());
        }
        self.quantized = true;
        if lowest == 0.0 && self.build.range(&view).low < 0.0 {
            return self.build.clip(name, &view, Clip { low: 0.0, high: (highest * scale) as f32 });
        }
        Ok(view)
    }
}
