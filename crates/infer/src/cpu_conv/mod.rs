//! Direct convolution on a CPU, from registers: no patches are laid out.
//!
//! Pixels lie channel by channel, so that under each row of a kernel the input is one run of `K C`
//! numbers. A tile of pixels by channels stays in registers while those runs stream past it; weights
//! are packed in the order in which they are read. The tile fits the register file: on x86-64 with
//! AVX-512 and on ARM 32 registers, elsewhere 16.
#![allow(unsafe_code, reason = "the tile reads by pointer, within bounds that are checked before")]

pub mod amx;
pub mod bf16;

pub use amx::allow_tiles;

use std::mem::MaybeUninit;
use std::ops::Range;

use pulp::{Arch, Simd, WithSimd};

use crate::Precision;
use crate::parallel::{self, Shared};

/// A loop over words, for vectors and products of every kind.
pub trait Kernel {
    fn run<S: Simd, M: MultiplyAdd<S>>(self, simd: S, product: M);
}

/// How words are multiplied and added.
pub trait MultiplyAdd<S: Simd>: Copy {
    /// `sums += weight x` for one word of each pixel's run.
    ///
    /// # Safety
    /// `V` vectors must lie at `weight`.
    unsafe fn multiply_add<const V: usize, const P: usize>(
        self,
        simd: S,
        x: [f32; P],
        weight: *const f32,
        sums: &mut [[S::f32s; V]; P],
    );
}

/// Runs a kernel with this machine's vectors.
///
/// # Panics
/// If the processor does not multiply that ([`Precision::is_on_cpu`]).
pub fn dispatch<K: Kernel>(kernel: K, precision: Precision) {
    struct Single<K>(K);
    impl<K: Kernel> WithSimd for Single<K> {
        type Output = ();
        #[inline(always)]
        fn with_simd<S: Simd>(self, simd: S) {
            self.0.run(simd, Fma);
        }
    }
    match precision {
        Precision::F32 => Arch::new().dispatch(Single(kernel)),
        Precision::Bf16 if cfg!(target_arch = "x86_64") => bf16::dispatch(kernel),
        _ => panic!("this processor does not multiply {precision}"),
    }
}

#[derive(Clone, Copy)]
struct Fma;

impl<S: Simd> MultiplyAdd<S> for Fma {
    #[inline(always)]
    unsafe fn multiply_add<const V: usize, const P: usize>(
        self,
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
}

/// Numbers of a run between two tests for its end.
const UNROLL: usize = 8;
/// Numbers in the widest vector.
const MOST_LANES: usize = 16;
/// Input channels that are packed together, so that what is written stays in the nearest cache.
const PACKED_TOGETHER: usize = 16;

/// Where the pixels of some images lie in a slice.
#[derive(Clone, Copy, Debug)]
pub struct View {
    /// Of the first pixel.
    pub start: usize,
    /// From one image, row and pixel to the next.
    pub steps: [usize; 3],
}

impl View {
    #[inline(always)]
    pub fn at(&self, at: [usize; 3]) -> usize {
        self.start + at[0] * self.steps[0] + at[1] * self.steps[1] + at[2] * self.steps[2]
    }
}

/// What a tile reads for each pixel: `count` runs of `len` words, `apart` from each other.
#[derive(Clone, Copy, Debug)]
pub struct Runs {
    pub count: usize,
    pub len: usize,
    pub apart: usize,
}

/// Weights as they come: that of output `o`, input `c` and the kernel's position `t` lies at
/// `o * output + c * input + taps[t]`.
pub struct Weights<'a> {
    pub values: &'a [f32],
    pub outputs: usize,
    pub inputs: usize,
    pub output: usize,
    pub input: usize,
    pub taps: Vec<usize>,
    /// Positions of the kernel that lie in one run.
    pub columns: usize,
}

impl Weights<'_> {
    /// Those of `block` outputs from `first` on, as `[T, channels, block]`; nothing after the last output and input.
    fn lay_out(&self, first: usize, block: usize, channels: usize, to: &mut [f32]) {
        for c in (0..self.inputs).step_by(PACKED_TOGETHER) {
            let inputs = c..self.inputs.min(c + PACKED_TOGETHER);
            for lane in 0..block.min(self.outputs - first) {
                let filter = &self.values[(first + lane) * self.output..];
                for (t, tap) in self.taps.iter().enumerate() {
                    for c in inputs.clone() {
                        to[(t * channels + c) * block + lane] = filter[c * self.input + tap];
                    }
                }
            }
        }
    }
}

/// Weights in the order in which a tile reads them: `[O / block, T, C, block]` words, zeros after the
/// last; a bf16 word has two input channels. For tile registers, zeros fill up each run.
pub struct Packed {
    /// From `start` on, where a cache line starts.
    weight: Vec<f32>,
    start: usize,
    precision: Precision,
    /// Whether tile registers multiply it.
    by_tiles: bool,
    /// Numbers in a block.
    block_len: usize,
    /// `[O / block * block]`
    bias: Vec<f32>,
    outputs: usize,
    /// Vectors of channels in a tile.
    vectors: usize,
    /// Channels in a tile.
    block: usize,
}

impl Packed {
    /// `bias` is `[O]`, or empty for none.
    pub fn new(weights: &Weights, bias: &[f32], precision: Precision) -> Self {
        let Weights { outputs, inputs, columns, .. } = *weights;
        let words = inputs.div_ceil(precision.per_word());
        let by_tiles = are_tiled(precision);
        let lanes = lanes();
        let vectors = vectors(outputs, lanes, by_tiles);
        let block = vectors * lanes;
        let mut bias = bias.to_vec();
        bias.resize(outputs.next_multiple_of(block), 0.0);
        let run = run_len(columns * words, by_tiles) * block;
        let block_len = weights.taps.len() / columns * run;
        let len = bias.len() / block * block_len;
        let mut packed = vec![0.0; len + MOST_LANES - 1];
        let start = line_start(&packed);
        let shared = Shared::new(&mut packed[start..][..len]);
        parallel::for_each(bias.len() / block, |index| {
            // Safety: every block is one task's.
            let packed = unsafe { shared.part(index * block_len, block_len) };
            let first = index * block;
            match precision {
                Precision::F32 => weights.lay_out(first, block, inputs, packed),
                Precision::Bf16 => {
                    let mut numbers = vec![0.0; 2 * block_len];
                    weights.lay_out(first, block, 2 * words, &mut numbers);
                    let runs = numbers.chunks_exact(2 * columns * words * block);
                    for (packed, numbers) in packed.chunks_exact_mut(run).zip(runs) {
                        for (words, numbers) in packed.chunks_exact_mut(block).zip(numbers.chunks_exact(2 * block)) {
                            let (first, second) = numbers.split_at(block);
                            bf16::pairs(first, second, words);
                        }
                    }
                }
                _ => unreachable!("no processor multiplies {precision}"),
            }
        });
        Self { weight: packed, start, precision, by_tiles, block_len, bias, outputs, vectors, block }
    }

    /// Weights and biases of a block.
    fn block(&self, index: usize) -> (&[f32], &[f32]) {
        let weight = &self.weight[self.start + index * self.block_len..][..self.block_len];
        (weight, &self.bias[index * self.block..][..self.block])
    }

    /// Blocks of output channels.
    pub fn blocks(&self) -> usize {
        self.bias.len() / self.block
    }
}

/// A convolution of some images: `[N, H, W]` pixels are made.
pub struct Convolution<'a> {
    pub x: &'a [f32],
    /// Where the kernel's corner lies for each pixel that is made; the steps hold the stride.
    pub from: View,
    pub runs: Runs,
    pub weights: &'a Packed,
    pub pixels: [usize; 3],
    pub to: View,
    /// What is added to the output.
    pub residual: Option<(&'a [f32], View)>,
    /// Whether the output is cut at zero.
    pub relu: bool,
}

impl Convolution<'_> {
    /// Makes some blocks of output channels of some pixels, numbered through all images.
    ///
    /// # Safety
    /// Nobody else may use those pixels' channels of `output` meanwhile.
    ///
    /// # Panics
    /// If a slice is too short.
    pub unsafe fn run(&self, blocks: Range<usize>, pixels: Range<usize>, output: Shared) {
        let Self { weights, runs, .. } = self;
        let last = self.pixels.map(|size| size - 1);
        let run = run_len(runs.len, weights.by_tiles);
        assert!(pixels.end <= self.pixels.iter().product(), "there are not so many pixels");
        assert!(self.from.at(last) + (runs.count - 1) * runs.apart + run <= self.x.len(), "a kernel hangs over");
        // Known when compiling elsewhere, so that a page does not load code for tiles.
        if cfg!(target_arch = "x86_64") && weights.by_tiles {
            return dispatch(amx::Convolve { convolution: self, blocks, pixels, output }, weights.precision);
        }
        for block in blocks {
            let (weight, bias) = weights.block(block);
            let (first, pixels) = (block * weights.block, pixels.clone());
            dispatch(Tiles { convolution: self, first, weight, bias, pixels, output }, weights.precision);
        }
    }
}

/// Whether that is multiplied by tile registers.
pub fn are_tiled(precision: Precision) -> bool {
    precision == Precision::Bf16 && amx::is_available()
}

/// Words that are read for a run of so many.
fn run_len(words: usize, by_tiles: bool) -> usize {
    if by_tiles { words.next_multiple_of(MOST_LANES) } else { words }
}

/// The first number that lies at the start of a cache line.
pub fn line_start(values: &[f32]) -> usize {
    const LINE: usize = 64;
    values.as_ptr().align_offset(LINE)
}

/// Numbers in a vector of this machine.
pub fn lanes() -> usize {
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
pub fn vectors(outputs: usize, lanes: usize, by_tiles: bool) -> usize {
    // Three vectors need 32 registers, or more tiles than there are.
    let most = if cfg!(target_arch = "wasm32") || lanes == 8 || by_tiles { 2 } else { 3 };
    let padded = |vectors: usize| outputs.next_multiple_of(vectors * lanes);
    (1..=most).rev().min_by_key(|vectors| padded(*vectors)).expect("there is one")
}

/// One block of channels of some pixels.
struct Tiles<'a> {
    convolution: &'a Convolution<'a>,
    /// The block's first channel, its weights and biases.
    first: usize,
    weight: &'a [f32],
    bias: &'a [f32],
    pixels: Range<usize>,
    output: Shared<'a>,
}

impl Kernel for Tiles<'_> {
    #[inline(always)]
    fn run<S: Simd, M: MultiplyAdd<S>>(self, simd: S, product: M) {
        match (S::F32_LANES, self.convolution.weights.vectors) {
            (16, 1) => self.tiles::<S, M, 1, 12>(simd, product),
            (16, 2) => self.tiles::<S, M, 2, 12>(simd, product),
            (_, 1) => self.tiles::<S, M, 1, 8>(simd, product),
            (8, _) => self.tiles::<S, M, 2, 6>(simd, product),
            (_, 2) => self.tiles::<S, M, 2, { if cfg!(target_arch = "wasm32") { 4 } else { 12 } }>(simd, product),
            _ => self.tiles::<S, M, 3, 8>(simd, product),
        }
    }
}

impl Tiles<'_> {
    #[inline(always)]
    fn tiles<S: Simd, M: MultiplyAdd<S>, const V: usize, const P: usize>(self, simd: S, product: M) {
        let Self { convolution, first, weight, bias, pixels, output } = self;
        let Convolution { x, from, runs, to, residual, relu, .. } = convolution;
        let [_, rows, columns] = convolution.pixels;
        let channels = (V * S::F32_LANES).min(convolution.weights.outputs - first);
        let mut at = [pixels.start / columns / rows, pixels.start / columns % rows, pixels.start % columns];
        for start in pixels.clone().step_by(P) {
            let count = P.min(pixels.end - start);
            // A tile over the end computes the last pixel several times.
            let mut places = [at; P];
            for place in &mut places[1..count] {
                advance(&mut at, rows, columns);
                *place = at;
            }
            places[count..].fill(at);
            advance(&mut at, rows, columns);
            let inputs = places.map(|at| from.at(at));
            // Safety: by the assertions of `Convolution::run`, every run lies in `x`.
            let sums = unsafe { multiply::<S, M, V, P>(simd, product, x, inputs, *runs, weight, bias) };
            for p in 0..count {
                let residual = residual.map(|(values, view)| &values[view.at(places[p]) + first..][..channels]);
                // Safety: the caller's.
                let y = unsafe { output.unwritten(to.at(places[p]) + first, channels) };
                store(simd, &sums[p], residual, *relu, y);
            }
        }
    }
}

/// To the next pixel.
#[inline(always)]
fn advance(at: &mut [usize; 3], rows: usize, columns: usize) {
    at[2] += 1;
    if at[2] == columns {
        at[2] = 0;
        at[1] += 1;
        if at[1] == rows {
            at[1] = 0;
            at[0] += 1;
        }
    }
}

/// `bias + weight x` for `P` pixels, whose runs start at `inputs`, and `V` vectors of channels.
///
/// # Safety
/// For every start in `inputs`, the runs must lie in `x`.
#[inline(always)]
#[allow(clippy::too_many_arguments, reason = "the innermost loop's state")]
unsafe fn multiply<S: Simd, M: MultiplyAdd<S>, const V: usize, const P: usize>(
    simd: S,
    product: M,
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
                unsafe { product.multiply_add(simd, x.map(|x| *x.add(k + u)), weight.add(u * width), &mut sums) };
            }
            // Safety: at most one past the end.
            weight = unsafe { weight.add(UNROLL * width) };
            k += UNROLL;
        }
        for k in k..runs.len {
            // Safety: as above.
            unsafe { product.multiply_add(simd, x.map(|x| *x.add(k)), weight, &mut sums) };
            // Safety: at most one past the last weight.
            weight = unsafe { weight.add(width) };
        }
    }
    sums
}

/// Adds the residual, cuts at zero, and writes as many channels as `y` has.
#[inline(always)]
fn store<S: Simd, const V: usize>(
    simd: S,
    sums: &[S::f32s; V],
    residual: Option<&[f32]>,
    relu: bool,
    y: &mut [MaybeUninit<f32>],
) {
    let zero = simd.splat_f32s(0.0);
    for (v, sum) in sums.iter().enumerate() {
        let start = v * S::F32_LANES;
        if start >= y.len() {
            break;
        }
        let end = y.len().min(start + S::F32_LANES);
        let mut value = *sum;
        if let Some(residual) = residual {
            let residual = match S::as_simd_f32s(&residual[start..end]) {
                ([whole], _) => *whole,
                (_, part) => simd.partial_load_f32s(part),
            };
            value = simd.add_f32s(value, residual);
        }
        if relu {
            // A comparison with NaN is false, so that NaN stays.
            value = simd.select_f32s(simd.less_than_f32s(value, zero), zero, value);
        }
        let y = &mut y[start..end];
        if y.len() == S::F32_LANES {
            // Safety: as long as a vector, which is plain numbers.
            unsafe { y.as_mut_ptr().cast::<S::f32s>().write_unaligned(value) };
        } else {
            let mut numbers = [0.0; MOST_LANES];
            simd.partial_store_f32s(&mut numbers[..S::F32_LANES], value);
            y.iter_mut().zip(numbers).for_each(|(y, number)| *y = MaybeUninit::new(number));
        }
    }
}

#[cfg(test)]
mod tests {
    /// The library behind the vectors has a feature for each width, and goes without vectors where it is off.
    #[test]
    #[cfg(target_arch = "x86_64")]
    fn vectors_are_as_wide_as_this_processor_has_them() {
        let expected = if is_x86_feature_detected!("avx512bw") && is_x86_feature_detected!("avx512vl") {
            16
        } else if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
            8
        } else {
            return;
        };
        assert_eq!(super::lanes(), expected);
    }
}
