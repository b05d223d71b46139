//! Everything that can go wrong on a board: each variant says what, where, and what to do next.

use std::path::PathBuf;

/// Result of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// Error of the edge runtime.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file or folder could not be read.
    #[error("cannot read {path}: {source}. Check that the path exists and is readable")]
    Read {
        /// What was to be read.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// A file or folder could not be written; what was there before is untouched.
    #[error("cannot write {path}: {source}. Nothing was changed; check permissions and free space")]
    Write {
        /// What was to be written.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// A picture could not be decoded or exceeds the limits.
    #[error("cannot use picture {name}: {reason}. Give a JPEG or PNG within the limits")]
    Picture {
        /// File name or stream position.
        name: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A bundle is malformed, incomplete, or fails verification.
    #[error("cannot use bundle {path}: {reason}. Seal it anew with `excon convert`")]
    Bundle {
        /// The bundle's file or folder.
        path: PathBuf,
        /// Field or member, and what is wrong with it.
        reason: String,
    },
    /// A bundle is undamaged and still not accepted here: not signed by a pinned key, older, expired, another model.
    #[error("refused {path}: {reason}")]
    Refused {
        /// The bundle's file or folder, or the key's.
        path: PathBuf,
        /// Why, and what to do.
        reason: String,
    },
    /// The slots that bundles are installed in cannot be used as asked.
    #[error("the slots in {path}: {reason}")]
    Slots {
        /// The root of the slots.
        path: PathBuf,
        /// Why, and what to do.
        reason: String,
    },
    /// Something else has to end first.
    #[error("the slots in {path} are busy: {reason}")]
    Busy {
        /// The root of the slots.
        path: PathBuf,
        /// What is under way, and how it ends.
        reason: String,
    },
    /// An inference engine could not be built or failed while running.
    #[error("engine {engine}: {reason}")]
    Engine {
        /// Which engine.
        engine: String,
        /// What happened.
        reason: String,
    },
    /// What an inference engine needs is not on this machine.
    #[error("engine {engine} is not available: {reason}")]
    Unavailable {
        /// Which engine.
        engine: String,
        /// What is missing, and what to do.
        reason: String,
    },
    /// The saved state of a monitor cannot be used.
    #[error("cannot use monitor state {path}: {reason}. Move it away to start a fresh monitor")]
    State {
        /// The state file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A source of frames was asked for in a way it cannot give them.
    #[error("cannot watch {name}: {reason}")]
    Source {
        /// The source as it was given.
        name: String,
        /// Why, and what to do instead.
        reason: String,
    },
    /// Something on the network, or a device, does not answer.
    #[error("{name} does not answer as hoped: {reason}")]
    Unreachable {
        /// Its address, without secrets.
        name: String,
        /// What happened.
        reason: String,
    },
    /// The service was set up in a way it cannot or should not run.
    #[error("cannot serve: {reason}")]
    Service {
        /// What is wrong and what to do instead.
        reason: String,
    },
    /// The service could not take its address.
    #[error("cannot listen on {address}: {source}. Choose another with --addr")]
    Listen {
        /// The address.
        address: std::net::SocketAddr,
        /// The system's reason.
        source: std::io::Error,
    },
    /// A numeric routine was called with data it cannot work on.
    #[error("{what}: {reason}")]
    Data {
        /// The quantity that was to be computed.
        what: &'static str,
        /// Why it cannot be.
        reason: String,
    },
}

impl Error {
    /// The process exit code of a command that ends with this error (sysexits convention).
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Read { .. }
            | Self::Picture { .. }
            | Self::Bundle { .. }
            | Self::Refused { .. }
            | Self::Slots { .. }
            | Self::State { .. }
            | Self::Data { .. } => 65,
            Self::Busy { .. } => 75,
            Self::Write { .. } => 73,
            Self::Engine { .. } => 70,
            Self::Service { .. } | Self::Source { .. } => 64,
            Self::Listen { .. } | Self::Unreachable { .. } | Self::Unavailable { .. } => 69,
        }
    }
}
