//! Batch normalisation on a CPU, a channel a task: two passes forward, two backward, the ReLU within.
//!
//! Sums run in lanes that the compiler makes vectors of, in an order that depends on the shape alone,
//! so that neither threads nor vector width change the result.
#![allow(unsafe_code, reason = "a channel's numbers are interleaved with those of others")]

use pulp::Arch;
use rayon::prelude::*;

/// Partial sums that run side by side.
const LANES: usize = 16;

/// What the backward pass keeps of the forward one, each `[C]`.
#[derive(Clone, Copy)]
pub struct Statistics<'a> {
    pub gamma: &'a [f32],
    pub mean: &'a [f32],
    /// Biased.
    pub variance: &'a [f32],
    pub epsilon: f64,
}

/// Output `[N, C, H, W]`, mean `[C]` and biased variance `[C]`.
pub fn forward(
    shape: [usize; 4],
    x: &[f32],
    gamma: &[f32],
    beta: &[f32],
    epsilon: f64,
    relu: bool,
) -> (Vec<f32>, Vec<f32>, Vec<f32>) {
    let count = (shape[0] * shape[2] * shape[3]) as f64;
    let output = Output::new(x.len());
    let (mean, variance) = (0..shape[1])
        .into_par_iter()
        .map(|channel| {
            Arch::new().dispatch(|| {
                let maps = || maps(shape, channel).map(|range| &x[range]);
                let mean = maps().map(|map| sum(map, map, |x, _| x)).sum::<f64>() / count;
                let centre = mean as f32;
                let variance = maps().map(|map| sum(map, map, |x, _| (x - centre) * (x - centre))).sum::<f64>() / count;
                let scale = (f64::from(gamma[channel]) / (variance + epsilon).sqrt()) as f32;
                let shift = beta[channel];
                let floor = if relu { 0.0 } else { f32::NEG_INFINITY };
                for range in self::maps(shape, channel) {
                    // Safety: no other task has this channel.
                    let output = unsafe { output.part(range.clone()) };
                    for (output, x) in output.iter_mut().zip(&x[range]) {
                        let y = (x - centre) * scale + shift;
                        // Not `max`, which would make a number of NaN.
                        *output = if y < floor { floor } else { y };
                    }
                }
                (mean as f32, variance as f32)
            })
        })
        .unzip();
    (output.finish(), mean, variance)
}

/// Gradients of input `[N, C, H, W]`, gamma `[C]` and beta `[C]`. `output` is the forward pass's if
/// that cut at zero.
pub fn backward(
    shape: [usize; 4],
    x: &[f32],
    statistics: &Statistics,
    output: Option<&[f32]>,
    grad: &[f32],
) -> (Vec<f32>, Vec<f32>, Vec<f32>) {
    let count = (shape[0] * shape[2] * shape[3]) as f64;
    let x_grad = Output::new(x.len());
    let (gamma_grad, beta_grad) = (0..shape[1])
        .into_par_iter()
        .map(|channel| {
            Arch::new().dispatch(|| {
                let deviation = (f64::from(statistics.variance[channel]) + statistics.epsilon).sqrt();
                let (mean, inverse) = (statistics.mean[channel], (1.0 / deviation) as f32);
                let (mut gamma_grad, mut beta_grad) = (0.0, 0.0);
                for range in maps(shape, channel) {
                    let (x, grad) = (&x[range.clone()], &grad[range.clone()]);
                    // Safety: no other task has this channel.
                    let passed = unsafe { x_grad.part(range.clone()) };
                    match output {
                        Some(output) => {
                            for (passed, (grad, output)) in passed.iter_mut().zip(grad.iter().zip(&output[range])) {
                                *passed = if *output > 0.0 { *grad } else { 0.0 };
                            }
                        }
                        None => passed.copy_from_slice(grad),
                    }
                    beta_grad += sum(passed, x, |grad, _| grad);
                    gamma_grad += sum(passed, x, |grad, x| grad * (x - mean) * inverse);
                }
                let scale = statistics.gamma[channel] * inverse;
                let (shift, slope) = ((beta_grad / count) as f32, (gamma_grad / count) as f32 * inverse);
                for range in maps(shape, channel) {
                    // Safety: as above; what the first pass left there is read and replaced.
                    let x_grad = unsafe { x_grad.part(range.clone()) };
                    for (x_grad, x) in x_grad.iter_mut().zip(&x[range]) {
                        *x_grad = (*x_grad - shift - (x - mean) * slope) * scale;
                    }
                }
                (gamma_grad as f32, beta_grad as f32)
            })
        })
        .unzip();
    (x_grad.finish(), gamma_grad, beta_grad)
}

/// Where the maps of a channel lie in `[N, C, H, W]`.
#[inline(always)]
fn maps([n, channels, height, width]: [usize; 4], channel: usize) -> impl Iterator<Item = std::ops::Range<usize>> {
    let area = height * width;
    (0..n).map(move |image| (image * channels + channel) * area).map(move |start| start..start + area)
}

/// Sum of `f(a, b)` over two slices of one length: in lanes, and those in double precision.
#[inline(always)]
fn sum(a: &[f32], b: &[f32], f: impl Fn(f32, f32) -> f32) -> f64 {
    let mut lanes = [0.0_f32; LANES];
    let (a_chunks, a_rest) = a.as_chunks::<LANES>();
    let (b_chunks, b_rest) = b.as_chunks::<LANES>();
    for (a, b) in a_chunks.iter().zip(b_chunks) {
        for lane in 0..LANES {
            lanes[lane] += f(a[lane], b[lane]);
        }
    }
    for (lane, (a, b)) in a_rest.iter().zip(b_rest).enumerate() {
        lanes[lane] += f(*a, *b);
    }
    lanes.iter().map(|lane| f64::from(*lane)).sum()
}

/// Numbers that several tasks write, each its own channels.
struct Output(Vec<f32>, *mut f32);

// Safety: whoever calls `part` sees to it that the parts do not overlap.
unsafe impl Sync for Output {}

impl Output {
    fn new(len: usize) -> Self {
        let mut values = vec![0.0; len];
        let start = values.as_mut_ptr();
        Self(values, start)
    }

    /// # Safety
    /// Nobody else may use these numbers meanwhile.
    #[inline(always)]
    #[allow(clippy::mut_from_ref, reason = "the parts are disjoint, see Safety")]
    unsafe fn part(&self, range: std::ops::Range<usize>) -> &mut [f32] {
        assert!(range.end <= self.0.len(), "a part reaches over the end");
        // Safety: within the vector, and the caller's alone.
        unsafe { std::slice::from_raw_parts_mut(self.1.add(range.start), range.len()) }
    }

    fn finish(self) -> Vec<f32> {
        self.0
    }
}
