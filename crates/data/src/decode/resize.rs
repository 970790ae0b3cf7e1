//! Resizes a square image row by row, so that a large picture needs only a few rows of extra memory.

use image::RgbImage;

/// Resizes `side` x `side` pixels to `size` x `size`. `row` appends an RGB row of the source to its buffer.
///
/// This is the triangle filter of `resize` in PIL and in the `image` crate, with exactly the latter's results.
pub(super) fn resize(side: u32, size: u32, mut row: impl FnMut(u32, &mut Vec<u8>)) -> RgbImage {
    let mut pixels = Vec::with_capacity(3 * (size * size) as usize);
    let mut source = vec![];
    if side == size {
        for y in 0..size {
            row(y, &mut source);
            pixels.append(&mut source);
        }
        return RgbImage::from_raw(size, size, pixels).expect("size rows of size pixels");
    }
    let taps: Vec<Taps> = (0..size).map(|at| Taps::new(at, side, size)).collect();
    let mut sums = vec![0.0_f32; 3 * side as usize];
    for Taps { start, weights } in &taps {
        sums.fill(0.0);
        for (y, weight) in (*start..).zip(weights) {
            source.clear();
            row(y, &mut source);
            sums.iter_mut().zip(&source).for_each(|(sum, value)| *sum += f32::from(*value) * weight);
        }
        for Taps { start, weights } in &taps {
            let mut pixel = [0.0_f32; 3];
            for (of, weight) in sums.as_chunks::<3>().0[*start as usize..].iter().zip(weights) {
                pixel.iter_mut().zip(of).for_each(|(sum, value)| *sum += value * weight);
            }
            pixels.extend(pixel.map(|value| value.clamp(0.0, 255.0).round() as u8));
        }
    }
    RgbImage::from_raw(size, size, pixels).expect("size rows of size pixels")
}

/// The source pixels of an output pixel along one axis, and their weights.
struct Taps {
    start: u32,
    weights: Vec<f32>,
}

impl Taps {
    fn new(at: u32, side: u32, size: u32) -> Self {
        let ratio = side as f32 / size as f32;
        let support = ratio.max(1.0);
        let centre = (at as f32 + 0.5) * ratio;
        let start = ((centre - support).floor().max(0.0) as u32).min(side - 1);
        let end = ((centre + support).ceil() as u32).clamp(start + 1, side);
        let weight = |at: u32| (1.0 - ((at as f32 - (centre - 0.5)) / support).abs()).max(0.0);
        let weights: Vec<f32> = (start..end).map(weight).collect();
        let sum: f32 = weights.iter().fold(0.0, |sum, weight| sum + weight);
        Self { start, weights: weights.into_iter().map(|weight| weight / sum).collect() }
    }
}

#[cfg(test)]
mod tests {
    use image::{Rgb, imageops::FilterType};

    use super::*;

    #[test]
    fn the_numbers_are_those_of_the_image_crate() {
        for (side, size) in [(1, 8), (7, 7), (7, 3), (33, 32), (31, 32), (100, 32), (333, 64), (64, 333), (1001, 8)] {
            let photo = RgbImage::from_fn(side, side, |x, y| {
                Rgb([x * 7 + y, x ^ y, x * y].map(|value| (value.wrapping_mul(2_654_435_761) >> 13) as u8))
            });
            let expected = image::imageops::resize(&photo, size, size, FilterType::Triangle);
            let len = 3 * side as usize;
            let found = resize(side, size, |y, out| out.extend(&photo.as_raw()[y as usize * len..][..len]));
            assert!(found == expected, "{side} to {size}");
        }
    }
}
