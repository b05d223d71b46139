//! Everything that can go wrong while training: each variant says what, where, and what to do next.

use std::path::PathBuf;

/// Result of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// Error of the trainer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A data set is missing, incomplete or malformed.
    #[error("cannot use data set {path}: {reason}")]
    Dataset {
        /// Folder or archive.
        path: PathBuf,
        /// What is wrong and what is needed.
        reason: String,
    },
    /// A file cannot be fetched; what has arrived is kept.
    #[error(
        "cannot fetch {address}: {reason}. What has arrived is kept; try again later. Without network, fetch it on \
         another machine and give the archive with --from FILE"
    )]
    Unreachable {
        /// Its address.
        address: String,
        /// What the network or the server says.
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
    /// A checkpoint or run folder cannot be used.
    #[error("cannot use checkpoint {path}: {reason}. Train again or choose another run")]
    Checkpoint {
        /// File or folder.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The folder of a new run holds one already.
    #[error("{path} holds {what}. Add {remedy}, or choose another folder")]
    Occupied {
        /// The run folder.
        path: PathBuf,
        /// What is there.
        what: String,
        /// Flags that help.
        remedy: String,
    },
    /// Training was asked to stop; what was saved is kept.
    #[error("training was stopped in epoch {epoch} after step {step}; epochs before it are saved in the run folder")]
    Interrupted {
        /// Epoch that was under way, from 1; one more than there are when only the end of the run was missing.
        epoch: usize,
        /// Steps it had made.
        step: usize,
    },
    /// A network graph is inconsistent.
    #[error("network node {node}: {reason}")]
    Graph {
        /// Node name.
        node: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The loss is no longer a number.
    #[error("the loss became {loss} in epoch {epoch}, step {step}, on {batch}. Lower the learning rate; {kept}")]
    Diverged {
        /// Epoch, from 1.
        epoch: usize,
        /// Step within the epoch, from 1.
        step: usize,
        /// The loss.
        loss: f32,
        /// The first pictures of the batch by name, and how many more it has.
        batch: String,
        /// Where the last good checkpoint is, in words.
        kept: String,
    },
    /// The graphics card cannot be used, or failed.
    #[error("graphics card, {name}: {reason}")]
    Device {
        /// Library or part, such as `cuDNN`.
        name: String,
        /// What is wrong, and what to do.
        reason: String,
    },
    /// An error of the tensor library.
    #[error("tensor operation: {0}")]
    Tensor(#[from] candle_core::Error),
    /// An error of the edge runtime: decoding, metrics, files.
    #[error(transparent)]
    Edge(#[from] excon_edge::Error),
}

impl Error {
    /// The process exit code of a command that ends with this error (sysexits convention).
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Dataset { .. } | Self::Checkpoint { .. } | Self::Graph { .. } => 65,
            Self::Unreachable { .. } => 69,
            Self::Setting { .. } => 64,
            Self::Occupied { .. } => 73,
            Self::Interrupted { .. } => 130,
            Self::Diverged { .. } => 1,
            Self::Device { .. } => 69,
            Self::Tensor(_) => 70,
            Self::Edge(e) => e.exit_code(),
        }
    }
}
