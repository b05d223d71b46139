//! The instruction sets behind [`Dot`]: plain arrays, AVX2, AVX-VNNI and AVX512-VNNI. The NEON sets will join here.
//!
//! AVX2 multiplies in 16 bits (`vpmaddwd`): its byte form saturates. The VNNI sets multiply unsigned codes by signed
//! weights without saturating.

use super::conv::Special;
use super::dot::{Dot, Task};
use super::network::Layout;
use super::winograd::{self, Wide, Winograd};
use super::{Conv, Map};
#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::*;

/// Four lanes of plain arrays.
#[derive(Debug, Clone, Copy)]
pub(super) struct Portable;

impl Dot for Portable {
    const LANES: usize = 4;
    const GROUP: usize = 2;
    const REGISTERS: usize = 16;
    type Code = i16;
    type Weight = i16;
    type Operand = [i16; 8];
    type Sum = [i32; 4];
    type Float = [f32; 4];

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
    unsafe fn widen(from: *const i16) -> [i32; 4] {
        // SAFETY: the caller vouches for four codes.
        unsafe { from.cast::<[i16; 4]>().read_unaligned() }.map(i32::from)
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
            super::round(if v < high[i] { v } else { high[i] })
        })
    }
    #[inline(always)]
    unsafe fn store(value: [f32; 4], to: *mut i16) {
        // SAFETY: the values were settled between codes, and the caller vouches for four of them.
        unsafe { to.cast::<[i16; 4]>().write_unaligned(value.map(|v| v.to_int_unchecked::<i32>() as i16)) }
    }
}

impl Wide for Portable {
    const WIDE: usize = 8;
    type Codes = [i16; 8];

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
    unsafe fn store_sums(sum: [i32; 4], to: *mut i32) {
        // SAFETY: the caller vouches for room for four sums.
        unsafe { to.cast::<[i32; 4]>().write_unaligned(sum) }
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

/// The eight float lanes that all 256-bit sets share.
#[cfg(target_arch = "x86_64")]
macro_rules! float_lanes_256 {
    () => {
        #[inline(always)]
        unsafe fn sums(from: *const i32) -> __m256i {
            // SAFETY: the caller vouches for the set and eight sums.
            unsafe { _mm256_loadu_si256(from.cast()) }
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
    };
}

/// Eight lanes, 16-bit multiplications.
#[cfg(target_arch = "x86_64")]
#[derive(Debug, Clone, Copy)]
pub(super) struct Avx2;

#[cfg(target_arch = "x86_64")]
impl Dot for Avx2 {
    const LANES: usize = 8;
    const GROUP: usize = 2;
    const REGISTERS: usize = 16;
    type Code = i16;
    type Weight = i16;
    type Operand = __m256i;
    type Sum = __m256i;
    type Float = __m256;

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
    unsafe fn widen(from: *const i16) -> __m256i {
        // SAFETY: the caller vouches for the set and eight codes.
        unsafe { _mm256_cvtepi16_epi32(_mm_loadu_si128(from.cast())) }
    }
    #[inline(always)]
    unsafe fn store(value: __m256, to: *mut i16) {
        // SAFETY: the caller vouches for the set and room for eight codes.
        unsafe {
            let v = _mm256_cvtps_epi32(value);
            let v = _mm_packs_epi32(_mm256_castsi256_si128(v), _mm256_extracti128_si256::<1>(v));
            _mm_storeu_si128(to.cast(), v);
        }
    }
    float_lanes_256!();
}

#[cfg(target_arch = "x86_64")]
impl Wide for Avx2 {
    const WIDE: usize = 16;
    type Codes = __m256i;

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
    unsafe fn store_sums(sum: __m256i, to: *mut i32) {
        // SAFETY: the caller vouches for the set and room for eight sums.
        unsafe { _mm256_storeu_si256(to.cast(), sum) }
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
#[cfg(target_arch = "x86_64")]
#[derive(Debug, Clone, Copy)]
pub(super) struct AvxVnni;

#[cfg(target_arch = "x86_64")]
impl Dot for AvxVnni {
    const LANES: usize = 8;
    const GROUP: usize = 4;
    const REGISTERS: usize = 16;
    type Code = u8;
    type Weight = i8;
    type Operand = __m256i;
    type Sum = __m256i;
    type Float = __m256;

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
    unsafe fn widen(from: *const u8) -> __m256i {
        // SAFETY: the caller vouches for the set and eight codes.
        unsafe { _mm256_cvtepu8_epi32(_mm_loadl_epi64(from.cast())) }
    }
    #[inline(always)]
    unsafe fn store(value: __m256, to: *mut u8) {
        // SAFETY: the caller vouches for the set and room for eight codes.
        unsafe {
            let v = _mm256_cvtps_epi32(value);
            let v = _mm_packs_epi32(_mm256_castsi256_si128(v), _mm256_extracti128_si256::<1>(v));
            _mm_storel_epi64(to.cast(), _mm_packus_epi16(v, v));
        }
    }
    float_lanes_256!();
}

/// Sixteen lanes, dot products of four bytes.
#[cfg(target_arch = "x86_64")]
#[derive(Debug, Clone, Copy)]
pub(super) struct Avx512Vnni;

#[cfg(target_arch = "x86_64")]
impl Dot for Avx512Vnni {
    const LANES: usize = 16;
    const GROUP: usize = 4;
    const REGISTERS: usize = 32;
    type Code = u8;
    type Weight = i8;
    type Operand = __m512i;
    type Sum = __m512i;
    type Float = __m512;

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
    unsafe fn widen(from: *const u8) -> __m512i {
        // SAFETY: the caller vouches for the set and sixteen codes.
        unsafe { _mm512_cvtepu8_epi32(_mm_loadu_si128(from.cast())) }
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
    unsafe fn store(value: __m512, to: *mut u8) {
        // SAFETY: the caller vouches for the set and room for sixteen codes.
        unsafe { _mm_storeu_si128(to.cast(), _mm512_cvtepi32_epi8(_mm512_cvtps_epi32(value))) }
    }
}
