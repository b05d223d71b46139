//! The allow-list: every operator that an imported network may hold, and what it becomes.

use super::attributes::{Attributes, axis};
use super::build::{Build, ONE};
use super::constant::{Constant, Data};
use super::view::{AXES, Axis, Of, Outcome, Value, View};
use crate::fold::{LayerOp, slide};
use excon_edge::kernel::Clip;
use excon_edge::kernel::int8::Window;
use std::collections::HashMap;
use tract_onnx::pb::{NodeProto, TensorProto, tensor_proto::DataType};

/// One pass over the nodes of a graph.
pub(super) struct Walk<'a> {
    values: HashMap<&'a str, Value>,
    uses: HashMap<&'a str, usize>,
    build: Build,
    /// Of stored bytes, whether they are signed.
    signed: HashMap<&'a str, bool>,
    softmax: bool,
    quantized: bool,
}

impl<'a> Walk<'a> {
    pub fn new(build: Build, uses: HashMap<&'a str, usize>) -> Self {
        Self { values: HashMap::new(), uses, build, signed: HashMap::new(), softmax: false, quantized: false }
    }

    pub fn stored(&mut self, tensor: &'a TensorProto) {
        self.signed.insert(&tensor.name, tensor.data_type == DataType::Int8 as i32);
        self.set(&tensor.name, Value::Constant(Constant::stored(tensor)));
    }

    pub fn set(&mut self, name: &'a str, mut value: Value) {
        if let Value::View(view) = &mut value {
            view.shared |= self.uses.get(name).is_some_and(|&n| n > 1);
        }
        self.values.insert(name, value);
    }

    /// The value of an output, what was built, and what a reader should know.
    pub fn finish(mut self, output: &str) -> (Option<View>, Build, Vec<String>) {
        let view = match self.values.remove(output) {
            Some(Value::View(view)) => Some(view),
            _ => None,
        };
        let mut notes = vec![];
        if self.softmax {
            notes.push("the softmax at its end is left out: logits are what it reads".to_string());
        }
        if self.quantized {
            notes.push(
                "the file was quantized: weights are taken as its codes stand for, ranges of maps are found anew on the \
                 training pictures"
                    .into(),
            );
        }
        (view, self.build, notes)
    }

    pub fn node(&mut self, node: &'a NodeProto) -> Outcome<()> {
        let [output, rest @ ..] = &node.output[..] else { return Err("it has no output".into()) };
        if let Some(read) = rest.iter().find(|o| self.uses.contains_key(o.as_str())) {
            return Err(format!("its second output `{read}` is read; only the first is converted"));
        }
        let closed = |at: usize| matches!(self.input(node, at), Ok(Value::View(View { closed: true, .. })));
        if (0..node.input.len()).any(closed) && !is_following(&node.op_type) && node.op_type != "Shape" {
            return Err("it computes something behind the final softmax".into());
        }
        // Constants are written anew by what computes with them: the largest operand bounds the result.
        let operand = |at: usize| match self.input(node, at) {
            Ok(Value::Constant(constant)) => constant.len(),
            _ => 0,
        };
        let largest = (0..node.input.len()).map(operand).max().unwrap_or(0);
        if !matches!(node.op_type.as_str(), "Identity" | "Reshape" | "Flatten" | "Squeeze" | "Unsqueeze") {
            self.build.spend(largest)?;
        }
        let value = self.value(node)?;
        if let Some(tensor) = Attributes(&node.attribute).get("value").and_then(|a| a.t.as_ref()) {
            self.signed.insert(output, tensor.data_type == DataType::Int8 as i32);
        }
        self.set(output, value);
        Ok(())
    }

    fn input(&self, node: &NodeProto, at: usize) -> Outcome<&Value> {
        self.optional(node, at)?.ok_or_else(|| format!("its input {at} is missing"))
    }

    fn optional(&self, node: &NodeProto, at: usize) -> Outcome<Option<&Value>> {
        match node.input.get(at).filter(|n| !n.is_empty()) {
            None => Ok(None),
            Some(name) => {
                self.values.get(name.as_str()).map(Some).ok_or_else(|| format!("`{name}` is not computed before"))
            }
        }
    }

    fn view(&self, node: &NodeProto, at: usize) -> Outcome<View> {
        match self.input(node, at)? {
            Value::View(view) => Ok(view.clone()),
            Value::Constant(_) => Err(format!("its input {at} is a constant where a map is needed")),
        }
    }

    fn constant(&self, node: &NodeProto, at: usize) -> Outcome<Option<Constant>> {
        match self.optional(node, at)? {
            None => Ok(None),
            Some(Value::Constant(constant)) => Ok(Some(constant.clone())),
            Some(Value::View(_)) => {
                Err(format!("its input {at} is computed from the picture where a constant is needed"))
            }
        }
    }

    fn needed(&self, node: &NodeProto, at: usize) -> Outcome<Constant> {
        self.constant(node, at)?.ok_or_else(|| format!("its input {at} is missing"))
    }

    /// Whole numbers: an attribute in older operator sets, an input in newer ones.
    fn numbers(&self, node: &NodeProto, name: &str, at: usize) -> Outcome<Option<Vec<i64>>> {
        if let Some(ints) = Attributes(&node.attribute).ints(name) {
            return Ok(Some(ints.to_vec()));
        }
        self.constant(node, at)?.map(|c| c.ints().map(<[i64]>::to_vec)).transpose()
    }

    fn value(&mut self, node: &NodeProto) -> Outcome<Value> {
        let attributes = Attributes(&node.attribute);
        let name = if node.name.is_empty() { node.output[0].as_str() } else { node.name.as_str() };
        let made = |view: Outcome<View>| view.map(Value::View);
        match node.op_type.as_str() {
            "Conv" => made(self.conv(node, name)),
            "Gemm" => made(self.gemm(node, name)),
            "MatMul" => made(self.matmul(node, name)),
            "BatchNormalization" => made(self.norm(node, name)),
            "Relu" => {
                let view = self.view(node, 0)?;
                made(self.build.clip(name, &view, Clip::RELU))
            }
            "Clip" => made(self.clip(node, name)),
            "Add" | "Sub" | "Mul" | "Div" => self.arithmetic(node, name),
            "MaxPool" | "AveragePool" => made(self.pool(node, name)),
            "GlobalAveragePool" | "GlobalMaxPool" => made(self.global_pool(node, name)),
            "ReduceMean" => made(self.mean(node)),
            "Pad" => made(self.pad(node)),
            "QuantizeLinear" => made(self.quantize(node, name)),
            "DequantizeLinear" => match self.input(node, 0)? {
                Value::View(view) => Ok(Value::View(view.clone())),
                Value::Constant(codes) => {
                    let (scale, zero) = (self.needed(node, 1)?, self.constant(node, 2)?);
                    let value = codes.dequantized(&scale, zero.as_ref(), &attributes)?;
                    self.quantized = true;
                    Ok(Value::Constant(value))
                }
            },
            "Softmax" | "LogSoftmax" => {
                let mut view = self.view(node, 0)?;
                let rank = view.dims.len();
                let over = attributes.axis("axis", -1, rank)?;
                let classes = view.groups()?.get(over).is_some_and(|g| g[..] == [Axis::Channel]);
                if !classes || view.shape[1] * view.shape[2] != 1 {
                    return Err("only a softmax over the class scores, at the end, is converted".into());
                }
                (self.softmax, view.closed) = (true, true);
                Ok(Value::View(view))
            }
            "Identity" | "Dropout" => Ok(self.input(node, 0)?.clone()),
            "Cast" => self.cast(node),
            "Flatten" | "Reshape" | "Squeeze" | "Unsqueeze" | "Transpose" => self.follow(node),
            "Shape" | "Gather" | "Slice" | "Concat" | "Constant" | "ConstantOfShape" => {
                self.computed(node).map(Value::Constant)
            }
            _ => Err("it is not on the list of operators that are converted".into()),
        }
    }

    fn conv(&mut self, node: &NodeProto, name: &str) -> Outcome<View> {
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
    fn window(&mut self, view: &View, a: &Attributes<'_>, kernel: [usize; 2], name: &str) -> Outcome<(usize, Window)> {
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

    fn gemm(&mut self, node: &NodeProto, name: &str) -> Outcome<View> {
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

    fn matmul(&mut self, node: &NodeProto, name: &str) -> Outcome<View> {
        let (view, weight) = (self.view(node, 0)?, self.needed(node, 1)?.transposed(&[1, 0])?);
        let (outputs, inputs) = (weight.dims[0], view.dims.last().copied().unwrap_or(0));
        let weight = weight.weights(&[outputs, inputs])?.to_vec();
        self.build.linear(name, &view, weight, vec![0.0; outputs])
    }

    fn norm(&mut self, node: &NodeProto, name: &str) -> Outcome<View> {
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

    fn clip(&mut self, node: &NodeProto, name: &str) -> Outcome<View> {
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

    fn arithmetic(&mut self, node: &NodeProto, name: &str) -> Outcome<Value> {
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

    fn pool(&mut self, node: &NodeProto, name: &str) -> Outcome<View> {
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

    fn global_pool(&mut self, node: &NodeProto, name: &str) -> Outcome<View> {
        let view = self.view(node, 0)?;
        view.demand_map()?;
        let from = self.build.layer(name, &view)?;
        let [channels, rows, columns] = view.shape;
        if node.op_type == "GlobalAveragePool" {
            return Ok(View::map(Of::Mean(from), [channels, 1, 1]));
        }
        self.max_pool(name, from, Window { kernel: [rows, columns], ..ONE })
    }

    fn mean(&mut self, node: &NodeProto) -> Outcome<View> {
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

    fn pad(&mut self, node: &NodeProto) -> Outcome<View> {
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

    /// Codes of a map. Their scale is found anew; but where the lowest code stands for 0, they are an activation too.
    fn quantize(&mut self, node: &NodeProto, name: &str) -> Outcome<View> {
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

    fn cast(&self, node: &NodeProto) -> Outcome<Value> {
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
    fn follow(&self, node: &NodeProto) -> Outcome<Value> {
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
    fn computed(&self, node: &NodeProto) -> Outcome<Constant> {
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

/// Whether an operator leaves the numbers themselves as they are.
fn is_following(operator: &str) -> bool {
    ["Identity", "Dropout", "Cast", "Flatten", "Reshape", "Squeeze", "Unsqueeze", "Transpose"].contains(&operator)
}
