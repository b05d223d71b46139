//! NEON with products of matrices (FEAT_I8MM; Cortex-A510, A710, X2, Neoverse V1 and later): one instruction multiplies the
//! codes of two pixels by the weights of two channels, eight each, twice the work of a dot product.

use super::super::super::dot::Task;
use super::{GROUP, LANES, Multiply, PIXELS, Set, dot};
use std::arch::aarch64::*;
use std::arch::asm;

#[derive(Debug, Clone, Copy)]
pub(in super::super::super) struct Matrix;

/// Adds the products of 2 pixels × 8 codes and 2 channels × 8 weights: `[pixel][channel]`.
#[inline]
#[target_feature(enable = "i8mm")]
fn smmla(mut sum: int32x4_t, x: int8x16_t, w: int8x16_t) -> int32x4_t {
    // SAFETY: this function has the feature; the instruction touches nothing but its registers.
    unsafe {
        asm!("smmla {sum:v}.4s, {x:v}.16b, {w:v}.16b", sum = inout(vreg) sum, x = in(vreg) x, w = in(vreg) w,
            options(pure, nomem, nostack, preserves_flags));
    }
    sum
}

/// The lower or the upper halves of two vectors.
#[inline(always)]
fn halves(a: int32x4_t, b: int32x4_t) -> [int32x4_t; 2] {
    // SAFETY: NEON is part of the compiler's target.
    unsafe {
        let [a, b] = [a, b].map(|v| vreinterpretq_s64_s32(v));
        [vzip1q_s64(a, b), vzip2q_s64(a, b)].map(|v| vreinterpretq_s32_s64(v))
    }
}

/// Sums of a tile on the way: entry `[p][b]` holds, of the pair of pixels that `p` is one of, the pair of channels `p % 2` of
/// vector `b`.
struct Tile<'a, const P: usize, const B: usize> {
    sums: &'a mut [[int32x4_t; B]; P],
    /// The first pixel's codes, and from pixel to pixel.
    codes: *const i8,
    step: usize,
    weights: *const i8,
}

impl<const P: usize, const B: usize> Tile<'_, P, B> {
    /// One or two steps.
    ///
    /// # Safety
    /// The processor must have the set; the weights of the steps and a register of codes must be readable.
    #[inline(always)]
    unsafe fn add(&mut self, steps: usize) {
        // SAFETY: vouched for by the caller.
        unsafe {
            let mut x = [[vdupq_n_s32(0); 2]; PIXELS / 2];
            for pair in 0..P / 2 {
                let at = self.codes.add(2 * pair * self.step);
                x[pair] = halves(vld1q_s32(at.cast()), vld1q_s32(at.add(self.step).cast()));
            }
            for i in 0..steps {
                let weights = self.weights.add(i * B * LANES * Matrix::STEP);
                for b in 0..B {
                    let w = [0, 1].map(|half: usize| vld1q_s8(weights.add((2 * b + half) * LANES * GROUP)));
                    for p in 0..P {
                        let codes = vreinterpretq_s8_s32(x[p / 2][i]);
                        self.sums[p][b] = smmla(self.sums[p][b], codes, w[p % 2]);
                    }
                }
            }
        }
    }
}

impl Multiply for Matrix {
    /// Codes of a pixel in one operand.
    const STEP: usize = 8;

    unsafe fn enter<T: Task<Set<Self>>>(task: T) -> T::Output {
        #[target_feature(enable = "dotprod,i8mm")]
        fn compiled<T: Task<Set<Matrix>>>(task: T) -> T::Output {
            // SAFETY: this function's features are those of the set.
            unsafe { task.run() }
        }
        // SAFETY: the caller vouches for the set.
        unsafe { compiled(task) }
    }
    #[inline(always)]
    unsafe fn dot(sum: int32x4_t, x: int8x16_t, w: int8x16_t) -> int32x4_t {
        // SAFETY: the caller vouches for the set.
        unsafe { dot::sdot(sum, x, w) }
    }
    #[inline(always)]
    unsafe fn tile<const P: usize, const B: usize>(
        start: [int32x4_t; B],
        (from, step): (*const i8, usize),
        runs: &[usize],
        groups: usize,
        mut weights: *const i8,
    ) -> [[int32x4_t; B]; P] {
        if P == 1 {
            // The pixel stands in for its neighbour.
            // SAFETY: as below.
            let [sums, _] = unsafe { Self::tile::<2, B>(start, (from, 0), runs, groups, weights) };
            return [sums; P];
        }
        // From a vector for each pixel to pairs of pixels and channels, and back at the end.
        let mut sums = [start; P];
        for p in 0..P {
            sums[p] = start.map(|s| halves(s, s)[p % 2]);
        }
        let steps = groups.div_ceil(Self::STEP / GROUP);
        for &run in runs {
            // SAFETY: the caller vouches for the set and the memory; behind a map a register of codes is readable.
            unsafe {
                let mut codes = from.add(run);
                for first in (0..steps).step_by(2) {
                    let mut tile = Tile { sums: &mut sums, codes, step, weights };
                    let count = (steps - first).min(2);
                    if count == 2 {
                        tile.add(2)
                    } else {
                        tile.add(1)
                    }
                    weights = weights.add(count * B * LANES * Self::STEP);
                    codes = codes.add(2 * Self::STEP);
                }
            }
        }
        for pair in sums.chunks_exact_mut(2) {
            for b in 0..B {
                [pair[0][b], pair[1][b]] = halves(pair[0][b], pair[1][b]);
            }
        }
        sums
    }
}
