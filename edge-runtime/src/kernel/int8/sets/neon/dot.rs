//! NEON with dot products (FEAT_DotProd; Cortex-A55, A76, A78): four products a lane and instruction.
//!
//! A pixel's codes are loaded sixteen at a time, and each instruction names the four that it takes: no code is spread
//! over the lanes first. The instructions are written out because this compiler has no stable intrinsics for them.

use super::super::super::dot::Task;
use super::{GROUP, LANES, Multiply, Set};
use std::arch::aarch64::*;
use std::arch::asm;

/// Groups of codes in a register.
const GROUPS: usize = 4;

#[derive(Debug, Clone, Copy)]
pub(in super::super::super) struct DotProduct;

/// Adds to each lane the products of its four codes and weights.
#[inline]
#[target_feature(enable = "dotprod")]
pub(super) fn sdot(mut sum: int32x4_t, x: int8x16_t, w: int8x16_t) -> int32x4_t {
    // SAFETY: this function has the feature; the instruction touches nothing but its registers.
    unsafe {
        asm!("sdot {sum:v}.4s, {x:v}.16b, {w:v}.16b", sum = inout(vreg) sum, x = in(vreg) x, w = in(vreg) w,
            options(pure, nomem, nostack, preserves_flags));
    }
    sum
}

/// The same with group `I` of the codes, for every lane.
#[inline]
#[target_feature(enable = "dotprod")]
fn sdot_group<const I: usize>(mut sum: int32x4_t, w: int8x16_t, x: int8x16_t) -> int32x4_t {
    // SAFETY: this function has the feature; the instruction touches nothing but its registers.
    unsafe {
        asm!("sdot {sum:v}.4s, {w:v}.16b, {x:v}.4b[{i}]", sum = inout(vreg) sum, w = in(vreg) w, x = in(vreg) x,
            i = const I, options(pure, nomem, nostack, preserves_flags));
    }
    sum
}

/// Sums of a tile on the way.
struct Tile<'a, const P: usize, const B: usize> {
    sums: &'a mut [[int32x4_t; B]; P],
    /// The first pixel's codes, and from pixel to pixel.
    codes: *const i8,
    step: usize,
    weights: *const i8,
}

impl<const P: usize, const B: usize> Tile<'_, P, B> {
    /// Up to [`GROUPS`] groups.
    ///
    /// # Safety
    /// The processor must have dot products; the weights of the groups and a register of codes must be readable.
    #[inline(always)]
    unsafe fn add(&mut self, groups: usize) {
        // SAFETY: vouched for by the caller.
        unsafe {
            let x: [int8x16_t; P] = std::array::from_fn(|p| vld1q_s8(self.codes.add(p * self.step)));
            self.group::<0>(&x);
            if groups > 1 {
                self.group::<1>(&x);
            }
            if groups > 2 {
                self.group::<2>(&x);
            }
            if groups > 3 {
                self.group::<3>(&x);
            }
        }
    }

    /// Group `I` of each pixel's codes.
    ///
    /// # Safety
    /// As [`Self::add`].
    #[inline(always)]
    unsafe fn group<const I: usize>(&mut self, x: &[int8x16_t; P]) {
        // SAFETY: vouched for by the caller.
        unsafe {
            let w: [int8x16_t; B] = std::array::from_fn(|b| vld1q_s8(self.weights.add((I * B + b) * LANES * GROUP)));
            for p in 0..P {
                for b in 0..B {
                    self.sums[p][b] = sdot_group::<I>(self.sums[p][b], w[b], x[p]);
                }
            }
        }
    }
}

impl Multiply for DotProduct {
    unsafe fn enter<T: Task<Set<Self>>>(task: T) -> T::Output {
        #[target_feature(enable = "dotprod")]
        fn compiled<T: Task<Set<DotProduct>>>(task: T) -> T::Output {
            // SAFETY: this function's features are those of the set.
            unsafe { task.run() }
        }
        // SAFETY: the caller vouches for the set.
        unsafe { compiled(task) }
    }
    #[inline(always)]
    unsafe fn dot(sum: int32x4_t, x: int8x16_t, w: int8x16_t) -> int32x4_t {
        // SAFETY: the caller vouches for the set.
        unsafe { sdot(sum, x, w) }
    }
    #[inline(always)]
    unsafe fn tile<const P: usize, const B: usize>(
        start: [int32x4_t; B],
        (from, step): (*const i8, usize),
        runs: &[usize],
        groups: usize,
        mut weights: *const i8,
    ) -> [[int32x4_t; B]; P] {
        let mut sums = [start; P];
        for &run in runs {
            // SAFETY: the caller vouches for the set and the memory; behind a map a register of codes is readable.
            unsafe {
                let mut codes = from.add(run);
                for first in (0..groups).step_by(GROUPS) {
                    let mut tile = Tile { sums: &mut sums, codes, step, weights };
                    // The common case apart: no branch between its instructions.
                    let count = groups - first;
                    if count >= GROUPS {
                        tile.add(GROUPS)
                    } else {
                        tile.add(count)
                    }
                    weights = weights.add(count.min(GROUPS) * B * LANES * GROUP);
                    codes = codes.add(GROUPS * GROUP);
                }
            }
        }
        sums
    }
}
