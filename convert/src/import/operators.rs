//! The allow-list: every operator that an imported network may hold, and what it becomes (`layers`, `pools`, `moves`).

mod layers;
mod moves;
mod pools;

use super::Scores;
use super::build::Build;
use super::constant::Constant;
use super::view::{Axis, Outcome, Value, View, axis};
use excon_edge::engine::onnx::Attributes;
use excon_edge::kernel::Clip;
use std::collections::HashMap;
use tract_onnx::pb::{NodeProto, TensorProto, tensor_proto::DataType};

/// One pass over the nodes of a graph.
pub(super) struct Walk<'a> {
    values: HashMap<&'a str, Value>,
    uses: HashMap<&'a str, usize>,
    build: Build,
    /// Of stored bytes, whether they are signed.
    signed: HashMap<&'a str, bool>,
    /// What its end makes of the logits.
    pub scores: Scores,
    quantized: bool,
}

impl<'a> Walk<'a> {
    pub fn new(build: Build, uses: HashMap<&'a str, usize>) -> Self {
        Self { values: HashMap::new(), uses, build, signed: HashMap::new(), scores: Scores::Logits, quantized: false }
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
        if self.scores != Scores::Logits {
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
                let over = axis(attributes.int("axis", -1), rank)?;
                let classes = view.groups()?.get(over).is_some_and(|g| g[..] == [Axis::Channel]);
                if !classes || view.shape[1] * view.shape[2] != 1 {
                    return Err("only a softmax over the class scores, at the end, is converted".into());
                }
                let probabilities = node.op_type == "Softmax";
                self.scores = if probabilities { Scores::Probabilities } else { Scores::LogProbabilities };
                view.closed = true;
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
}

/// Whether an operator leaves the numbers themselves as they are.
fn is_following(operator: &str) -> bool {
    ["Identity", "Dropout", "Cast", "Flatten", "Reshape", "Squeeze", "Unsqueeze", "Transpose"].contains(&operator)
}
