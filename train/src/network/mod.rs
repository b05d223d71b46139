//! A network is data: one graph of named nodes that the trainer executes and the converter exports.

mod graph;

pub use graph::{Graph, Node, NodeId, Op};
