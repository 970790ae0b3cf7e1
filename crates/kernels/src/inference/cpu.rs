//! Plans on a CPU: direct convolution from registers, no patches, no packing at run time.
//!
//! Pixels lie channel by channel, so that under each row of a kernel the input is one run of `K C`
//! numbers. A tile of pixels by channels stays in registers while those runs stream past it; weights
//! are packed in the order in which they are read. The tile fits the register file: on x86-64 with
//! AVX-512 and on ARM 32 registers, elsewhere 16.
//!
//! Work is cut by shape alone, so that the number of threads changes no bit.
#![allow(unsafe_code, reason = "the tile reads by pointer, within bounds that are checked before")]

use std::ops::Range;

use pulp::{Arch, Simd, WithSimd};

use super::{Conv2d, Layout, Operator, Plan, PlanError, Step, Storage};
use crate::parallel;

/// A plan with its weights packed and its buffers made.
pub struct Executor {
    plan: Plan,
    layout: Layout,
    packed: Vec<Option<Packed>>,
    buffers: Vec<Vec<f32>>,
}

/// Weights in the order in which a tile reads them: `[O / block, K, K, C, block]`, zeros after the last.
struct Packed {
    weight: Vec<f32>,
    /// `[O / block * block]`
    bias: Vec<f32>,
    /// Vectors of channels in a tile.
    vectors: usize,
}

/// Numbers of a run between two tests for its end.
const UNROLL: usize = 8;

/// Pixels in a tile, for tiles of one, two and three vectors of channels.
const PIXELS: [usize; 3] = if cfg!(target_arch = "wasm32") { [8, 4, 3] } else { [8, 6, 8] };

impl Executor {
    /// # Errors
    /// If the plan's parts do not fit each other.
    pub fn new(plan: Plan) -> Result<Self, PlanError> {
        let layout = Layout::new(&plan, [1, 1])?;
        let packed = plan
            .steps
            .iter()
            .map(|step| match &step.operator {
                Operator::Conv2d(conv) => Some(Packed::new(conv)),
                _ => None,
            })
            .collect();
        let buffers = layout.buffers.iter().map(|len| vec![0.0; *len]).collect();
        Ok(Self { plan, layout, packed, buffers })
    }

    /// The last value, `[C, H, W]`, for an image `[C, H, W]`.
    ///
    /// # Panics
    /// If `image` has not the size of the plan's input.
    pub fn run(&mut self, image: &[f32]) -> Vec<f32> {
        assert_eq!(image.len(), self.plan.input.iter().product::<usize>(), "an image of {:?}", self.plan.input);
        let Self { plan, layout, packed, buffers } = self;
        let input = layout.values[0];
        input.store(image, &mut buffers[input.buffer]);
        for (index, (step, packed)) in plan.steps.iter().zip(packed).enumerate() {
            let storage = layout.values[index + 1];
            // No value that a step reads shares the buffer it writes.
            let mut output = std::mem::take(&mut buffers[storage.buffer]);
            let read = |value: usize| (layout.values[value], buffers[layout.values[value].buffer].as_slice());
            let job = Job { step, input: read(step.input), residual: step.residual.map(read), storage };
            match &step.operator {
                Operator::Conv2d(conv) => {
                    let packed = packed.as_ref().expect("every convolution is packed");
                    Arch::new().dispatch(Convolution { job, conv, packed, output: &mut output });
                }
                Operator::MaxPool { kernel, stride, padding } => {
                    job.max_pool([*kernel, *stride, *padding], &mut output);
                }
                Operator::GroupNorm { weight, bias, groups, epsilon } => {
                    job.group_norm(weight, bias, *groups, *epsilon, &mut output);
                }
            }
            buffers[storage.buffer] = output;
        }
        let last = layout.values.last().expect("there is always the input");
        last.load(&buffers[last.buffer])
    }
}

/// Numbers in a vector of this machine.
fn lanes() -> usize {
    struct Lanes;
    impl WithSimd for Lanes {
        type Output = usize;
        fn with_simd<S: Simd>(self, _: S) -> usize {
            S::F32_LANES
        }
    }
    Arch::new().dispatch(Lanes)
}

/// The tile's width for that many channels: the one that wastes least, the widest of several.
fn vectors(out: usize, lanes: usize) -> usize {
    // Three vectors need 32 registers.
    let most = if cfg!(target_arch = "wasm32") || lanes == 8 { 2 } else { 3 };
    let padded = |vectors: usize| out.next_multiple_of(vectors * lanes);
    (1..=most).rev().min_by_key(|vectors| padded(*vectors)).expect("there is one")
}

impl Packed {
    fn new(conv: &Conv2d) -> Self {
        let (out, lanes) = (conv.bias.len(), lanes());
        let vectors = vectors(out, lanes);
        let block = vectors * lanes;
        let area = conv.kernel * conv.kernel;
        let mut bias = conv.bias.clone();
        bias.resize(out.next_multiple_of(block), 0.0);
        let mut weight = vec![0.0; bias.len() * conv.channels * area];
        for (o, filter) in conv.weight.chunks_exact(conv.channels * area).enumerate() {
            let start = o / block * block * conv.channels * area + o % block;
            for (c, kernel) in filter.chunks_exact(area).enumerate() {
                for (at, value) in kernel.iter().enumerate() {
                    weight[start + (at * conv.channels + c) * block] = *value;
                }
            }
        }
        Self { weight, bias, vectors }
    }
}

/// A step, what it reads and where it writes.
#[derive(Clone, Copy)]
struct Job<'a> {
    step: &'a Step,
    input: (Storage, &'a [f32]),
    residual: Option<(Storage, &'a [f32])>,
    storage: Storage,
}

impl Job<'_> {
    /// Adds the residual, cuts at zero and stores; `at` is where the pixel lies in the image.
    fn finish(&self, at: [usize; 2], channel: usize, value: f32, output: &mut [f32]) {
        let [row, column] = at.map(|at| at as isize);
        let residual = self.residual.map_or(0.0, |(storage, values)| values[storage.at(row, column) + channel]);
        let sum = value + residual;
        // Not `max`, which would make a number of NaN.
        output[self.storage.at(row, column) + channel] = if self.step.relu && sum < 0.0 { 0.0 } else { sum };
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

    fn group_norm(&self, weight: &[f32], bias: &[f32], groups: usize, epsilon: f32, output: &mut [f32]) {
        let (from, x) = self.input;
        let [channels, height, width] = from.shape;
        let group = channels / groups;
        let count = (group * height * width) as f64;
        for first in (0..channels).step_by(group) {
            let pixels = || (0..height).flat_map(|i| (0..width).map(move |j| (i, j)));
            let values = || pixels().flat_map(|(i, j)| &x[from.at(i as isize, j as isize) + first..][..group]);
            let mean = values().map(|x| f64::from(*x)).sum::<f64>() / count;
            let variance = values().map(|x| (f64::from(*x) - mean).powi(2)).sum::<f64>() / count;
            let scale = (1.0 / (variance + f64::from(epsilon)).sqrt()) as f32;
            for (i, j) in pixels() {
                for c in first..first + group {
                    let normal = (x[from.at(i as isize, j as isize) + c] - mean as f32) * scale;
                    self.finish([i, j], c, normal * weight[c] + bias[c], output);
                }
            }
        }
    }
}

/// A convolution step, ready for whichever vectors this machine has.
struct Convolution<'a> {
    job: Job<'a>,
    conv: &'a Conv2d,
    packed: &'a Packed,
    output: &'a mut [f32],
}

impl WithSimd for Convolution<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        match self.packed.vectors {
            1 => self.tiles::<S, 1, { PIXELS[0] }>(simd),
            2 => self.tiles::<S, 2, { PIXELS[1] }>(simd),
            _ => self.tiles::<S, 3, { PIXELS[2] }>(simd),
        }
    }
}

impl Convolution<'_> {
    #[inline(always)]
    fn tiles<S: Simd, const V: usize, const P: usize>(self, simd: S) {
        let Self { job, conv, packed, output } = self;
        let (from, x) = job.input;
        let to = job.storage;
        let [out, height, width] = to.shape;
        let pixels = height * width;
        let block = V * S::F32_LANES;
        let run = conv.kernel * conv.channels;
        // What the unchecked reads and writes below rest on.
        assert!(from.pixel == conv.channels && from.border >= conv.padding && x.len() >= from.len());
        assert!(output.len() >= to.len() && to.pixel == out);
        assert!(packed.weight.len() == packed.bias.len() * conv.kernel * run);
        assert!((height - 1) * conv.stride + conv.kernel <= from.shape[1] + 2 * conv.padding);
        assert!((width - 1) * conv.stride + conv.kernel <= from.shape[2] + 2 * conv.padding);
        if let Some((storage, values)) = job.residual {
            assert!(storage.shape == to.shape && storage.pixel == out && values.len() >= storage.len());
        }

        let output = parallel::Shared::new(output);
        let per_block = pixels.div_ceil(P * TILES);
        parallel::for_each(packed.bias.len() / block * per_block, |task| {
            let (block_index, part) = (task / per_block, task % per_block);
            simd.vectorize(Tiles::<V, P> {
                job,
                conv,
                first: block_index * block,
                weight: &packed.weight[block_index * block * conv.kernel * run..][..block * conv.kernel * run],
                bias: &packed.bias[block_index * block..][..block],
                pixels: part * P * TILES..pixels.min((part + 1) * P * TILES),
                output,
            });
        });
    }
}

/// Tiles of one task: enough that handing it out costs nothing.
const TILES: usize = 8;

/// One task: a block of channels of some pixels.
struct Tiles<'a, const V: usize, const P: usize> {
    job: Job<'a>,
    conv: &'a Conv2d,
    /// The block's first channel, its weights and biases.
    first: usize,
    weight: &'a [f32],
    bias: &'a [f32],
    pixels: Range<usize>,
    output: parallel::Shared<'a>,
}

impl<const V: usize, const P: usize> WithSimd for Tiles<'_, V, P> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { job, conv, first, weight, bias, pixels, output } = self;
        let (from, x) = job.input;
        let to = job.storage;
        let [out, _, width] = to.shape;
        let (stride, padding) = (conv.stride as isize, conv.padding as isize);
        let runs = Runs { count: conv.kernel, len: conv.kernel * conv.channels, apart: from.row() };
        let channels = (V * S::F32_LANES).min(out - first);
        for start in pixels.clone().step_by(P) {
            // A tile over the end computes the last pixel several times.
            let at: [[isize; 2]; P] = std::array::from_fn(|p| {
                let pixel = (start + p).min(pixels.end - 1);
                [(pixel / width) as isize, (pixel % width) as isize]
            });
            let inputs = at.map(|[i, j]| from.at(i * stride - padding, j * stride - padding));
            // Safety: by the assertions of `Convolution::tiles`, every run lies in `x`.
            let sums = unsafe { multiply::<S, V, P>(simd, x, inputs, runs, weight, bias) };
            for p in 0..P.min(pixels.end - start) {
                let [i, j] = at[p];
                let residual = job.residual.map(|(storage, values)| &values[storage.at(i, j) + first..][..channels]);
                // Safety: no other task has this pixel's block of channels.
                let y = unsafe { output.part(to.at(i, j) + first, channels) };
                store(simd, &sums[p], residual, job.step.relu, y);
            }
        }
    }
}

/// What a tile reads for each pixel: `count` runs of `len` numbers, `apart` from each other.
#[derive(Clone, Copy)]
struct Runs {
    count: usize,
    len: usize,
    apart: usize,
}

/// `bias + weight x` for `P` pixels, whose runs start at `inputs`, and `V` vectors of channels.
///
/// # Safety
/// For every start in `inputs`, the runs must lie in `x`.
#[inline(always)]
unsafe fn multiply<S: Simd, const V: usize, const P: usize>(
    simd: S,
    x: &[f32],
    inputs: [usize; P],
    runs: Runs,
    weight: &[f32],
    bias: &[f32],
) -> [[S::f32s; V]; P] {
    assert!(weight.len() == runs.count * runs.len * V * S::F32_LANES && bias.len() == V * S::F32_LANES);
    // Safety: of a plain vector type, and read within the slices by the assertion.
    let vector = |start: *const f32, v: usize| unsafe { start.cast::<S::f32s>().add(v).read_unaligned() };
    let mut sums: [[S::f32s; V]; P] = [std::array::from_fn(|v| vector(bias.as_ptr(), v)); P];
    let mut weight = weight.as_ptr();
    let width = V * S::F32_LANES;
    for run in 0..runs.count {
        // Safety: the caller's.
        let x = inputs.map(|start| unsafe { x.as_ptr().add(start + run * runs.apart) });
        let mut k = 0;
        while k + UNROLL <= runs.len {
            for u in 0..UNROLL {
                // Safety: the caller's, and `V` vectors of weights for each number of each run.
                unsafe { multiply_add(simd, x.map(|x| *x.add(k + u)), weight.add(u * width), &mut sums) };
            }
            // Safety: at most one past the end.
            weight = unsafe { weight.add(UNROLL * width) };
            k += UNROLL;
        }
        for k in k..runs.len {
            // Safety: as above.
            unsafe { multiply_add(simd, x.map(|x| *x.add(k)), weight, &mut sums) };
            weight = unsafe { weight.add(width) };
        }
    }
    sums
}

/// `sums += weight x` for one number of each pixel's run.
///
/// # Safety
/// `V` vectors must lie at `weight`.
#[inline(always)]
unsafe fn multiply_add<S: Simd, const V: usize, const P: usize>(
    simd: S,
    x: [f32; P],
    weight: *const f32,
    sums: &mut [[S::f32s; V]; P],
) {
    // Safety: of a plain vector type; the caller's.
    let w: [S::f32s; V] = std::array::from_fn(|v| unsafe { weight.cast::<S::f32s>().add(v).read_unaligned() });
    for p in 0..P {
        let x = simd.splat_f32s(x[p]);
        for v in 0..V {
            sums[p][v] = simd.mul_add_e_f32s(x, w[v], sums[p][v]);
        }
    }
}

/// Adds the residual, cuts at zero, and writes as many channels as `y` has.
#[inline(always)]
fn store<S: Simd, const V: usize>(simd: S, sums: &[S::f32s; V], residual: Option<&[f32]>, relu: bool, y: &mut [f32]) {
    let zero = simd.splat_f32s(0.0);
    for (v, sum) in sums.iter().enumerate() {
        let start = v * S::F32_LANES;
        if start >= y.len() {
            break;
        }
        let end = y.len().min(start + S::F32_LANES);
        let mut value = *sum;
        if let Some(residual) = residual {
            value = simd.add_f32s(value, simd.partial_load_f32s(&residual[start..end]));
        }
        if relu {
            // A comparison with NaN is false, so that NaN stays.
            value = simd.select_f32s(simd.less_than_f32s(value, zero), zero, value);
        }
        simd.partial_store_f32s(&mut y[start..end], value);
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{error, noise, plans};
    use super::super::{Layout, reference};
    use super::*;

    #[test]
    fn every_step_agrees_with_the_reference_in_double_precision() {
        for plan in plans() {
            let image = noise(plan.input.iter().product(), 1);
            let found = Executor::new(plan.clone()).unwrap().run(&image);
            let error = error(&found, &reference::run(&plan, &image));
            assert!(error < 1e-5, "{error} in {:?}", plan.shapes());
        }
    }

    #[test]
    fn nothing_is_read_that_was_not_written() {
        for plan in plans() {
            let image = noise(plan.input.iter().product(), 1);
            let mut executor = Executor::new(plan.clone()).unwrap();
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
        assert!(Executor::new(plan).unwrap().run(&image).iter().any(|value| value.is_nan()));
    }
}
