//! The NEON sets: four lanes of 32 bits, signed bytes as codes and weights. They differ in how bytes are multiplied, which
//! is all that their files hold: [`plain`], for every 64-bit ARM processor, [`dot`] and [`matrix`].
//!
//! None has Winograd's form: in 16 bits NEON multiplies half as many codes an instruction as in 8, which takes away what
//! the form saves.

mod dot;
mod matrix;
mod plain;

use super::super::dot::{Dot, Task};
use std::arch::aarch64::*;
use std::marker::PhantomData;

pub(in super::super) type Neon = Set<plain::Plain>;
pub(in super::super) type NeonDot = Set<dot::DotProduct>;
pub(in super::super) type NeonI8mm = Set<matrix::Matrix>;

/// Lanes of all NEON sets.
const LANES: usize = 4;
/// Codes of a group, of all NEON sets.
const GROUP: usize = 4;
/// Most pixels of a tile: their codes are in registers, beside the sums.
const PIXELS: usize = 8;

/// How a set multiplies. Unsafe as [`Dot`] is; the items are those of [`Dot`], but for tiles of at most [`PIXELS`].
pub(in super::super) trait Multiply: Copy + Send + Sync + 'static {
    const STEP: usize = GROUP;
    const LEAST_WEIGHT: i8 = i8::MIN;
    unsafe fn enter<T: Task<Set<Self>>>(task: T) -> T::Output;
    unsafe fn dot(sum: int32x4_t, codes: int8x16_t, weights: int8x16_t) -> int32x4_t;
    unsafe fn tile<const P: usize, const B: usize>(
        start: [int32x4_t; B],
        from: (*const i8, usize),
        runs: &[usize],
        groups: usize,
        weights: *const i8,
    ) -> [[int32x4_t; B]; P];
}

/// NEON, multiplying as `M` does.
#[derive(Debug, Clone, Copy)]
pub(in super::super) struct Set<M>(PhantomData<M>);

/// Stored forms of 0 in 16 bits, of the lowest and the highest code in 8.
#[derive(Clone, Copy)]
pub(in super::super) struct Limits {
    zero: int16x8_t,
    ends: [int8x16_t; 2],
}

impl<M: Multiply> Dot for Set<M> {
    const LANES: usize = LANES;
    const GROUP: usize = GROUP;
    const REGISTERS: usize = 32;
    const STEP: usize = M::STEP;
    const LEAST_WEIGHT: i8 = M::LEAST_WEIGHT;
    type Code = i8;
    type Weight = i8;
    type Operand = int8x16_t;
    type Sum = int32x4_t;
    type Float = float32x4_t;
    type Limits = Limits;

    // SAFETY (all methods): NEON itself is part of the compiler's target; the caller vouches for the rest of the set and
    // for the memory.
    unsafe fn enter<T: Task<Self>>(task: T) -> T::Output {
        // SAFETY: see above.
        unsafe { M::enter(task) }
    }
    #[inline(always)]
    unsafe fn dot(sum: int32x4_t, x: int8x16_t, w: int8x16_t) -> int32x4_t {
        // SAFETY: see above.
        unsafe { M::dot(sum, x, w) }
    }
    #[inline(always)]
    unsafe fn tile<const P: usize, const B: usize>(
        start: [int32x4_t; B],
        from: (*const i8, usize),
        runs: &[usize],
        groups: usize,
        weights: *const i8,
    ) -> [[int32x4_t; B]; P] {
        // SAFETY: see above.
        unsafe {
            if P <= PIXELS {
                return M::tile(start, from, runs, groups, weights);
            }
            debug_assert_eq!(P, 2 * PIXELS);
            let half = |pixel: usize| {
                let from = (from.0.add(pixel * from.1), from.1);
                M::tile::<PIXELS, B>(start, from, runs, groups, weights)
            };
            let halves = [half(0), half(PIXELS)];
            std::array::from_fn(|p| halves[p / PIXELS][p % PIXELS])
        }
    }
    #[inline(always)]
    unsafe fn splat(from: *const i8) -> int8x16_t {
        // SAFETY: see above.
        unsafe { vreinterpretq_s8_s32(vld1q_dup_s32(from.cast())) }
    }
    #[inline(always)]
    unsafe fn weights(from: *const i8) -> int8x16_t {
        // SAFETY: see above.
        unsafe { vld1q_s8(from) }
    }
    #[inline(always)]
    unsafe fn sums(from: *const i32) -> int32x4_t {
        // SAFETY: see above.
        unsafe { vld1q_s32(from) }
    }
    #[inline(always)]
    unsafe fn store_sums(sum: int32x4_t, to: *mut i32) {
        // SAFETY: see above.
        unsafe { vst1q_s32(to, sum) }
    }
    #[inline(always)]
    unsafe fn load_codes(from: *const i8) -> int8x16_t {
        // SAFETY: see above.
        unsafe { vld1q_s8(from) }
    }
    #[inline(always)]
    unsafe fn store_codes(codes: int8x16_t, to: *mut i8) {
        // SAFETY: see above.
        unsafe { vst1q_s8(to, codes) }
    }
    #[inline(always)]
    unsafe fn interleave([a, b, c, d]: [int8x16_t; 4]) -> [int8x16_t; 4] {
        // SAFETY: see above.
        unsafe {
            let pairs = |a, b| [vzip1q_s8(a, b), vzip2q_s8(a, b)].map(|v| vreinterpretq_s16_s8(v));
            let ([ab, ab_high], [cd, cd_high]) = (pairs(a, b), pairs(c, d));
            [vzip1q_s16(ab, cd), vzip2q_s16(ab, cd), vzip1q_s16(ab_high, cd_high), vzip2q_s16(ab_high, cd_high)]
                .map(|v| vreinterpretq_s8_s16(v))
        }
    }
    #[inline(always)]
    unsafe fn widen<const B: usize>(from: *const i8) -> [int32x4_t; B] {
        // SAFETY: see above.
        unsafe {
            if B == 1 {
                return [vmovl_s16(vget_low_s16(vmovl_s8(four(from)))); B];
            }
            let low = vmovl_s8(vld1_s8(from));
            let high = if B == 4 { vmovl_s8(vld1_s8(from.add(8))) } else { low };
            let all = [vget_low_s16(low), vget_high_s16(low), vget_low_s16(high), vget_high_s16(high)];
            std::array::from_fn(|b| vmovl_s16(all[b]))
        }
    }
    #[inline(always)]
    unsafe fn multiply_add(sum: int32x4_t, x: int32x4_t, w: int32x4_t) -> int32x4_t {
        // SAFETY: see above. Codes and weights lie in the lower halves.
        unsafe { vmlal_s16(sum, vmovn_s32(x), vmovn_s32(w)) }
    }
    #[inline(always)]
    unsafe fn float(sum: int32x4_t) -> float32x4_t {
        // SAFETY: see above.
        unsafe { vcvtq_f32_s32(sum) }
    }
    #[inline(always)]
    unsafe fn number(value: f32) -> float32x4_t {
        // SAFETY: see above.
        unsafe { vdupq_n_f32(value) }
    }
    #[inline(always)]
    unsafe fn floats(from: *const f32) -> float32x4_t {
        // SAFETY: see above.
        unsafe { vld1q_f32(from) }
    }
    #[inline(always)]
    unsafe fn mul(a: float32x4_t, b: float32x4_t) -> float32x4_t {
        // SAFETY: see above.
        unsafe { vmulq_f32(a, b) }
    }
    #[inline(always)]
    unsafe fn add(a: float32x4_t, b: float32x4_t) -> float32x4_t {
        // SAFETY: see above.
        unsafe { vaddq_f32(a, b) }
    }
    #[inline(always)]
    unsafe fn settle(v: float32x4_t, low: float32x4_t, high: float32x4_t) -> float32x4_t {
        // SAFETY: see above.
        unsafe { vrndnq_f32(vminq_f32(vmaxq_f32(v, low), high)) }
    }
    #[inline(always)]
    unsafe fn whole(v: float32x4_t) -> int32x4_t {
        // SAFETY: see above. The conversion rounds half to even.
        unsafe { vcvtnq_s32_f32(v) }
    }
    #[inline(always)]
    unsafe fn limits(zero: i32, low: i32, high: i32) -> Limits {
        // SAFETY: see above.
        unsafe { Limits { zero: vdupq_n_s16(zero as i16), ends: [low, high].map(|v| vdupq_n_s8(v as i8)) } }
    }
    #[inline(always)]
    unsafe fn store<const B: usize>(whole: [int32x4_t; B], limits: Limits, to: *mut i8) {
        // SAFETY: see above.
        unsafe {
            // One vector doubles as the other half.
            let low = bytes([whole[0], whole[if B == 1 { 0 } else { 1 }]], limits);
            if B == 1 {
                to.cast::<i32>().write_unaligned(vget_lane_s32::<0>(vreinterpret_s32_s8(low)));
            } else {
                vst1_s8(to, low);
            }
            if B == 4 {
                vst1_s8(to.add(8), bytes([whole[B / 2], whole[B - 1]], limits));
            }
        }
    }
    #[inline(always)]
    unsafe fn store_part(whole: [int32x4_t; 4], limits: Limits, count: usize, to: *mut i8) {
        // SAFETY: see above. Counts are whole vectors: a map's channels are padded to them.
        unsafe {
            let [a, b, c, d] = whole;
            match count / LANES {
                1 => Self::store([a], limits, to),
                2 => Self::store([a, b], limits, to),
                3 => {
                    Self::store([a, b], limits, to);
                    Self::store([c], limits, to.add(2 * LANES));
                }
                _ => Self::store([a, b, c, d], limits, to),
            }
        }
    }
}

/// Four codes, in the lower half.
///
/// # Safety
/// They must be readable.
#[inline(always)]
unsafe fn four(from: *const i8) -> int8x8_t {
    // SAFETY: vouched for by the caller.
    unsafe { vreinterpret_s8_s32(vld1_lane_s32::<0>(from.cast(), vdup_n_s32(0))) }
}

/// Clipped codes of two vectors. All steps saturate.
#[inline(always)]
fn bytes([a, b]: [int32x4_t; 2], limits: Limits) -> int8x8_t {
    // SAFETY: NEON is part of the compiler's target.
    unsafe {
        let words = vqaddq_s16(vcombine_s16(vqmovn_s32(a), vqmovn_s32(b)), limits.zero);
        let [low, high] = limits.ends.map(|v| vget_low_s8(v));
        vmin_s8(vmax_s8(vqmovn_s16(words), low), high)
    }
}
