//! Batch normalization on a CPU, the ReLU within. Tensors are `[.., C]` here (channels last).
//!
//! Two passes over memory each way: one gathers sums by chunks of pixels, one makes the result. Chunks
//! depend on the shape alone, and their sums are added in double precision in one order, so that
//! neither threads nor vector width change the result.
#![allow(unsafe_code, reason = "vectors that start unwritten")]

use std::ops::Range;

use rayon::prelude::*;

use kiln_infer::parallel::{self, vectorized};

/// Numbers of a chunk, about: it stays in the nearest cache.
const CHUNK: usize = 8192;
/// Numbers that a loop over channels runs through, at least: few channels are repeated.
const RUN: usize = 64;

/// What the backward pass keeps of the forward one, each `[C]`.
#[derive(Clone, Copy)]
pub struct Statistics<'a> {
    pub gamma: &'a [f32],
    pub mean: &'a [f32],
    /// Biased.
    pub variance: &'a [f32],
    pub epsilon: f64,
}

/// Output `[.., C]`, mean `[C]` and biased variance `[C]`.
pub fn forward(x: &[f32], gamma: &[f32], beta: &[f32], epsilon: f64, relu: bool) -> (Vec<f32>, Vec<f32>, Vec<f32>) {
    let channels = gamma.len();
    let (mean, variance) = moments(x, channels);
    let scale = gamma.iter().zip(&variance).map(|(gamma, variance)| f64::from(*gamma) / (variance + epsilon).sqrt());
    let scale: Vec<f32> = scale.map(|scale| scale as f32).collect();
    let mean: Vec<f32> = mean.iter().map(|mean| *mean as f32).collect();
    let output = normalize(x, &mean, &scale, beta, relu);
    (output, mean, variance.iter().map(|variance| *variance as f32).collect())
}

/// `(x - mean) scale + shift`, cut at zero if `relu`.
pub fn normalize(x: &[f32], mean: &[f32], scale: &[f32], shift: &[f32], relu: bool) -> Vec<f32> {
    let floor = if relu { 0.0 } else { f32::NEG_INFINITY };
    let [mean, scale, shift] = [mean, scale, shift].map(repeated);
    let run = scale.len();
    // Safety: all of a chunk is written.
    unsafe {
        parallel::make_chunks(
            x.len(),
            chunk(run),
            #[inline(always)]
            |range, output| {
                for (output, x) in output.chunks_mut(run).zip(x[range].chunks(run)) {
                    let by_channel = mean.iter().zip(&scale).zip(&shift);
                    for ((output, x), ((mean, scale), shift)) in output.iter_mut().zip(x).zip(by_channel) {
                        let y = (x - mean) * scale + shift;
                        // Not `max`, which would make a number of NaN.
                        output.write(if y < floor { floor } else { y });
                    }
                }
            },
        )
    }
}

/// Gradients of input `[.., C]`, gamma `[C]` and beta `[C]`. `output` is the forward pass's if that cut
/// at zero.
pub fn backward(
    x: &[f32],
    statistics: &Statistics,
    output: Option<&[f32]>,
    grad: &[f32],
) -> (Vec<f32>, Vec<f32>, Vec<f32>) {
    let Statistics { gamma, mean, variance, epsilon } = *statistics;
    let count = (x.len() / gamma.len().max(1)) as f64;
    let inverse = variance.iter().map(|variance| 1.0 / (f64::from(*variance) + epsilon).sqrt());
    let inverse: Vec<f32> = inverse.map(|inverse| inverse as f32).collect();
    let relu = output.is_some();
    let output = output.unwrap_or(grad);
    let [means, inverses] = [mean, &inverse].map(repeated);
    let run = means.len();
    let sums = sums(
        x.len(),
        run,
        gamma.len(),
        #[inline(always)]
        |range, [gammas, betas]| {
            let inputs = [x, grad, output].map(|values| &values[range.clone()]);
            add_gradients(inputs, [&means, &inverses], relu, gammas, betas);
        },
    );
    let [mut gamma_grad, mut beta_grad] = [vec![0.0; gamma.len()], vec![0.0; gamma.len()]];
    for [gammas, betas] in &sums {
        gamma_grad.iter_mut().zip(gammas).for_each(|(sum, part)| *sum += part);
        beta_grad.iter_mut().zip(betas).for_each(|(sum, part)| *sum += part);
    }

    let shift: Vec<f32> = beta_grad.iter().map(|sum: &f64| (sum / count) as f32).collect();
    let slope: Vec<f32> =
        gamma_grad.iter().zip(&inverse).map(|(sum, inverse)| (sum / count) as f32 * inverse).collect();
    let scale: Vec<f32> = gamma.iter().zip(&inverse).map(|(gamma, inverse)| gamma * inverse).collect();
    let [shift, slope, scale] = [&shift, &slope, &scale].map(|values| repeated(values));
    // Safety: all of a chunk is written.
    let x_grad = unsafe {
        parallel::make_chunks(
            x.len(),
            chunk(run),
            #[inline(always)]
            |range, x_grad| {
                let (x, grad, output) = (&x[range.clone()], &grad[range.clone()], &output[range]);
                let runs = x.chunks(run).zip(grad.chunks(run)).zip(output.chunks(run));
                for (x_grad, ((x, grad), output)) in x_grad.chunks_mut(run).zip(runs) {
                    let by_channel = means.iter().zip(&shift).zip(slope.iter().zip(&scale));
                    let inputs = x.iter().zip(grad).zip(output);
                    for ((x_grad, ((x, grad), output)), ((mean, shift), (slope, scale))) in
                        x_grad.iter_mut().zip(inputs).zip(by_channel)
                    {
                        x_grad.write((passed(relu, *grad, *output) - shift - (x - mean) * slope) * scale);
                    }
                }
            },
        )
    };
    let single = |sums: Vec<f64>| sums.iter().map(|sum| *sum as f32).collect();
    (x_grad, single(gamma_grad), single(beta_grad))
}

/// The gradient that gets through a ReLU, if there is one.
#[inline(always)]
fn passed(relu: bool, grad: f32, output: f32) -> f32 {
    if !relu || output > 0.0 { grad } else { 0.0 }
}

/// Adds to the sums of a run what input, gradient and output of a chunk give. A function of its own, since a compiler
/// makes vectors of this only if it knows that its arguments do not overlap.
#[inline(always)]
fn add_gradients(
    [x, grad, output]: [&[f32]; 3],
    [means, inverses]: [&[f32]; 2],
    relu: bool,
    gammas: &mut [f32],
    betas: &mut [f32],
) {
    let run = means.len();
    for ((x, grad), output) in x.chunks(run).zip(grad.chunks(run)).zip(output.chunks(run)) {
        let by_channel = means.iter().zip(inverses).zip(gammas.iter_mut().zip(betas.iter_mut()));
        for (((x, grad), output), ((mean, inverse), (gamma, beta))) in x.iter().zip(grad).zip(output).zip(by_channel) {
            let grad = passed(relu, *grad, *output);
            *beta += grad;
            *gamma += grad * (x - mean) * inverse;
        }
    }
}

/// Mean and biased variance of every channel, from those of chunks
/// (Chan, Golub and LeVeque, <https://doi.org/10.1007/978-3-642-51461-6_3>).
fn moments(x: &[f32], channels: usize) -> (Vec<f64>, Vec<f64>) {
    let run = channels * RUN.div_ceil(channels.max(1));
    let made = sums(
        x.len(),
        run,
        channels,
        #[inline(always)]
        |range, [means, squares]| {
            let x = &x[range];
            for x in x.chunks(run) {
                means.iter_mut().zip(x).for_each(|(sum, x)| *sum += x);
            }
            let pixels = (x.len() / channels) as f32;
            for channel in 0..channels {
                let sum: f32 = means.iter().skip(channel).step_by(channels).sum();
                means.iter_mut().skip(channel).step_by(channels).for_each(|mean| *mean = sum / pixels);
            }
            for x in x.chunks(run) {
                for ((square, mean), x) in squares.iter_mut().zip(means.iter()).zip(x) {
                    *square += (x - mean) * (x - mean);
                }
            }
            // Each channel's mean stands there once for every repetition; it is wanted once.
            means[channels..].fill(0.0);
        },
    );
    let count = (x.len() / channels.max(1)) as f64;
    let pixels = |index: usize| {
        let chunk = chunk(run);
        ((x.len() - index * chunk).min(chunk) / channels) as f64
    };
    let mut mean = vec![0.0; channels];
    for (index, [means, _]) in made.iter().enumerate() {
        mean.iter_mut().zip(means).for_each(|(mean, part)| *mean += part * pixels(index) / count);
    }
    let mut variance = vec![0.0; channels];
    for (index, [means, squares]) in made.iter().enumerate() {
        for ((variance, mean), (part, square)) in variance.iter_mut().zip(&mean).zip(means.iter().zip(squares)) {
            *variance += (square + pixels(index) * (part - mean) * (part - mean)) / count;
        }
    }
    (mean, variance)
}

/// What `add` adds up, in single precision, over each chunk of `len` numbers: for its runs, and from
/// those for its channels.
fn sums(
    len: usize,
    run: usize,
    channels: usize,
    add: impl Fn(Range<usize>, [&mut [f32]; 2]) + Sync,
) -> Vec<[Vec<f64>; 2]> {
    let chunk = chunk(run);
    let by_channel = |sums: Vec<f32>| {
        let mut total = vec![0.0; channels];
        for sums in sums.chunks_exact(channels) {
            total.iter_mut().zip(sums).for_each(|(total, sum)| *total += f64::from(*sum));
        }
        total
    };
    let one = |index: usize| {
        let [mut a, mut b] = [vec![0.0; run], vec![0.0; run]];
        vectorized(
            #[inline(always)]
            || add(index * chunk..len.min((index + 1) * chunk), [&mut a, &mut b]),
        );
        [a, b].map(by_channel)
    };
    (0..len.div_ceil(chunk)).into_par_iter().map(one).collect()
}

/// Numbers of a chunk: whole runs.
fn chunk(run: usize) -> usize {
    run * CHUNK.div_ceil(run)
}

/// Numbers by channel, as often as a run has them.
fn repeated(values: &[f32]) -> Vec<f32> {
    values.repeat(RUN.div_ceil(values.len().max(1)))
}
