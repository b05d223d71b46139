//! What the engine needs of a device: memory, kernels by name, convolutions, matrix products, all in one order of work.
//!
//! Everything that is asked for runs in the order it was asked for, later than the call; only [`Pending::wait`] waits.
//! The graphics card implements this (`card`), and for the tests a CPU does that runs the kernels' own text.

use crate::Result;
use crate::config::Precision;

impl Precision {
    /// Bytes of one number of a map.
    pub(super) fn bytes(self) -> usize {
        if self == Self::Bf16 { 2 } else { 4 }
    }
}

/// Where something lies in the device's memory.
pub(super) type Address = u64;

/// An argument of a kernel, of exactly the type in its text.
#[derive(Debug, Clone, Copy)]
pub(super) enum Argument {
    Pointer(Address),
    Int(i32),
    Long(i64),
    Float(f32),
}

impl From<i32> for Argument {
    fn from(value: i32) -> Self {
        Self::Int(value)
    }
}

impl From<i64> for Argument {
    fn from(value: i64) -> Self {
        Self::Long(value)
    }
}

impl From<f32> for Argument {
    fn from(value: f32) -> Self {
        Self::Float(value)
    }
}

impl From<bool> for Argument {
    fn from(value: bool) -> Self {
        Self::Int(value.into())
    }
}

/// A convolution with square kernel, on N × H × W × C maps and weights O × K × K × I/groups.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Convolution {
    pub rows: usize,
    pub height: usize,
    pub width: usize,
    pub input: usize,
    pub output: usize,
    pub kernel: usize,
    pub stride: usize,
    pub padding: usize,
    pub groups: usize,
}

impl Convolution {
    /// Height and width of the result.
    pub fn sides(&self) -> (usize, usize) {
        let side = |side: usize| (side + 2 * self.padding - self.kernel) / self.stride + 1;
        (side(self.height), side(self.width))
    }
}

/// What is computed of a convolution, from which two.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Direction {
    /// The result, from input and weights.
    Forward,
    /// The input's gradient, from the result's gradient and the weights.
    Input,
    /// The weights' gradient, from the input and the result's gradient.
    Weights,
}

/// `c = factor · op(a) · op(b) [+ c]` on column-major matrices, as BLAS defines it: op(a) is `m × k`, op(b) `k × n`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Product {
    pub transpose: [bool; 2],
    pub m: usize,
    pub n: usize,
    pub k: usize,
    pub factor: f32,
    /// Matrices and the distances between their columns.
    pub a: (Address, usize),
    pub b: (Address, usize),
    pub c: (Address, usize),
    /// Whether c is added to.
    pub add: bool,
    /// Whether inputs may not be rounded to TF32.
    pub exact: bool,
}

/// A copy to the host that is under way.
pub(super) trait Pending {
    /// Waits for it and for all that was asked for before it.
    fn wait(self: Box<Self>) -> Result<Vec<u8>>;
}

/// A device.
pub(super) trait Device {
    /// Numbers of maps.
    fn precision(&self) -> Precision;
    /// Blocks of threads that keep it busy.
    fn width(&self) -> usize;
    /// Reserves memory. Slow, and not done in a step that has been made before.
    fn allocate(&self, bytes: usize) -> Result<Address>;
    /// Frees memory that [`Self::allocate`] gave, after all that was asked for.
    fn release(&self, address: Address);
    /// Copies to the device; the bytes may change when this returns.
    fn write(&self, to: Address, bytes: &[u8]) -> Result<()>;
    /// Copies to the host.
    fn read(&self, from: Address, bytes: usize) -> Result<Box<dyn Pending>>;
    /// Fills with zeros.
    fn clear(&self, at: Address, bytes: usize) -> Result<()>;
    /// Runs a kernel of [`super::kernels`] on a grid of blocks.
    fn launch(&self, kernel: &'static str, grid: (usize, usize), arguments: &[Argument]) -> Result<()>;
    /// Computes one of the three maps of a convolution.
    fn convolve(&self, direction: Direction, shape: &Convolution, from: [Address; 2], to: Address) -> Result<()>;
    /// Multiplies matrices.
    fn multiply(&self, product: &Product) -> Result<()>;
}
