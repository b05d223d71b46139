//! AVX-512 with VNNI: sixteen lanes, unsigned codes times signed weights, four at a time.

use super::super::dot::{Dot, Task};
use std::arch::x86_64::*;

/// Sixteen lanes, dot products of four bytes.
#[derive(Debug, Clone, Copy)]
pub(in super::super) struct Avx512Vnni;

/// Stored forms of 0, lowest and highest code.
#[derive(Clone, Copy)]
pub(in super::super) struct Limits {
    /// All three, in 32 bits.
    lanes: [__m512i; 3],
    /// 0 in 16 bits.
    zero: __m512i,
    /// Lowest and highest in 8 bits.
    ends: [__m512i; 2],
}

impl Dot for Avx512Vnni {
    const LANES: usize = 16;
    const GROUP: usize = 4;
    const REGISTERS: usize = 32;
    type Code = u8;
    type Weight = i8;
    type Operand = __m512i;
    type Sum = __m512i;
    type Float = __m512;
    type Limits = Limits;

    unsafe fn enter<T: Task<Self>>(task: T) -> T::Output {
        #[target_feature(enable = "avx2,avx512f,avx512bw,avx512vnni")]
        fn compiled<T: Task<Avx512Vnni>>(task: T) -> T::Output {
            // SAFETY: this function's features are those of the set.
            unsafe { task.run() }
        }
        // SAFETY: the caller vouches for the set.
        unsafe { compiled(task) }
    }
    #[inline(always)]
    unsafe fn splat(from: *const u8) -> __m512i {
        // SAFETY: the caller vouches for the set and four codes.
        unsafe { _mm512_set1_epi32(from.cast::<i32>().read_unaligned()) }
    }
    #[inline(always)]
    unsafe fn weights(from: *const i8) -> __m512i {
        // SAFETY: the caller vouches for the set and 64 weights.
        unsafe { _mm512_loadu_si512(from.cast()) }
    }
    #[inline(always)]
    unsafe fn dot(sum: __m512i, x: __m512i, w: __m512i) -> __m512i {
        // SAFETY: the caller vouches for the set.
        unsafe { _mm512_dpbusd_epi32(sum, x, w) }
    }
    #[inline(always)]
    unsafe fn sums(from: *const i32) -> __m512i {
        // SAFETY: the caller vouches for the set and sixteen sums.
        unsafe { _mm512_loadu_si512(from.cast()) }
    }
    #[inline(always)]
    unsafe fn store_sums(sum: __m512i, to: *mut i32) {
        // SAFETY: the caller vouches for the set and room for sixteen sums.
        unsafe { _mm512_storeu_si512(to.cast(), sum) }
    }
    #[inline(always)]
    unsafe fn load_codes(from: *const u8) -> __m512i {
        // SAFETY: the caller vouches for the set and 64 codes.
        unsafe { _mm512_loadu_si512(from.cast()) }
    }
    #[inline(always)]
    unsafe fn store_codes(codes: __m512i, to: *mut u8) {
        // SAFETY: the caller vouches for the set and room for 64 codes.
        unsafe { _mm512_storeu_si512(to.cast(), codes) }
    }
    #[inline(always)]
    unsafe fn interleave([a, b, c, d]: [__m512i; 4]) -> [__m512i; 4] {
        // SAFETY: the caller vouches for the set.
        unsafe {
            let [ab, ab_high] = [_mm512_unpacklo_epi8(a, b), _mm512_unpackhi_epi8(a, b)];
            let [cd, cd_high] = [_mm512_unpacklo_epi8(c, d), _mm512_unpackhi_epi8(c, d)];
            [
                _mm512_unpacklo_epi16(ab, cd),
                _mm512_unpackhi_epi16(ab, cd),
                _mm512_unpacklo_epi16(ab_high, cd_high),
                _mm512_unpackhi_epi16(ab_high, cd_high),
            ]
        }
    }
    #[inline(always)]
    unsafe fn widen<const B: usize>(from: *const u8) -> [__m512i; B] {
        // SAFETY: the caller vouches for the set and the codes of `B` vectors.
        unsafe {
            let zero = _mm512_setzero_si512();
            if B == 1 {
                return [_mm512_cvtepu8_epi32(_mm_loadu_si128(from.cast())); B];
            }
            if B == 2 {
                let x = _mm512_cvtepu8_epi16(_mm256_loadu_si256(from.cast()));
                let two = [_mm512_unpacklo_epi16(x, zero), _mm512_unpackhi_epi16(x, zero)];
                return std::array::from_fn(|b| two[b]);
            }
            let x = _mm512_loadu_si512(from.cast());
            let [low, high] = [_mm512_unpacklo_epi8(x, zero), _mm512_unpackhi_epi8(x, zero)];
            let four = [
                _mm512_unpacklo_epi16(low, zero),
                _mm512_unpackhi_epi16(low, zero),
                _mm512_unpacklo_epi16(high, zero),
                _mm512_unpackhi_epi16(high, zero),
            ];
            std::array::from_fn(|b| four[b])
        }
    }
    #[inline(always)]
    unsafe fn multiply_add(sum: __m512i, x: __m512i, w: __m512i) -> __m512i {
        // SAFETY: the caller vouches for the set.
        unsafe { _mm512_add_epi32(sum, _mm512_madd_epi16(x, w)) }
    }
    #[inline(always)]
    unsafe fn float(sum: __m512i) -> __m512 {
        // SAFETY: the caller vouches for the set.
        unsafe { _mm512_cvtepi32_ps(sum) }
    }
    #[inline(always)]
    unsafe fn number(value: f32) -> __m512 {
        // SAFETY: the caller vouches for the set.
        unsafe { _mm512_set1_ps(value) }
    }
    #[inline(always)]
    unsafe fn floats(from: *const f32) -> __m512 {
        // SAFETY: the caller vouches for the set and sixteen numbers.
        unsafe { _mm512_loadu_ps(from) }
    }
    #[inline(always)]
    unsafe fn mul(a: __m512, b: __m512) -> __m512 {
        // SAFETY: the caller vouches for the set.
        unsafe { _mm512_mul_ps(a, b) }
    }
    #[inline(always)]
    unsafe fn add(a: __m512, b: __m512) -> __m512 {
        // SAFETY: the caller vouches for the set.
        unsafe { _mm512_add_ps(a, b) }
    }
    #[inline(always)]
    unsafe fn settle(v: __m512, low: __m512, high: __m512) -> __m512 {
        // SAFETY: the caller vouches for the set.
        unsafe {
            let v = _mm512_min_ps(_mm512_max_ps(v, low), high);
            _mm512_roundscale_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(v)
        }
    }
    #[inline(always)]
    unsafe fn whole(v: __m512) -> __m512i {
        // SAFETY: the caller vouches for the set. The conversion rounds half to even.
        unsafe { _mm512_cvtps_epi32(v) }
    }
    #[inline(always)]
    unsafe fn limits(zero: i32, low: i32, high: i32) -> Limits {
        // SAFETY: the caller vouches for the set.
        unsafe {
            Limits {
                lanes: [zero, low, high].map(|v| _mm512_set1_epi32(v)),
                zero: _mm512_set1_epi16(zero as i16),
                ends: [low, high].map(|v| _mm512_set1_epi8(v as i8)),
            }
        }
    }
    #[inline(always)]
    unsafe fn store<const B: usize>(whole: [__m512i; B], limits: Limits, to: *mut u8) {
        // SAFETY: the caller vouches for the set and room for `B` vectors.
        unsafe {
            if B == 1 {
                let [zero, low, high] = limits.lanes;
                let codes = _mm512_min_epi32(_mm512_max_epi32(_mm512_add_epi32(whole[0], zero), low), high);
                _mm_storeu_si128(to.cast(), _mm512_cvtepi32_epi8(codes));
            } else if B == 2 {
                // In words, none below 0; then to bytes with saturation.
                let words = _mm512_adds_epi16(_mm512_packs_epi32(whole[0], whole[1]), limits.zero);
                let codes = _mm512_cvtusepi16_epi8(_mm512_max_epi16(words, _mm512_setzero_si512()));
                let [low, high] = limits.ends.map(|v| _mm512_castsi512_si256(v));
                _mm256_storeu_si256(to.cast(), _mm256_min_epu8(_mm256_max_epu8(codes, low), high));
            } else {
                _mm512_storeu_si512(to.cast(), Self::pack(std::array::from_fn(|b| whole[b]), limits));
            }
        }
    }
    #[inline(always)]
    unsafe fn store_part(whole: [__m512i; 4], limits: Limits, count: usize, to: *mut u8) {
        // SAFETY: the caller vouches for the set and room for `count` codes.
        unsafe {
            let codes = Self::pack(whole, limits);
            if count >= 64 {
                _mm512_storeu_si512(to.cast(), codes);
            } else {
                _mm512_mask_storeu_epi8(to.cast(), (1 << count) - 1, codes);
            }
        }
    }
}

impl Avx512Vnni {
    /// # Safety
    /// The processor must have the set.
    #[inline(always)]
    unsafe fn pack([a, b, c, d]: [__m512i; 4], limits: Limits) -> __m512i {
        // SAFETY: vouched for by the caller. All steps saturate.
        unsafe {
            let words = [_mm512_packs_epi32(a, b), _mm512_packs_epi32(c, d)].map(|w| _mm512_adds_epi16(w, limits.zero));
            let [low, high] = limits.ends;
            _mm512_min_epu8(_mm512_max_epu8(_mm512_packus_epi16(words[0], words[1]), low), high)
        }
    }
}
