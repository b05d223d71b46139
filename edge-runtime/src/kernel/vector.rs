//! Vectors of `f32` behind one small trait: plain arrays, `__m256`, `__m512`, pairs of NEON's.
//!
//! Every method is a single instruction where the set has one. All are unsafe for one reason: a type of a set the
//! processor lacks must not be used; `load` and `store` also need valid memory (no alignment).

#[cfg(target_arch = "aarch64")]
mod neon;

#[cfg(target_arch = "aarch64")]
pub(super) use neon::Neon;
#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::*;

/// `LANES` numbers that are computed on together.
pub trait Vector: Copy {
    /// Numbers in a vector.
    const LANES: usize;
    /// Vectors that the set has registers for.
    const REGISTERS: usize;
    /// A narrower vector of the same set, for the channels that do not fill this one; in the end a single number.
    type Half: Vector;

    /// The same number in every lane.
    ///
    /// # Safety
    /// The processor must have the instruction set.
    unsafe fn splat(value: f32) -> Self;
    /// Reads `LANES` numbers.
    ///
    /// # Safety
    /// `from` must be readable for `LANES` numbers; the processor must have the instruction set.
    unsafe fn load(from: *const f32) -> Self;
    /// Writes `LANES` numbers.
    ///
    /// # Safety
    /// `to` must be writable for `LANES` numbers; the processor must have the instruction set.
    unsafe fn store(self, to: *mut f32);
    /// `self + a · b`, rounded once where the set can.
    ///
    /// # Safety
    /// The processor must have the instruction set.
    unsafe fn add_product(self, a: Self, b: Self) -> Self;
    /// Sum.
    ///
    /// # Safety
    /// The processor must have the instruction set.
    unsafe fn add(self, other: Self) -> Self;
    /// Difference.
    ///
    /// # Safety
    /// The processor must have the instruction set.
    unsafe fn sub(self, other: Self) -> Self;
    /// Product.
    ///
    /// # Safety
    /// The processor must have the instruction set.
    unsafe fn mul(self, other: Self) -> Self;
    /// Larger of the two. Where either is NaN, `other`.
    ///
    /// # Safety
    /// The processor must have the instruction set.
    unsafe fn max(self, other: Self) -> Self;
    /// Smaller of the two. Where either is NaN, `other`.
    ///
    /// # Safety
    /// The processor must have the instruction set.
    unsafe fn min(self, other: Self) -> Self;
    /// Lane by lane, `self` where `gate` is greater than 0, else 0.
    ///
    /// # Safety
    /// The processor must have the instruction set.
    unsafe fn where_positive(self, gate: Self) -> Self;
}

/// Four plain numbers, the width every compiler target has registers for.
#[derive(Debug, Clone, Copy)]
pub struct Portable([f32; 4]);

impl Portable {
    #[inline(always)]
    fn zip(self, other: Self, f: impl Fn(f32, f32) -> f32) -> Self {
        Self(std::array::from_fn(|i| f(self.0[i], other.0[i])))
    }
}

impl Vector for Portable {
    const LANES: usize = 4;
    const REGISTERS: usize = 16;
    type Half = f32;

    #[inline(always)]
    unsafe fn splat(value: f32) -> Self {
        Self([value; 4])
    }
    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        // SAFETY: the caller vouches for four readable numbers.
        Self(unsafe { from.cast::<[f32; 4]>().read_unaligned() })
    }
    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        // SAFETY: the caller vouches for four writable numbers.
        unsafe { to.cast::<[f32; 4]>().write_unaligned(self.0) }
    }
    #[inline(always)]
    unsafe fn add_product(self, a: Self, b: Self) -> Self {
        // Not `mul_add`: without the instruction that is a library call for each lane.
        Self(std::array::from_fn(|i| self.0[i] + a.0[i] * b.0[i]))
    }
    #[inline(always)]
    unsafe fn add(self, other: Self) -> Self {
        self.zip(other, |a, b| a + b)
    }
    #[inline(always)]
    unsafe fn sub(self, other: Self) -> Self {
        self.zip(other, |a, b| a - b)
    }
    #[inline(always)]
    unsafe fn mul(self, other: Self) -> Self {
        self.zip(other, |a, b| a * b)
    }
    #[inline(always)]
    unsafe fn max(self, other: Self) -> Self {
        self.zip(other, |a, b| if a > b { a } else { b })
    }
    #[inline(always)]
    unsafe fn min(self, other: Self) -> Self {
        self.zip(other, |a, b| if a < b { a } else { b })
    }
    #[inline(always)]
    unsafe fn where_positive(self, gate: Self) -> Self {
        self.zip(gate, |a, g| if g > 0.0 { a } else { 0.0 })
    }
}

/// One number: for the channels that do not fill a vector, so that a kernel needs no second text for them.
impl Vector for f32 {
    const LANES: usize = 1;
    const REGISTERS: usize = 16;
    type Half = Self;

    #[inline(always)]
    unsafe fn splat(value: f32) -> Self {
        value
    }
    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        // SAFETY: the caller vouches for one readable number.
        unsafe { *from }
    }
    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        // SAFETY: the caller vouches for one writable number.
        unsafe { *to = self }
    }
    #[inline(always)]
    unsafe fn add_product(self, a: Self, b: Self) -> Self {
        self + a * b
    }
    #[inline(always)]
    unsafe fn add(self, other: Self) -> Self {
        self + other
    }
    #[inline(always)]
    unsafe fn sub(self, other: Self) -> Self {
        self - other
    }
    #[inline(always)]
    unsafe fn mul(self, other: Self) -> Self {
        self * other
    }
    #[inline(always)]
    unsafe fn max(self, other: Self) -> Self {
        if self > other { self } else { other }
    }
    #[inline(always)]
    unsafe fn min(self, other: Self) -> Self {
        if self < other { self } else { other }
    }
    #[inline(always)]
    unsafe fn where_positive(self, gate: Self) -> Self {
        if gate > 0.0 { self } else { 0.0 }
    }
}

/// Eight lanes of AVX2.
#[cfg(target_arch = "x86_64")]
#[derive(Debug, Clone, Copy)]
pub(super) struct Avx2(__m256);

#[cfg(target_arch = "x86_64")]
impl Vector for Avx2 {
    const LANES: usize = 8;
    const REGISTERS: usize = 16;
    type Half = f32;

    // SAFETY (all methods): the caller vouches for AVX2 and FMA, and for the memory of `load` and `store`.
    #[inline(always)]
    unsafe fn splat(value: f32) -> Self {
        // SAFETY: see above.
        Self(unsafe { _mm256_set1_ps(value) })
    }
    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        // SAFETY: see above.
        Self(unsafe { _mm256_loadu_ps(from) })
    }
    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        // SAFETY: see above.
        unsafe { _mm256_storeu_ps(to, self.0) }
    }
    #[inline(always)]
    unsafe fn add_product(self, a: Self, b: Self) -> Self {
        // SAFETY: see above.
        Self(unsafe { _mm256_fmadd_ps(a.0, b.0, self.0) })
    }
    #[inline(always)]
    unsafe fn add(self, other: Self) -> Self {
        // SAFETY: see above.
        Self(unsafe { _mm256_add_ps(self.0, other.0) })
    }
    #[inline(always)]
    unsafe fn sub(self, other: Self) -> Self {
        // SAFETY: see above.
        Self(unsafe { _mm256_sub_ps(self.0, other.0) })
    }
    #[inline(always)]
    unsafe fn mul(self, other: Self) -> Self {
        // SAFETY: see above.
        Self(unsafe { _mm256_mul_ps(self.0, other.0) })
    }
    #[inline(always)]
    unsafe fn max(self, other: Self) -> Self {
        // SAFETY: see above.
        Self(unsafe { _mm256_max_ps(self.0, other.0) })
    }
    #[inline(always)]
    unsafe fn min(self, other: Self) -> Self {
        // SAFETY: see above.
        Self(unsafe { _mm256_min_ps(self.0, other.0) })
    }
    #[inline(always)]
    unsafe fn where_positive(self, gate: Self) -> Self {
        // SAFETY: see above.
        Self(unsafe { _mm256_and_ps(self.0, _mm256_cmp_ps::<_CMP_GT_OQ>(gate.0, _mm256_setzero_ps())) })
    }
}

/// Sixteen lanes of AVX-512F.
#[cfg(target_arch = "x86_64")]
#[derive(Debug, Clone, Copy)]
pub(super) struct Avx512(__m512);

#[cfg(target_arch = "x86_64")]
impl Vector for Avx512 {
    const LANES: usize = 16;
    const REGISTERS: usize = 32;
    type Half = Avx2;

    // SAFETY (all methods): the caller vouches for AVX-512F, and for the memory of `load` and `store`.
    #[inline(always)]
    unsafe fn splat(value: f32) -> Self {
        // SAFETY: see above.
        Self(unsafe { _mm512_set1_ps(value) })
    }
    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        // SAFETY: see above.
        Self(unsafe { _mm512_loadu_ps(from) })
    }
    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        // SAFETY: see above.
        unsafe { _mm512_storeu_ps(to, self.0) }
    }
    #[inline(always)]
    unsafe fn add_product(self, a: Self, b: Self) -> Self {
        // SAFETY: see above.
        Self(unsafe { _mm512_fmadd_ps(a.0, b.0, self.0) })
    }
    #[inline(always)]
    unsafe fn add(self, other: Self) -> Self {
        // SAFETY: see above.
        Self(unsafe { _mm512_add_ps(self.0, other.0) })
    }
    #[inline(always)]
    unsafe fn sub(self, other: Self) -> Self {
        // SAFETY: see above.
        Self(unsafe { _mm512_sub_ps(self.0, other.0) })
    }
    #[inline(always)]
    unsafe fn mul(self, other: Self) -> Self {
        // SAFETY: see above.
        Self(unsafe { _mm512_mul_ps(self.0, other.0) })
    }
    #[inline(always)]
    unsafe fn max(self, other: Self) -> Self {
        // SAFETY: see above.
        Self(unsafe { _mm512_max_ps(self.0, other.0) })
    }
    #[inline(always)]
    unsafe fn min(self, other: Self) -> Self {
        // SAFETY: see above.
        Self(unsafe { _mm512_min_ps(self.0, other.0) })
    }
    #[inline(always)]
    unsafe fn where_positive(self, gate: Self) -> Self {
        // SAFETY: see above.
        Self(unsafe { _mm512_maskz_mov_ps(_mm512_cmp_ps_mask::<_CMP_GT_OQ>(gate.0, _mm512_setzero_ps()), self.0) })
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Isa, Kernel, dispatch};
    use super::*;

    /// Every operation once on 16 numbers; each set must agree with plain arithmetic.
    struct Every<'a>(&'a [f32; 16], &'a [f32; 16]);

    impl Kernel for Every<'_> {
        type Output = [[f32; 16]; 6];

        #[inline(always)]
        unsafe fn run<V: Vector>(self) -> Self::Output {
            let mut out = [[0.0; 16]; 6];
            for at in (0..16).step_by(V::LANES) {
                // SAFETY: `at` advances by whole vectors through arrays of 16.
                unsafe {
                    let (a, b) = (V::load(self.0.as_ptr().add(at)), V::load(self.1.as_ptr().add(at)));
                    a.add(b).store(out[0].as_mut_ptr().add(at));
                    a.sub(b).store(out[1].as_mut_ptr().add(at));
                    a.mul(b).store(out[2].as_mut_ptr().add(at));
                    a.max(b).store(out[3].as_mut_ptr().add(at));
                    a.where_positive(b).store(out[4].as_mut_ptr().add(at));
                    V::splat(0.5).add_product(a, b).store(out[5].as_mut_ptr().add(at));
                }
            }
            out
        }
    }

    #[test]
    fn every_set_agrees_with_plain_arithmetic() {
        let a: [f32; 16] = std::array::from_fn(|i| i as f32 * 0.37 - 3.0);
        let b: [f32; 16] = std::array::from_fn(|i| if i == 5 { 0.0 } else { 2.0 - i as f32 * 0.41 });
        for isa in Isa::available() {
            let out = dispatch(isa, Every(&a, &b));
            for i in 0..16 {
                assert_eq!(out[0][i], a[i] + b[i]);
                assert_eq!(out[1][i], a[i] - b[i]);
                assert_eq!(out[2][i], a[i] * b[i]);
                assert_eq!(out[3][i], a[i].max(b[i]));
                assert_eq!(out[4][i], if b[i] > 0.0 { a[i] } else { 0.0 });
                assert!((out[5][i] - (0.5 + a[i] * b[i])).abs() < 1e-6);
            }
        }
    }
}
