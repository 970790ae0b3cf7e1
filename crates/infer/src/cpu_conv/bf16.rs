//! Products of bf16 numbers, added up in f32 by AVX512-BF16.
//!
//! Two numbers share a word of 32 bits, and a word takes the place of one f32: the loops are those of
//! f32 over half as many words. Words are kept in slices of f32, which are copied bit for bit.
#![allow(unsafe_code, reason = "instructions that pulp does not have")]

#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::{
    __m512, __m512bh, __m512i, _mm512_cvtne2ps_pbh, _mm512_dpbf16_ps, _mm512_loadu_ps, _mm512_loadu_si512,
    _mm512_permutexvar_epi16, _mm512_set1_epi32, _mm512_storeu_si512,
};
#[cfg(target_arch = "x86_64")]
use std::array;
#[cfg(target_arch = "x86_64")]
use std::mem::transmute;

#[cfg(target_arch = "x86_64")]
use pulp::{Simd, f32x16, x86::V4};

use super::Kernel;
#[cfg(target_arch = "x86_64")]
use super::MultiplyAdd;

/// Words in a vector.
const LANES: usize = 16;

/// Whether this processor has the instructions.
pub fn is_available() -> bool {
    #[cfg(target_arch = "x86_64")]
    return V4::try_new().is_some() && std::arch::is_x86_feature_detected!("avx512bf16");
    #[cfg(not(target_arch = "x86_64"))]
    false
}

/// The nearest bf16, the even one of two.
#[inline(always)]
pub fn round(value: f32) -> u16 {
    let bits = value.to_bits();
    let rounded = bits.wrapping_add(0x7fff + (bits >> 16 & 1)) >> 16;
    // Rounding could make infinity of NaN; it becomes a quiet one.
    (if value.is_nan() { bits >> 16 | 0x40 } else { rounded }) as u16
}

/// A word of two numbers.
#[inline(always)]
pub fn word(first: f32, second: f32) -> f32 {
    f32::from_bits(u32::from(round(first)) | u32::from(round(second)) << 16)
}

/// Words of two numbers that follow each other; beside a last one alone there is zero.
pub fn neighbours(values: &[f32], words: &mut [f32]) {
    let (pairs, last) = values.as_chunks::<2>();
    let (full, rest) = words.split_at_mut(pairs.len());
    let done = vectors(full.len());
    #[cfg(target_arch = "x86_64")]
    // Safety: there are vectors only on processors that have the instructions.
    unsafe {
        convert_neighbours(pairs[..done].as_flattened(), &mut full[..done]);
    }
    full[done..].iter_mut().zip(&pairs[done..]).for_each(|(to, [a, b])| *to = word(*a, *b));
    rest.iter_mut().zip(last).for_each(|(to, value)| *to = word(*value, 0.0));
}

/// Words of the numbers at the same places of two slices.
pub fn pairs(first: &[f32], second: &[f32], words: &mut [f32]) {
    let done = vectors(words.len());
    #[cfg(target_arch = "x86_64")]
    // Safety: there are vectors only on processors that have the instructions.
    unsafe {
        convert_pairs(&first[..done], &second[..done], &mut words[..done]);
    }
    let rest = first[done..].iter().zip(&second[done..]);
    words[done..].iter_mut().zip(rest).for_each(|(to, (a, b))| *to = word(*a, *b));
}

/// How many of that many words are converted by vectors.
fn vectors(words: usize) -> usize {
    if is_available() { words / LANES * LANES } else { 0 }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
fn convert_neighbours(values: &[f32], words: &mut [f32]) {
    let halves = values.as_chunks::<LANES>().0.as_chunks::<2>().0;
    for (to, [low, high]) in words.as_chunks_mut::<LANES>().0.iter_mut().zip(halves) {
        // Safety: there is room for a vector.
        unsafe { _mm512_storeu_si512(to.as_mut_ptr().cast(), rounded(low, high)) };
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
fn convert_pairs(first: &[f32], second: &[f32], words: &mut [f32]) {
    let turns: [u16; 2 * LANES] = array::from_fn(|place| (place / 2 + place % 2 * LANES) as u16);
    // Safety: a vector lies there.
    let turns = unsafe { _mm512_loadu_si512(turns.as_ptr().cast()) };
    let both = first.as_chunks::<LANES>().0.iter().zip(second.as_chunks::<LANES>().0);
    for (to, (low, high)) in words.as_chunks_mut::<LANES>().0.iter_mut().zip(both) {
        let words = _mm512_permutexvar_epi16(turns, rounded(low, high));
        // Safety: there is room for a vector.
        unsafe { _mm512_storeu_si512(to.as_mut_ptr().cast(), words) };
    }
}

/// All of `low` in bf16, then all of `high`.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bf16")]
fn rounded(low: &[f32; LANES], high: &[f32; LANES]) -> __m512i {
    // Safety: vectors of 64 bytes all.
    unsafe {
        let numbers = _mm512_cvtne2ps_pbh(_mm512_loadu_ps(high.as_ptr()), _mm512_loadu_ps(low.as_ptr()));
        transmute::<__m512bh, __m512i>(numbers)
    }
}

/// # Panics
/// Where the processor lacks the instructions.
pub fn dispatch(kernel: impl Kernel) {
    assert!(is_available(), "this processor does not multiply bf16");
    #[cfg(target_arch = "x86_64")]
    // Safety: the processor has the instructions.
    unsafe {
        vectorize(kernel, V4::try_new().expect("it was there above"));
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = kernel;
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512cd,avx512dq,avx512vl,avx512bf16,avx2,fma,bmi1,bmi2,lzcnt,popcnt")]
fn vectorize(kernel: impl Kernel, simd: V4) {
    kernel.run(simd, DotProduct);
}

#[cfg(target_arch = "x86_64")]
#[derive(Clone, Copy)]
struct DotProduct;

#[cfg(target_arch = "x86_64")]
impl MultiplyAdd<V4> for DotProduct {
    #[inline(always)]
    unsafe fn multiply_add<const V: usize, const P: usize>(
        self,
        _: V4,
        x: [f32; P],
        weight: *const f32,
        sums: &mut [[<V4 as Simd>::f32s; V]; P],
    ) {
        // Safety: the caller's, and vectors of 64 bytes all.
        unsafe {
            let w: [__m512bh; V] = array::from_fn(|v| weight.cast::<__m512bh>().add(v).read_unaligned());
            for p in 0..P {
                let x: __m512bh = transmute(_mm512_set1_epi32(x[p].to_bits() as i32));
                for v in 0..V {
                    let sum: __m512 = transmute::<f32x16, __m512>(sums[p][v]);
                    sums[p][v] = transmute::<__m512, f32x16>(_mm512_dpbf16_ps(sum, x, w[v]));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slices_become_the_words_that_their_numbers_do() {
        // Some vectors, and a rest; denormal numbers, which the instructions take for zero, are not among them.
        let values = |len: usize, seed: u32| -> Vec<f32> {
            let number = |i: u32| f32::from_bits((i ^ seed).wrapping_mul(0x9e37_79b9) & 0xbfff_ffff | 0x0080_0000);
            (0..len as u32).map(number).chain([f32::NAN, f32::INFINITY, -0.0]).collect()
        };
        let bits = |words: &[f32]| words.iter().map(|word| word.to_bits()).collect::<Vec<_>>();
        for len in [0, 5, 29, 64, 77, 118] {
            let (first, second) = (values(len, 1), values(len, 2));
            let mut words = vec![0.0; first.len().div_ceil(2)];
            neighbours(&first, &mut words);
            let expected = first.chunks(2).map(|pair| word(pair[0], pair.get(1).copied().unwrap_or(0.0)));
            assert_eq!(bits(&words), bits(&expected.collect::<Vec<_>>()), "{len}");
            let mut words = vec![0.0; first.len()];
            pairs(&first, &second, &mut words);
            let expected = first.iter().zip(&second).map(|(a, b)| word(*a, *b));
            assert_eq!(bits(&words), bits(&expected.collect::<Vec<_>>()), "{len}");
        }
    }

    #[test]
    fn numbers_are_rounded_to_the_nearest_even() {
        let back = |value: f32| f32::from_bits(u32::from(round(value)) << 16);
        for exact in [0.0, -1.5, 1.7014118e38, f32::INFINITY, f32::NEG_INFINITY] {
            assert_eq!(back(exact), exact);
        }
        assert_eq!(back(1.0 + 1.0 / 256.0), 1.0);
        assert_eq!(back(1.0 + 3.0 / 256.0), 1.0 + 1.0 / 64.0);
        assert_eq!(back(1.0 + 1.1 / 256.0), 1.0 + 1.0 / 128.0);
        assert_eq!(back(f32::MAX), f32::INFINITY);
        assert!(back(f32::from_bits(0x7fff_ffff)).is_nan() && back(f32::from_bits(0x7f80_0001)).is_nan());
    }
}
