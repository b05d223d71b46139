//! NEON: pairs of 128-bit vectors, so that a number spread over the lanes meets two instructions of products; four lanes
//! for what is left.

use super::Vector;
use std::arch::aarch64::*;

/// Four lanes.
#[derive(Debug, Clone, Copy)]
pub(in super::super) struct Neon4(float32x4_t);

impl Vector for Neon4 {
    const LANES: usize = 4;
    const REGISTERS: usize = 32;
    type Half = f32;

    // SAFETY (all methods): NEON is part of the compiler's target; the caller vouches for the memory of `load` and `store`.
    #[inline(always)]
    unsafe fn splat(value: f32) -> Self {
        // SAFETY: see above.
        Self(unsafe { vdupq_n_f32(value) })
    }
    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        // SAFETY: see above.
        Self(unsafe { vld1q_f32(from) })
    }
    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        // SAFETY: see above.
        unsafe { vst1q_f32(to, self.0) }
    }
    #[inline(always)]
    unsafe fn add_product(self, a: Self, b: Self) -> Self {
        // SAFETY: see above.
        Self(unsafe { vfmaq_f32(self.0, a.0, b.0) })
    }
    #[inline(always)]
    unsafe fn add(self, other: Self) -> Self {
        // SAFETY: see above.
        Self(unsafe { vaddq_f32(self.0, other.0) })
    }
    #[inline(always)]
    unsafe fn sub(self, other: Self) -> Self {
        // SAFETY: see above.
        Self(unsafe { vsubq_f32(self.0, other.0) })
    }
    #[inline(always)]
    unsafe fn mul(self, other: Self) -> Self {
        // SAFETY: see above.
        Self(unsafe { vmulq_f32(self.0, other.0) })
    }
    #[inline(always)]
    unsafe fn max(self, other: Self) -> Self {
        // SAFETY: see above. NEON's own instruction gives NaN where either is.
        Self(unsafe { vbslq_f32(vcgtq_f32(self.0, other.0), self.0, other.0) })
    }
    #[inline(always)]
    unsafe fn min(self, other: Self) -> Self {
        // SAFETY: see above.
        Self(unsafe { vbslq_f32(vcltq_f32(self.0, other.0), self.0, other.0) })
    }
    #[inline(always)]
    unsafe fn where_positive(self, gate: Self) -> Self {
        // SAFETY: see above.
        Self(unsafe { vreinterpretq_f32_u32(vandq_u32(vreinterpretq_u32_f32(self.0), vcgtzq_f32(gate.0))) })
    }
}

/// Eight lanes in two registers.
#[derive(Debug, Clone, Copy)]
pub(in super::super) struct Neon([Neon4; 2]);

impl Neon {
    /// # Safety
    /// That of `f`.
    #[inline(always)]
    unsafe fn zip(self, other: Self, f: unsafe fn(Neon4, Neon4) -> Neon4) -> Self {
        // SAFETY: vouched for by the caller.
        Self(unsafe { [f(self.0[0], other.0[0]), f(self.0[1], other.0[1])] })
    }
}

impl Vector for Neon {
    const LANES: usize = 8;
    const REGISTERS: usize = 16;
    type Half = Neon4;

    // SAFETY (all methods): as for four lanes.
    #[inline(always)]
    unsafe fn splat(value: f32) -> Self {
        // SAFETY: see above.
        Self(unsafe { [Neon4::splat(value); 2] })
    }
    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        // SAFETY: see above.
        Self(unsafe { [Neon4::load(from), Neon4::load(from.add(4))] })
    }
    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        // SAFETY: see above.
        unsafe {
            self.0[0].store(to);
            self.0[1].store(to.add(4));
        }
    }
    #[inline(always)]
    unsafe fn add_product(self, a: Self, b: Self) -> Self {
        // SAFETY: see above.
        Self(std::array::from_fn(|i| unsafe { self.0[i].add_product(a.0[i], b.0[i]) }))
    }
    #[inline(always)]
    unsafe fn add(self, other: Self) -> Self {
        // SAFETY: see above.
        unsafe { self.zip(other, Neon4::add) }
    }
    #[inline(always)]
    unsafe fn sub(self, other: Self) -> Self {
        // SAFETY: see above.
        unsafe { self.zip(other, Neon4::sub) }
    }
    #[inline(always)]
    unsafe fn mul(self, other: Self) -> Self {
        // SAFETY: see above.
        unsafe { self.zip(other, Neon4::mul) }
    }
    #[inline(always)]
    unsafe fn max(self, other: Self) -> Self {
        // SAFETY: see above.
        unsafe { self.zip(other, Neon4::max) }
    }
    #[inline(always)]
    unsafe fn min(self, other: Self) -> Self {
        // SAFETY: see above.
        unsafe { self.zip(other, Neon4::min) }
    }
    #[inline(always)]
    unsafe fn where_positive(self, gate: Self) -> Self {
        // SAFETY: see above.
        unsafe { self.zip(gate, Neon4::where_positive) }
    }
}
