//! The definition, in double precision.

use super::wgsl::square;

/// `[3, size, size]` for RGBA bytes `[height, width, 4]`, from 0 to 255 and not rounded yet.
pub fn levels(pixels: &[u8], sizes: [u32; 2], size: usize) -> Vec<f64> {
    let [width, left, top, side] = square(sizes).map(|size| size as usize);
    let mut levels = vec![];
    for channel in 0..3 {
        for row in 0..size {
            for column in 0..size {
                let (mut sum, mut weights) = (0.0, 0.0);
                for (y, down) in window(row, side, size) {
                    for (x, across) in window(column, side, size) {
                        let level = pixels[((top + y) * width + left + x) * 4 + channel];
                        sum += down * across * f64::from(level);
                        weights += down * across;
                    }
                }
                levels.push(sum / weights);
            }
        }
    }
    levels
}

/// The indices under a pixel's filter, and their weights.
fn window(pixel: usize, side: usize, size: usize) -> impl Iterator<Item = (usize, f64)> {
    let ratio = side as f64 / size as f64;
    let (scale, centre) = (ratio.max(1.0), (pixel as f64 + 0.5) * ratio - 0.5);
    let weight = move |at: usize| 1.0 - ((at as f64 - centre) / scale).abs();
    (0..side).map(move |at| (at, weight(at))).filter(|(_, weight)| *weight > 0.0)
}
