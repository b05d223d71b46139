//! The operations candle is slow at, as custom operations with their own backward pass.
//!
//! Maps are N × H × W × C, contiguous `f32`; convolution weights are O × I × K × K. One function per operation
//! ([`conv2d`], [`batch_norm`], [`max_pool`], [`global_pool`], and [`chain`] for a whole encoder); each runs on the CPU today, and a CUDA twin would be the
//! `cuda_fwd` of the same operation. Results do not depend on which thread did what, only on how many there are.

mod buffers;
mod chain;
mod conv;
mod correlate;
mod depthwise;
mod folded;
mod frame;
mod job;
mod link;
mod norm;
mod pixelwise;
mod pool;
#[cfg(test)]
mod tests;
mod weight_gradient;

pub use chain::chain;
pub use conv::{Convolution, conv2d, conv2d_fused};
pub use folded::chain_folded;
pub use link::{Link, Source};
pub use norm::{EPSILON, NormOutput, Statistics, batch_norm};
pub use pool::{global_pool, max_pool};

use candle_core::{CpuStorage, Layout, Result, Storage, Tensor, bail};
use std::cell::RefCell;

/// The numbers of a contiguous `f32` storage.
fn floats<'a>(storage: &'a CpuStorage, layout: &Layout) -> Result<&'a [f32]> {
    match layout.contiguous_offsets() {
        Some((from, to)) => Ok(&storage.as_slice::<f32>()?[from..to]),
        None => bail!("a kernel was given a tensor that is not contiguous"),
    }
}

/// Runs `f` on the numbers of contiguous CPU tensors.
fn with_floats<const N: usize, R>(tensors: [&Tensor; N], f: impl FnOnce([&[f32]; N]) -> Result<R>) -> Result<R> {
    let storages = tensors.map(|t| t.storage_and_layout());
    let mut slices = [&[][..]; N];
    for (slice, (storage, layout)) in slices.iter_mut().zip(&storages) {
        *slice = match &**storage {
            Storage::Cpu(cpu) => floats(cpu, layout)?,
            _ => bail!("this kernel has no version for the tensor's device"),
        };
    }
    f(slices)
}

/// A buffer whose every number will be written before it is read.
fn uninitialised(len: usize) -> Vec<f32> {
    let mut buffer = Vec::with_capacity(len);
    // SAFETY: any bits are an f32, the memory is allocated, and the kernels write all of it before anyone reads.
    #[allow(clippy::uninit_vec)]
    unsafe {
        buffer.set_len(len)
    };
    buffer
}

/// Memory that several threads write disjoint parts of.
#[derive(Clone, Copy)]
struct Shared(*mut f32);

// SAFETY: users of `Shared` write disjoint ranges, which each kernel states where it does so.
unsafe impl Send for Shared {}
// SAFETY: as above.
unsafe impl Sync for Shared {}

impl Shared {
    fn of(buffer: &mut [f32]) -> Self {
        Self(buffer.as_mut_ptr())
    }

    /// # Safety
    /// `offset` must lie inside the buffer, and the range written from there must be this thread's own.
    unsafe fn at(&self, offset: usize) -> *mut f32 {
        // SAFETY: the caller vouches for the offset.
        unsafe { self.0.add(offset) }
    }
}

thread_local! {
    static SCRATCH: RefCell<[Vec<f32>; 2]> = const { RefCell::new([Vec::new(), Vec::new()]) };
}

/// Lends this thread's two scratch buffers, which keep their memory from call to call.
fn with_scratch<R>(f: impl FnOnce(&mut [Vec<f32>; 2]) -> R) -> R {
    // Taken out while in use: a nested call on the same thread (work stealing) then gets fresh ones instead of a panic.
    let mut buffers = SCRATCH.take();
    let result = f(&mut buffers);
    SCRATCH.set(buffers);
    result
}
