//! The 256-bit sets: AVX2, which multiplies in 16 bits (`vpmaddwd`; its byte form saturates), and AVX-VNNI, which multiplies
//! unsigned codes by signed weights without saturating.

use super::super::dot::{Dot, Task};
use super::super::end::Special;
use super::super::network::Layout;
use super::super::winograd::{self, Wide, Winograd};
use super::super::{Conv, Map};
use std::arch::x86_64::*;

/// The eight float lanes that all 256-bit sets share.
macro_rules! float_lanes_256 {
    () => {
        #[inline(always)]
        unsafe fn sums(from: *const i32) -> __m256i {
            // SAFETY: the caller vouches for the set and eight sums.
            unsafe { _mm256_loadu_si256(from.cast()) }
        }
        #[inline(always)]
        unsafe fn store_sums(sum: __m256i, to: *mut i32) {
            // SAFETY: the caller vouches for the set and room for eight sums.
            unsafe { _mm256_storeu_si256(to.cast(), sum) }
        }
        #[inline(always)]
        unsafe fn multiply_add(sum: __m256i, x: __m256i, w: __m256i) -> __m256i {
            // SAFETY: the caller vouches for the set.
            unsafe { _mm256_add_epi32(sum, _mm256_madd_epi16(x, w)) }
        }
        #[inline(always)]
        unsafe fn float(sum: __m256i) -> __m256 {
            // SAFETY: the caller vouches for the set.
            unsafe { _mm256_cvtepi32_ps(sum) }
        }
        #[inline(always)]
        unsafe fn number(value: f32) -> __m256 {
            // SAFETY: the caller vouches for the set.
            unsafe { _mm256_set1_ps(value) }
        }
        #[inline(always)]
        unsafe fn floats(from: *const f32) -> __m256 {
            // SAFETY: the caller vouches for the set and eight numbers.
            unsafe { _mm256_loadu_ps(from) }
        }
        #[inline(always)]
        unsafe fn mul(a: __m256, b: __m256) -> __m256 {
            // SAFETY: the caller vouches for the set.
            unsafe { _mm256_mul_ps(a, b) }
        }
        #[inline(always)]
        unsafe fn add(a: __m256, b: __m256) -> __m256 {
            // SAFETY: the caller vouches for the set.
            unsafe { _mm256_add_ps(a, b) }
        }
        #[inline(always)]
        unsafe fn settle(v: __m256, low: __m256, high: __m256) -> __m256 {
            // SAFETY: the caller vouches for the set.
            unsafe {
                let v = _mm256_min_ps(_mm256_max_ps(v, low), high);
                _mm256_round_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(v)
            }
        }
        #[inline(always)]
        unsafe fn whole(v: __m256) -> __m256i {
            // SAFETY: the caller vouches for the set. The conversion rounds half to even.
            unsafe { _mm256_cvtps_epi32(v) }
        }
    };
}

/// Eight lanes, 16-bit multiplications.
#[derive(Debug, Clone, Copy)]
pub(in super::super) struct Avx2;

impl Dot for Avx2 {
    const LANES: usize = 8;
    const GROUP: usize = 2;
    const REGISTERS: usize = 16;
    type Code = i16;
    type Weight = i16;
    type Operand = __m256i;
    type Sum = __m256i;
    type Float = __m256;
    /// Lowest and highest.
    type Limits = [__m256i; 2];

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
        #[target_feature(enable = "avx2")]
        fn compiled<T: Task<Avx2>>(task: T) -> T::Output {
            // SAFETY: this function's features are those of the set.
            unsafe { task.run() }
        }
        // SAFETY: the caller vouches for the set.
        unsafe { compiled(task) }
    }
    #[inline(always)]
    unsafe fn splat(from: *const i16) -> __m256i {
        // SAFETY: the caller vouches for the set and two codes.
        unsafe { _mm256_set1_epi32(from.cast::<i32>().read_unaligned()) }
    }
    #[inline(always)]
    unsafe fn weights(from: *const i16) -> __m256i {
        // SAFETY: the caller vouches for the set and sixteen weights.
        unsafe { _mm256_loadu_si256(from.cast()) }
    }
    #[inline(always)]
    unsafe fn dot(sum: __m256i, x: __m256i, w: __m256i) -> __m256i {
        // SAFETY: the caller vouches for the set.
        unsafe { _mm256_add_epi32(sum, _mm256_madd_epi16(x, w)) }
    }
    #[inline(always)]
    unsafe fn load_codes(from: *const i16) -> __m256i {
        // SAFETY: the caller vouches for the set and sixteen codes.
        unsafe { _mm256_loadu_si256(from.cast()) }
    }
    #[inline(always)]
    unsafe fn store_codes(codes: __m256i, to: *mut i16) {
        // SAFETY: the caller vouches for the set and room for sixteen codes.
        unsafe { _mm256_storeu_si256(to.cast(), codes) }
    }
    #[inline(always)]
    unsafe fn interleave([a, b, c, d]: [__m256i; 4]) -> [__m256i; 4] {
        // SAFETY: the caller vouches for the set.
        unsafe {
            [
                _mm256_unpacklo_epi16(a, b),
                _mm256_unpackhi_epi16(a, b),
                _mm256_unpacklo_epi16(c, d),
                _mm256_unpackhi_epi16(c, d),
            ]
        }
    }
    #[inline(always)]
    unsafe fn widen<const B: usize>(from: *const i16) -> [__m256i; B] {
        // SAFETY: the caller vouches for the set and the codes of `B` vectors.
        unsafe {
            if B == 1 {
                return [_mm256_cvtepi16_epi32(_mm_loadu_si128(from.cast())); B];
            }
            let x = _mm256_loadu_si256(from.cast());
            let two = [_mm256_unpacklo_epi16(x, x), _mm256_unpackhi_epi16(x, x)];
            std::array::from_fn(|b| _mm256_srai_epi32::<16>(two[b]))
        }
    }
    #[inline(always)]
    unsafe fn limits(_: i32, low: i32, high: i32) -> [__m256i; 2] {
        // SAFETY: the caller vouches for the set.
        [low, high].map(|v| unsafe { _mm256_set1_epi16(v as i16) })
    }
    #[inline(always)]
    unsafe fn store<const B: usize>(whole: [__m256i; B], [low, high]: [__m256i; 2], to: *mut i16) {
        // SAFETY: the caller vouches for the set and room for `B` vectors.
        unsafe {
            if B == 1 {
                let [first, second] = [_mm256_castsi256_si128(whole[0]), _mm256_extracti128_si256::<1>(whole[0])];
                let [low, high] = [low, high].map(|v| _mm256_castsi256_si128(v));
                let codes = _mm_min_epi16(_mm_max_epi16(_mm_packs_epi32(first, second), low), high);
                _mm_storeu_si128(to.cast(), codes);
            } else {
                let codes = _mm256_packs_epi32(whole[0], whole[1]);
                _mm256_storeu_si256(to.cast(), _mm256_min_epi16(_mm256_max_epi16(codes, low), high));
            }
        }
    }
    #[inline(always)]
    unsafe fn store_part(whole: [__m256i; 4], limits: [__m256i; 2], count: usize, to: *mut i16) {
        // SAFETY: the caller vouches for the set and room for `count` codes.
        unsafe {
            if count >= 16 {
                return Self::store([whole[0], whole[1]], limits, to);
            }
            let mut all = [0i16; 16];
            Self::store([whole[0], whole[1]], limits, all.as_mut_ptr());
            to.copy_from_nonoverlapping(all.as_ptr(), count);
        }
    }
    float_lanes_256!();
}

impl Wide for Avx2 {
    #[inline(always)]
    unsafe fn plus_codes(a: __m256i, b: __m256i) -> __m256i {
        // SAFETY: the caller vouches for the set.
        unsafe { _mm256_add_epi16(a, b) }
    }
    #[inline(always)]
    unsafe fn minus_codes(a: __m256i, b: __m256i) -> __m256i {
        // SAFETY: the caller vouches for the set.
        unsafe { _mm256_sub_epi16(a, b) }
    }
    #[inline(always)]
    unsafe fn no_sum() -> __m256i {
        // SAFETY: the caller vouches for the set.
        unsafe { _mm256_setzero_si256() }
    }
    #[inline(always)]
    unsafe fn plus(a: __m256i, b: __m256i) -> __m256i {
        // SAFETY: the caller vouches for the set.
        unsafe { _mm256_add_epi32(a, b) }
    }
    #[inline(always)]
    unsafe fn minus(a: __m256i, b: __m256i) -> __m256i {
        // SAFETY: the caller vouches for the set.
        unsafe { _mm256_sub_epi32(a, b) }
    }
}

/// Eight lanes, dot products of four bytes.
#[derive(Debug, Clone, Copy)]
pub(in super::super) struct AvxVnni;

impl Dot for AvxVnni {
    const LANES: usize = 8;
    const GROUP: usize = 4;
    const REGISTERS: usize = 16;
    type Code = u8;
    type Weight = i8;
    type Operand = __m256i;
    type Sum = __m256i;
    type Float = __m256;
    /// Zero in 16 bits, lowest and highest in 8.
    type Limits = [__m256i; 3];

    unsafe fn enter<T: Task<Self>>(task: T) -> T::Output {
        #[target_feature(enable = "avx2,avxvnni")]
        fn compiled<T: Task<AvxVnni>>(task: T) -> T::Output {
            // SAFETY: this function's features are those of the set.
            unsafe { task.run() }
        }
        // SAFETY: the caller vouches for the set.
        unsafe { compiled(task) }
    }
    #[inline(always)]
    unsafe fn splat(from: *const u8) -> __m256i {
        // SAFETY: the caller vouches for the set and four codes.
        unsafe { _mm256_set1_epi32(from.cast::<i32>().read_unaligned()) }
    }
    #[inline(always)]
    unsafe fn weights(from: *const i8) -> __m256i {
        // SAFETY: the caller vouches for the set and 32 weights.
        unsafe { _mm256_loadu_si256(from.cast()) }
    }
    #[inline(always)]
    unsafe fn dot(sum: __m256i, x: __m256i, w: __m256i) -> __m256i {
        // SAFETY: the caller vouches for the set.
        unsafe { _mm256_dpbusd_avx_epi32(sum, x, w) }
    }
    #[inline(always)]
    unsafe fn load_codes(from: *const u8) -> __m256i {
        // SAFETY: the caller vouches for the set and 32 codes.
        unsafe { _mm256_loadu_si256(from.cast()) }
    }
    #[inline(always)]
    unsafe fn store_codes(codes: __m256i, to: *mut u8) {
        // SAFETY: the caller vouches for the set and room for 32 codes.
        unsafe { _mm256_storeu_si256(to.cast(), codes) }
    }
    #[inline(always)]
    unsafe fn interleave([a, b, c, d]: [__m256i; 4]) -> [__m256i; 4] {
        // SAFETY: the caller vouches for the set.
        unsafe {
            let [ab, ab_high] = [_mm256_unpacklo_epi8(a, b), _mm256_unpackhi_epi8(a, b)];
            let [cd, cd_high] = [_mm256_unpacklo_epi8(c, d), _mm256_unpackhi_epi8(c, d)];
            [
                _mm256_unpacklo_epi16(ab, cd),
                _mm256_unpackhi_epi16(ab, cd),
                _mm256_unpacklo_epi16(ab_high, cd_high),
                _mm256_unpackhi_epi16(ab_high, cd_high),
            ]
        }
    }
    #[inline(always)]
    unsafe fn widen<const B: usize>(from: *const u8) -> [__m256i; B] {
        // SAFETY: the caller vouches for the set and the codes of `B` vectors.
        unsafe {
            let zero = _mm256_setzero_si256();
            if B == 1 {
                return [_mm256_cvtepu8_epi32(_mm_loadl_epi64(from.cast())); B];
            }
            if B == 2 {
                let x = _mm256_cvtepu8_epi16(_mm_loadu_si128(from.cast()));
                let two = [_mm256_unpacklo_epi16(x, zero), _mm256_unpackhi_epi16(x, zero)];
                return std::array::from_fn(|b| two[b]);
            }
            let x = _mm256_loadu_si256(from.cast());
            let [low, high] = [_mm256_unpacklo_epi8(x, zero), _mm256_unpackhi_epi8(x, zero)];
            let four = [
                _mm256_unpacklo_epi16(low, zero),
                _mm256_unpackhi_epi16(low, zero),
                _mm256_unpacklo_epi16(high, zero),
                _mm256_unpackhi_epi16(high, zero),
            ];
            std::array::from_fn(|b| four[b])
        }
    }
    #[inline(always)]
    unsafe fn limits(zero: i32, low: i32, high: i32) -> [__m256i; 3] {
        // SAFETY: the caller vouches for the set.
        unsafe { [_mm256_set1_epi16(zero as i16), _mm256_set1_epi8(low as i8), _mm256_set1_epi8(high as i8)] }
    }
    #[inline(always)]
    unsafe fn store<const B: usize>(whole: [__m256i; B], limits: [__m256i; 3], to: *mut u8) {
        // SAFETY: the caller vouches for the set and room for `B` vectors.
        unsafe {
            if B == 4 {
                return _mm256_storeu_si256(to.cast(), Self::pack(std::array::from_fn(|b| whole[b]), limits));
            }
            // Halves of 128 bits: for one vector its part four times, for two each part twice.
            let codes = Self::pack([whole[0], whole[B - 1], whole[0], whole[B - 1]], limits);
            if B == 1 {
                let codes = _mm256_permutevar8x32_epi32(codes, _mm256_setr_epi32(0, 4, 0, 4, 0, 4, 0, 4));
                _mm_storel_epi64(to.cast(), _mm256_castsi256_si128(codes));
            } else {
                let codes = _mm256_permute4x64_epi64::<0b1000>(codes);
                _mm_storeu_si128(to.cast(), _mm256_castsi256_si128(codes));
            }
        }
    }
    #[inline(always)]
    unsafe fn store_part(whole: [__m256i; 4], limits: [__m256i; 3], count: usize, to: *mut u8) {
        // SAFETY: the caller vouches for the set and room for `count` codes.
        unsafe {
            if count >= 32 {
                return Self::store(whole, limits, to);
            }
            let mut all = [0u8; 32];
            Self::store(whole, limits, all.as_mut_ptr());
            to.copy_from_nonoverlapping(all.as_ptr(), count);
        }
    }
    float_lanes_256!();
}

impl AvxVnni {
    /// # Safety
    /// The processor must have the set.
    #[inline(always)]
    unsafe fn pack([a, b, c, d]: [__m256i; 4], [zero, low, high]: [__m256i; 3]) -> __m256i {
        // SAFETY: vouched for by the caller. All steps saturate.
        unsafe {
            let words = [_mm256_packs_epi32(a, b), _mm256_packs_epi32(c, d)].map(|w| _mm256_adds_epi16(w, zero));
            _mm256_min_epu8(_mm256_max_epu8(_mm256_packus_epi16(words[0], words[1]), low), high)
        }
    }
}
