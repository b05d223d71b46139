//! Map-sized buffers that are used again: fresh ones cost a page fault for every 4 kB, in every step.

use super::uninitialised;
use std::sync::{Mutex, PoisonError};

/// Numbers that may wait for use, 1 GiB.
const LIMIT: usize = 256 << 20;

static FREE: Mutex<Vec<Vec<f32>>> = Mutex::new(Vec::new());

/// A buffer of `len` numbers, of which every one must be written before it is read.
pub(super) fn take(len: usize) -> Vec<f32> {
    let mut free = FREE.lock().unwrap_or_else(PoisonError::into_inner);
    // The smallest that fits, and not one of twice the size: it would be missed elsewhere.
    let fitting = (0..free.len()).filter(|&i| free[i].capacity() >= len && free[i].capacity() / 2 <= len);
    match fitting.min_by_key(|&i| free[i].capacity()) {
        Some(i) => {
            let mut buffer = free.swap_remove(i);
            // SAFETY: the memory is allocated, any bits are an f32, and the caller writes all of it before it reads.
            unsafe { buffer.set_len(len) };
            buffer
        }
        None => uninitialised(len),
    }
}

/// Hands a buffer back.
pub(super) fn give(buffer: Vec<f32>) {
    if buffer.capacity() == 0 {
        return;
    }
    let mut free = FREE.lock().unwrap_or_else(PoisonError::into_inner);
    free.push(buffer);
    // The oldest go first.
    while free.iter().map(Vec::capacity).sum::<usize>() > LIMIT {
        free.remove(0);
    }
}
