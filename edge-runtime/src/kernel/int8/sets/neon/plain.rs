//! NEON without dot products (Cortex-A53, A57, A72): two products of bytes are summed in 16 bits, then pairwise in 32.
//!
//! A pair of products fits 16 bits unless both are (−128)·(−128), so weights end at −127. Of the forms that ARM's
//! libraries use this one needs the fewest instructions for a whole tile: three for 16 products, no sum across lanes.

use super::super::super::dot::Task;
use super::{GROUP, LANES, Multiply, Set, four};
use std::arch::aarch64::*;

#[derive(Debug, Clone, Copy)]
pub(in super::super::super) struct Plain;

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
                        let [first, second] = [vdup_lane_s16::<0>(x), vdup_lane_s16::<1>(x)];
                        for b in 0..B {
                            let products = vmull_s8(vreinterpret_s8_s16(first), w[0][b]);
                            let products = vmlal_s8(products, vreinterpret_s8_s16(second), w[1][b]);
                            sums[p][b] = vpadalq_s16(sums[p][b], products);
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
