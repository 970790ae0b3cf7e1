//! Products of bf16 numbers, added up in f32 by AVX512-BF16.
//!
//! Two numbers share a word of 32 bits, and a word takes the place of one f32: the loops are those of
//! f32 over half as many words. Words are kept in slices of f32, which are copied bit for bit.
#![allow(unsafe_code, reason = "instructions that pulp does not have")]

#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::{__m512, __m512bh, _mm512_dpbf16_ps, _mm512_set1_epi32};

#[cfg(target_arch = "x86_64")]
use pulp::{Simd, f32x16, x86::V4};

use super::Kernel;
#[cfg(target_arch = "x86_64")]
use super::MultiplyAdd;

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
            let w: [__m512bh; V] = std::array::from_fn(|v| weight.cast::<__m512bh>().add(v).read_unaligned());
            for p in 0..P {
                let x: __m512bh = std::mem::transmute(_mm512_set1_epi32(x[p].to_bits() as i32));
                for v in 0..V {
                    let sum: __m512 = std::mem::transmute::<f32x16, __m512>(sums[p][v]);
                    sums[p][v] = std::mem::transmute::<__m512, f32x16>(_mm512_dpbf16_ps(sum, x, w[v]));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
