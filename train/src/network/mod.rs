//! A network is data: one graph of named nodes that the trainer executes and the converter exports.
//!
//! [`build`] makes the graph of a named architecture, [`Network`] gives it parameters and walks it.

mod architecture;
mod graph;
mod mobilenet;
mod parameters;
mod resnet;
#[cfg(test)]
mod tests;
mod walk;

pub use architecture::{NAMES, Stem, build, last_convolution};
pub use graph::{Graph, Node, NodeId, Op};
pub use parameters::Network;
pub use walk::NormMode;
#[cfg(feature = "cuda")]
pub(crate) use walk::{MOMENTUM, Plan, Step};
