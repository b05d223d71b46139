//! Device memory that is used again. A block goes back to the pool when its last owner drops it, and whoever next asks
//! for that size gets it; as all work runs in one order, it is free by then. Steps of one shape ask for the same sizes,
//! so after the first of them nothing is allocated.

use super::device::{Address, Device, Pending};
use crate::{Error, Result};
use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;

/// Sizes are whole multiples of this; it keeps every vector load aligned.
const UNIT: usize = 512;

/// The pool.
pub(super) struct Pool {
    device: Rc<dyn Device>,
    free: RefCell<HashMap<usize, Vec<Address>>>,
    all: RefCell<Vec<Address>>,
}

impl Pool {
    pub fn new(device: Rc<dyn Device>) -> Rc<Self> {
        Rc::new(Self { device, free: RefCell::default(), all: RefCell::default() })
    }

    pub fn device(&self) -> &dyn Device {
        &*self.device
    }

    /// A block of at least so many bytes, of any content.
    pub fn take(self: &Rc<Self>, bytes: usize) -> Result<Block> {
        let size = bytes.max(1).next_multiple_of(UNIT);
        let ready = self.free.borrow_mut().get_mut(&size).and_then(Vec::pop);
        let address = match ready {
            Some(address) => address,
            None => {
                let address = self.device.allocate(size)?;
                self.all.borrow_mut().push(address);
                address
            }
        };
        Ok(Block { address, size, pool: Rc::clone(self) })
    }

    /// A block of `len` numbers of `f32`.
    pub fn floats(self: &Rc<Self>, len: usize) -> Result<Block> {
        self.take(len * 4)
    }

    /// A block with these numbers.
    pub fn put<T: Plain>(self: &Rc<Self>, values: &[T]) -> Result<Block> {
        let block = self.take(size_of_val(values))?;
        block.write(values)?;
        Ok(block)
    }

    /// Blocks that were allocated so far.
    #[cfg(test)]
    pub fn allocations(&self) -> usize {
        self.all.borrow().len()
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.all.borrow().iter().for_each(|&address| self.device.release(address));
    }
}

/// Types whose bytes are numbers that the kernels read.
///
/// # Safety
/// No padding, any bits are a value.
pub(super) unsafe trait Plain: Copy {}
// SAFETY: primitive numbers have no padding and any bits are a value.
unsafe impl Plain for u8 {}
// SAFETY: as above.
unsafe impl Plain for u16 {}
// SAFETY: as above.
unsafe impl Plain for i32 {}
// SAFETY: as above.
unsafe impl Plain for f32 {}

/// A part of device memory.
pub(super) struct Block {
    address: Address,
    size: usize,
    pool: Rc<Pool>,
}

impl Block {
    pub fn address(&self) -> Address {
        self.address
    }

    /// Copies these numbers to the beginning.
    pub fn write<T: Plain>(&self, values: &[T]) -> Result<()> {
        self.fits(0, size_of_val(values))?;
        // SAFETY: `Plain` types may be read as bytes.
        let bytes = unsafe { std::slice::from_raw_parts(values.as_ptr().cast(), size_of_val(values)) };
        self.pool.device.write(self.address, bytes)
    }

    /// Begins to copy `len` numbers from the beginning to the host.
    pub fn read<T: Plain>(&self, len: usize) -> Result<Copying<T>> {
        self.fits(0, len * size_of::<T>())?;
        Ok(Copying { pending: self.pool.device.read(self.address, len * size_of::<T>())?, len, of: Default::default() })
    }

    /// `len` numbers from the beginning, waiting for them.
    pub fn get<T: Plain>(&self, len: usize) -> Result<Vec<T>> {
        self.read(len)?.wait()
    }

    /// Fills the block with zeros.
    pub fn clear(&self) -> Result<()> {
        self.pool.device.clear(self.address, self.size)
    }

    fn fits(&self, from: usize, bytes: usize) -> Result<()> {
        if from + bytes <= self.size {
            return Ok(());
        }
        Err(Error::Device { name: "memory".into(), reason: format!("{bytes} bytes do not fit in {}", self.size) })
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        self.pool.free.borrow_mut().entry(self.size).or_default().push(self.address);
    }
}

/// Numbers on their way to the host.
pub(super) struct Copying<T> {
    pending: Box<dyn Pending>,
    len: usize,
    of: std::marker::PhantomData<T>,
}

impl<T: Plain> Copying<T> {
    /// The numbers, once they are there.
    pub fn wait(self) -> Result<Vec<T>> {
        let bytes = self.pending.wait()?;
        let mut values = Vec::with_capacity(self.len);
        debug_assert_eq!(bytes.len(), self.len * size_of::<T>());
        // SAFETY: the bytes are `len` numbers, any bits of which are a value; they are copied, so alignment is no matter.
        unsafe {
            std::ptr::copy_nonoverlapping(bytes.as_ptr(), values.as_mut_ptr() as *mut u8, bytes.len());
            values.set_len(self.len);
        }
        Ok(values)
    }
}
