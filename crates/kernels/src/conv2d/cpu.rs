//! Convolution on a CPU as small matrix products: a tile of output pixels at a time, the patches
//! under it are laid out as columns that stay in the cache (im2col a tile, not a layer at a time),
//! and a packed matrix product of the `gemm` crate does the rest.
//!
//! Work is cut by shape alone, never by the number of threads, so that results are the same bit for
//! bit on any machine with the same vector width.
#![allow(unsafe_code, reason = "threads write interleaved rows, and gemm takes pointers")]

use gemm::Parallelism;
use rayon::prelude::*;

use super::Geometry;

/// Output pixels in a tile, about: its columns should stay in a core's cache, yet the weights, which
/// are read once a tile, should be read few times.
const TILE_PIXELS: usize = 256;
/// Input channels whose weight gradients one task makes.
const CHANNEL_BLOCK: usize = 16;
/// Parts of a batch whose weight gradients are made apart and then added, where there are too few
/// blocks of channels to keep a processor busy.
const BATCH_PARTS: usize = 8;

/// Rows of output pixels of some images, whose columns are made together: either whole images, or
/// some rows of one.
#[derive(Clone, Copy, Debug)]
struct Tile {
    /// First image, and how many.
    image: usize,
    images: usize,
    /// First row of each image, and how many.
    row: usize,
    rows: usize,
}

impl Tile {
    fn pixels(&self, geometry: &Geometry) -> usize {
        self.images * self.rows * geometry.outputs[2]
    }
}

/// Cuts images `first..first + count` into tiles.
fn tiles(geometry: &Geometry, first: usize, count: usize) -> Vec<Tile> {
    let [_, height, width] = geometry.outputs;
    let pixels = height * width;
    if pixels >= TILE_PIXELS {
        let rows = TILE_PIXELS.div_ceil(width).min(height);
        let starts = move |image| (0..height).step_by(rows).map(move |row| (image, row));
        let tile = |(image, row)| Tile { image, images: 1, row, rows: rows.min(height - row) };
        return (first..first + count).flat_map(starts).map(tile).collect();
    }
    let images = TILE_PIXELS.div_ceil(pixels.max(1));
    let end = first + count;
    (first..end)
        .step_by(images)
        .map(|image| Tile { image, images: images.min(end - image), row: 0, rows: height })
        .collect()
}

/// `[N, O, H', W']`
pub fn forward(geometry: &Geometry, x: &[f32], weight: &[f32]) -> Vec<f32> {
    let [out, height, width] = geometry.outputs;
    let (patch, area) = (geometry.patch(), height * width);
    let mut y = vec![0.0; geometry.batch * out * area];
    let shared = Shared(y.as_mut_ptr());
    tiles(geometry, 0, geometry.batch).into_par_iter().for_each_init(Vec::new, |buffer, tile| {
        let pixels = tile.pixels(geometry);
        let (columns, product) = split(buffer, patch * pixels, if tile.images > 1 { out * pixels } else { 0 });
        columns_of(geometry, tile, 0..geometry.input[0], x, columns);
        let (weight, columns) = (Matrix::rows(weight, patch), Matrix::rows(columns, pixels));
        if tile.images > 1 {
            // Safety: `product` is this task's, of `out` rows of `pixels`.
            unsafe { multiply(out, pixels, patch, product.as_mut_ptr(), pixels, weight, columns, false) };
            for (o, row) in product.chunks_exact(pixels).enumerate() {
                for (image, values) in row.chunks_exact(area).enumerate() {
                    // Safety: no other tile has this image.
                    unsafe {
                        let to = shared.at(((tile.image + image) * out + o) * area);
                        to.copy_from_nonoverlapping(values.as_ptr(), area);
                    }
                }
            }
        } else {
            let start = tile.image * out * area + tile.row * width;
            // Safety: no other tile has these rows of this image.
            unsafe { multiply(out, pixels, patch, shared.at(start), area, weight, columns, false) };
        }
    });
    y
}

/// Gradient of the input, `[N, C, H, W]`.
pub fn backward_data(geometry: &Geometry, weight: &[f32], grad: &[f32]) -> Vec<f32> {
    let [channels, height, width] = geometry.input;
    let [out, ..] = geometry.outputs;
    let patch = geometry.patch();
    let image_len = channels * height * width;
    let mut x_grad = vec![0.0; geometry.batch * image_len];
    // The patches of neighbouring tiles overlap, so that a task takes all tiles of its images.
    let images = TILE_PIXELS.div_ceil(geometry.outputs[1] * geometry.outputs[2]);
    x_grad.par_chunks_mut((images * image_len).max(1)).enumerate().for_each_init(Vec::new, |buffer, (task, x_grad)| {
        for tile in tiles(geometry, task * images, x_grad.len() / image_len) {
            let pixels = tile.pixels(geometry);
            let (columns, gathered) = split(buffer, patch * pixels, out * pixels);
            let grad = gather(geometry, tile, grad, gathered);
            let weight = Matrix::rows(weight, patch).transposed();
            // Safety: `columns` is this task's, of `patch` rows of `pixels`.
            unsafe { multiply(patch, pixels, out, columns.as_mut_ptr(), pixels, weight, grad, false) };
            add_columns(geometry, Tile { image: tile.image - task * images, ..tile }, columns, x_grad);
        }
    });
    x_grad
}

/// Gradient of the weight, `[O, C, K, K]`.
pub fn backward_weight(geometry: &Geometry, x: &[f32], grad: &[f32]) -> Vec<f32> {
    let ([channels, ..], [out, ..]) = (geometry.input, geometry.outputs);
    let (patch, area) = (geometry.patch(), geometry.kernel * geometry.kernel);
    let blocks = channels.div_ceil(CHANNEL_BLOCK);
    let parts = BATCH_PARTS.div_ceil(blocks).min(geometry.batch);
    let part_len = geometry.batch.div_ceil(parts.max(1)).max(1);
    let tasks: Vec<(usize, usize)> =
        (0..geometry.batch.div_ceil(part_len)).flat_map(|part| (0..blocks).map(move |block| (part, block))).collect();
    let made: Vec<Vec<f32>> = tasks
        .par_iter()
        .map_init(Vec::new, |buffer, &(part, block)| {
            let block = block * CHANNEL_BLOCK..channels.min((block + 1) * CHANNEL_BLOCK);
            let patch = block.len() * area;
            let mut weight_grad = vec![0.0; out * patch];
            let first = part * part_len;
            for (index, tile) in tiles(geometry, first, part_len.min(geometry.batch - first)).into_iter().enumerate() {
                let pixels = tile.pixels(geometry);
                let (columns, gathered) = split(buffer, patch * pixels, out * pixels);
                columns_of(geometry, tile, block.clone(), x, columns);
                let grad = gather(geometry, tile, grad, gathered);
                let columns = Matrix::rows(columns, pixels).transposed();
                // Safety: `weight_grad` is this task's, of `out` rows of `patch`.
                unsafe { multiply(out, patch, pixels, weight_grad.as_mut_ptr(), patch, grad, columns, index > 0) };
            }
            weight_grad
        })
        .collect();
    let mut weight_grad = vec![0.0; out * patch];
    for ((_, block), made) in tasks.iter().zip(made) {
        let start = block * CHANNEL_BLOCK * area;
        let len = made.len() / out.max(1);
        for (row, made) in weight_grad.chunks_exact_mut(patch).zip(made.chunks_exact(len)) {
            row[start..start + len].iter_mut().zip(made).for_each(|(sum, value)| *sum += value);
        }
    }
    weight_grad
}

/// For every channel and kernel position a row: the input under each pixel of the tile, zero where
/// the kernel hangs over the edge. `[channels * K * K, pixels]`
fn columns_of(geometry: &Geometry, tile: Tile, channels: std::ops::Range<usize>, x: &[f32], columns: &mut [f32]) {
    let [all_channels, height, width] = geometry.input;
    let out_width = geometry.outputs[2];
    let mut rows = columns.chunks_exact_mut(out_width);
    for (channel, di, dj) in kernel_positions(geometry, channels) {
        let (inside, first) = inside(geometry, dj);
        for image in tile.image..tile.image + tile.images {
            for i in tile.row..tile.row + tile.rows {
                let to = rows.next().expect("as many rows as the loops make");
                let Some(row) = (i * geometry.stride + di).checked_sub(geometry.padding).filter(|row| *row < height)
                else {
                    to.fill(0.0);
                    continue;
                };
                let from = &x[((image * all_channels + channel) * height + row) * width..][..width];
                to[..inside.start].fill(0.0);
                to[inside.end..].fill(0.0);
                if inside.is_empty() {
                    continue;
                }
                if geometry.stride == 1 {
                    to[inside.clone()].copy_from_slice(&from[first..first + inside.len()]);
                } else {
                    let taken = from[first..].iter().step_by(geometry.stride);
                    to[inside.clone()].iter_mut().zip(taken).for_each(|(to, from)| *to = *from);
                }
            }
        }
    }
}

/// The way back of [`columns_of`]: adds every number to the input that it came from.
fn add_columns(geometry: &Geometry, tile: Tile, columns: &[f32], x: &mut [f32]) {
    let [channels, height, width] = geometry.input;
    let out_width = geometry.outputs[2];
    let mut rows = columns.chunks_exact(out_width);
    for (channel, di, dj) in kernel_positions(geometry, 0..channels) {
        let (inside, first) = inside(geometry, dj);
        for image in tile.image..tile.image + tile.images {
            for i in tile.row..tile.row + tile.rows {
                let from = rows.next().expect("as many rows as the loops make");
                let Some(row) = (i * geometry.stride + di).checked_sub(geometry.padding).filter(|row| *row < height)
                else {
                    continue;
                };
                let to = &mut x[((image * channels + channel) * height + row) * width..][..width];
                if inside.is_empty() {
                    continue;
                }
                if geometry.stride == 1 {
                    to[first..first + inside.len()]
                        .iter_mut()
                        .zip(&from[inside.clone()])
                        .for_each(|(to, from)| *to += from);
                } else {
                    let taken = to[first..].iter_mut().step_by(geometry.stride);
                    taken.zip(&from[inside.clone()]).for_each(|(to, from)| *to += from);
                }
            }
        }
    }
}

fn kernel_positions(
    geometry: &Geometry,
    channels: std::ops::Range<usize>,
) -> impl Iterator<Item = (usize, usize, usize)> {
    let kernel = geometry.kernel;
    channels.flat_map(move |channel| (0..kernel * kernel).map(move |at| (channel, at / kernel, at % kernel)))
}

/// The output columns for which kernel column `dj` lies on the input, and the first one's input column.
fn inside(geometry: &Geometry, dj: usize) -> (std::ops::Range<usize>, usize) {
    let (width, out_width) = (geometry.input[2], geometry.outputs[2]);
    let Geometry { stride, padding, .. } = *geometry;
    let start = padding.saturating_sub(dj).div_ceil(stride).min(out_width);
    let end = (width + padding).saturating_sub(dj).div_ceil(stride).clamp(start, out_width);
    (start..end, (start * stride + dj).saturating_sub(padding))
}

/// The tile's part of `[N, O, H', W']` as a matrix `[O, pixels]`, copied only if it has several images.
fn gather<'a>(geometry: &Geometry, tile: Tile, y: &'a [f32], buffer: &'a mut [f32]) -> Matrix<'a> {
    let [out, height, width] = geometry.outputs;
    let area = height * width;
    if tile.images == 1 {
        let start = tile.image * out * area + tile.row * width;
        return Matrix { values: &y[start..], row_stride: area, column_stride: 1 };
    }
    let pixels = tile.images * area;
    for (image, from) in y[tile.image * out * area..].chunks_exact(out * area).take(tile.images).enumerate() {
        for (o, from) in from.chunks_exact(area).enumerate() {
            buffer[o * pixels + image * area..][..area].copy_from_slice(from);
        }
    }
    Matrix::rows(buffer, pixels)
}

/// Two buffers out of one that only grows.
fn split(buffer: &mut Vec<f32>, first: usize, second: usize) -> (&mut [f32], &mut [f32]) {
    if buffer.len() < first + second {
        buffer.resize(first + second, 0.0);
    }
    let (a, rest) = buffer.split_at_mut(first);
    (a, &mut rest[..second])
}

/// A matrix within a slice.
#[derive(Clone, Copy)]
struct Matrix<'a> {
    values: &'a [f32],
    row_stride: usize,
    column_stride: usize,
}

impl<'a> Matrix<'a> {
    fn rows(values: &'a [f32], columns: usize) -> Self {
        Self { values, row_stride: columns, column_stride: 1 }
    }

    fn transposed(self) -> Self {
        Self { row_stride: self.column_stride, column_stride: self.row_stride, ..self }
    }

    /// Whether `rows` by `columns` numbers lie within the slice.
    fn holds(&self, rows: usize, columns: usize) -> bool {
        rows == 0
            || columns == 0
            || (rows - 1) * self.row_stride + (columns - 1) * self.column_stride < self.values.len()
    }
}

/// `to = a b`, or `to += a b`: `[m, n]`, rows `row_stride` apart, from `[m, k]` and `[k, n]`.
///
/// # Safety
/// `to` must be good for writes (and for reads if `add`) of `n` numbers at each of `m` rows, and
/// nobody else may use those meanwhile.
#[allow(clippy::too_many_arguments, reason = "the arguments of a matrix product")]
unsafe fn multiply(m: usize, n: usize, k: usize, to: *mut f32, row_stride: usize, a: Matrix, b: Matrix, add: bool) {
    assert!(a.holds(m, k) && b.holds(k, n), "a matrix reaches over the end of its slice");
    let strides = |matrix: &Matrix| (matrix.column_stride as isize, matrix.row_stride as isize);
    let ((a_columns, a_rows), (b_columns, b_rows)) = (strides(&a), strides(&b));
    let (a, b, row_stride) = (a.values.as_ptr(), b.values.as_ptr(), row_stride as isize);
    let (alpha, beta, conjugate) = (1.0, 1.0, false);
    // Safety: what is read lies within its slices, checked above; what is written is the caller's.
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            to,
            1,
            row_stride,
            add,
            a,
            a_columns,
            a_rows,
            b,
            b_columns,
            b_rows,
            alpha,
            beta,
            conjugate,
            conjugate,
            conjugate,
            Parallelism::None,
        );
    }
}

/// A slice that several threads write into, each its own part.
#[derive(Clone, Copy)]
struct Shared(*mut f32);

// Safety: whoever writes through the pointer sees to it that the parts do not overlap.
unsafe impl Send for Shared {}
unsafe impl Sync for Shared {}

impl Shared {
    /// # Safety
    /// `start` must lie within the slice.
    unsafe fn at(&self, start: usize) -> *mut f32 {
        // Safety: the caller's.
        unsafe { self.0.add(start) }
    }
}
