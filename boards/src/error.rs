//! Everything that can go wrong between a workstation and its boards: each variant says what, where, and what to do.

use std::path::PathBuf;

/// Result of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// Error of the boards tool.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The edge runtime refused.
    #[error(transparent)]
    Edge(#[from] excon_edge::Error),
    /// A signing key cannot be used.
    #[error("cannot use key {path}: {reason}")]
    Key {
        /// The key's file.
        path: PathBuf,
        /// Why, and what to do.
        reason: String,
    },
    /// A profile is unknown or malformed.
    #[error("board {name}: {reason}")]
    Profile {
        /// The profile's name or file.
        name: String,
        /// Why, and what to do.
        reason: String,
    },
    /// A board cannot be reached.
    #[error("cannot reach {board}: {reason}. Check it with: ssh {board} true")]
    Unreachable {
        /// Its address.
        board: String,
        /// What ssh says.
        reason: String,
    },
    /// A transfer broke off more often than it went on; what has arrived is kept on the board.
    #[error("the transfer to {board} broke off: {reason}. What has arrived is kept; run the same command again")]
    Broken {
        /// Its address.
        board: String,
        /// How it ended.
        reason: String,
    },
    /// A board answered that it could not do it.
    #[error("{board}: {reason}")]
    Board {
        /// Its address.
        board: String,
        /// What it says.
        reason: String,
        /// Its exit code.
        code: u8,
    },
}

impl Error {
    /// The process exit code of a command that ends with this error.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Edge(error) => error.exit_code(),
            Self::Key { .. } | Self::Profile { .. } => 65,
            Self::Unreachable { .. } => 69,
            Self::Broken { .. } => 75,
            Self::Board { code, .. } => *code,
        }
    }
}
