//! From a checked ONNX graph with explicit quantize–dequantize pairs to a graph of fused int8 steps.
//!
//! Promises: what is lowered computes what the file says, up to values that lie on a rounding border; anything else (a
//! float map, another operator, a form the kernels do not have) is an error that names the node, and the caller runs the
//! file elsewhere. Nothing is skipped silently.

mod stored;

use super::Shapes;
use super::onnx::{Attributes, Checked};
use crate::kernel::Clip;
use crate::kernel::int8::{Codes, Conv, Graph, Head, Map, MapId, Residual, Step};
use std::collections::HashMap;
use stored::{Constant, dequantize, floats, ints, window};
use tract_onnx::pb::{NodeProto, TensorProto, tensor_proto::DataType};

type Lowered<T> = Result<T, String>;

/// What a name of the graph stands for.
#[derive(Clone)]
enum Value<'a> {
    /// A stored tensor.
    Stored(&'a TensorProto),
    /// Numbers computed from stored tensors.
    Constant(Constant),
    /// The picture.
    Picture,
    /// Codes of a map.
    Codes(MapId),
    /// A map, dequantized.
    Real(MapId),
    /// Computed and not quantized yet.
    Open(Open),
    /// The mean of a map, possibly reshaped to a row.
    Pooled(MapId),
    /// The classifier's result.
    Logits,
}

/// A step that waits for its output's codes.
#[derive(Clone)]
struct Open {
    step: Step,
    shape: [usize; 3],
}

/// Lowers a whole network.
///
/// # Errors
/// A sentence fragment with the first node that does not fit, and why.
pub(super) fn lower(checked: &Checked) -> Lowered<Graph> {
    let model = checked.model.graph.as_ref().ok_or("it holds no graph")?;
    let mut lowering = Lowering { values: HashMap::new(), maps: vec![], steps: vec![], head: None, checked };
    for tensor in &model.initializer {
        lowering.values.insert(&tensor.name, Value::Stored(tensor));
    }
    lowering.values.insert(&checked.input, Value::Picture);
    for node in &model.node {
        let value = lowering.node(node).map_err(|reason| format!("{} ({}): {reason}", node.name, node.op_type))?;
        let [output] = &node.output[..] else { return Err(format!("{}: not one output", node.name)) };
        lowering.values.insert(output, value);
    }
    let features = match lowering.values.get("features") {
        Some(Value::Real(map)) => *map,
        _ => return Err("`features` is no dequantized map".into()),
    };
    let (pooled, head) = match (lowering.values.get("logits"), lowering.head) {
        (Some(Value::Logits), Some(head)) => head,
        _ => return Err("`logits` is not a linear layer's result".into()),
    };
    if pooled != features {
        return Err("the pool reads another map than `features`".into());
    }
    let mut graph = Graph { maps: lowering.maps, steps: lowering.steps, features, head };
    graph.check()?;
    graph.fuse();
    graph.check()?;
    let Shapes { classes, features: shape, .. } = checked.shapes;
    let map = &graph.maps[graph.features];
    if [map.channels, map.height, map.width] != shape || graph.head.bias.len() != classes {
        return Err("the declared outputs are not what it computes".into());
    }
    Ok(graph)
}

struct Lowering<'a> {
    values: HashMap<&'a str, Value<'a>>,
    maps: Vec<Map>,
    steps: Vec<Step>,
    head: Option<(MapId, Head)>,
    checked: &'a Checked,
}

impl<'a> Lowering<'a> {
    fn node(&mut self, node: &'a NodeProto) -> Lowered<Value<'a>> {
        let input = |i: usize| -> Lowered<&Value<'a>> {
            let name = node.input.get(i).filter(|n| !n.is_empty()).ok_or("an input is missing")?;
            self.values.get(name.as_str()).ok_or_else(|| format!("its input `{name}` is not computed before"))
        };
        match node.op_type.as_str() {
            "Identity" => Ok(input(0)?.clone()),
            "QuantizeLinear" => {
                let (source, codes) = (input(0)?.clone(), self.codes(node, None)?);
                self.quantize(source, codes)
            }
            "DequantizeLinear" => match input(0)? {
                Value::Codes(map) => {
                    let map = *map;
                    let written = self.maps[map].codes;
                    if self.codes(node, Some(written.signed))? != written {
                        return Err("it reads codes by another scale than they were written with".into());
                    }
                    Ok(Value::Real(map))
                }
                Value::Stored(tensor) => self.dequantize(node, tensor).map(Value::Constant),
                _ => Err("it reads neither a map nor a stored tensor".into()),
            },
            "Conv" => {
                let Value::Real(map) = input(0)? else { return Err("it reads a float map".into()) };
                self.conv(node, *map).map(Value::Open)
            }
            "Relu" => self.clip(input(0)?.clone(), Clip::RELU),
            "Clip" => {
                let limit = |i: usize, otherwise: f32| match node.input.get(i).filter(|n| !n.is_empty()) {
                    None => Ok(otherwise),
                    Some(name) => match self.constant(name)?.values[..] {
                        [value] if !value.is_nan() => Ok(value),
                        _ => Err(format!("its limit `{name}` is not one number")),
                    },
                };
                let clip = Clip { low: limit(1, f32::NEG_INFINITY)?, high: limit(2, f32::INFINITY)? };
                if clip.low > clip.high {
                    return Err("its limits are in the wrong order".into());
                }
                self.clip(input(0)?.clone(), clip)
            }
            "Add" => {
                let values = [input(0)?.clone(), input(1)?.clone()];
                self.add(values).map(Value::Open)
            }
            "MaxPool" => {
                let Value::Real(map) = *input(0)? else { return Err("it reads a float map".into()) };
                let attributes = Attributes(&node.attribute);
                if attributes.int("ceil_mode", 0) != 0 || attributes.int("storage_order", 0) != 0 {
                    return Err("rounding up and column order are not supported".into());
                }
                let kernel = attributes.sizes("kernel_shape")?.ok_or("its kernel is missing")?;
                let window = window(&attributes, kernel)?;
                let from = &self.maps[map];
                let [height, width] = window.output(from.height, from.width).ok_or("its window does not fit")?;
                let shape = [from.channels, height, width];
                Ok(Value::Open(Open { step: Step::MaxPool { input: map, output: 0, window }, shape }))
            }
            "GlobalAveragePool" => match input(0)? {
                Value::Real(map) => Ok(Value::Pooled(*map)),
                _ => Err("it reads a float map".into()),
            },
            "ReduceMean" => {
                let Value::Real(map) = *input(0)? else { return Err("it reads a float map".into()) };
                let axes = match Attributes(&node.attribute).ints("axes") {
                    Some(axes) => axes.to_vec(),
                    None => axes_of(input(1)?)?,
                };
                let spatial = matches!(axes[..], [2, 3] | [3, 2] | [-2, -1] | [-1, -2]);
                if spatial { Ok(Value::Pooled(map)) } else { Err("it is not the mean over rows and columns".into()) }
            }
            "Flatten" | "Reshape" | "Squeeze" => {
                let Value::Pooled(map) = *input(0)? else { return Err("only the pooled row is reshaped".into()) };
                let channels = self.maps[map].channels as i64;
                let attributes = Attributes(&node.attribute);
                let row = match node.op_type.as_str() {
                    "Flatten" => attributes.int("axis", 1) == 1,
                    "Reshape" => matches!(axes_of(input(1)?)?[..], [n, c] if n < 2 && (c == -1 || c == channels)),
                    _ if node.input.len() < 2 => true,
                    _ => matches!(axes_of(input(1)?)?[..], [2, 3] | [3, 2] | [-2, -1] | [-1, -2]),
                };
                if row { Ok(Value::Pooled(map)) } else { Err("it does not give one row of channels".into()) }
            }
            "Gemm" => {
                let Value::Pooled(map) = *input(0)? else { return Err("it reads something else than the pool".into()) };
                let head = self.classifier(node, self.maps[map].channels)?;
                self.head = Some((map, head));
                Ok(Value::Logits)
            }
            _ => Err("the int8 kernels have no such operator".into()),
        }
    }

    /// Scale and zero point of a pair's node. `signed` is known where the codes are; else the zero point's type says it.
    fn codes(&self, node: &NodeProto, signed: Option<bool>) -> Lowered<Codes> {
        let stored = |i: usize| match node.input.get(i).filter(|n| !n.is_empty()).map(|n| self.values.get(n.as_str())) {
            None => Ok(None),
            Some(Some(Value::Stored(tensor))) if floats(tensor).len() == 1 => Ok(Some(*tensor)),
            _ => Err("its scale and zero point are no stored numbers".to_string()),
        };
        if Attributes(&node.attribute).int("block_size", 0) != 0 {
            return Err("blocks of codes are not supported".into());
        }
        let scale = stored(1)?.ok_or("its scale is missing")?;
        let zero = stored(2)?;
        let kind = zero.map(|t| t.data_type == DataType::Int8 as i32);
        if zero.is_some_and(|t| ![DataType::Int8 as i32, DataType::Uint8 as i32].contains(&t.data_type)) {
            return Err("its codes are no bytes".into());
        }
        if let (Some(a), Some(b)) = (signed, kind)
            && a != b
        {
            return Err("its zero point is of another type than its codes".into());
        }
        let zero = zero.map_or(0.0, |t| floats(t)[0]) as i32;
        Ok(Codes { scale: floats(scale)[0], zero, signed: signed.or(kind).unwrap_or(false) })
    }

    /// Gives a computed value its codes: a new map, and the step that writes it.
    fn quantize(&mut self, source: Value<'a>, codes: Codes) -> Lowered<Value<'a>> {
        let map = self.maps.len();
        let [channels, height, width] = match source {
            Value::Picture if map == 0 => self.checked.shapes.input,
            Value::Picture => return Err("the picture is quantized twice, or not first".into()),
            Value::Open(Open { mut step, shape }) if map > 0 => {
                match &mut step {
                    Step::Conv(Conv { output, .. }) | Step::Add { output, .. } | Step::MaxPool { output, .. } => {
                        *output = map;
                    }
                }
                self.steps.push(step);
                shape
            }
            _ => return Err("it quantizes something else than the picture, a convolution, a sum or a pool".into()),
        };
        self.maps.push(Map { channels, height, width, codes });
        Ok(Value::Codes(map))
    }

    /// Weights of a pair that reads a stored tensor.
    fn dequantize(&self, node: &NodeProto, tensor: &TensorProto) -> Lowered<Constant> {
        let stored = |i: usize| match node.input.get(i).filter(|n| !n.is_empty()).map(|n| self.values.get(n.as_str())) {
            None => Ok(None),
            Some(Some(Value::Stored(tensor))) => Ok(Some(floats(tensor))),
            _ => Err("its scale and zero point are not stored".to_string()),
        };
        dequantize(&Attributes(&node.attribute), tensor, &stored(1)?.ok_or("its scale is missing")?, stored(2)?)
    }

    /// A stored or computed constant.
    fn constant(&self, name: &str) -> Lowered<Constant> {
        match self.values.get(name) {
            Some(Value::Constant(c)) => Ok(c.clone()),
            Some(Value::Stored(t)) if t.data_type == DataType::Float as i32 => Ok(Constant::plain(t)),
            _ => Err(format!("`{name}` is no constant")),
        }
    }

    fn conv(&self, node: &NodeProto, input: MapId) -> Lowered<Open> {
        let weight = self.constant(node.input.get(1).ok_or("its weights are missing")?)?;
        let (Some((bytes, scales)), [outputs, _, rows, columns]) = (weight.bytes, &weight.dims[..]) else {
            return Err("its weights are no signed bytes of four dimensions".into());
        };
        let bias = match node.input.get(2).filter(|n| !n.is_empty()) {
            Some(name) => self.constant(name)?.values,
            None => vec![0.0; *outputs],
        };
        let attributes = Attributes(&node.attribute);
        if attributes.sizes("kernel_shape")?.is_some_and(|k: [usize; 2]| k != [*rows, *columns]) {
            return Err("its kernel is not as large as its weights".into());
        }
        let window = window(&attributes, [*rows, *columns])?;
        let groups = usize::try_from(attributes.int("group", 1)).map_err(|_| "its groups are negative")?;
        let from = &self.maps[input];
        let [height, width] = window.output(from.height, from.width).ok_or("its window does not fit")?;
        let step = Step::Conv(Conv {
            input,
            output: 0,
            weight: bytes,
            weight_scale: scales,
            bias,
            window,
            groups,
            clip: Clip::NONE,
            residual: None,
        });
        Ok(Open { step, shape: [*outputs, height, width] })
    }

    /// An activation behind a step that waits for its codes.
    fn clip(&self, source: Value<'a>, by: Clip) -> Lowered<Value<'a>> {
        let Value::Open(mut open) = source else {
            return Err("it stands behind something else than a convolution or a sum".into());
        };
        match &mut open.step {
            Step::Conv(Conv { clip, .. }) | Step::Add { clip, .. } => *clip = clip.then(by),
            Step::MaxPool { .. } => return Err("it stands behind a pool".into()),
        }
        Ok(Value::Open(open))
    }

    fn add(&self, values: [Value<'a>; 2]) -> Lowered<Open> {
        let shape = |id: MapId| [self.maps[id].channels, self.maps[id].height, self.maps[id].width];
        match values {
            [Value::Real(a), Value::Real(b)] if shape(a) == shape(b) => {
                let step = Step::Add { inputs: [a, b], output: 0, clip: Clip::NONE };
                Ok(Open { step, shape: shape(a) })
            }
            // A convolution that is summed before it is rounded.
            [Value::Open(open), Value::Real(map)] | [Value::Real(map), Value::Open(open)]
                if open.shape == shape(map) =>
            {
                let Step::Conv(mut conv) = open.step else { return Err("it sums something else than maps".into()) };
                if conv.clip != Clip::NONE || conv.residual.is_some() {
                    return Err("only a plain convolution is summed without being quantized".into());
                }
                conv.residual = Some(Residual { map, between: None });
                Ok(Open { step: Step::Conv(conv), shape: open.shape })
            }
            _ => Err("it does not sum two maps of one shape".into()),
        }
    }

    fn classifier(&self, node: &NodeProto, channels: usize) -> Lowered<Head> {
        let attributes = Attributes(&node.attribute);
        let factor = |name: &str| attributes.get(name).is_none_or(|a| a.f == 1.0);
        if !factor("alpha") || !factor("beta") || attributes.int("transA", 0) != 0 {
            return Err("it is scaled or transposed".into());
        }
        let weight = self.constant(node.input.get(1).ok_or("its weights are missing")?)?;
        let transposed = attributes.int("transB", 0) != 0;
        let classes = match (&weight.dims[..], transposed) {
            ([classes, c], true) | ([c, classes], false) if *c == channels => *classes,
            _ => return Err("its weights do not fit the pooled row".into()),
        };
        let bias = match node.input.get(2).filter(|n| !n.is_empty()) {
            Some(name) => self.constant(name)?.values,
            None => vec![0.0; classes],
        };
        if bias.len() != classes {
            return Err("its bias is not one number a class".into());
        }
        let at = |k: usize, c: usize| if transposed { k * channels + c } else { c * classes + k };
        let weight = (0..classes * channels).map(|i| weight.values[at(i / channels, i % channels)]).collect();
        Ok(Head { weight, bias })
    }
}

/// Whole numbers of a stored tensor.
fn axes_of(value: &Value<'_>) -> Lowered<Vec<i64>> {
    match value {
        Value::Stored(tensor) => ints(tensor),
        _ => Err("its axes are not stored".into()),
    }
}
