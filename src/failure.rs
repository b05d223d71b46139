//! How a command ends when it does not succeed: a message with a next step, and an exit code.

use std::path::Path;

/// A check said no.
pub const CHECK: u8 = 1;
/// Wrong use of the command line.
pub const USAGE: u8 = 64;
/// Input that cannot be used.
pub const INPUT: u8 = 65;
/// A defect of this program.
pub const INTERNAL: u8 = 70;

/// Stopped by the person at the keyboard.
pub const INTERRUPTED: u8 = 130;

/// See the module's first paragraph.
#[derive(Debug)]
pub struct Failure {
    /// What, where, next step; without the leading `error: `.
    pub message: String,
    /// Exit code.
    pub code: u8,
}

/// Result of a command.
pub type Result<T> = std::result::Result<T, Failure>;

impl Failure {
    /// A check said no.
    pub fn check(message: impl Into<String>) -> Self {
        Self { message: message.into(), code: CHECK }
    }

    /// Wrong use.
    pub fn usage(message: impl Into<String>) -> Self {
        Self { message: message.into(), code: USAGE }
    }

    /// Bad input.
    pub fn input(message: impl Into<String>) -> Self {
        Self { message: message.into(), code: INPUT }
    }

    /// A file that cannot be written; the old one stays.
    pub fn write(path: &Path, source: std::io::Error) -> Self {
        excon_edge::Error::Write { path: path.into(), source }.into()
    }
}

impl From<excon_edge::Error> for Failure {
    fn from(error: excon_edge::Error) -> Self {
        Self { code: error.exit_code(), message: error.to_string() }
    }
}

impl From<excon_train::Error> for Failure {
    fn from(error: excon_train::Error) -> Self {
        Self { code: error.exit_code(), message: error.to_string() }
    }
}

impl From<excon_convert::Error> for Failure {
    fn from(error: excon_convert::Error) -> Self {
        Self { code: error.exit_code(), message: error.to_string() }
    }
}

impl From<excon_boards::Error> for Failure {
    fn from(error: excon_boards::Error) -> Self {
        Self { code: error.exit_code(), message: error.to_string() }
    }
}

impl From<serde_json::Error> for Failure {
    fn from(error: serde_json::Error) -> Self {
        Self { code: INTERNAL, message: format!("cannot write JSON: {error}. Please report this") }
    }
}
