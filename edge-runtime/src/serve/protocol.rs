//! The Open Inference Protocol, version 2, as bytes: JSON requests and answers, and the binary tensor extension.
//!
//! A request names the network's input once, in one of two forms: `FP32 [n, 3, size, size]`, normalised as the bundle's
//! manifest says, or `UINT8 [n, height, width, 3]`, raw RGB pictures of any size. Values come as JSON, flat or nested,
//! or as little-endian bytes behind the JSON. Nothing here touches a network; every malformed request is a sentence.
//! Source: KServe's "Open Inference Protocol" v2 and Triton's `binary_data` extension.

use serde::de::{self, DeserializeSeed, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value};
use std::fmt;

/// Header that says how long the JSON in front of the binary tensors is.
pub const HEADER_LENGTH: &str = "inference-header-content-length";

/// A request's tensor.
#[derive(Debug, Clone, PartialEq)]
pub enum Input {
    /// Normalised pictures, `n × 3 × size × size`.
    Tensor(Vec<f32>),
    /// Raw RGB pictures: height, width, and `n × height × width × 3` bytes.
    Pictures {
        /// Rows.
        height: usize,
        /// Pixels a row.
        width: usize,
        /// The bytes.
        rgb: Vec<u8>,
    },
}

/// A request that can be answered.
#[derive(Debug, Clone, PartialEq)]
pub struct Request {
    /// The caller's name for it.
    pub id: Option<String>,
    /// What to look at.
    pub input: Input,
    /// Pictures in it.
    pub count: usize,
    /// Outputs wanted, and whether each as bytes; none named means all.
    pub outputs: Vec<(String, bool)>,
    /// Whether outputs come as bytes when nothing else is said.
    pub binary: bool,
    /// The caller's time limit in microseconds.
    pub timeout: Option<u64>,
    /// Whether raw pictures are shown to the monitor.
    pub watch: bool,
}

/// Values of an output.
#[derive(Debug, Clone, PartialEq)]
pub enum Values {
    /// `FP32`.
    Float(Vec<f32>),
    /// `INT64`.
    Integer(Vec<i64>),
    /// `BOOL`.
    Bool(Vec<bool>),
    /// `BYTES`.
    Text(Vec<String>),
}

/// An output.
#[derive(Debug, Clone, PartialEq)]
pub struct Output {
    /// Its name.
    pub name: &'static str,
    /// Its shape, the batch first.
    pub shape: Vec<usize>,
    /// Its values.
    pub values: Values,
}

#[derive(Deserialize)]
struct Header {
    id: Option<String>,
    #[serde(default)]
    parameters: Map<String, Value>,
    inputs: Vec<InputHeader>,
    #[serde(default)]
    outputs: Vec<OutputHeader>,
}

#[derive(Deserialize)]
struct InputHeader {
    name: String,
    shape: Vec<u64>,
    datatype: String,
    #[serde(default)]
    parameters: Map<String, Value>,
    data: Option<Numbers>,
}

#[derive(Deserialize)]
struct OutputHeader {
    name: String,
    #[serde(default)]
    parameters: Map<String, Value>,
}

/// Reads a request for a network with this input (`size` pixels a side). `header_length` is the value of
/// [`HEADER_LENGTH`], when the request has it. At most `most` pictures are taken.
///
/// # Errors
/// A sentence on what is wrong.
pub fn parse(
    body: &[u8],
    header_length: Option<usize>,
    name: &str,
    size: usize,
    most: usize,
) -> Result<Request, String> {
    let length = header_length.unwrap_or(body.len());
    let (json, mut binary) = body.split_at_checked(length).ok_or("the header is said to be longer than the body")?;
    let header: Header = serde_json::from_slice(json).map_err(|e| format!("the request's JSON: {e}"))?;
    let [input] = <[InputHeader; 1]>::try_from(header.inputs)
        .map_err(|inputs| format!("{} inputs where one, `{name}`, is needed", inputs.len()))?;
    if input.name != name {
        return Err(format!("there is no input `{}`; the network's is `{name}`", input.name));
    }
    let dims: Vec<usize> = input.shape.iter().map(|&d| usize::try_from(d).unwrap_or(usize::MAX)).collect();
    let total = dims.iter().try_fold(1usize, |n, &d| n.checked_mul(d)).ok_or("the shape overflows")?;
    let count = dims.first().copied().unwrap_or(0);
    if count == 0 || count > most {
        return Err(format!("a batch of {count} pictures; 1 to {most} are taken"));
    }
    let bytes = match input.parameters.get("binary_data_size") {
        Some(size) => {
            let size = size.as_u64().and_then(|n| usize::try_from(n).ok()).ok_or("binary_data_size is no number")?;
            let (mine, rest) = binary.split_at_checked(size).ok_or("the body ends before its binary data")?;
            binary = rest;
            Some(mine)
        }
        None => None,
    };
    if !binary.is_empty() {
        return Err(format!("{} bytes behind the request belong to no input", binary.len()));
    }
    let numbers = input.data;
    let input = match (input.datatype.as_str(), dims.as_slice()) {
        ("FP32", [_, 3, height, width]) if (*height, *width) == (size, size) => {
            Input::Tensor(floats(numbers, bytes, total)?)
        }
        ("UINT8", [_, height, width, 3]) if *height > 0 && *width > 0 => {
            Input::Pictures { height: *height, width: *width, rgb: octets(numbers, bytes, total)? }
        }
        (datatype, shape) => {
            return Err(format!(
                "{datatype} {shape:?} is not taken; send `{name}` as FP32 [n, 3, {size}, {size}], normalised, or as \
                 UINT8 [n, height, width, 3], raw RGB"
            ));
        }
    };
    let flag = |parameters: &Map<String, Value>, key: &str| parameters.get(key).and_then(Value::as_bool);
    let binary = flag(&header.parameters, "binary_data_output").unwrap_or(false);
    let mut outputs = Vec::new();
    for output in header.outputs {
        if output.parameters.get("classification").and_then(Value::as_u64).is_some_and(|n| n > 0) {
            return Err("the classification extension is not supported; ask for `label` and `probabilities`".into());
        }
        outputs.push((output.name, flag(&output.parameters, "binary_data").unwrap_or(binary)));
    }
    Ok(Request {
        id: header.id.filter(|id| !id.is_empty()),
        input,
        count,
        outputs,
        binary,
        timeout: header.parameters.get("timeout").and_then(Value::as_u64).filter(|&t| t > 0),
        watch: flag(&header.parameters, "watch").unwrap_or(true),
    })
}

fn floats(numbers: Option<Numbers>, bytes: Option<&[u8]>, total: usize) -> Result<Vec<f32>, String> {
    let values: Vec<f32> = match (numbers, bytes) {
        (None, Some(bytes)) if bytes.len() / 4 == total && bytes.len().is_multiple_of(4) => {
            bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect()
        }
        (Some(numbers), None) => numbers.exactly(total)?.into_iter().map(|v| v as f32).collect(),
        _ => return Err(unfilled(bytes, total, 4)),
    };
    if values.iter().all(|v| v.is_finite()) {
        Ok(values)
    } else {
        Err("the tensor holds values that are not finite".into())
    }
}

fn octets(numbers: Option<Numbers>, bytes: Option<&[u8]>, total: usize) -> Result<Vec<u8>, String> {
    match (numbers, bytes) {
        (None, Some(bytes)) if bytes.len() == total => Ok(bytes.to_vec()),
        (Some(numbers), None) => {
            let octet = |v: f64| if v.fract() == 0.0 && (0.0..=255.0).contains(&v) { Some(v as u8) } else { None };
            let values: Option<Vec<u8>> = numbers.exactly(total)?.into_iter().map(octet).collect();
            values.ok_or_else(|| "a value is no whole number of 0 to 255".into())
        }
        _ => Err(unfilled(bytes, total, 1)),
    }
}

fn unfilled(bytes: Option<&[u8]>, total: usize, each: usize) -> String {
    match bytes {
        Some(bytes) => {
            format!("{} bytes where the shape needs {} (and no `data`)", bytes.len(), total.saturating_mul(each))
        }
        None => "the input has neither `data` nor binary data".into(),
    }
}

/// Numbers of a flat or nested JSON array. They take at most four times the room of their text.
struct Numbers(Vec<f64>);

impl Numbers {
    fn exactly(self, total: usize) -> Result<Vec<f64>, String> {
        if self.0.len() == total {
            return Ok(self.0);
        }
        Err(format!("{} values where the shape needs {total}", self.0.len()))
    }
}

impl<'de> Deserialize<'de> for Numbers {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut values = Vec::new();
        Nested(&mut values).deserialize(deserializer)?;
        Ok(Self(values))
    }
}

struct Nested<'a>(&'a mut Vec<f64>);

impl<'de> DeserializeSeed<'de> for Nested<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Nested<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("numbers, flat or in nested arrays")
    }

    fn visit_f64<E: de::Error>(self, value: f64) -> Result<(), E> {
        self.0.push(value);
        Ok(())
    }

    fn visit_u64<E: de::Error>(self, value: u64) -> Result<(), E> {
        self.visit_f64(value as f64)
    }

    fn visit_i64<E: de::Error>(self, value: i64) -> Result<(), E> {
        self.visit_f64(value as f64)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<(), A::Error> {
        while elements.next_element_seed(Nested(self.0))?.is_some() {}
        Ok(())
    }
}

/// The answer as bytes; with binary outputs also the length of the JSON in front.
///
/// # Errors
/// A sentence, when an output is asked for that there is none of.
pub fn answer(
    request: &Request,
    id: &str,
    model: &str,
    version: u64,
    outputs: &[Output],
) -> Result<(Vec<u8>, Option<usize>), String> {
    #[derive(Serialize)]
    struct Answer<'a> {
        model_name: &'a str,
        model_version: String,
        id: &'a str,
        outputs: Vec<Value>,
    }
    let wanted: Vec<(&Output, bool)> = if request.outputs.is_empty() {
        outputs.iter().map(|o| (o, request.binary)).collect()
    } else {
        let find = |(name, binary): &(String, bool)| {
            let names = || outputs.iter().map(|o| o.name).collect::<Vec<_>>().join(", ");
            let found = outputs.iter().find(|o| o.name == name);
            found.map(|o| (o, *binary)).ok_or_else(|| format!("there is no output `{name}`; there are {}", names()))
        };
        request.outputs.iter().map(find).collect::<Result<_, _>>()?
    };
    let mut tail = Vec::new();
    let mut written = Vec::new();
    for (output, binary) in wanted {
        let mut entry = serde_json::json!({
            "name": output.name, "datatype": output.values.datatype(), "shape": output.shape,
        });
        if binary {
            let bytes = output.values.bytes();
            entry["parameters"] = serde_json::json!({ "binary_data_size": bytes.len() });
            tail.push(bytes);
        } else {
            entry["data"] = output.values.json();
        }
        written.push(entry);
    }
    let answer = Answer { model_name: model, model_version: version.to_string(), id, outputs: written };
    let mut bytes = serde_json::to_vec(&answer).map_err(|e| e.to_string())?;
    let header = (!tail.is_empty()).then_some(bytes.len());
    bytes.extend(tail.concat());
    Ok((bytes, header))
}

impl Values {
    fn datatype(&self) -> &'static str {
        match self {
            Self::Float(_) => "FP32",
            Self::Integer(_) => "INT64",
            Self::Bool(_) => "BOOL",
            Self::Text(_) => "BYTES",
        }
    }

    fn json(&self) -> Value {
        match self {
            Self::Float(v) => v.clone().into(),
            Self::Integer(v) => v.clone().into(),
            Self::Bool(v) => v.clone().into(),
            Self::Text(v) => v.clone().into(),
        }
    }

    /// Little-endian; texts each behind their length in four bytes.
    fn bytes(&self) -> Vec<u8> {
        match self {
            Self::Float(v) => v.iter().flat_map(|v| v.to_le_bytes()).collect(),
            Self::Integer(v) => v.iter().flat_map(|v| v.to_le_bytes()).collect(),
            Self::Bool(v) => v.iter().map(|&v| u8::from(v)).collect(),
            Self::Text(v) => {
                v.iter().flat_map(|t| [&(t.len() as u32).to_le_bytes()[..], t.as_bytes()].concat()).collect()
            }
        }
    }
}

#[cfg(test)]
#[path = "protocol_tests.rs"]
mod tests;
