//! What an instruction set gives the int8 kernels: dot products of a few codes with a vector of output channels, and the
//! float lanes of the requantization. Kernels are written once over it.

use super::buffer::Number;
use super::end::Special;
use super::network::Layout;
use super::{Codes, Conv, Map};

/// How a map's codes lie in memory: shifted by an origin so that they fit the multiply instruction's operand.
pub(super) trait Code: Number + Ord {
    /// Whether centred codes are stored as they are.
    const CENTRED: bool;
    /// Subtracted from a code to store it.
    fn origin(codes: &Codes) -> i32;
    /// The stored form of a number that fits.
    fn new(value: i32) -> Self;
    /// Back.
    fn get(self) -> i32;

    /// Four stored forms, together.
    fn four(values: [i32; 4]) -> [Self; 4];

    /// The stored form of centred code 0: what a halo holds.
    fn shift(codes: &Codes) -> i32 {
        codes.zero - Self::origin(codes)
    }
}

/// Centred, for multiplications of 16 bits.
impl Code for i16 {
    const CENTRED: bool = true;
    fn origin(codes: &Codes) -> i32 {
        codes.zero
    }
    #[inline(always)]
    fn new(value: i32) -> Self {
        value as Self
    }
    #[inline(always)]
    fn get(self) -> i32 {
        self.into()
    }
    #[inline(always)]
    fn four(values: [i32; 4]) -> [Self; 4] {
        values.map(|v| v as Self)
    }
}

/// Unsigned, for multiplications of unsigned by signed bytes.
impl Code for u8 {
    const CENTRED: bool = false;
    fn origin(codes: &Codes) -> i32 {
        if codes.signed { -128 } else { 0 }
    }
    #[inline(always)]
    fn new(value: i32) -> Self {
        value as Self
    }
    #[inline(always)]
    fn get(self) -> i32 {
        self.into()
    }
    #[inline(always)]
    fn four([a, b, c, d]: [i32; 4]) -> [Self; 4] {
        // As one number: compilers turn that into vector code.
        (a | b << 8 | c << 16 | d << 24).to_le_bytes()
    }
}

/// Signed, for multiplications of signed bytes.
impl Code for i8 {
    const CENTRED: bool = false;
    fn origin(codes: &Codes) -> i32 {
        if codes.signed { 0 } else { 128 }
    }
    #[inline(always)]
    fn new(value: i32) -> Self {
        value as Self
    }
    #[inline(always)]
    fn get(self) -> i32 {
        self.into()
    }
    #[inline(always)]
    fn four(values: [i32; 4]) -> [Self; 4] {
        u8::four(values.map(|v| v & 255)).map(|v| v as Self)
    }
}

/// A computation over one instruction set. Mark implementations `#[inline(always)]`.
pub(super) trait Task<D: Dot> {
    /// What it returns.
    type Output;
    /// # Safety
    /// The processor must have the set; [`Dot::enter`]'s caller sees to that.
    unsafe fn run(self) -> Self::Output;
}

/// An instruction set. All methods are unsafe for one reason, the processor must have it; those with pointers also need
/// memory for what they say they touch.
pub(super) trait Dot: Copy + Send + Sync + 'static {
    /// Output channels in a vector.
    const LANES: usize;
    /// Codes multiplied and summed by one instruction.
    const GROUP: usize;
    /// Vector registers.
    const REGISTERS: usize;
    /// Codes whose weights lie side by side for [`Self::tile`], and that the weights of a run are padded to a multiple of.
    const STEP: usize = Self::GROUP;
    /// Least weight that [`Self::dot`] and [`Self::tile`] take.
    const LEAST_WEIGHT: i8 = i8::MIN;
    /// A stored code.
    type Code: Code;
    /// A stored weight.
    type Weight: Number + From<i8>;
    /// `LANES × GROUP` codes or weights.
    type Operand: Copy;
    /// `LANES` sums in i32.
    type Sum: Copy;
    /// `LANES` numbers in f32.
    type Float: Copy;
    /// The stored forms of 0, of the lowest and of the highest code of a map.
    type Limits: Copy;

    /// Runs a task in a function compiled for the set.
    unsafe fn enter<T: Task<Self>>(task: T) -> T::Output;

    /// A faster form of a convolution that the set has, where it fits.
    fn special(
        _conv: &Conv,
        _maps: &[Map],
        _input: &Layout,
        _output: &Layout,
        _residual: Option<&Layout>,
    ) -> Option<Box<dyn Special<Self>>> {
        None
    }

    /// The `GROUP` codes at `from`, for every lane.
    unsafe fn splat(from: *const Self::Code) -> Self::Operand;
    /// `LANES × GROUP` weights.
    unsafe fn weights(from: *const Self::Weight) -> Self::Operand;
    /// Adds in each lane the products of its `GROUP` codes and weights.
    unsafe fn dot(sum: Self::Sum, codes: Self::Operand, weights: Self::Operand) -> Self::Sum;

    /// A register tile: for `B` vectors of output channels, from `start` on, the sums of `P` pixels, `step` codes apart
    /// from `from` on. `runs` begin so many codes behind the pixel and are `groups` groups of codes long; the weights are
    /// `[run][step][vector][lane][code]`.
    #[inline(always)]
    unsafe fn tile<const P: usize, const B: usize>(
        start: [Self::Sum; B],
        (from, step): (*const Self::Code, usize),
        runs: &[usize],
        groups: usize,
        mut weights: *const Self::Weight,
    ) -> [[Self::Sum; B]; P] {
        let mut sums = [start; P];
        for &run in runs {
            // SAFETY: the caller vouches for the set and the memory.
            unsafe {
                let mut codes = from.add(run);
                for _ in 0..groups {
                    let w: [Self::Operand; B] =
                        std::array::from_fn(|b| Self::weights(weights.add(b * Self::LANES * Self::GROUP)));
                    for p in 0..P {
                        let x = Self::splat(codes.add(p * step));
                        for b in 0..B {
                            sums[p][b] = Self::dot(sums[p][b], x, w[b]);
                        }
                    }
                    weights = weights.add(B * Self::LANES * Self::GROUP);
                    codes = codes.add(Self::GROUP);
                }
            }
        }
        sums
    }

    /// `LANES` sums.
    unsafe fn sums(from: *const i32) -> Self::Sum;
    /// Stores `LANES` sums.
    unsafe fn store_sums(sum: Self::Sum, to: *mut i32);
    /// `LANES × GROUP` stored codes.
    unsafe fn load_codes(from: *const Self::Code) -> Self::Operand;
    /// Back to memory.
    unsafe fn store_codes(codes: Self::Operand, to: *mut Self::Code);
    /// Brings the codes of four rows together, channel by channel: operand `i` holds `GROUP` rows, from row
    /// `i / GROUP · GROUP` on, for the lanes of vector `i % GROUP` in [`packed`](super::end::packed) order.
    unsafe fn interleave(rows: [Self::Operand; 4]) -> [Self::Operand; 4];
    /// Stored codes of `B` vectors (a power of 2, not above `GROUP`), widened, in [`packed`](super::end::packed) order.
    unsafe fn widen<const B: usize>(from: *const Self::Code) -> [Self::Sum; B];
    /// Adds lane by lane `code · weight`; the weight is stored as [`lane_weight`] makes it.
    unsafe fn multiply_add(sum: Self::Sum, codes: Self::Sum, weights: Self::Sum) -> Self::Sum;

    /// To f32, rounded half to even.
    unsafe fn float(sum: Self::Sum) -> Self::Float;
    /// One number in every lane.
    unsafe fn number(value: f32) -> Self::Float;
    /// `LANES` numbers.
    unsafe fn floats(from: *const f32) -> Self::Float;
    /// Product, rounded.
    unsafe fn mul(a: Self::Float, b: Self::Float) -> Self::Float;
    /// Sum, rounded.
    unsafe fn add(a: Self::Float, b: Self::Float) -> Self::Float;
    /// Into `low..=high`, then to the nearest whole number, half to even.
    unsafe fn settle(value: Self::Float, low: Self::Float, high: Self::Float) -> Self::Float;
    /// To the nearest whole number, half to even; the value lies within ±2³⁰.
    unsafe fn whole(value: Self::Float) -> Self::Sum;
    /// Makes [`Self::Limits`] of stored forms.
    unsafe fn limits(zero: i32, low: i32, high: i32) -> Self::Limits;
    /// Clips `B` vectors of centred codes and stores them, in [`packed`](super::end::packed) order; `B` as for [`Self::widen`].
    unsafe fn store<const B: usize>(whole: [Self::Sum; B], limits: Self::Limits, to: *mut Self::Code);
    /// Clips and stores the first `count` of the `LANES × GROUP` codes that the first `GROUP` vectors hold.
    unsafe fn store_part(whole: [Self::Sum; 4], limits: Self::Limits, count: usize, to: *mut Self::Code);
}

/// A weight for [`Dot::multiply_add`]: 16 bits, the upper half of the lane empty, so that a multiplication of 16-bit pairs
/// gives the product of one.
pub(super) fn lane_weight(weight: i8) -> i32 {
    i32::from(i16::from(weight) as u16)
}
