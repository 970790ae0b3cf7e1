//! Plans on a CPU.
//!
//! Work is cut by shape alone, so that the number of threads changes no bit.
#![allow(unsafe_code, reason = "threads write interleaved channels of one buffer")]

use std::sync::Arc;

use crate::cpu_conv::{Convolution, Packed, Runs, View, Weights};
use crate::parallel;
use crate::{Conv2d, Layout, Norm, Operator, Plan, PlanError, Precision, Step, ValueStorage};

/// Pixels of a task: enough that handing it out costs nothing.
const PIXELS: usize = 48;
/// Images that pass through a step together: enough for the weights of the last stages, which have few
/// pixels, to be read seldom; few enough for the values of the first to stay in the cache.
const TOGETHER: usize = 8;

/// A plan with its weights packed and its buffers made.
pub struct CpuExecutor {
    plan: Arc<Plan>,
    layout: Layout,
    packed: Vec<Option<Packed>>,
    /// Each for as many images as pass together.
    buffers: Vec<Vec<f32>>,
}

impl CpuExecutor {
    /// # Errors
    /// If the plan's parts do not fit each other.
    pub fn new(plan: impl Into<Arc<Plan>>) -> Result<Self, PlanError> {
        let plan = plan.into();
        let layout = Layout::new(&plan, [1, 1])?;
        let packed = plan
            .steps
            .iter()
            .map(|step| match &step.operator {
                Operator::Conv2d(conv) => Some(pack(conv)),
                _ => None,
            })
            .collect();
        let buffers = vec![vec![]; layout.buffers.len()];
        Ok(Self { plan, layout, packed, buffers })
    }

    /// The last values, `[N, C, H, W]`, for images `[N, C, H, W]`.
    ///
    /// # Panics
    /// If `images` are not of the plan's size.
    pub fn run(&mut self, images: &[f32]) -> Vec<f32> {
        let len: usize = self.plan.input.iter().product();
        assert!(images.len().is_multiple_of(len), "images of {:?}", self.plan.input);
        let together = images.chunks(TOGETHER * len);
        parallel::awake(|| together.flat_map(|images| self.run_together(images, images.len() / len)).collect())
    }

    fn run_together(&mut self, images: &[f32], count: usize) -> Vec<f32> {
        let Self { plan, layout, packed, buffers } = self;
        for (buffer, len) in buffers.iter_mut().zip(&layout.buffers) {
            // Borders are zero from the start.
            buffer.resize(buffer.len().max(count * len), 0.0);
        }
        let input = layout.values[0];
        let stored = buffers[input.buffer].chunks_exact_mut(input.len());
        images.chunks_exact(images.len() / count).zip(stored).for_each(|(image, buffer)| input.store(image, buffer));
        for (index, (step, packed)) in plan.steps.iter().zip(packed).enumerate() {
            let storage = layout.values[index + 1];
            // No value that a step reads shares the buffer it writes.
            let mut output = std::mem::take(&mut buffers[storage.buffer]);
            let read = |value: usize| (layout.values[value], buffers[layout.values[value].buffer].as_slice());
            let job = Job { step, count, input: read(step.input), residual: step.residual.map(read), storage };
            let output_len = storage.len();
            let each = output.chunks_exact_mut(output_len).take(count).enumerate();
            match &step.operator {
                Operator::Conv2d(conv) => {
                    let packed = packed.as_ref().expect("every convolution is packed");
                    job.convolve(conv, packed, &mut output);
                }
                Operator::MaxPool { kernel, stride, padding } => {
                    each.for_each(|(image, output)| job.image(image).max_pool([*kernel, *stride, *padding], output));
                }
                Operator::Norm(norm) => each.for_each(|(image, output)| job.image(image).norm(norm, output)),
                Operator::Attention { heads } => {
                    each.for_each(|(image, output)| job.image(image).attention(*heads, output));
                }
                Operator::Position { embedding } => each.for_each(|(image, output)| {
                    let area = storage.shape[1] * storage.shape[2];
                    job.image(image).map(output, |x, channel, pixel| x + embedding[channel * area + pixel]);
                }),
                Operator::Gelu => each.for_each(|(image, output)| job.image(image).map(output, |x, _, _| gelu(x))),
            }
            buffers[storage.buffer] = output;
        }
        let last = layout.values.last().expect("there is always the input");
        buffers[last.buffer].chunks_exact(last.len()).take(count).flat_map(|buffer| last.load(buffer)).collect()
    }
}

/// Without its border.
fn view(storage: ValueStorage) -> View {
    View { start: storage.at(0, 0), steps: [storage.len(), storage.row(), storage.pixel] }
}

fn pack(conv: &Conv2d) -> Packed {
    let area = conv.kernel * conv.kernel;
    let weights = Weights {
        values: &conv.weight,
        outputs: conv.bias.len(),
        inputs: conv.channels,
        output: conv.channels * area,
        input: area,
        taps: (0..area).collect(),
        columns: conv.kernel,
    };
    Packed::new(&weights, &conv.bias, Precision::F32)
}

/// A step, what it reads and where it writes.
#[derive(Clone, Copy)]
struct Job<'a> {
    step: &'a Step,
    /// Images.
    count: usize,
    input: (ValueStorage, &'a [f32]),
    residual: Option<(ValueStorage, &'a [f32])>,
    storage: ValueStorage,
}

impl<'a> Job<'a> {
    /// The same for one image.
    fn image(self, index: usize) -> Self {
        let of = |(storage, values): (ValueStorage, &'a [f32])| (storage, &values[index * storage.len()..]);
        Self { count: 1, input: of(self.input), residual: self.residual.map(of), ..self }
    }

    /// Adds the residual and cuts at zero; `at` is where the pixel lies in the image.
    fn finished(&self, at: [usize; 2], channel: usize, value: f32) -> f32 {
        let [row, column] = at.map(|at| at as isize);
        let residual = self.residual.map_or(0.0, |(storage, values)| values[storage.at(row, column) + channel]);
        let sum = value + residual;
        // Not `max`, which would make a number of NaN.
        if self.step.relu && sum < 0.0 { 0.0 } else { sum }
    }

    /// The same, stored.
    fn finish(&self, at: [usize; 2], channel: usize, value: f32, output: &mut [f32]) {
        output[self.storage.at(at[0] as isize, at[1] as isize) + channel] = self.finished(at, channel, value);
    }

    fn convolve(&self, conv: &Conv2d, weights: &Packed, output: &mut [f32]) {
        let (from, x) = self.input;
        let to = self.storage;
        let [out, height, width] = to.shape;
        let corner = -(conv.padding as isize);
        let convolution = Convolution {
            x,
            from: View {
                start: from.at(corner, corner),
                steps: [from.len(), conv.stride * from.row(), conv.stride * from.pixel],
            },
            runs: Runs { count: conv.kernel, len: conv.kernel * conv.channels, apart: from.row() },
            weights,
            pixels: [self.count, height, width],
            to: view(to),
            residual: self.residual.map(|(storage, values)| (values, view(storage))),
            relu: self.step.relu,
        };
        assert!(from.pixel == conv.channels && to.pixel == out);
        let pixels = self.count * height * width;
        let parts = pixels.div_ceil(PIXELS);
        let output = parallel::Shared::new(output);
        parallel::for_each(weights.blocks() * parts, |task| {
            let (block, start) = (task / parts, task % parts * PIXELS);
            // Safety: no other task has these pixels' block of channels.
            unsafe { convolution.run(block..block + 1, start..pixels.min(start + PIXELS), output) };
        });
    }

    fn max_pool(&self, [kernel, stride, padding]: [usize; 3], output: &mut [f32]) {
        let (from, x) = self.input;
        let [channels, height, width] = self.storage.shape;
        let inside = |at: usize, size: usize| {
            let start = at * stride;
            start.saturating_sub(padding)..(start + kernel - padding).min(size)
        };
        for i in 0..height {
            for j in 0..width {
                for c in 0..channels {
                    let rows = inside(i, from.shape[1]);
                    let max = rows
                        .flat_map(|row| inside(j, from.shape[2]).map(move |column| (row, column)))
                        .map(|(row, column)| x[from.at(row as isize, column as isize) + c])
                        .fold(f32::NEG_INFINITY, f32::max);
                    self.finish([i, j], c, max, output);
                }
            }
        }
    }

    fn norm(&self, norm: &Norm, output: &mut [f32]) {
        let (from, x) = self.input;
        let [channels, height, width] = from.shape;
        let group = channels / norm.groups;
        let span = if norm.per_pixel { 1 } else { height * width };
        let pixels: Vec<[usize; 2]> = (0..height).flat_map(|i| (0..width).map(move |j| [i, j])).collect();
        let count = (group * span) as f64;
        for (pixels, first) in pixels.chunks(span).flat_map(|span| (0..norm.groups).map(move |at| (span, at * group))) {
            let values = || pixels.iter().flat_map(|[i, j]| &x[from.at(*i as isize, *j as isize) + first..][..group]);
            let mean = values().map(|x| f64::from(*x)).sum::<f64>() / count;
            let variance = values().map(|x| (f64::from(*x) - mean).powi(2)).sum::<f64>() / count;
            let scale = (1.0 / (variance + f64::from(norm.epsilon)).sqrt()) as f32;
            for &[i, j] in pixels {
                for c in first..first + group {
                    let normal = (x[from.at(i as isize, j as isize) + c] - mean as f32) * scale;
                    self.finish([i, j], c, normal * norm.weight[c] + norm.bias[c], output);
                }
            }
        }
    }

    fn attention(&self, heads: usize, output: &mut [f32]) {
        let (from, x) = self.input;
        let [channels, height, width] = self.storage.shape;
        let size = channels / heads;
        let scale = (size as f32).sqrt().recip();
        let place = |token: usize| [token / width, token % width];
        let start = |storage: ValueStorage, [row, column]: [usize; 2]| storage.at(row as isize, column as isize);
        let tokens: Vec<usize> = (0..height * width).map(|token| start(from, place(token))).collect();
        let of = |token: usize, part: usize, head: usize| &x[token + part * channels + head * size..][..size];
        let shared = parallel::Shared::new(output);
        parallel::for_each(heads * tokens.len(), |task| {
            let (head, query) = (task % heads, task / heads);
            let queried = of(tokens[query], 0, head);
            let mut scores: Vec<f32> = tokens.iter().map(|key| dot(queried, of(*key, 1, head)) * scale).collect();
            let max = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            scores.iter_mut().for_each(|score| *score = (*score - max).exp());
            let total: f32 = scores.iter().sum();
            let mut sums = vec![0.0; size];
            for (token, score) in tokens.iter().zip(&scores) {
                sums.iter_mut().zip(of(*token, 2, head)).for_each(|(sum, value)| *sum += score * value);
            }
            let at = place(query);
            // Safety: no other task has this pixel's part of this head.
            let output = unsafe { shared.part(start(self.storage, at) + head * size, size) };
            for ((channel, output), sum) in (head * size..).zip(output).zip(sums) {
                *output = self.finished(at, channel, sum / total);
            }
        });
    }

    /// Each number separately: what `change` makes of it, its channel and its pixel.
    fn map(&self, output: &mut [f32], change: impl Fn(f32, usize, usize) -> f32) {
        let (from, x) = self.input;
        let [channels, height, width] = from.shape;
        for (i, j) in (0..height).flat_map(|i| (0..width).map(move |j| (i, j))) {
            for (channel, x) in x[from.at(i as isize, j as isize)..][..channels].iter().enumerate() {
                self.finish([i, j], channel, change(*x, channel, i * width + j), output);
            }
        }
    }
}

/// In eight sums that a vector can hold, always the same ones.
fn dot(a: &[f32], b: &[f32]) -> f32 {
    let mut sums = [0.0; 8];
    let (a, b) = (a.chunks_exact(8), b.chunks_exact(8));
    let rest: f32 = a.remainder().iter().zip(b.remainder()).map(|(a, b)| a * b).sum();
    for (a, b) in a.zip(b) {
        (0..8).for_each(|at| sums[at] += a[at] * b[at]);
    }
    sums.iter().sum::<f32>() + rest
}

/// `x` times a normal distribution's share below it, the error function to 1.5e-7 (Abramowitz and Stegun, 7.1.26).
fn gelu(x: f32) -> f32 {
    const TERMS: [f32; 5] = [0.2548296, -0.28449673, 1.4214138, -1.4531521, 1.0614054];
    let z = x.abs() * std::f32::consts::FRAC_1_SQRT_2;
    let t = 1.0 / (1.0 + 0.3275911 * z);
    let tail = TERMS.iter().rev().fold(0.0, |sum, term| sum * t + term) * t * (-z * z).exp(); // 1 - erf(z)
    0.5 * (x + x.abs() * (1.0 - tail))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::tests::{error, noise, plans};
    use crate::{Layout, reference};

    #[test]
    fn every_step_agrees_with_the_reference_in_double_precision() {
        for plan in plans() {
            let image = noise(plan.input.iter().product(), 1);
            let found = CpuExecutor::new(plan.clone()).unwrap().run(&image);
            let error = error(&found, &reference::run(&plan, &image));
            assert!(error < 1e-5, "{error} in {:?}", plan.shapes());
        }
    }

    #[test]
    fn images_together_are_answered_as_each_alone() {
        for plan in plans() {
            let count = TOGETHER + 3;
            let len: usize = plan.input.iter().product();
            let images = noise(count * len, 1);
            let mut executor = CpuExecutor::new(plan).unwrap();
            let alone: Vec<f32> = images.chunks(len).flat_map(|image| executor.run(image)).collect();
            assert_eq!(executor.run(&images), alone);
        }
    }

    #[test]
    fn the_number_of_threads_changes_no_bit() {
        for plan in plans() {
            let image = noise(plan.input.iter().product(), 1);
            let run = |threads: usize| {
                let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
                pool.install(|| CpuExecutor::new(plan.clone()).unwrap().run(&image))
            };
            let one = run(1);
            assert!([2, 3, 8].into_iter().all(|threads| run(threads) == one));
        }
    }

    #[test]
    fn plans_that_run_at_once_do_not_wait_for_each_other() {
        let plan = plans().pop().unwrap();
        let image = noise(plan.input.iter().product(), 1);
        let expected = CpuExecutor::new(plan.clone()).unwrap().run(&image);
        let pool = rayon::ThreadPoolBuilder::new().num_threads(3).build().unwrap();
        std::thread::scope(|scope| {
            for _ in 0..6 {
                scope.spawn(|| {
                    let mut executor = CpuExecutor::new(plan.clone()).unwrap();
                    assert!((0..200).all(|_| pool.install(|| executor.run(&image)) == expected));
                });
            }
        });
    }

    #[test]
    fn nothing_is_read_that_was_not_written() {
        for plan in plans() {
            let image = noise(plan.input.iter().product(), 1);
            let mut executor = CpuExecutor::new(plan.clone()).unwrap();
            let expected = executor.run(&image);
            for value in Layout::new(&plan, [1, 1]).unwrap().values {
                let [_, height, width] = value.shape;
                for (i, j) in (0..height).flat_map(|i| (0..width).map(move |j| (i, j))) {
                    let start = value.at(i as isize, j as isize);
                    executor.buffers[value.buffer][start..start + value.pixel].fill(f32::NAN);
                }
            }
            assert_eq!(executor.run(&image), expected);
        }
    }

    #[test]
    fn a_value_that_is_not_finite_reaches_the_output() {
        let plan = plans().pop().unwrap();
        let mut image = noise(plan.input.iter().product(), 1);
        image[3] = f32::NAN;
        assert!(CpuExecutor::new(plan).unwrap().run(&image).iter().any(|value| value.is_nan()));
    }
}
