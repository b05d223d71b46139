//! Map-sized buffers that are used again: fresh ones cost a page fault for every 4 kB, in every step.

use super::uninitialised;
use std::sync::{Mutex, PoisonError};

/// Numbers that may wait for use, 1 GiB.
const LIMIT: usize = 256 << 20;

static FREE: Mutex<Vec<Vec<f32>>> = Mutex::new(Vec::new());

/// A buffer of `len` numbers, of which every one must be written before it is read.
pub(super) fn take(len: usize) -> Vec<f32> {
    let mut free = FREE.lock().unwrap_or_else(PoisonError::into_inner);
    // Not one of twice the size: it would be missed elsewhere.
    match free.iter().rposition(|b| b.len() >= len && b.len() / 2 <= len) {
        Some(i) => {
            let mut buffer = free.swap_remove(i);
            buffer.truncate(len);
            buffer
        }
        None => uninitialised(len),
    }
}

/// Hands a buffer back.
pub(super) fn give(buffer: Vec<f32>) {
    if buffer.is_empty() {
        return;
    }
    let mut free = FREE.lock().unwrap_or_else(PoisonError::into_inner);
    free.push(buffer);
    // The oldest go first.
    while free.iter().map(Vec::len).sum::<usize>() > LIMIT {
        free.remove(0);
    }
}
