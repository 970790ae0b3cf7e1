//! The most multiply-adds in f32 that an adapter's device does, measured.

use web_time::Instant;

use super::Adapter;
use crate::GpuError;
use crate::peak::{LONG_ENOUGH, ROUNDS, RUNS};
use crate::runner::Runner;
use crate::shader::PEAK;

/// Vectors of four that an invocation of `peak.wgsl` sums.
const VECTORS: usize = 3;
/// Invocations that fill a large GPU many times over.
const INVOCATIONS: usize = 1 << 16;

/// Floating-point operations a second of an adapter's device.
///
/// # Errors
/// If it gives no device, or refuses the work.
pub async fn peak(adapter: &Adapter) -> Result<f64, GpuError> {
    let runner = Runner::new(adapter).await?;
    let factors = runner.upload(&[[0.5_f32; 4], [1.0; 4]]);
    let output = runner.poisoned(INVOCATIONS);
    let launch = PEAK.with([("ROUNDS", ROUNDS.into())]).over(INVOCATIONS);
    let prepared = [runner.prepare(&launch, &[&factors, &output]).await?];
    let run = async |times| {
        let start = Instant::now();
        runner.repeat(&prepared, times).await?;
        Ok::<_, GpuError>(start.elapsed())
    };
    let mut times = 1;
    while run(times).await? < LONG_ENOUGH {
        times *= 2;
    }
    let mut best = run(times).await?;
    for _ in 1..RUNS {
        best = best.min(run(times).await?);
    }
    let operations = 2.0 * (INVOCATIONS * ROUNDS * VECTORS * 4 * times) as f64;
    Ok(operations / best.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each sum tends to 1 / (1 - 0.5).
    #[test]
    fn the_work_is_done() {
        let Some(adapter) = crate::gpu::for_tests() else { return };
        let runner = pollster::block_on(Runner::new(&adapter)).unwrap();
        let (factors, output) = (runner.upload(&[[0.5_f32; 4], [1.0; 4]]), runner.poisoned(130));
        let launch = PEAK.with([("ROUNDS", 104_usize.into())]).over(130);
        pollster::block_on(runner.run(&launch, &[&factors, &output])).unwrap();
        let found = pollster::block_on(runner.read(&output)).unwrap();
        assert_eq!(found, [(2 * VECTORS * 4) as f32; 130]);
    }

    #[test]
    fn a_peak_is_a_number_of_operations() {
        let Some(adapter) = crate::gpu::for_tests() else { return };
        assert!((1e8..1e18).contains(&pollster::block_on(peak(&adapter)).unwrap()));
    }
}
