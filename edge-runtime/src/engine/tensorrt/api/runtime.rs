//! From a plan to inferences.

use super::{Abi, Fault, FaultKind, Library, Logger, Opaque, Result, abi, call, log, made, text};
use std::ptr::{NonNull, null_mut};
use std::sync::Arc;
use std::time::Duration;

/// Loads plans.
pub struct Runtime {
    handle: NonNull<Opaque>,
    abi: Arc<Abi>,
    _logger: Arc<Logger>,
}

// SAFETY: nothing in it changes behind a shared reference; loading takes place on one thread at a time.
unsafe impl Send for Runtime {}
// SAFETY: as above.
unsafe impl Sync for Runtime {}

impl Runtime {
    /// A runtime on a device.
    ///
    /// # Errors
    /// [`FaultKind::NoDevice`] without one.
    pub fn new(library: &Library, device: u32, logger: &Arc<Logger>) -> Result<Arc<Self>> {
        library.devices()?;
        let (mut handle, user) = (null_mut(), Arc::as_ptr(logger).cast_mut().cast());
        // SAFETY: the logger outlives the runtime, which keeps it.
        call(|to, room| unsafe { (library.abi.runtime_new)(device as i32, log, user, &mut handle, to, room) })?;
        Ok(Arc::new(Self { handle: made(handle)?, abi: library.abi.clone(), _logger: logger.clone() }))
    }

    /// Loads a plan. TensorRT trusts what is in one: give it only bytes that [`Builder::build`](super::Builder::build) made here.
    ///
    /// # Errors
    /// [`FaultKind::Mismatch`] when it is of another version or device, or damaged.
    pub fn deserialize(self: &Arc<Self>, plan: &[u8]) -> Result<Arc<Engine>> {
        let mut handle = null_mut();
        let (bytes, size) = (plan.as_ptr().cast(), plan.len());
        // SAFETY: the bytes are only read during the call, and the engine keeps its runtime.
        call(|to, room| unsafe { (self.abi.engine_new)(self.handle.as_ptr(), bytes, size, &mut handle, to, room) })?;
        Ok(Arc::new(Engine { handle: made(handle)?, runtime: self.clone() }))
    }
}

impl Drop for Runtime {
    fn drop(&mut self) {
        // SAFETY: made once, freed once, behind its engines.
        unsafe { (self.abi.runtime_free)(self.handle.as_ptr()) }
    }
}

/// An input or output of an engine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tensor {
    /// Its name in the ONNX file.
    pub name: String,
    /// An input, else an output.
    pub input: bool,
    /// Extents, all fixed.
    pub shape: Vec<usize>,
}

/// A loaded plan.
pub struct Engine {
    handle: NonNull<Opaque>,
    runtime: Arc<Runtime>,
}

// SAFETY: a loaded engine does not change; contexts made from it are separate.
unsafe impl Send for Engine {}
// SAFETY: as above.
unsafe impl Sync for Engine {}

impl Engine {
    /// Its inputs and outputs, in the order their buffers have.
    ///
    /// # Errors
    /// [`FaultKind::Mismatch`] when one is not 32-bit float or its shape is not fixed.
    pub fn tensors(&self) -> Result<Vec<Tensor>> {
        let abi = &self.runtime.abi;
        // SAFETY: the handle is alive.
        let count = unsafe { (abi.engine_tensors)(self.handle.as_ptr()) };
        let one = |index: i32| {
            let mut raw = abi::Tensor { name: [0; 128], input: 0, is_float: 0, rank: 0, shape: [0; 8] };
            // SAFETY: it fills one structure and the message.
            call(|to, room| unsafe { (abi.engine_tensor)(self.handle.as_ptr(), index, &mut raw, to, room) })?;
            let name = text(&raw.name);
            let sides = raw.shape.iter().take(raw.rank.clamp(0, 8) as usize);
            let shape: Option<Vec<usize>> = sides.map(|&s| usize::try_from(s).ok().filter(|&s| s > 0)).collect();
            match shape {
                Some(shape) if raw.is_float != 0 => Ok(Tensor { name, input: raw.input != 0, shape }),
                _ => Err(Fault::new(
                    FaultKind::Mismatch,
                    format!("tensor `{name}` is not 32-bit float of a fixed shape"),
                )),
            }
        };
        (0..count).map(one).collect()
    }

    /// A context with pinned buffers, its own stream, and a CUDA graph where the engine lets itself be captured. It has
    /// run once, within `timeout`.
    ///
    /// # Errors
    /// [`FaultKind::Memory`], or as [`ExecutionContext::run`].
    pub fn create_execution_context(self: &Arc<Self>, timeout: Duration) -> Result<ExecutionContext> {
        let tensors = self.tensors()?;
        let mut handle = null_mut();
        let limit = milliseconds(timeout);
        // SAFETY: the context keeps its engine.
        let result = call(|to, room| unsafe {
            (self.runtime.abi.context_new)(self.handle.as_ptr(), limit, &mut handle, to, room)
        });
        if let Err(fault) = result {
            if fault.kind == FaultKind::Timeout {
                // The device still runs it, and freeing what it runs would wait for it.
                std::mem::forget(self.clone());
            }
            return Err(fault);
        }
        Ok(ExecutionContext { handle: made(handle)?, tensors, engine: self.clone(), lost: false })
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        // SAFETY: made once, freed once, behind its contexts and before its runtime.
        unsafe { (self.runtime.abi.engine_free)(self.handle.as_ptr()) }
    }
}

fn milliseconds(time: Duration) -> u32 {
    u32::try_from(time.as_millis()).unwrap_or(u32::MAX)
}

/// Runs an engine, one inference at a time.
pub struct ExecutionContext {
    handle: NonNull<Opaque>,
    tensors: Vec<Tensor>,
    engine: Arc<Engine>,
    lost: bool,
}

// SAFETY: the shim takes a context on any thread; it is used by one at a time, through `&mut`.
unsafe impl Send for ExecutionContext {}

impl ExecutionContext {
    /// Whether inferences replay a CUDA graph.
    pub fn has_graph(&self) -> bool {
        // SAFETY: the handle is alive.
        unsafe { (self.engine.runtime.abi.context_graph)(self.handle.as_ptr()) != 0 }
    }

    /// Position of a tensor's buffer.
    pub fn position(&self, name: &str) -> Option<usize> {
        self.tensors.iter().position(|t| t.name == name)
    }

    /// The pinned buffer of a tensor: to be written before [`ExecutionContext::run`] where it is an input, what the last
    /// run gave where it is an output. Empty for a position that is none.
    pub fn buffer(&mut self, position: usize) -> &mut [f32] {
        let Some(tensor) = self.tensors.get(position) else { return &mut [] };
        let length = tensor.shape.iter().product();
        // SAFETY: the shim allocated that many floats for the tensor and set them; they live as long as the context,
        // and no inference is under way while it is borrowed.
        unsafe {
            let start = (self.engine.runtime.abi.context_buffer)(self.handle.as_ptr(), position as i32);
            if start.is_null() { &mut [] } else { std::slice::from_raw_parts_mut(start, length) }
        }
    }

    /// Copies the inputs over, runs, and copies the outputs back.
    ///
    /// # Errors
    /// [`FaultKind::Run`] with CUDA's reason; [`FaultKind::Timeout`] when it did not end, and from then on.
    pub fn run(&mut self, timeout: Duration) -> Result<()> {
        let abi = &self.engine.runtime.abi;
        // SAFETY: the handle is alive and used by this thread alone.
        let run = call(|to, room| unsafe { (abi.context_run)(self.handle.as_ptr(), milliseconds(timeout), to, room) });
        if run.as_ref().is_err_and(|fault| fault.kind == FaultKind::Timeout) && !self.lost {
            self.lost = true;
            // As above: the engine has to stay.
            std::mem::forget(self.engine.clone());
        }
        run
    }
}

impl Drop for ExecutionContext {
    fn drop(&mut self) {
        // SAFETY: made once, freed once, before its engine.
        unsafe { (self.engine.runtime.abi.context_free)(self.handle.as_ptr()) }
    }
}
