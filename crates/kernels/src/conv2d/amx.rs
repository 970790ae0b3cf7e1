//! Gradient of the weight by tile registers.
//!
//! A word has the same number of two images that follow each other. For some rows of output pixels the input is laid out
//! channel by channel, with zeros around it, and the gradient pixel by pixel, with as many zeros between its rows:
//! what meets at a position of the kernel is then, for all of these rows, one run of words each, at a fixed distance.
//! A stride takes the input apart by the residues of its rows and columns, so that this holds there too.
#![allow(unsafe_code, reason = "tiles are read and written by pointer, and threads write interleaved parts")]

use std::ops::Range;

use super::weight_sums::{PartSums, image_words, sum_parts};
use super::{Geometry, Precision};
use kiln_infer::cpu_conv::amx::{Rows, SIDE, SUMS, TileRegisters};
use kiln_infer::cpu_conv::{Runs, line_start, vectors};
use kiln_infer::parallel::vectorized;

/// Output pixels over which tiles are summed at a time, at least.
const SUMMED_PIXELS: usize = 128;

/// What is laid out and summed at a time: some rows of one pair of images, or some whole pairs.
#[derive(Clone, Copy)]
struct Band {
    /// Pairs of images.
    pairs: usize,
    /// Rows of output pixels.
    rows: usize,
    /// Further rows and columns of each residue that a kernel reaches.
    reach: usize,
    /// Words from one row to the next.
    width: usize,
}

impl Band {
    fn of(geometry: &Geometry) -> Self {
        let [_, height, width] = geometry.outputs;
        let reach = (geometry.kernel - 1) / geometry.stride;
        let rows = SUMMED_PIXELS.div_ceil(width).min(height);
        let pairs = SUMMED_PIXELS.div_ceil(height * width);
        Self { pairs, rows, reach, width: width + reach }
    }

    /// Words from one pair to the next.
    fn pair(&self) -> usize {
        (self.rows + self.reach) * self.width
    }

    /// Words of a channel, zeros at the end for whole cache lines.
    fn len(&self) -> usize {
        (self.pairs * self.pair()).next_multiple_of(SIDE)
    }

    /// Words of the gradient.
    fn run(&self) -> usize {
        self.pairs * self.pair() - self.reach * self.width
    }

    /// Words of the gradient with the zeros before and after it that let every run start at a cache line of the input.
    fn framed_run(&self) -> usize {
        SIDE + (self.run() + SIDE - 1).next_multiple_of(SIDE)
    }
}

/// Where in the batch a band lies.
struct Place {
    pairs: Range<usize>,
    rows: Range<usize>,
}

/// `[O, C, K, K]`; the slices are `[N, H, W, C]`.
pub fn backward_weight(geometry: &Geometry, x: &[f32], grad: &[f32]) -> Vec<f32> {
    let [out, height, _] = geometry.outputs;
    let band = Band::of(geometry);
    let vectors = vectors(out, SIDE, true);
    let pairs = geometry.batch.div_ceil(2);
    let per_pair = height.div_ceil(band.rows);
    let bands = pairs.div_ceil(band.pairs) * per_pair;
    let place = |index: usize| {
        let (pair, row) = (index / per_pair * band.pairs, index % per_pair * band.rows);
        Place { pairs: pair..pairs.min(pair + band.pairs), rows: row..height.min(row + band.rows) }
    };
    let block = vectors * SIDE;
    sum_parts(geometry, block, bands, |buffers: &mut Buffers, part, blocks, sums: PartSums| {
        for place in part.map(place) {
            buffers.lay_out_input(geometry, &band, &place, x);
            buffers.read_gradient(geometry, &place, grad);
            for index in blocks.clone() {
                buffers.lay_out_gradient(geometry, &band, &place, index * block, block);
                // Safety: `sum_parts` gives this part's block to this task.
                let sums = unsafe { sums.block(index) };
                buffers.multiply(geometry, &band, vectors, sums);
            }
        }
    })
}

/// What one thread lays out.
#[derive(Default)]
struct Buffers {
    /// Words of input rows.
    rows: Vec<f32>,
    /// `[S, S, C, len]` for a stride of S: the input, taken apart, from the first cache line on.
    input: Vec<f32>,
    /// Words of output pixels, `[pairs, rows, W', O]`.
    gradient: Vec<f32>,
    /// A block of them as the tiles take it, `[framed run, block]`, from the first cache line on.
    block: Vec<f32>,
}

impl Buffers {
    /// Makes `input`.
    fn lay_out_input(&mut self, geometry: &Geometry, band: &Band, place: &Place, x: &[f32]) {
        let Geometry { kernel, stride, padding, input: [channels, height, width], .. } = *geometry;
        let residues = stride.min(kernel);
        let plane = channels * band.len();
        self.input.clear();
        // A tile reads on beyond the last run, where the gradient is zero.
        self.input.resize(residues * residues * plane + 2 * SIDE + band.reach, 0.0);
        let start = line_start(&self.input);
        let input = &mut self.input[start..];
        for (pair, index) in place.pairs.clone().enumerate() {
            // Rows and columns are counted with the padding here.
            let first = place.rows.start * stride;
            let last = (place.rows.end - 1) * stride + kernel;
            let rows = first.max(padding)..last.min(padding + height);
            if rows.is_empty() {
                continue;
            }
            let read = index * height + rows.start - padding..index * height + rows.end - padding;
            let words = image_words(x, geometry.input, read, Precision::Bf16, &mut self.rows);
            for (row, words) in rows.zip(words.chunks_exact(width * channels)) {
                let residue = row % stride;
                if residue >= residues {
                    continue;
                }
                let line = pair * band.pair() + (row - first) / stride * band.width;
                for residue_of_columns in 0..residues {
                    // The first column of this residue that lies on the input.
                    let column = (padding.saturating_sub(residue_of_columns)).div_ceil(stride);
                    let left = (column * stride + residue_of_columns) - padding;
                    let count = width.saturating_sub(left).div_ceil(stride).min(band.width.saturating_sub(column));
                    let plane = &mut input[(residue * residues + residue_of_columns) * plane..][..plane];
                    let at = line + column;
                    vectorized(
                        #[inline(always)]
                        || {
                            transpose(
                                &words[(left * channels).min(words.len())..],
                                stride * channels,
                                channels,
                                count,
                                &mut plane[at..],
                                band.len(),
                            )
                        },
                    );
                }
            }
        }
    }

    /// Makes `gradient`.
    fn read_gradient(&mut self, geometry: &Geometry, place: &Place, grad: &[f32]) {
        let [out, height, width] = geometry.outputs;
        let rows = place.rows.len();
        self.gradient.resize(place.pairs.len() * rows * width * out, 0.0);
        // Whole pairs follow each other; of one pair there may be some rows.
        let first = place.pairs.start * height + place.rows.start;
        let read = first..first + place.pairs.len() * rows;
        image_words(grad, geometry.outputs, read, Precision::Bf16, &mut self.gradient);
    }

    /// Makes `block`.
    fn lay_out_gradient(&mut self, geometry: &Geometry, band: &Band, place: &Place, first: usize, block: usize) {
        let [out, _, width] = geometry.outputs;
        let channels = block.min(out - first);
        self.block.clear();
        self.block.resize(band.framed_run() * block + SIDE - 1, 0.0);
        let start = line_start(&self.block) + SIDE * block;
        let rows = self.gradient.chunks_exact(width * out).enumerate();
        for (row, pixels) in rows {
            let (pair, row) = (row / place.rows.len(), row % place.rows.len());
            let line = &mut self.block[start + (pair * band.pair() + row * band.width) * block..][..width * block];
            for (to, pixel) in line.chunks_exact_mut(block).zip(pixels.chunks_exact(out)) {
                to[..channels].copy_from_slice(&pixel[first..][..channels]);
            }
        }
    }

    /// Adds to the sums of a block, `[K, K, C, block]`.
    fn multiply(&self, geometry: &Geometry, band: &Band, vectors: usize, sums: &mut [f32]) {
        let Geometry { kernel, stride, input: [channels, ..], .. } = *geometry;
        let residues = stride.min(kernel);
        let block = vectors * SIDE;
        // TileRegisters are added to in place, so that none may cover another in part.
        let width = (1..=SIDE).rev().find(|width| channels.is_multiple_of(*width)).expect("one divides all");
        let together = SUMS / vectors;
        let gradient = &self.block[line_start(&self.block)..][..band.framed_run() * block];
        let input = &self.input[line_start(&self.input)..];
        assert!(sums.len() == kernel * kernel * channels * block);
        assert!(input.len() > residues * residues * channels * band.len() + SIDE + band.reach);
        let tiles = TileRegisters::new(width);
        for first in (0..channels).step_by(together * width) {
            for tap in 0..kernel * kernel {
                let [row, column] = [tap / kernel, tap % kernel];
                let plane = (row % stride * residues + column % stride) * channels * band.len();
                let shift = row / stride * band.width + column / stride;
                // The input is read from a cache line on, where the gradient still has zeros.
                let early = shift % SIDE;
                let run = Runs { count: 1, len: (band.run() + early).next_multiple_of(SIDE), apart: 0 };
                let gradient = &gradient[(SIDE - early) * block..][..run.len * block];
                // Beyond the last channels there are those again, which are added to but once.
                let channel = |p: usize| (first + p * width).min(channels - width);
                let pixels = std::array::from_fn(|p| {
                    let start = input[plane + channel(p) * band.len() + shift - early..].as_ptr();
                    Rows { start, stride: band.len() }
                });
                let parts = std::array::from_fn(|part| {
                    let (p, v) = (part / vectors, part % vectors);
                    sums[(tap * channels + channel(p)) * block + v * SIDE..].as_mut_ptr()
                });
                // Safety: every channel's run lies within the input and what was added to it, and the sums are this call's.
                unsafe { tiles.multiply(vectors, pixels, run, gradient.as_ptr(), parts, block, true) };
            }
        }
    }
}

/// Pixels `apart` from each other, `[count, channels]`, to channels `len` from each other, `[channels, count]`.
#[inline(always)]
fn transpose(pixels: &[f32], apart: usize, channels: usize, count: usize, to: &mut [f32], len: usize) {
    for channel in 0..channels {
        let line = &mut to[channel * len..][..count];
        line.iter_mut().enumerate().for_each(|(pixel, word)| *word = pixels[pixel * apart + channel]);
    }
}
