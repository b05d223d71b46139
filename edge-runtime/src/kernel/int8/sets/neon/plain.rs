//! NEON without dot products (Cortex-A53, A57, A72): two products of bytes are summed in 16 bits, then pairwise in 32.
//!
//! A pair of products fits 16 bits unless both are (−128)·(−128), so weights end at −127. Of the forms that ARM's
//! libraries use this one needs the fewest instructions for a whole tile: three for 16 products, no sum across lanes.

use super::super::super::dot::Task;
use super::{GROUP, LANES, Multiply, Set, four};
use std::arch::aarch64::*;
use std::arch::asm;

#[derive(Debug, Clone, Copy)]
pub(in super::super::super) struct Plain;

/// Adds to four lanes the products of two pairs of codes, each spread out, and their weights. One block, because a compiler
/// that sees three instructions starts every product of a tile before it adds the first, and runs out of registers.
#[inline(always)]
fn products(mut sum: int32x4_t, x: [int16x4_t; 2], w: [int8x8_t; 2]) -> int32x4_t {
    // SAFETY: NEON is part of the compiler's target; the instructions touch nothing but their registers.
    unsafe {
        asm!(
            "smull {products:v}.8h, {x0:v}.8b, {w0:v}.8b",
            "smlal {products:v}.8h, {x1:v}.8b, {w1:v}.8b",
            "sadalp {sum:v}.4s, {products:v}.8h",
            products = out(vreg) _, sum = inout(vreg) sum,
            x0 = in(vreg) x[0], x1 = in(vreg) x[1], w0 = in(vreg) w[0], w1 = in(vreg) w[1],
            options(pure, nomem, nostack, preserves_flags));
    }
    sum
}

impl Multiply for Plain {
    /// A pair of codes meets the pairs of weights of four channels.
    const STEP: usize = 2;
    const LEAST_WEIGHT: i8 = -127;

    unsafe fn enter<T: Task<Set<Self>>>(task: T) -> T::Output {
        // SAFETY: NEON is part of the compiler's target; the caller vouches for the memory.
        unsafe { task.run() }
    }
    #[inline(always)]
    unsafe fn dot(sum: int32x4_t, x: int8x16_t, w: int8x16_t) -> int32x4_t {
        // SAFETY: NEON is part of the compiler's target.
        unsafe {
            let [low, high] = [vmull_s8(vget_low_s8(x), vget_low_s8(w)), vmull_high_s8(x, w)];
            vpadalq_s16(sum, vpaddq_s16(low, high))
        }
    }
    #[inline(always)]
    unsafe fn tile<const P: usize, const B: usize>(
        start: [int32x4_t; B],
        (from, step): (*const i8, usize),
        runs: &[usize],
        groups: usize,
        mut weights: *const i8,
    ) -> [[int32x4_t; B]; P] {
        const PAIR: usize = LANES * Plain::STEP;
        let mut sums = [start; P];
        for &run in runs {
            // SAFETY: the caller vouches for the memory.
            unsafe {
                let mut codes = from.add(run);
                for _ in 0..groups {
                    let w: [[int8x8_t; B]; 2] = std::array::from_fn(|pair| {
                        std::array::from_fn(|b| vld1_s8(weights.add((pair * B + b) * PAIR)))
                    });
                    for p in 0..P {
                        let x = vreinterpret_s16_s8(four(codes.add(p * step)));
                        let x = [vdup_lane_s16::<0>(x), vdup_lane_s16::<1>(x)];
                        for b in 0..B {
                            sums[p][b] = products(sums[p][b], x, [w[0][b], w[1][b]]);
                        }
                    }
                    weights = weights.add(2 * B * PAIR);
                    codes = codes.add(GROUP);
                }
            }
        }
        sums
    }
}
