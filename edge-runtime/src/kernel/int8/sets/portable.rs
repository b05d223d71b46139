//! Plain arrays, for every processor.

use super::super::dot::{Dot, Task};
use super::super::end::Special;
use super::super::network::Layout;
use super::super::winograd::{self, Wide, Winograd};
use super::super::{Conv, Map, round};

/// Four lanes of plain arrays.
#[derive(Debug, Clone, Copy)]
pub(in super::super) struct Portable;

impl Dot for Portable {
    const LANES: usize = 4;
    const GROUP: usize = 2;
    const REGISTERS: usize = 16;
    type Code = i16;
    type Weight = i16;
    type Operand = [i16; 8];
    type Sum = [i32; 4];
    type Float = [f32; 4];
    /// Lowest and highest.
    type Limits = [i16; 2];

    fn special(
        conv: &Conv,
        maps: &[Map],
        input: &Layout,
        output: &Layout,
        residual: Option<&Layout>,
    ) -> Option<Box<dyn Special<Self>>> {
        winograd::fits::<Self>(conv, input, output)
            .then(|| Box::new(Winograd::<Self>::new(conv, maps, input, output, residual)) as Box<dyn Special<Self>>)
    }
    unsafe fn enter<T: Task<Self>>(task: T) -> T::Output {
        // SAFETY: plain arrays need nothing of the processor.
        unsafe { task.run() }
    }
    #[inline(always)]
    unsafe fn splat(from: *const i16) -> [i16; 8] {
        // SAFETY: the caller vouches for two codes.
        let [a, b] = unsafe { from.cast::<[i16; 2]>().read_unaligned() };
        [a, b, a, b, a, b, a, b]
    }
    #[inline(always)]
    unsafe fn weights(from: *const i16) -> [i16; 8] {
        // SAFETY: the caller vouches for eight weights.
        unsafe { from.cast::<[i16; 8]>().read_unaligned() }
    }
    #[inline(always)]
    unsafe fn dot(sum: [i32; 4], x: [i16; 8], w: [i16; 8]) -> [i32; 4] {
        let product = |i: usize| i32::from(x[i]) * i32::from(w[i]);
        std::array::from_fn(|i| sum[i].wrapping_add(product(2 * i) + product(2 * i + 1)))
    }
    #[inline(always)]
    unsafe fn sums(from: *const i32) -> [i32; 4] {
        // SAFETY: the caller vouches for four sums.
        unsafe { from.cast::<[i32; 4]>().read_unaligned() }
    }
    #[inline(always)]
    unsafe fn store_sums(sum: [i32; 4], to: *mut i32) {
        // SAFETY: the caller vouches for room for four sums.
        unsafe { to.cast::<[i32; 4]>().write_unaligned(sum) }
    }
    #[inline(always)]
    unsafe fn load_codes(from: *const i16) -> [i16; 8] {
        // SAFETY: the caller vouches for eight codes.
        unsafe { from.cast::<[i16; 8]>().read_unaligned() }
    }
    #[inline(always)]
    unsafe fn store_codes(codes: [i16; 8], to: *mut i16) {
        // SAFETY: the caller vouches for room for eight codes.
        unsafe { to.cast::<[i16; 8]>().write_unaligned(codes) }
    }
    #[inline(always)]
    unsafe fn interleave([a, b, c, d]: [[i16; 8]; 4]) -> [[i16; 8]; 4] {
        let pairs = |a: [i16; 8], b: [i16; 8], first: usize| {
            std::array::from_fn(|i| if i % 2 == 0 { a[first + i / 2] } else { b[first + i / 2] })
        };
        [pairs(a, b, 0), pairs(a, b, 4), pairs(c, d, 0), pairs(c, d, 4)]
    }
    #[inline(always)]
    unsafe fn widen<const B: usize>(from: *const i16) -> [[i32; 4]; B] {
        // SAFETY: the caller vouches for the codes of `B` vectors.
        std::array::from_fn(|b| unsafe { from.cast::<[i16; 4]>().add(b).read_unaligned() }.map(i32::from))
    }
    #[inline(always)]
    unsafe fn multiply_add(sum: [i32; 4], x: [i32; 4], w: [i32; 4]) -> [i32; 4] {
        std::array::from_fn(|i| sum[i] + x[i] * i32::from(w[i] as i16))
    }
    #[inline(always)]
    unsafe fn float(sum: [i32; 4]) -> [f32; 4] {
        sum.map(|v| v as f32)
    }
    #[inline(always)]
    unsafe fn number(value: f32) -> [f32; 4] {
        [value; 4]
    }
    #[inline(always)]
    unsafe fn floats(from: *const f32) -> [f32; 4] {
        // SAFETY: the caller vouches for four numbers.
        unsafe { from.cast::<[f32; 4]>().read_unaligned() }
    }
    #[inline(always)]
    unsafe fn mul(a: [f32; 4], b: [f32; 4]) -> [f32; 4] {
        std::array::from_fn(|i| a[i] * b[i])
    }
    #[inline(always)]
    unsafe fn add(a: [f32; 4], b: [f32; 4]) -> [f32; 4] {
        std::array::from_fn(|i| a[i] + b[i])
    }
    #[inline(always)]
    unsafe fn settle(v: [f32; 4], low: [f32; 4], high: [f32; 4]) -> [f32; 4] {
        std::array::from_fn(|i| {
            let v = if v[i] > low[i] { v[i] } else { low[i] };
            round(if v < high[i] { v } else { high[i] })
        })
    }
    #[inline(always)]
    unsafe fn whole(value: [f32; 4]) -> [i32; 4] {
        // SAFETY: the caller vouches for the range.
        value.map(|v| unsafe { round(v).to_int_unchecked() })
    }
    #[inline(always)]
    unsafe fn limits(_: i32, low: i32, high: i32) -> [i16; 2] {
        [low as i16, high as i16]
    }
    #[inline(always)]
    unsafe fn store<const B: usize>(whole: [[i32; 4]; B], limits: [i16; 2], to: *mut i16) {
        for (b, whole) in whole.into_iter().enumerate() {
            // SAFETY: the caller vouches for room for `B` vectors.
            unsafe { to.cast::<[i16; 4]>().add(b).write_unaligned(whole.map(|v| Self::clip(v, limits))) }
        }
    }
    #[inline(always)]
    unsafe fn store_part(whole: [[i32; 4]; 4], limits: [i16; 2], count: usize, to: *mut i16) {
        for at in 0..count.min(8) {
            // SAFETY: the caller vouches for room for `count` codes.
            unsafe { *to.add(at) = Self::clip(whole[at / 4][at % 4], limits) }
        }
    }
}

impl Portable {
    #[inline(always)]
    fn clip(value: i32, [low, high]: [i16; 2]) -> i16 {
        value.max(low.into()).min(high.into()) as i16
    }
}

impl Wide for Portable {
    #[inline(always)]
    unsafe fn plus_codes(a: [i16; 8], b: [i16; 8]) -> [i16; 8] {
        std::array::from_fn(|i| a[i] + b[i])
    }
    #[inline(always)]
    unsafe fn minus_codes(a: [i16; 8], b: [i16; 8]) -> [i16; 8] {
        std::array::from_fn(|i| a[i] - b[i])
    }
    #[inline(always)]
    unsafe fn no_sum() -> [i32; 4] {
        [0; 4]
    }
    #[inline(always)]
    unsafe fn plus(a: [i32; 4], b: [i32; 4]) -> [i32; 4] {
        std::array::from_fn(|i| a[i].wrapping_add(b[i]))
    }
    #[inline(always)]
    unsafe fn minus(a: [i32; 4], b: [i32; 4]) -> [i32; 4] {
        std::array::from_fn(|i| a[i].wrapping_sub(b[i]))
    }
}
