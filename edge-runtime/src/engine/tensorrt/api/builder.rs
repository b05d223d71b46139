//! From an ONNX file to a plan.

use super::{Abi, Fault, Library, Logger, Opaque, Result, abi, call, log, made};
use std::ffi::{CStr, c_char, c_void};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr::{NonNull, null_mut};
use std::sync::Arc;

/// What a build may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BuildOptions {
    /// Layers before the head may compute in 16-bit float.
    pub half: bool,
    /// The network holds quantize–dequantize pairs.
    pub int8: bool,
    /// Deep-learning accelerator; what it cannot run falls back to the GPU.
    pub dla_core: Option<u32>,
    /// Bytes to try tactics with; TensorRT's own choice where none.
    pub workspace: Option<u64>,
}

/// What came out of a build.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct BuildReport {
    /// Layers of the network as parsed.
    pub layers: u32,
    /// Of these, those that the accelerator can run.
    pub dla_layers: u32,
    /// Layers of the head, held in 32-bit float.
    pub head_layers: u32,
}

/// Builds a plan from an ONNX file.
pub struct Builder {
    handle: NonNull<Opaque>,
    abi: Arc<Abi>,
    _logger: Arc<Logger>,
}

// SAFETY: the shim's builder may move between threads; it is used by one at a time, through `&mut`.
unsafe impl Send for Builder {}

impl Builder {
    /// A builder on a device.
    ///
    /// # Errors
    /// `FaultKind::NoDevice` without one, else what TensorRT says.
    pub fn new(library: &Library, device: u32, logger: &Arc<Logger>) -> Result<Self> {
        library.devices()?;
        let (mut handle, user) = (null_mut(), Arc::as_ptr(logger).cast_mut().cast());
        // SAFETY: the logger outlives the builder, which keeps it.
        call(|to, room| unsafe { (library.abi.builder_new)(device as i32, log, user, &mut handle, to, room) })?;
        Ok(Self { handle: made(handle)?, abi: library.abi.clone(), _logger: logger.clone() })
    }

    /// Reads the network, once.
    ///
    /// # Errors
    /// `FaultKind::Parse`, with the node where the parser names one.
    pub fn parse(&mut self, onnx: &[u8]) -> Result<()> {
        let mut node = -1;
        let (bytes, size) = (onnx.as_ptr().cast(), onnx.len());
        // SAFETY: the bytes are only read during the call.
        let parsed = call(|to, room| unsafe {
            (self.abi.builder_parse)(self.handle.as_ptr(), bytes, size, &mut node, to, room)
        });
        parsed.map_err(|fault| Fault { node: usize::try_from(node).ok(), ..fault })
    }

    /// Builds the plan. `progress` hears phase, step and number of steps from TensorRT 10.3 on, and stops the build by
    /// `false`.
    ///
    /// # Errors
    /// `FaultKind::Build`, `FaultKind::Memory` or `FaultKind::Cancelled`.
    pub fn build(
        &mut self,
        options: &BuildOptions,
        progress: &mut dyn FnMut(&str, u32, u32) -> bool,
    ) -> Result<(Vec<u8>, BuildReport)> {
        /// `user` is the callback, alive on the stack of the caller.
        unsafe extern "C" fn heard(user: *mut c_void, phase: *const c_char, step: i32, steps: i32) -> i32 {
            // SAFETY: see above; TensorRT builds on the thread that asked, and the phase ends with NUL.
            let (progress, phase) = unsafe {
                (&mut *user.cast::<&mut dyn FnMut(&str, u32, u32) -> bool>(), CStr::from_ptr(phase).to_string_lossy())
            };
            let go_on = catch_unwind(AssertUnwindSafe(|| progress(&phase, step.max(0) as u32, steps.max(0) as u32)));
            i32::from(go_on.unwrap_or(false))
        }
        let raw = abi::Options {
            half: options.half.into(),
            int8: options.int8.into(),
            dla_core: options.dla_core.map_or(-1, |core| core as i32),
            reserved: 0,
            workspace: options.workspace.unwrap_or(0),
        };
        let (mut plan, mut report, mut progress) = (null_mut(), abi::Report::default(), progress);
        let user: *mut c_void = (&raw mut progress).cast();
        // SAFETY: options, callback, plan and report outlive the call.
        call(|to, room| unsafe {
            (self.abi.builder_build)(self.handle.as_ptr(), &raw, heard, user, &mut plan, &mut report, to, room)
        })?;
        let plan = made(plan)?.as_ptr();
        // SAFETY: the plan's memory is its own until it is freed, and is copied before.
        let bytes = unsafe {
            let (data, size) = ((self.abi.plan_data)(plan).cast::<u8>(), (self.abi.plan_size)(plan));
            let bytes = if data.is_null() { Vec::new() } else { std::slice::from_raw_parts(data, size).to_vec() };
            (self.abi.plan_free)(plan);
            bytes
        };
        let count = |value: i32| value.max(0) as u32;
        let report = BuildReport {
            layers: count(report.layers),
            dla_layers: count(report.dla_layers),
            head_layers: count(report.head_layers),
        };
        Ok((bytes, report))
    }
}

impl Drop for Builder {
    fn drop(&mut self) {
        // SAFETY: made once, freed once.
        unsafe { (self.abi.builder_free)(self.handle.as_ptr()) }
    }
}
