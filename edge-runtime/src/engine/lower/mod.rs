//! From a checked ONNX graph to a graph of fused steps: float, int8 with explicit quantize–dequantize pairs, or both by
//! turns.
//!
//! Promises: what is lowered computes what the file says, in int8 up to values that lie on a rounding border; anything else
//! (a map of the other format, another operator, a form the kernels do not have) is an error that names the node, and the
//! caller runs the file elsewhere. Nothing is skipped silently.

mod precision;
mod read;
mod stored;

use super::Shapes;
use super::onnx::{Attributes, Checked};
use crate::kernel::Clip;
use crate::kernel::graph::{Conv, Format, Graph, Head, Map, MapId, Residual, Step};
use crate::kernel::int8::Codes;
pub(super) use precision::Precision;
use read::axes_of;
use std::collections::HashMap;
use std::rc::Rc;
use stored::{Constant, window};
use tract_onnx::pb::{NodeProto, TensorProto};

type Lowered<T> = Result<T, String>;

/// Steps hold at most so many times the numbers that the file stores, however often it reads one convolution before and
/// behind activations: each time is a step of its own.
const MOST_COPIES: usize = 2;

/// What a name of the graph stands for.
#[derive(Clone)]
enum Value<'a> {
    /// A stored tensor.
    Stored(&'a TensorProto),
    /// Numbers computed from stored tensors.
    Constant(Constant),
    /// The picture.
    Picture,
    /// A map as codes, and what they mean.
    Codes(MapId, Codes),
    /// A map as numbers; one of codes is dequantized.
    Real(MapId),
    /// Computed and not written to a map yet: an index into the open steps.
    Open(usize),
    /// The mean of a map, possibly reshaped to a row.
    Pooled(MapId),
    /// The classifier's result.
    Logits,
}

/// A step that waits for its output's codes. Values before and behind an activation share its weights.
#[derive(Clone)]
struct Open<F: Format> {
    step: Rc<Step<F>>,
    clip: Clip,
    shape: [usize; 3],
    /// The map it was written to, if it was written as it stands.
    written: Option<MapId>,
}

/// Lowers a whole network, each sum in one step with a convolution before it where it can be.
///
/// # Errors
/// A sentence fragment with the first node that does not fit, and why.
pub(super) fn lower<F: Precision>(checked: &Checked) -> Lowered<Graph<F>> {
    let mut graph = unfused(checked)?;
    graph.fuse();
    graph.check()?;
    Ok(graph)
}

/// The same with sums as steps of their own.
///
/// # Errors
/// As [`lower`].
pub(super) fn unfused<F: Precision>(checked: &Checked) -> Lowered<Graph<F>> {
    let model = checked.model.graph.as_ref().ok_or("it holds no graph")?;
    let stored =
        model.initializer.iter().map(|t| t.dims.iter().product::<i64>().unsigned_abs() as usize).sum::<usize>();
    let mut lowering = Lowering {
        values: HashMap::new(),
        open: vec![],
        maps: vec![],
        steps: vec![],
        head: None,
        weights_left: MOST_COPIES * stored,
        checked,
    };
    for tensor in &model.initializer {
        lowering.values.insert(&tensor.name, Value::Stored(tensor));
    }
    lowering.values.insert(&checked.input, Value::Picture);
    for node in &model.node {
        let value = lowering.node(node).map_err(|reason| format!("{} ({}): {reason}", node.name, node.op_type))?;
        let [output] = &node.output[..] else { return Err(format!("{}: not one output", node.name)) };
        lowering.values.insert(output, value);
    }
    let features = lowering.values.get("features").cloned().ok_or("`features` is not computed")?;
    let features = lowering.map(features).map_err(|_| format!("`features` is no map of the {} kernels", F::NAME))?;
    let (pooled, head) = match (lowering.values.get("logits"), lowering.head) {
        (Some(Value::Logits), Some(head)) => head,
        _ => return Err("`logits` is not a linear layer's result".into()),
    };
    if pooled != features {
        return Err("the pool reads another map than `features`".into());
    }
    let graph = Graph { maps: lowering.maps, steps: lowering.steps, given: 1, handed: vec![], features, head };
    graph.check()?;
    let Shapes { classes, features: shape, .. } = checked.shapes;
    let map = &graph.maps[graph.features];
    if [map.channels, map.height, map.width] != shape || graph.head.bias.len() != classes {
        return Err("the declared outputs are not what it computes".into());
    }
    Ok(graph)
}

struct Lowering<'a, F: Format> {
    values: HashMap<&'a str, Value<'a>>,
    open: Vec<Open<F>>,
    maps: Vec<Map<F>>,
    steps: Vec<Step<F>>,
    head: Option<(MapId, Head)>,
    /// Weights that steps may still hold.
    weights_left: usize,
    checked: &'a Checked,
}

impl<'a, F: Precision> Lowering<'a, F> {
    /// What an input of a node stands for.
    fn input(&self, node: &NodeProto, at: usize) -> Lowered<Value<'a>> {
        let name = node.input.get(at).filter(|n| !n.is_empty()).ok_or("an input is missing")?;
        let value = self.values.get(name.as_str()).cloned();
        value.ok_or_else(|| format!("its input `{name}` is not computed before"))
    }

    /// The map that a value is, written now where it was not and need not be quantized.
    fn map(&mut self, value: Value<'a>) -> Lowered<MapId> {
        match (value, F::PLAIN) {
            (Value::Real(map), _) => Ok(map),
            (Value::Picture, Some(codes)) => match self.maps.first() {
                None => self.write(Value::Picture, codes),
                Some(map) if map.codes == codes => Ok(0),
                Some(_) => Err("it reads the picture, which is quantized too".into()),
            },
            (Value::Open(at), Some(codes)) => match self.open[at].written {
                Some(map) => Ok(map),
                None => {
                    let map = self.write(Value::Open(at), codes)?;
                    self.open[at].written = Some(map);
                    Ok(map)
                }
            },
            (_, Some(_)) => Err("it reads something else than a map".into()),
            (_, None) => Err("it reads a float map".into()),
        }
    }

    fn wait(&mut self, step: Step<F>, shape: [usize; 3]) -> Value<'a> {
        self.open.push(Open { step: Rc::new(step), clip: Clip::NONE, shape, written: None });
        Value::Open(self.open.len() - 1)
    }

    fn node(&mut self, node: &'a NodeProto) -> Lowered<Value<'a>> {
        let attributes = Attributes(&node.attribute);
        match node.op_type.as_str() {
            "Identity" => self.input(node, 0),
            "QuantizeLinear" => {
                let (source, codes) = (self.input(node, 0)?, self.codes(node, None)?);
                let stored = F::codes(codes).ok_or("other parts of the network are float")?;
                self.write(source, stored).map(|map| Value::Codes(map, codes))
            }
            "DequantizeLinear" => match self.input(node, 0)? {
                Value::Codes(map, written) => {
                    if self.codes(node, Some(written.signed))? != written {
                        return Err("it reads codes by another scale than they were written with".into());
                    }
                    Ok(Value::Real(map))
                }
                Value::Stored(tensor) => self.dequantize(node, tensor).map(Value::Constant),
                _ => Err("it reads neither a map nor a stored tensor".into()),
            },
            "Conv" => {
                let source = self.input(node, 0)?;
                let map = self.map(source)?;
                self.conv(node, map)
            }
            "Relu" => {
                let source = self.input(node, 0)?;
                self.clip(source, Clip::RELU)
            }
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
                let source = self.input(node, 0)?;
                self.clip(source, clip)
            }
            "Add" => {
                let values = [self.input(node, 0)?, self.input(node, 1)?];
                self.add(values)
            }
            "MaxPool" => {
                let source = self.input(node, 0)?;
                let map = self.map(source)?;
                if attributes.int("ceil_mode", 0) != 0 || attributes.int("storage_order", 0) != 0 {
                    return Err("rounding up and column order are not supported".into());
                }
                let kernel = attributes.sizes("kernel_shape")?.ok_or("its kernel is missing")?;
                let window = window(&attributes, kernel)?;
                let from = &self.maps[map];
                let [height, width] = window.output(from.height, from.width).ok_or("its window does not fit")?;
                let shape = [from.channels, height, width];
                Ok(self.wait(Step::MaxPool { input: map, output: 0, window }, shape))
            }
            "GlobalAveragePool" => {
                let source = self.input(node, 0)?;
                self.map(source).map(Value::Pooled)
            }
            "ReduceMean" => {
                let source = self.input(node, 0)?;
                let map = self.map(source)?;
                let axes = match attributes.ints("axes") {
                    Some(axes) => axes.to_vec(),
                    None => axes_of(&self.input(node, 1)?)?,
                };
                let spatial = matches!(axes[..], [2, 3] | [3, 2] | [-2, -1] | [-1, -2]);
                if spatial { Ok(Value::Pooled(map)) } else { Err("it is not the mean over rows and columns".into()) }
            }
            "Flatten" | "Reshape" | "Squeeze" => {
                let Value::Pooled(map) = self.input(node, 0)? else {
                    return Err("only the pooled row is reshaped".into());
                };
                let channels = self.maps[map].channels as i64;
                let row = match node.op_type.as_str() {
                    "Flatten" => attributes.int("axis", 1) == 1,
                    "Reshape" => {
                        matches!(axes_of(&self.input(node, 1)?)?[..], [n, c] if n < 2 && (c == -1 || c == channels))
                    }
                    _ if node.input.len() < 2 => true,
                    _ => matches!(axes_of(&self.input(node, 1)?)?[..], [2, 3] | [3, 2] | [-2, -1] | [-1, -2]),
                };
                if row { Ok(Value::Pooled(map)) } else { Err("it does not give one row of channels".into()) }
            }
            "Gemm" => {
                let Value::Pooled(map) = self.input(node, 0)? else {
                    return Err("it reads something else than the pool".into());
                };
                let head = self.classifier(node, self.maps[map].channels)?;
                self.head = Some((map, head));
                Ok(Value::Logits)
            }
            _ => Err(format!("the {} kernels have no such operator", F::NAME)),
        }
    }

    /// A new map of a computed value, and the step that writes it.
    fn write(&mut self, source: Value<'a>, codes: F::Codes) -> Lowered<MapId> {
        let map = self.maps.len();
        let [channels, height, width] = match source {
            Value::Picture if map == 0 => self.checked.shapes.input,
            Value::Picture => return Err("the picture is quantized twice, or not first".into()),
            Value::Open(at) if map > 0 => {
                let open = &self.open[at];
                let mut step = Step::clone(&open.step);
                match &mut step {
                    Step::Conv(Conv { output, clip, .. }) | Step::Add { output, clip, .. } => {
                        (*output, *clip) = (map, open.clip);
                    }
                    Step::MaxPool { output, .. } => *output = map,
                }
                if let Step::Conv(conv) = &step {
                    let left = self.weights_left.checked_sub(conv.weight.len());
                    self.weights_left = left.ok_or("a convolution is computed again and again")?;
                }
                self.steps.push(step);
                open.shape
            }
            _ => return Err("it quantizes something else than the picture, a convolution, a sum or a pool".into()),
        };
        self.maps.push(Map { channels, height, width, codes });
        Ok(map)
    }

    fn conv(&mut self, node: &NodeProto, input: MapId) -> Lowered<Value<'a>> {
        let weight = self.constant(node.input.get(1).ok_or("its weights are missing")?)?;
        let [outputs, _, rows, columns] = weight.dims[..] else {
            return Err("its weights have not four dimensions".into());
        };
        let (weight, weight_scale) = F::weights(weight)?;
        let bias = match node.input.get(2).filter(|n| !n.is_empty()) {
            Some(name) => self.constant(name)?.values,
            None => vec![0.0; outputs],
        };
        let attributes = Attributes(&node.attribute);
        if attributes.sizes("kernel_shape")?.is_some_and(|k: [usize; 2]| k != [rows, columns]) {
            return Err("its kernel is not as large as its weights".into());
        }
        let window = window(&attributes, [rows, columns])?;
        let groups = usize::try_from(attributes.int("group", 1)).map_err(|_| "its groups are negative")?;
        let from = &self.maps[input];
        let [height, width] = window.output(from.height, from.width).ok_or("its window does not fit")?;
        let clip = Clip::NONE;
        let conv = Conv { input, output: 0, weight, weight_scale, bias, window, groups, clip, residual: None };
        Ok(self.wait(Step::Conv(conv), [outputs, height, width]))
    }

    /// An activation behind a step that waits for its codes.
    fn clip(&mut self, source: Value<'a>, by: Clip) -> Lowered<Value<'a>> {
        let Value::Open(at) = source else {
            return Err("it stands behind something else than a convolution or a sum".into());
        };
        let mut open = self.open[at].clone();
        if let Step::MaxPool { .. } = *open.step {
            return Err("it stands behind a pool".into());
        }
        (open.clip, open.written) = (open.clip.then(by), None);
        self.open.push(open);
        Ok(Value::Open(self.open.len() - 1))
    }

    fn add(&mut self, values: [Value<'a>; 2]) -> Lowered<Value<'a>> {
        let values = match (values, F::PLAIN) {
            ([a, b], Some(_)) => [Value::Real(self.map(a)?), Value::Real(self.map(b)?)],
            (values, None) => values,
        };
        let shape = |id: MapId| [self.maps[id].channels, self.maps[id].height, self.maps[id].width];
        match values {
            [Value::Real(a), Value::Real(b)] if shape(a) == shape(b) => {
                let step = Step::Add { inputs: [a, b], output: 0, clip: Clip::NONE };
                Ok(self.wait(step, shape(a)))
            }
            // A convolution that is summed before it is rounded.
            [Value::Open(at), Value::Real(map)] | [Value::Real(map), Value::Open(at)]
                if self.open[at].shape == shape(map) =>
            {
                let Open { step, clip, shape, .. } = self.open[at].clone();
                let Step::Conv(mut conv) = Step::clone(&step) else {
                    return Err("it sums something else than maps".into());
                };
                if clip != Clip::NONE || conv.residual.is_some() {
                    return Err("only a plain convolution is summed without being quantized".into());
                }
                conv.residual = Some(Residual { map, between: None });
                Ok(self.wait(Step::Conv(conv), shape))
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
