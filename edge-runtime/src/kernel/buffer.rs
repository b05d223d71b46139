//! Memory the kernels read: numbers from a cache line's start on, with a line of slack behind, so that a load of the last
//! few may run over.

/// Alignment in bytes, and the slack.
const LINE: usize = 64;

#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Line([u8; LINE]);

/// Plain numbers: any bytes are a value. Kept to this module's types by being sealed in it.
pub(in crate::kernel) trait Number: Copy + Send + Sync + 'static {}
impl Number for i8 {}
impl Number for u8 {}
impl Number for i16 {}
impl Number for i32 {}
impl Number for f32 {}

/// A fixed number of numbers.
pub(in crate::kernel) struct Buffer<T> {
    lines: Vec<Line>,
    len: usize,
    kind: std::marker::PhantomData<T>,
}

impl<T: Number> Buffer<T> {
    /// `len` times `value`; the slack holds zeros.
    pub fn new(len: usize, value: T) -> Self {
        let lines = if len == 0 { 0 } else { (len * size_of::<T>()).div_ceil(LINE) + 1 };
        let lines = vec![Line([0; LINE]); lines];
        let mut buffer = Self { lines, len, kind: std::marker::PhantomData };
        buffer.values().fill(value);
        buffer
    }

    pub fn values(&mut self) -> &mut [T] {
        // SAFETY: `lines` owns at least `len` initialised numbers, aligned beyond what any number needs.
        unsafe { std::slice::from_raw_parts_mut(self.lines.as_mut_ptr().cast(), self.len) }
    }

    pub fn as_slice(&self) -> &[T] {
        // SAFETY: as above.
        unsafe { std::slice::from_raw_parts(self.as_ptr(), self.len) }
    }

    pub fn as_ptr(&self) -> *const T {
        self.lines.as_ptr().cast()
    }

    pub fn as_mut_ptr(&mut self) -> *mut T {
        self.lines.as_mut_ptr().cast()
    }

    pub fn len(&self) -> usize {
        self.len
    }
}
