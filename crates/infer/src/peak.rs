//! The most multiply-adds in f32 that a CPU does, measured: what figures of speed are a share of. [`crate::gpu::peak`]
//! measures a GPU's.

use std::hint::black_box;

use pulp::{Arch, Simd, WithSimd};
use web_time::{Duration, Instant};

use crate::parallel;

/// Measurements; the best counts, as anything else that runs only takes away.
pub(crate) const RUNS: usize = 5;
/// Work that takes less than this is doubled.
pub(crate) const LONG_ENOUGH: Duration = Duration::from_millis(50);
/// Of one invocation or task.
pub(crate) const ROUNDS: usize = 4096;

/// Floating-point operations a second of all threads of the CPU together.
pub fn cpu() -> f64 {
    let operations = 2.0 * (ROUNDS * Loop::SUMS * Arch::new().dispatch(Lanes)) as f64;
    let run = |tasks| {
        let start = Instant::now();
        parallel::for_each(tasks, |_| {
            black_box(Arch::new().dispatch(Loop));
        });
        start.elapsed()
    };
    let mut tasks = 64;
    while run(tasks) < LONG_ENOUGH {
        tasks *= 2;
    }
    let best = (0..RUNS).map(|_| run(tasks)).min().expect("there is a run");
    tasks as f64 * operations / best.as_secs_f64()
}

/// f32 of a vector.
struct Lanes;

impl WithSimd for Lanes {
    type Output = usize;

    fn with_simd<S: Simd>(self, _: S) -> usize {
        S::F32_LANES
    }
}

struct Loop;

impl Loop {
    /// Sums that are made at once: as many as hide the latency of one, and fit into registers.
    const SUMS: usize = 12;
}

impl WithSimd for Loop {
    type Output = f32;

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> f32 {
        // Not known to the compiler, or it would do the sum itself.
        let (scale, shift) = (simd.splat_f32s(black_box(0.5)), simd.splat_f32s(black_box(1.0)));
        let mut sums: [S::f32s; Self::SUMS] = std::array::from_fn(|at| simd.splat_f32s(at as f32));
        for _ in 0..ROUNDS {
            for sum in &mut sums {
                *sum = simd.mul_add_e_f32s(*sum, scale, shift);
            }
        }
        simd.reduce_sum_f32s(sums.into_iter().fold(simd.splat_f32s(0.0), |all, sum| simd.add_f32s(all, sum)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each sum tends to 1 / (1 - 0.5).
    #[test]
    fn the_work_is_done() {
        let lanes = Arch::new().dispatch(Lanes);
        assert_eq!(Arch::new().dispatch(Loop), (2 * Loop::SUMS * lanes) as f32);
    }

    #[test]
    fn a_peak_is_a_number_of_operations() {
        // A core of twenty years ago does 1 GFLOP/s; the largest machine known some 1e18.
        assert!((1e9..1e18).contains(&cpu()));
    }
}
