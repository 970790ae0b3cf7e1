//! `Resize`, `CenterCrop` and the resize of a crop, of torchvision on PIL images.
//!
//! The numbers are those of Pillow 13's resize: coefficients in 22-bit fixed point, the pixels of rows first and then of columns,
//! or the other way round for tall pictures, and both passes rounded to 8 bits. Only the pixels of the crop are computed.

use std::ops::Range;

use image::RgbImage;

use super::{Interpolation, Preprocessing};
use crate::resized_crop::Rectangle;

/// Bits behind the point of a coefficient: 32 without the 8 of a pixel and 2 for sums that overshoot.
const PRECISION: u32 = 22;

/// Resizes pixels of `[width, height]` so that the shorter side has `preprocessing.resize` pixels, and cuts out the
/// middle `size` x `size`. `row` and `is_reversed` as in [`fit`](super::fit).
pub(super) fn resize_and_crop(
    [width, height]: [u32; 2],
    preprocessing: Preprocessing,
    size: u32,
    is_reversed: [bool; 2],
    row: impl FnMut(u32, u32, u32, &mut Vec<u8>),
) -> RgbImage {
    let Preprocessing { resize, interpolation } = preprocessing;
    let (shorter, resize) = (u64::from(width.min(height)), (resize as u64).max(u64::from(size)));
    // Truncated, as in torchvision.
    let resized = |side: u32| (resize * u64::from(side) / shorter) as u32;
    let axis = |side: u32, is_reversed: bool| {
        let resized = resized(side);
        let start = crop_start(resized - size, is_reversed);
        (start..start + size).map(|at| Taps::new(at, side, resized, interpolation)).collect::<Vec<_>>()
    };
    let columns_first = takes_columns_first([width, height], [width, height].map(resized));
    filtered(&axis(width, is_reversed[0]), &axis(height, is_reversed[1]), columns_first, row)
}

/// Cuts out a rectangle and resizes it to `[width, height]`, as `crop` and then `resize` of Pillow. `row` as in
/// [`fit`](super::fit).
pub(super) fn crop_and_resize(
    rectangle: Rectangle,
    [width, height]: [u32; 2],
    interpolation: Interpolation,
    mut row: impl FnMut(u32, u32, u32, &mut Vec<u8>),
) -> RgbImage {
    let axis = |side: u32, size: u32| (0..size).map(|at| Taps::new(at, side, size, interpolation)).collect::<Vec<_>>();
    let Rectangle { left, top, width: from_width, height: from_height } = rectangle;
    let columns_first = takes_columns_first([from_width, from_height], [width, height]);
    filtered(&axis(from_width, width), &axis(from_height, height), columns_first, |y, start, len, out| {
        row(top + y, left + start, len, out);
    })
}

/// Whether Pillow 13 makes the pixels of each column before those of the rows, which rounds differently: where the height
/// shrinks by more than twice as many pixels as the width.
fn takes_columns_first([width, height]: [u32; 2], [to_width, to_height]: [u32; 2]) -> bool {
    let [columns, rows] = [(width, to_width), (height, to_height)].map(|(from, to)| i64::from(from) - i64::from(to));
    rows > 0 && rows > 2 * columns
}

/// The picture whose columns and rows these are made of. Both passes round to 8 bits.
fn filtered(
    columns: &[Taps],
    rows: &[Taps],
    columns_first: bool,
    mut row: impl FnMut(u32, u32, u32, &mut Vec<u8>),
) -> RgbImage {
    let (used_columns, used_rows) = (used(columns), used(rows));
    let mut read = |y: u32, source: &mut Vec<u8>| {
        source.clear();
        row(y, used_columns.start, used_columns.end - used_columns.start, source);
    };
    let horizontal = |source: &[u8], out: &mut Vec<u8>| {
        let pixels = source.as_chunks::<3>().0;
        out.extend(columns.iter().flat_map(|taps| taps.pixel(&pixels[(taps.start - used_columns.start) as usize..])));
    };
    let width = 3 * columns.len();
    let mut made = Vec::with_capacity(width * rows.len());
    let (mut source, mut sums) = (vec![], vec![]);
    if columns_first {
        // Rows are read again where they overlap, instead of holding the picture twice.
        for taps in rows {
            sums.clear();
            for (y, weight) in (taps.start..).zip(&taps.weights) {
                read(y, &mut source);
                add(&mut sums, &source, *weight);
            }
            let column: Vec<u8> = sums.iter().copied().map(byte).collect();
            horizontal(&column, &mut made);
        }
    } else {
        let mut narrow = Vec::with_capacity(width * used_rows.len());
        for y in used_rows.clone() {
            read(y, &mut source);
            horizontal(&source, &mut narrow);
        }
        for taps in rows {
            sums.clear();
            let from = narrow[(taps.start - used_rows.start) as usize * width..].chunks_exact(width);
            from.zip(&taps.weights).for_each(|(values, weight)| add(&mut sums, values, *weight));
            made.extend(sums.iter().copied().map(byte));
        }
    }
    RgbImage::from_raw(columns.len() as u32, rows.len() as u32, made).expect("rows of columns")
}

/// Adds the weighted values of a row, so that the sums of many pixels are computed at once.
fn add(sums: &mut Vec<i32>, values: &[u8], weight: i32) {
    sums.resize(values.len(), ROUND);
    sums.iter_mut().zip(values).for_each(|(sum, value)| *sum += i32::from(*value) * weight);
}

/// Where a crop starts that leaves `rest` pixels out: at half of them, a tie to the even number, as Python rounds.
fn crop_start(rest: u32, is_reversed: bool) -> u32 {
    let start = rest / 2 + u32::from(rest % 4 == 3);
    if is_reversed { rest - start } else { start }
}

/// Source pixels that any output pixel is made of.
fn used(taps: &[Taps]) -> Range<u32> {
    let start = taps.iter().map(|taps| taps.start).min().unwrap_or(0);
    let end = taps.iter().map(|taps| taps.start + taps.weights.len() as u32).max().unwrap_or(0);
    start..end
}

/// The source pixels of an output pixel along one axis, and their weights in fixed point.
struct Taps {
    start: u32,
    weights: Vec<i32>,
}

impl Taps {
    fn new(at: u32, side: u32, size: u32, interpolation: Interpolation) -> Self {
        let scale = f64::from(side) / f64::from(size);
        // A smaller picture stretches the filter; a larger one keeps it.
        let stretch = scale.max(1.0);
        let support = stretch * if interpolation == Interpolation::Bilinear { 1.0 } else { 2.0 };
        let center = (f64::from(at) + 0.5) * scale;
        let start = ((center - support + 0.5).max(0.0) as u32).min(side - 1);
        let end = ((center + support + 0.5) as u32).clamp(start + 1, side);
        let weight = |at: u32| filter(interpolation, (f64::from(at) - center + 0.5) / stretch);
        let weights: Vec<f64> = (start..end).map(weight).collect();
        let sum: f64 = weights.iter().sum();
        let fixed = |weight: f64| (weight / sum * f64::from(1 << PRECISION)).round() as i32;
        Self { start, weights: weights.into_iter().map(fixed).collect() }
    }

    /// The output pixel, of the source's pixels from the first that it is made of.
    fn pixel(&self, pixels: &[[u8; 3]]) -> [u8; 3] {
        let mut sums = [ROUND; 3];
        for (pixel, weight) in pixels.iter().zip(&self.weights) {
            sums.iter_mut().zip(pixel).for_each(|(sum, value)| *sum += i32::from(*value) * weight);
        }
        sums.map(byte)
    }
}

/// What a sum starts with, so that cutting it off rounds it.
const ROUND: i32 = 1 << (PRECISION - 1);

fn byte(sum: i32) -> u8 {
    (sum >> PRECISION).clamp(0, 255) as u8
}

/// The filter's value at a distance in output pixels.
fn filter(interpolation: Interpolation, distance: f64) -> f64 {
    const A: f64 = -0.5;
    let x = distance.abs();
    match interpolation {
        Interpolation::Bilinear => (1.0 - x).max(0.0),
        Interpolation::Bicubic if x < 1.0 => ((A + 2.0) * x - (A + 3.0)) * x * x + 1.0,
        Interpolation::Bicubic if x < 2.0 => (((x - 5.0) * x + 8.0) * x - 4.0) * A,
        Interpolation::Bicubic => 0.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn picture(width: u32, height: u32) -> RgbImage {
        RgbImage::from_fn(width, height, |x, y| image::Rgb([x * 5 + y, x * y, x ^ (y * 3)].map(|value| value as u8)))
    }

    fn cut(image: &RgbImage, resize: usize, interpolation: Interpolation, size: u32) -> RgbImage {
        let row = |y: u32, left: u32, len: u32, out: &mut Vec<u8>| {
            let start = 3 * (y * image.width() + left) as usize;
            out.extend(&image.as_raw()[start..][..3 * len as usize]);
        };
        let size_of = [image.width(), image.height()];
        resize_and_crop(size_of, Preprocessing { resize, interpolation }, size, [false, false], row)
    }

    /// A sum over all bytes in which each place counts differently, so that a few numbers stand for Pillow's pixels.
    fn checksum(image: &RgbImage) -> u64 {
        image.as_raw().iter().zip(1_u64..).map(|(byte, at)| u64::from(*byte) * at).sum()
    }

    #[test]
    fn pixels_are_pillows() {
        // Made with Pillow 13 and torchvision 0.29 from the same picture.
        use Interpolation::{Bicubic, Bilinear};
        let expected = [
            ([480, 320, 256, 224], Bilinear, 1429672162843),
            ([480, 320, 256, 224], Bicubic, 1429873109183),
            ([320, 480, 256, 224], Bilinear, 1439613528768),
            ([320, 480, 256, 224], Bicubic, 1439868777789),
            ([341, 343, 32, 32], Bilinear, 601643637),
            ([341, 343, 32, 32], Bicubic, 601664562),
            ([100, 61, 64, 60], Bilinear, 7376578463),
            ([100, 61, 64, 60], Bicubic, 7382084406),
            ([37, 201, 40, 32], Bilinear, 560275994),
            ([37, 201, 40, 32], Bicubic, 560340900),
            ([20, 13, 40, 32], Bilinear, 234661679),
            ([20, 13, 40, 32], Bicubic, 234516162),
            ([640, 427, 232, 224], Bilinear, 1432586591271),
            ([640, 427, 232, 224], Bicubic, 1432585741929),
            ([33, 33, 36, 33], Bilinear, 515595975),
            ([33, 33, 36, 33], Bicubic, 515752646),
            // Columns first.
            ([367, 811, 256, 224], Bilinear, 1433842545012),
            ([367, 811, 256, 224], Bicubic, 1433940077174),
            ([90, 300, 40, 32], Bilinear, 617165587),
            ([90, 300, 40, 32], Bicubic, 616900409),
        ];
        for ([width, height, resize, size], interpolation, sum) in expected {
            let found = cut(&picture(width, height), resize as usize, interpolation, size);
            assert_eq!(checksum(&found), sum, "{width} x {height} to {resize}, {size} of it, {interpolation:?}");
        }
    }

    #[test]
    fn crops_are_pillows() {
        // Made with Pillow 13: `crop`, then `resize`. Of the last two rectangles it takes the columns first.
        use Interpolation::{Bicubic, Bilinear};
        let expected = [
            ([480, 320], [37, 11, 301, 222], [224, 224], Bilinear, 1439915996210),
            ([480, 320], [37, 11, 301, 222], [224, 224], Bicubic, 1439900261600),
            ([480, 320], [0, 0, 480, 320], [224, 224], Bilinear, 1435497701288),
            ([480, 320], [0, 0, 480, 320], [224, 224], Bicubic, 1434325556022),
            ([33, 20], [5, 5, 20, 9], [40, 24], Bilinear, 341373598),
            ([33, 20], [5, 5, 20, 9], [40, 24], Bicubic, 341565334),
            ([100, 61], [90, 3, 7, 50], [32, 32], Bilinear, 647499626),
            ([100, 61], [90, 3, 7, 50], [32, 32], Bicubic, 647666400),
            ([120, 400], [10, 20, 70, 350], [64, 64], Bilinear, 9573750711),
            ([120, 400], [10, 20, 70, 350], [64, 64], Bicubic, 9573182793),
        ];
        for (size, [left, top, width, height], to, interpolation, sum) in expected {
            let image = picture(size[0], size[1]);
            let row = |y: u32, left: u32, len: u32, out: &mut Vec<u8>| {
                let start = 3 * (y * image.width() + left) as usize;
                out.extend(&image.as_raw()[start..][..3 * len as usize]);
            };
            let found = crop_and_resize(Rectangle { left, top, width, height }, to, interpolation, row);
            assert_eq!(checksum(&found), sum, "{width} x {height} of {size:?} to {to:?}, {interpolation:?}");
        }
    }

    #[test]
    fn a_picture_of_the_right_size_is_not_touched() {
        for interpolation in [Interpolation::Bilinear, Interpolation::Bicubic] {
            assert_eq!(cut(&picture(9, 9), 9, interpolation, 9), picture(9, 9));
        }
    }

    #[test]
    fn a_crop_starts_at_half_of_the_rest_and_ties_go_to_the_even_pixel() {
        let starts: Vec<u32> = (0..8).map(|rest| crop_start(rest, false)).collect();
        assert_eq!(starts, [0, 0, 1, 2, 2, 2, 3, 4]);
        assert_eq!((crop_start(3, true), crop_start(5, true)), (1, 3));
    }
}
