//! What an ONNX file would become in memory, counted on its bytes before anything is decoded.
//!
//! Two bytes of protobuf can stand for a node of hundreds, and a message may hold another without end. The walk here
//! follows the few kinds of message that a plain network is made of, never deeper than they nest, skips payloads, and
//! stops at [`MAX_MESSAGES`] or [`MAX_FIELDS`]. What a network never holds (subgraphs, functions, sparse or external
//! tensors) is refused where its tag stands. So a file that passes decodes within a few times its own size plus 64 MB.

/// Most messages of a file: nodes, attributes, tensors, shapes and their dimensions together.
pub const MAX_MESSAGES: usize = 1 << 15;
/// Most fields of a file; a packed array or a raw tensor is one.
pub const MAX_FIELDS: usize = 1 << 18;

/// The kinds of message that are walked into.
#[derive(Clone, Copy)]
enum Kind {
    Model,
    Graph,
    Node,
    Attribute,
    Tensor,
    Value,
    Type,
    TensorType,
    Shape,
    /// A message of scalars.
    Leaf,
}

/// What stands behind a tag with a length.
enum Held {
    Message(Kind),
    Payload,
    Refused(&'static str),
}

/// Field numbers of `onnx.proto`.
fn held(kind: Kind, field: u64) -> Held {
    use Held::{Message, Refused};
    match (kind, field) {
        (Kind::Model, 7) => Message(Kind::Graph),
        (Kind::Model, 8 | 14) => Message(Kind::Leaf),
        (Kind::Model, 20) => Refused("training graphs are"),
        (Kind::Model, 25) => Refused("local functions are"),
        (Kind::Graph, 1) => Message(Kind::Node),
        (Kind::Graph, 5) => Message(Kind::Tensor),
        (Kind::Graph, 11..=13) => Message(Kind::Value),
        (Kind::Graph, 14) => Refused("quantization annotations are"),
        (Kind::Graph, 15) => Refused("sparse tensors are"),
        (Kind::Graph | Kind::Tensor, 16) | (Kind::Node, 9) | (Kind::Value, 4) => Message(Kind::Leaf),
        (Kind::Node, 5) => Message(Kind::Attribute),
        (Kind::Attribute, 5 | 10) => Message(Kind::Tensor),
        (Kind::Attribute, 6 | 11) => Refused("subgraphs (an attribute that holds a graph) are"),
        (Kind::Attribute, 22 | 23) => Refused("sparse tensors are"),
        (Kind::Attribute, 14 | 15) => Refused("types as attributes are"),
        (Kind::Tensor, 3) => Refused("segments of tensors are"),
        (Kind::Tensor, 13) => Refused("external data is"),
        (Kind::Value, 2) => Message(Kind::Type),
        (Kind::Type, 1) => Message(Kind::TensorType),
        (Kind::Type, 4 | 5 | 7 | 8 | 9) => Refused("values that are no plain tensors are"),
        (Kind::TensorType, 2) => Message(Kind::Shape),
        (Kind::Shape, 1) => Message(Kind::Leaf),
        _ => Held::Payload,
    }
}

/// Walks a whole file.
///
/// # Errors
/// A sentence fragment when it is no protobuf, holds what is refused, or more than the bounds.
pub(super) fn scan(bytes: &[u8]) -> Result<(), String> {
    Scan { messages: 0, fields: 0 }.message(bytes, Kind::Model)
}

struct Scan {
    messages: usize,
    fields: usize,
}

impl Scan {
    fn message(&mut self, mut bytes: &[u8], kind: Kind) -> Result<(), String> {
        self.messages += 1;
        if self.messages > MAX_MESSAGES {
            return Err(format!("it holds more than {MAX_MESSAGES} nodes, attributes, tensors and shapes"));
        }
        let broken = || "not an ONNX file: it is no protobuf".to_string();
        while !bytes.is_empty() {
            self.fields += 1;
            if self.fields > MAX_FIELDS {
                return Err(format!("it holds more than {MAX_FIELDS} fields"));
            }
            let tag = varint(&mut bytes).ok_or_else(broken)?;
            let skipped = match tag & 7 {
                0 => {
                    varint(&mut bytes).ok_or_else(broken)?;
                    0
                }
                1 => 8,
                5 => 4,
                2 => {
                    let length = varint(&mut bytes).ok_or_else(broken)?;
                    let length = usize::try_from(length).map_err(|_| broken())?;
                    let inner = bytes.get(..length).ok_or_else(broken)?;
                    match held(kind, tag >> 3) {
                        Held::Message(kind) => self.message(inner, kind)?,
                        Held::Refused(what) => return Err(format!("{what} not allowed")),
                        Held::Payload => {}
                    }
                    length
                }
                _ => return Err(broken()),
            };
            bytes = bytes.get(skipped..).ok_or_else(broken)?;
        }
        Ok(())
    }
}

fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0u64;
    for (place, &byte) in bytes.iter().take(10).enumerate() {
        value |= u64::from(byte & 0x7f) << (7 * place);
        if byte & 0x80 == 0 {
            *bytes = &bytes[place + 1..];
            return Some(value);
        }
    }
    None
}
