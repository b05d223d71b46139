//! Everything that can go wrong while converting: each variant says what, where, and what to do next.

use std::path::PathBuf;

/// Result of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// Error of the converter.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A weights file is unreadable, incomplete or does not fit its graph.
    #[error("cannot use weights {path}: {reason}. Train again or choose another run")]
    Weights {
        /// The file.
        path: PathBuf,
        /// Tensor, and what is wrong with it.
        reason: String,
    },
    /// A run folder does not hold what a conversion needs.
    #[error("cannot use run {path}: {reason}. Give the folder that `excon train --out` wrote")]
    Run {
        /// The folder or its `run.json`.
        path: PathBuf,
        /// What is missing or wrong.
        reason: String,
    },
    /// A network has a form the exporter does not write.
    #[error("cannot export network node {node}: {reason}")]
    Network {
        /// Node name.
        node: String,
        /// What is wrong, and what the exporter can write.
        reason: String,
    },
    /// A network of another program cannot be read at all.
    #[error("cannot use network {path}: {reason}. What is accepted stands in docs/convert.md")]
    Model {
        /// The ONNX file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A node of another program's network cannot be converted.
    #[error("cannot convert node {node} ({operator}): {reason}. What is accepted stands in docs/convert.md")]
    Node {
        /// Its name, or its position where it has none.
        node: String,
        /// Its ONNX operator.
        operator: String,
        /// Why not.
        reason: String,
    },
    /// A built model breaks a rule of the file format; a defect of the converter, never of the user's data.
    #[error("the built model breaks a rule at {node}: {reason}. Please report this with the run's graph")]
    Rule {
        /// Node or value name.
        node: String,
        /// The rule.
        reason: String,
    },
    /// tract could not load or run a model while it was calibrated.
    #[error("engine tract: {reason}. Please report this with the run's graph")]
    Engine {
        /// What happened.
        reason: String,
    },
    /// The pictures do not suffice, or do not fit the network.
    #[error("cannot convert with data {data}: {reason}")]
    Pictures {
        /// Data set or split.
        data: String,
        /// What is wrong, and what is needed.
        reason: String,
    },
    /// A setting has a value that makes no sense.
    #[error("setting {name}: {reason}")]
    Setting {
        /// Key or flag.
        name: String,
        /// What is wrong, and what is allowed.
        reason: String,
    },
    /// An error of the edge runtime: engine, metrics, bundle.
    #[error(transparent)]
    Edge(#[from] excon_edge::Error),
    /// An error of the trainer: run folder, data set.
    #[error(transparent)]
    Train(#[from] excon_train::Error),
}

impl Error {
    /// The process exit code of a command that ends with this error (sysexits convention).
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Weights { .. } | Self::Run { .. } | Self::Network { .. } | Self::Pictures { .. } => 65,
            Self::Model { .. } | Self::Node { .. } => 65,
            Self::Rule { .. } | Self::Engine { .. } => 70,
            Self::Setting { .. } => 64,
            Self::Edge(e) => e.exit_code(),
            Self::Train(e) => e.exit_code(),
        }
    }
}
