//! TensorRT with Rust's rules: [`Logger`], [`Builder`], [`Runtime`], [`Engine`] and [`ExecutionContext`], in the roles that
//! users of the `tensorrt-rs` crate know them in.
//!
//! What is made from another keeps it alive; errors are values; no call here can crash without a device, since the
//! number of devices is asked before anything else.

mod builder;
mod library;
mod runtime;

pub use builder::{BuildOptions, BuildReport, Builder};
pub use library::{Device, Library, Version, dotted};
pub use runtime::{Engine, ExecutionContext, Runtime, Tensor};

use super::abi::{self, Abi, Opaque};
use std::ffi::{CStr, c_char, c_void};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr::NonNull;
use std::sync::Arc;

/// Bytes of a message; longer ones are cut.
const ROOM: usize = 1024;

/// What went wrong, as far as a caller acts on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum FaultKind {
    /// The shim or a library behind it cannot be loaded.
    Library,
    /// There is no CUDA device, or its driver does not answer.
    NoDevice,
    /// The parser refuses the network.
    Parse,
    /// The builder made no engine.
    Build,
    /// A plan of another version or device, or damaged.
    Mismatch,
    /// An inference failed.
    Run,
    /// Something did not end in time.
    Timeout,
    /// Host or device memory ran out.
    Memory,
    /// The caller stopped it.
    Cancelled,
}

/// An error of TensorRT, CUDA or the shim.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// What to act on.
    pub kind: FaultKind,
    /// TensorRT's or CUDA's own words.
    pub reason: String,
    /// Position of the node that is refused, among the file's.
    pub node: Option<usize>,
}

impl Fault {
    /// A fault without a node.
    pub fn new(kind: FaultKind, reason: impl Into<String>) -> Self {
        Self { kind, reason: reason.into(), node: None }
    }
}

/// Result of this module.
pub type Result<T> = std::result::Result<T, Fault>;

/// Calls a function of the shim that writes its error into a buffer.
fn call(function: impl FnOnce(*mut c_char, usize) -> i32) -> Result<()> {
    let mut text = [0u8; ROOM];
    let code = function(text.as_mut_ptr().cast(), ROOM);
    let kind = match code {
        0 => return Ok(()),
        1 => FaultKind::NoDevice,
        2 => FaultKind::Parse,
        3 => FaultKind::Build,
        4 => FaultKind::Mismatch,
        6 => FaultKind::Timeout,
        8 => FaultKind::Memory,
        9 => FaultKind::Cancelled,
        _ => FaultKind::Run,
    };
    let end = text.iter().position(|&b| b == 0).unwrap_or(ROOM);
    Err(Fault::new(kind, String::from_utf8_lossy(&text[..end]).trim()))
}

fn text(bytes: &[c_char]) -> String {
    let bytes: Vec<u8> = bytes.iter().map(|&b| b as u8).take_while(|&b| b != 0).collect();
    String::from_utf8_lossy(&bytes).into_owned()
}

/// How much a message of TensorRT matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// TensorRT itself is broken.
    InternalError,
    /// A call failed.
    Error,
    /// Worth knowing.
    Warning,
    /// Progress.
    Info,
    /// Everything.
    Verbose,
}

type Sink = dyn Fn(Severity, &str) + Send + Sync;

/// Hears TensorRT's messages, on any thread.
pub struct Logger {
    sink: Box<Sink>,
}

impl Logger {
    /// Gives every message to `sink`.
    pub fn new(sink: impl Fn(Severity, &str) + Send + Sync + 'static) -> Arc<Self> {
        Arc::new(Self { sink: Box::new(sink) })
    }

    /// Drops every message: what fails is told by [`Fault`] all the same.
    pub fn silent() -> Arc<Self> {
        Self::new(|_, _| ())
    }
}

/// `user` is a [`Logger`] that its builder or runtime keeps alive.
unsafe extern "C" fn log(user: *mut c_void, severity: i32, message: *const c_char) {
    let severity = match severity {
        0 => Severity::InternalError,
        1 => Severity::Error,
        2 => Severity::Warning,
        3 => Severity::Info,
        _ => Severity::Verbose,
    };
    // SAFETY: see above; the message ends with NUL and lives as long as the call.
    let (logger, message) = unsafe { (&*user.cast::<Logger>(), CStr::from_ptr(message)) };
    // A panic must not cross into C++.
    let _ = catch_unwind(AssertUnwindSafe(|| (logger.sink)(severity, &message.to_string_lossy())));
}

fn made(handle: *mut Opaque) -> Result<NonNull<Opaque>> {
    NonNull::new(handle).ok_or_else(|| Fault::new(FaultKind::Run, "the shim returned nothing"))
}
