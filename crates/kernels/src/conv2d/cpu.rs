//! Convolution on a CPU. Tensors are `[N, H, W, C]` here (channels last), weights `[O, C, K, K]`.
//!
//! The forward pass and the gradient of the input are direct convolutions (`direct`) of images
//! that are copied, a few at a time, into a frame of zeros. The gradient of the weight sums, for a tile
//! of input by output channels in registers, over the pixels of a few rows.
//!
//! Work is cut by shape alone, never by the number of threads, so that results are the same bit for
//! bit on any machine with the same vector width.
#![allow(unsafe_code, reason = "threads write interleaved parts, and tiles read by pointer")]

use std::ops::Range;

use pulp::Simd;
use rayon::prelude::*;

use super::weight_sums::{image_words, sum_parts};
use super::{Geometry, Precision, amx};
use kiln_infer::cpu_conv::{
    Convolution, Kernel, MultiplyAdd, Packed, Runs, View, Weights, are_tiled, bf16, dispatch, lanes, vectors,
};
use kiln_infer::parallel::{self, Shared, TASKS};

/// Output pixels whose input is framed together, at least: few enough to stay in a core's cache, yet
/// the weights, which are read once for all of them, should be read few times.
const FRAMED_PIXELS: usize = 256;
/// Output pixels over which a tile of weight gradients is summed at a time, at least.
const SUMMED_PIXELS: usize = 64;

/// Words that a tile may read beyond a run; their weights are zero.
const READ_BEYOND: usize = 15;

/// One way over some images: all of a forward pass, or a backward pass's pixels of one residue by the
/// stride. What is read is `[N, H, W, C]`.
struct Pass {
    weights: Packed,
    kernel: [usize; 2],
    stride: usize,
    /// Row and column under the kernel's corner for the first pixel; negative in the frame.
    corner: [isize; 2],
    /// Rows and columns that are made.
    pixels: [usize; 2],
    /// Where they are written: the first row and column, and the step from one to the next.
    first: [usize; 2],
    step: usize,
}

/// `[N, H', W', O]`
pub fn forward(geometry: &Geometry, x: &[f32], weight: &[f32], precision: Precision) -> Vec<f32> {
    let ([channels, ..], [out, height, width], area) = (geometry.input, geometry.outputs, geometry.area());
    let weights = Weights {
        values: weight,
        outputs: out,
        inputs: channels,
        output: channels * area,
        input: area,
        taps: (0..area).collect(),
        columns: geometry.kernel,
    };
    let pass = Pass {
        weights: Packed::new(&weights, &[], precision),
        kernel: [geometry.kernel; 2],
        stride: geometry.stride,
        corner: [-(geometry.padding as isize); 2],
        pixels: [height, width],
        first: [0; 2],
        step: 1,
    };
    convolve(geometry.batch, geometry.input, geometry.outputs, &[pass], x, precision)
}

/// Gradient of the input, `[N, H, W, C]`.
pub fn backward_data(geometry: &Geometry, weight: &[f32], grad: &[f32], precision: Precision) -> Vec<f32> {
    let stride = geometry.stride;
    let residues = (0..stride * stride).map(|index| [index / stride, index % stride]);
    let passes: Vec<Pass> =
        residues.filter_map(|residue| backward_pass(geometry, weight, residue, precision)).collect();
    convolve(geometry.batch, geometry.outputs, geometry.input, &passes, grad, precision)
}

/// The gradient of every `stride`-th input pixel from `first` on: those meet the same positions of the
/// kernel. None where there are no such pixels or positions.
fn backward_pass(geometry: &Geometry, weight: &[f32], first: [usize; 2], precision: Precision) -> Option<Pass> {
    let Geometry { kernel, stride, padding, .. } = *geometry;
    let ([channels, height, width], [out, ..], area) = (geometry.input, geometry.outputs, geometry.area());
    // Output row r reads input row i under kernel position t if i = r stride + t - padding: the larger
    // the row, the smaller the position.
    let positions = first.map(|first| ((first + padding) % stride..kernel).step_by(stride).rev().collect::<Vec<_>>());
    let corner = |axis: usize| {
        let largest = *positions[axis].first()?;
        Some((first[axis] + padding) as isize - largest as isize).map(|distance| distance / stride as isize)
    };
    let pixels = [0, 1].map(|axis| [height, width][axis].saturating_sub(first[axis]).div_ceil(stride));
    if pixels.contains(&0) {
        return None;
    }
    let corner = [corner(0)?, corner(1)?];
    let taps = positions[0].iter().flat_map(|row| positions[1].iter().map(move |column| row * kernel + column));
    let weights = Weights {
        values: weight,
        outputs: channels,
        inputs: out,
        output: area,
        input: channels * area,
        taps: taps.collect(),
        columns: positions[1].len(),
    };
    Some(Pass {
        weights: Packed::new(&weights, &[], precision),
        kernel: [positions[0].len(), positions[1].len()],
        stride: 1,
        corner,
        pixels,
        first,
        step: stride,
    })
}

/// `[N, H', W', O]` from `[N, H, W, C]`; `input` and `outputs` hold channels, height and width.
/// Pixels that no pass makes are zero.
fn convolve(
    batch: usize,
    input: [usize; 3],
    outputs: [usize; 3],
    passes: &[Pass],
    x: &[f32],
    precision: Precision,
) -> Vec<f32> {
    let [channels, height, width] = input;
    let [out, out_height, out_width] = outputs;
    let words = channels.div_ceil(precision.per_word());
    let frame = Frame::around(input, passes);
    let pixels = passes.iter().map(|pass| pass.pixels[0] * pass.pixels[1]).max().unwrap_or(0);
    let images = FRAMED_PIXELS.div_ceil(pixels.max(1)).min(batch.max(1));
    let groups = batch.div_ceil(images);
    let blocks = passes.first().map_or(0, |pass| pass.weights.blocks());
    // A batch that makes too few groups is cut by output channels too.
    let parts = TASKS.div_ceil(groups.max(1)).min(blocks);
    let write = |y: Shared| {
        (0..groups * parts).into_par_iter().for_each_init(Vec::new, |buffer, task| {
            let (group, part) = (task / parts, task % parts);
            let count = images.min(batch - group * images);
            let image_len = height * width * channels;
            let x = &x[group * images * image_len..][..count * image_len];
            let framed = frame.fill(input, x, precision, buffer);
            for pass in passes {
                let row = frame.width * words;
                let place = |axis: usize| (pass.corner[axis] + frame.before as isize) as usize;
                let convolution = Convolution {
                    x: framed,
                    from: View {
                        start: place(0) * row + place(1) * words,
                        steps: [frame.height * row, pass.stride * row, pass.stride * words],
                    },
                    runs: Runs { count: pass.kernel[0], len: pass.kernel[1] * words, apart: row },
                    weights: &pass.weights,
                    pixels: [count, pass.pixels[0], pass.pixels[1]],
                    to: View {
                        start: ((group * images * out_height + pass.first[0]) * out_width + pass.first[1]) * out,
                        steps: [out_height * out_width * out, pass.step * out_width * out, pass.step * out],
                    },
                    residual: None,
                    relu: false,
                };
                let blocks = blocks * part / parts..blocks * (part + 1) / parts;
                // Safety: no other task has these images' blocks of channels, no other pass these pixels.
                unsafe { convolution.run(blocks, 0..count * pass.pixels[0] * pass.pixels[1], y) };
            }
        });
    };
    let len = batch * out_height * out_width * out;
    let made: usize = passes.iter().map(|pass| pass.pixels[0] * pass.pixels[1]).sum();
    if made < out_height * out_width {
        let mut y = vec![0.0; len];
        write(Shared::new(&mut y));
        return y;
    }
    // Safety: the passes make every pixel, of every image and channel.
    unsafe { parallel::make(len, write) }
}

/// Zeros around an image, wide enough that no kernel hangs over.
struct Frame {
    /// Rows and columns before the image.
    before: usize,
    /// Of image and frame.
    height: usize,
    width: usize,
}

impl Frame {
    fn around([_, height, width]: [usize; 3], passes: &[Pass]) -> Self {
        let reach = |pass: &Pass, axis: usize| {
            pass.corner[axis] + ((pass.pixels[axis] - 1) * pass.stride + pass.kernel[axis]) as isize
        };
        let end = |axis: usize| passes.iter().map(|pass| reach(pass, axis)).max().unwrap_or(0).max(0) as usize;
        let corners = passes.iter().flat_map(|pass| pass.corner);
        let before = corners.map(|corner| -corner).max().unwrap_or(0).max(0) as usize;
        Self { before, height: before + height.max(end(0)), width: before + width.max(end(1)) }
    }

    /// Copies images into their frames, as words; those that stay as they are stay where they are.
    fn fill<'a>(
        &self,
        [channels, height, width]: [usize; 3],
        x: &'a [f32],
        precision: Precision,
        buffer: &'a mut Vec<f32>,
    ) -> &'a [f32] {
        if (self.height, self.width) == (height, width) && precision == Precision::F32 {
            return x;
        }
        let words = channels.div_ceil(precision.per_word());
        let (row, framed_row) = (width * channels, self.width * words);
        let len = x.len() / (height * row).max(1) * self.height * framed_row;
        buffer.resize(len + READ_BEYOND, 0.0);
        let (framed, beyond) = buffer.split_at_mut(len);
        beyond.fill(0.0);
        let images = x.chunks_exact(height * row).zip(framed.chunks_exact_mut(self.height * framed_row));
        for (image, framed) in images {
            let (above, rest) = framed.split_at_mut(self.before * framed_row);
            let (rows, below) = rest.split_at_mut(height * framed_row);
            above.fill(0.0);
            below.fill(0.0);
            for (row, framed) in image.chunks_exact(row).zip(rows.chunks_exact_mut(framed_row)) {
                let (left, rest) = framed.split_at_mut(self.before * words);
                let (middle, right) = rest.split_at_mut(width * words);
                left.fill(0.0);
                match precision {
                    Precision::F32 => middle.copy_from_slice(row),
                    _ => channel_pairs(row, channels, middle),
                }
                right.fill(0.0);
            }
        }
        buffer
    }
}

/// Words of two channels of a pixel; the last one's second half is zero where the channels are odd.
fn channel_pairs(x: &[f32], channels: usize, words: &mut [f32]) {
    if channels.is_multiple_of(2) {
        return bf16::neighbours(x, words);
    }
    for (words, pixel) in words.chunks_exact_mut(channels.div_ceil(2)).zip(x.chunks_exact(channels)) {
        bf16::neighbours(pixel, words);
    }
}

/// Gradient of the weight, `[O, C, K, K]`. In bf16 a word has the same number of two images that follow each other.
pub fn backward_weight(geometry: &Geometry, x: &[f32], grad: &[f32], precision: Precision) -> Vec<f32> {
    let [out, height, width] = geometry.outputs;
    assert!(x.len() == geometry.batch * geometry.input.iter().product::<usize>());
    assert!(grad.len() == geometry.batch * geometry.outputs.iter().product::<usize>());
    if are_tiled(precision) {
        return amx::backward_weight(geometry, x, grad);
    }
    let vectors = vectors(out, lanes(), false);
    let block = vectors * lanes();
    // Numbered through all images' words.
    let rows = geometry.batch.div_ceil(precision.per_word()) * height;
    sum_parts(geometry, block, rows, |[x_words, grad_words, gathered]: &mut [Vec<f32>; 3], part, blocks, sums| {
        for start in part.clone().step_by(SUMMED_PIXELS.div_ceil(width)) {
            let rows = start..part.end.min(start + SUMMED_PIXELS.div_ceil(width));
            let read = rows_under(geometry, &rows);
            let x = image_words(x, geometry.input, read.clone(), precision, x_words);
            let grad = image_words(grad, geometry.outputs, rows.clone(), precision, grad_words);
            for index in blocks.clone() {
                // Safety: this part's block is this task's.
                let sums = unsafe { sums.block(index) };
                gather(grad, out, index * block, block, gathered);
                let rows = rows.clone();
                let kernel = WeightGradient { geometry, vectors, x, first: read.start, grad: gathered, rows, sums };
                dispatch(kernel, precision);
            }
        }
    })
}

/// Rows of input pixels that some rows of output pixels are made of; both are numbered through all images.
fn rows_under(geometry: &Geometry, rows: &Range<usize>) -> Range<usize> {
    let Geometry { kernel, stride, padding, input: [_, height, _], outputs: [_, out_height, _], .. } = *geometry;
    let last = rows.end - 1;
    let start = (rows.start % out_height * stride).saturating_sub(padding).min(height);
    let end = (last % out_height * stride + kernel).saturating_sub(padding).min(height);
    let (start, end) = (rows.start / out_height * height + start, last / out_height * height + end);
    start..end.max(start)
}

/// The channels `first..first + block` of pixels `[.., O]`, zeros after the last.
fn gather(grad: &[f32], out: usize, first: usize, block: usize, buffer: &mut Vec<f32>) {
    buffer.resize(grad.len() / out * block, 0.0);
    let channels = block.min(out - first);
    for (to, pixel) in buffer.chunks_exact_mut(block).zip(grad.chunks_exact(out)) {
        to[..channels].copy_from_slice(&pixel[first..][..channels]);
        to[channels..].fill(0.0);
    }
}

/// One block of output channels of the weight's gradient, summed over some rows of output pixels.
struct WeightGradient<'a> {
    geometry: &'a Geometry,
    vectors: usize,
    /// Rows of the input from `first` on, which is numbered through all images.
    x: &'a [f32],
    first: usize,
    /// The block's gradients of those rows of output pixels, `[rows, W', block]`.
    grad: &'a [f32],
    /// Numbered through all images.
    rows: Range<usize>,
    /// `[K, K, C, block]`, which the sums are added to.
    sums: &'a mut [f32],
}

impl Kernel for WeightGradient<'_> {
    #[inline(always)]
    fn run<S: Simd, M: MultiplyAdd<S>>(self, simd: S, product: M) {
        // An image's channels are few.
        let few = self.geometry.input[0] <= 4;
        match (S::F32_LANES, self.vectors) {
            (_, 1) if few => self.tiles::<S, M, 1, 4>(simd, product),
            (_, 2) if few => self.tiles::<S, M, 2, 4>(simd, product),
            (16, 1) => self.tiles::<S, M, 1, 16>(simd, product),
            (16, 2) => self.tiles::<S, M, 2, 8>(simd, product),
            (_, 1) => self.tiles::<S, M, 1, 8>(simd, product),
            (8, _) => self.tiles::<S, M, 2, 4>(simd, product),
            (_, 2) => self.tiles::<S, M, 2, 8>(simd, product),
            _ => self.tiles::<S, M, 3, 8>(simd, product),
        }
    }
}

impl WeightGradient<'_> {
    #[inline(always)]
    fn tiles<S: Simd, M: MultiplyAdd<S>, const V: usize, const P: usize>(self, simd: S, product: M) {
        let channels = self.geometry.input[0];
        let block = V * S::F32_LANES;
        for tap in 0..self.geometry.kernel * self.geometry.kernel {
            for first in (0..channels).step_by(P) {
                let tile: [[S::f32s; V]; P] = if first + P <= channels {
                    // Safety: `x` has as many channels.
                    self.sum(simd, product, tap, |x| unsafe { std::array::from_fn(|p| *x.add(first + p)) })
                } else {
                    // A tile over the end sums the last channel several times.
                    // Safety: as above.
                    self.sum(simd, product, tap, |x| unsafe {
                        std::array::from_fn(|p| *x.add((first + p).min(channels - 1)))
                    })
                };
                for (p, tile) in tile.iter().enumerate().take(channels - first) {
                    let sums = &mut self.sums[(tap * channels + first + p) * block..][..block];
                    for (sum, tile) in S::as_mut_simd_f32s(sums).0.iter_mut().zip(tile) {
                        *sum = simd.add_f32s(*sum, *tile);
                    }
                }
            }
        }
    }

    /// Sums under one position of the kernel, for the input channels that `read` takes from a pixel.
    #[inline(always)]
    fn sum<S: Simd, M: MultiplyAdd<S>, const V: usize, const P: usize>(
        &self,
        simd: S,
        product: M,
        tap: usize,
        read: impl Fn(*const f32) -> [f32; P],
    ) -> [[S::f32s; V]; P] {
        let Geometry { kernel, stride, padding, .. } = *self.geometry;
        let ([channels, height, width], [_, out_height, out_width]) = (self.geometry.input, self.geometry.outputs);
        let block = V * S::F32_LANES;
        let mut tile = [[simd.splat_f32s(0.0); V]; P];
        let (inside, column) = inside(self.geometry, tap % kernel);
        if inside.is_empty() {
            return tile;
        }
        for row in self.rows.clone() {
            let (image, i) = (row / out_height, row % out_height);
            let Some(from) = (i * stride + tap / kernel).checked_sub(padding).filter(|from| *from < height) else {
                continue;
            };
            let pixels = ((image * height + from - self.first) * width + column) * channels;
            let x = &self.x[pixels..][..channels * (1 + (inside.len() - 1) * stride)];
            let pixels = ((row - self.rows.start) * out_width + inside.start) * block;
            let grad = &self.grad[pixels..][..inside.len() * block];
            for j in 0..inside.len() {
                // Safety: within the slices, which have so many pixels.
                unsafe {
                    let x = read(x.as_ptr().add(j * stride * channels));
                    product.multiply_add(simd, x, grad.as_ptr().add(j * block), &mut tile);
                }
            }
        }
        tile
    }
}

/// The output columns for which kernel column `dj` lies on the input, and the first one's input column.
fn inside(geometry: &Geometry, dj: usize) -> (Range<usize>, usize) {
    let (width, out_width) = (geometry.input[2], geometry.outputs[2]);
    let Geometry { stride, padding, .. } = *geometry;
    let start = padding.saturating_sub(dj).div_ceil(stride).min(out_width);
    let end = (width + padding).saturating_sub(dj).div_ceil(stride).clamp(start, out_width);
    (start..end, (start * stride + dj).saturating_sub(padding))
}
