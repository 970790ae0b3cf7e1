//! Applies augmentation to pixels.
//!
//! The results are the same on every platform: floating-point code uses only operations that IEEE 754 defines to
//! the last bit, and `libm` for the rest.

use crate::augment::{AffineDraw, Transform};

/// An image with interleaved channels, the fourth of them empty, in a border of zeros: one pixel at the top and left,
/// two at the bottom and right.
pub(crate) type Bordered = Vec<[f32; 4]>;

/// Overwrites `out` with an image `[3, H, W]` after an affine map about its center, with bilinear interpolation.
/// Areas from outside the image are black. `bordered` is a scratch buffer to reuse for the next image.
pub(crate) fn warp(
    pixels: &[u8],
    [height, width]: [usize; 2],
    draw: &AffineDraw,
    bordered: &mut Bordered,
    out: &mut Vec<u8>,
) {
    let plane = height * width;
    let stride = width + 3;
    bordered.clear();
    bordered.resize(stride * (height + 3), [0.0; 4]);
    for row in 0..height {
        for (column, pixel) in bordered[(row + 1) * stride + 1..][..width].iter_mut().enumerate() {
            let at = row * width + column;
            *pixel = [pixels[at], pixels[plane + at], pixels[2 * plane + at], 0].map(f32::from);
        }
    }

    // The source of an output pixel: the inverse of the shift, the rotation, the shear and the scale.
    let angle = f64::from(draw.rotation).to_radians();
    let (sine, cosine) = (libm::sin(angle) as f32, libm::cos(angle) as f32);
    let slope = libm::tan(f64::from(draw.shear).to_radians()) as f32;
    let zoom = 1.0 / draw.scale;
    let [xx, xy] = [(cosine + slope * sine) * zoom, (sine - slope * cosine) * zoom];
    let [yx, yy] = [-sine * zoom, cosine * zoom];
    let centre = [(width as f32 - 1.0) / 2.0, (height as f32 - 1.0) / 2.0];
    let shift = [draw.translation[0] * width as f32, draw.translation[1] * height as f32];

    out.clear();
    out.resize(pixels.len(), 0);
    let (red, rest) = out.split_at_mut(plane);
    let (green, blue) = rest.split_at_mut(plane);
    for row in 0..height {
        let y = row as f32 - centre[1] - shift[1];
        for column in 0..width {
            let x = column as f32 - centre[0] - shift[0];
            // Clamped to the border, which is black like everything outside. Casts of nonnegative numbers round down.
            let from_x = (xx * x + xy * y + centre[0] + 1.0).clamp(0.0, width as f32 + 1.0);
            let from_y = (yx * x + yy * y + centre[1] + 1.0).clamp(0.0, height as f32 + 1.0);
            let (left, top) = (from_x as usize, from_y as usize);
            let (right_share, bottom_share) = (from_x - left as f32, from_y - top as f32);
            let above = &bordered[top * stride + left..][..2];
            let below = &bordered[(top + 1) * stride + left..][..2];
            let weights = [
                (1.0 - bottom_share) * (1.0 - right_share),
                (1.0 - bottom_share) * right_share,
                bottom_share * (1.0 - right_share),
                bottom_share * right_share,
            ];
            let mut sums = [0.5; 4];
            for (pixel, weight) in above.iter().chain(below).zip(weights) {
                for (sum, value) in sums.iter_mut().zip(pixel) {
                    *sum += weight * value;
                }
            }
            let at = row * width + column;
            (red[at], green[at], blue[at]) = (sums[0] as u8, sums[1] as u8, sums[2] as u8);
        }
    }
}

/// Multiplies brightness, contrast and saturation of an image `[3, H, W]` by factors, in this order, and clamps each
/// result to 0..255.
pub(crate) fn jitter(pixels: &mut [u8], [brightness, contrast, saturation]: [f32; 3]) {
    let (red, rest) = pixels.split_at_mut(pixels.len() / 3);
    let (green, blue) = rest.split_at_mut(red.len());

    let brighter = table(|value| value * brightness);
    for plane in [&mut *red, green, blue] {
        plane.iter_mut().for_each(|value| *value = brighter[usize::from(*value)]);
    }
    let total: u64 = red.iter().zip(&*green).zip(&*blue).map(|((&r, &g), &b)| u64::from(grey(r, g, b))).sum();
    let mean = total as f32 / (1000 * red.len().max(1)) as f32;
    let contrasted = table(|value| mean + (value - mean) * contrast);
    for ((r, g), b) in red.iter_mut().zip(green).zip(blue) {
        let [red, green, blue] = [&*r, g, b].map(|value| contrasted[usize::from(*value)]);
        let grey = grey(red, green, blue) as f32 / 1000.0;
        for (value, contrasted) in [(r, red), (g, green), (b, blue)] {
            *value = byte(grey + (f32::from(contrasted) - grey) * saturation);
        }
    }
}

/// A thousand times a pixel's luma (ITU-R BT.601).
fn grey(red: u8, green: u8, blue: u8) -> u32 {
    299 * u32::from(red) + 587 * u32::from(green) + 114 * u32::from(blue)
}

fn table(value: impl Fn(f32) -> f32) -> [u8; 256] {
    std::array::from_fn(|index| byte(value(index as f32)))
}

/// Rounded, and clamped to 0..255 by the cast.
fn byte(value: f32) -> u8 {
    (value + 0.5) as u8
}

/// Writes a crop of one padded channel `[H, W]`, mirrored or not, through the channel's table.
pub(crate) fn crop(
    pixels: &[u8],
    width: usize,
    transform: &Transform,
    padding: usize,
    table: &[f32; 256],
    out: &mut [f32],
) {
    let height = pixels.len() / width;
    // The part of an output row that comes from the image; the rest is border.
    let left = padding.saturating_sub(transform.column).min(width);
    let source = transform.column.saturating_sub(padding).min(width);
    let inside = width - left.max(source);

    for (y, row) in out.chunks_exact_mut(width).enumerate() {
        let source_row = (y + transform.row).checked_sub(padding).filter(|&row| row < height);
        let Some(source_row) = source_row else {
            row.fill(table[0]);
            continue;
        };
        let pixels = &pixels[source_row * width + source..][..inside];
        row[..left].fill(table[0]);
        for (value, &pixel) in row[left..].iter_mut().zip(pixels) {
            *value = table[usize::from(pixel)];
        }
        row[left + inside..].fill(table[0]);
        if transform.flip {
            row.reverse();
        }
    }
}

/// Fills a square of normalized pixels `[3, H, W]` with the mean color, which is 0. `centre` is a fraction of height
/// and width. The part of the square outside the image is ignored.
pub(crate) fn cutout(image: &mut [f32], [height, width]: [usize; 2], side: usize, centre: [f32; 2]) {
    let ends = |centre: f32, length: usize| {
        // The pixel at the square's center; if the side is even, the first one after it.
        let middle = (centre * length as f32) as usize;
        ((middle + side.div_ceil(2)).min(length), middle.saturating_sub(side / 2))
    };
    let ((bottom, top), (right, left)) = (ends(centre[0], height), ends(centre[1], width));
    for plane in image.chunks_exact_mut(height * width) {
        for row in plane.chunks_exact_mut(width).take(bottom).skip(top) {
            row[left..right].fill(0.0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NO_MAP: AffineDraw = AffineDraw { rotation: 0.0, translation: [0.0; 2], scale: 1.0, shear: 0.0 };

    /// One channel, three times.
    fn image(plane: &[u8]) -> Vec<u8> {
        plane.repeat(3)
    }

    fn warped(plane: &[u8], size: [usize; 2], draw: AffineDraw) -> Vec<u8> {
        let mut out = vec![9; 5];
        warp(&image(plane), size, &draw, &mut vec![[7.0; 4]; 3], &mut out);
        let (first, rest) = out.split_at(plane.len());
        assert_eq!(rest, first.repeat(2), "every channel alike");
        first.to_vec()
    }

    #[test]
    fn without_a_map_the_image_stays_as_it_is() {
        let plane: Vec<u8> = (0..20).map(|i| i * 12).collect();
        assert_eq!(warped(&plane, [4, 5], NO_MAP), plane);
    }

    #[test]
    fn a_quarter_turn_goes_clockwise_and_a_half_turn_reverses() {
        let turned = warped(&[1, 2, 3, 4, 5, 6, 7, 8, 9], [3, 3], AffineDraw { rotation: 90.0, ..NO_MAP });
        assert_eq!(turned, [7, 4, 1, 8, 5, 2, 9, 6, 3]);
        let turned = warped(&[10, 20, 30, 40, 50, 60], [2, 3], AffineDraw { rotation: 180.0, ..NO_MAP });
        assert_eq!(turned, [60, 50, 40, 30, 20, 10]);
    }

    #[test]
    fn a_shift_goes_right_and_down_and_interpolates() {
        let right = AffineDraw { translation: [0.25, 0.0], ..NO_MAP };
        assert_eq!(warped(&[10, 20, 30, 40], [1, 4], right), [0, 10, 20, 30]);
        let down = AffineDraw { translation: [0.0, 0.5], ..NO_MAP };
        assert_eq!(warped(&[10, 20, 30, 40], [4, 1], down), [0, 0, 10, 20]);
        let half = AffineDraw { translation: [0.125, 0.0], ..NO_MAP };
        assert_eq!(warped(&[10, 20, 30, 40], [1, 4], half), [5, 15, 25, 35], "half black, then half of each");
    }

    #[test]
    fn a_scale_zooms_about_the_middle_and_a_shear_leans() {
        let plane = [0, 0, 0, 0, 0, 0, 99, 99, 0, 0, 99, 99, 0, 0, 0, 0, 0, 0];
        let wide = AffineDraw { scale: 3.0, ..NO_MAP };
        assert_eq!(warped(&[10, 20, 40], [1, 3], wide), [17, 20, 27]);
        let dot = warped(&plane[..9], [3, 3], AffineDraw { scale: 0.5, ..NO_MAP });
        assert_eq!(dot[0], 0, "what lies outside is black");
        let leaning = warped(&[5, 6, 7, 1, 2, 3, 7, 8, 9], [3, 3], AffineDraw { shear: 45.0, ..NO_MAP });
        assert_eq!(leaning, [6, 7, 0, 1, 2, 3, 0, 7, 8], "rows above and below go opposite ways");
    }

    #[test]
    fn factors_of_one_change_no_color() {
        let mut pixels: Vec<u8> = (0..=254).collect();
        jitter(&mut pixels, [1.0; 3]);
        assert_eq!(pixels, (0..=254).collect::<Vec<u8>>());
    }

    #[test]
    fn brightness_contrast_and_saturation_do_what_their_names_say() {
        // Two pixels: red, green, blue planes.
        let original = [100, 200, 100, 200, 100, 200];
        let with = |factors| {
            let mut pixels = original;
            jitter(&mut pixels, factors);
            pixels
        };
        assert_eq!(with([1.5, 1.0, 1.0]), [150, 255, 150, 255, 150, 255]);
        assert_eq!(with([1.0, 0.5, 1.0]), [125, 175, 125, 175, 125, 175]);
        assert_eq!(with([1.0, 1.0, 0.0]), original, "grey has no saturation to lose");
        let mut red = [200, 0, 0];
        jitter(&mut red, [1.0, 1.0, 0.0]);
        assert_eq!(red, [60; 3], "0.299 of 200, rounded");
        let mut red = [200, 50, 50];
        jitter(&mut red, [1.0, 1.0, 2.0]);
        assert_eq!(red, [255, 5, 5]);
    }

    #[test]
    fn a_cutout_is_a_square_cut_off_at_the_edges() {
        let erased = |side, centre| {
            let mut image = vec![1.0; 3 * 4 * 6];
            cutout(&mut image, [4, 6], side, centre);
            let (first, rest) = image.split_at(24);
            assert_eq!(rest, first.repeat(2));
            first
                .chunks(6)
                .map(|row| row.iter().map(|v| if *v == 0.0 { '.' } else { '#' }).collect())
                .collect::<Vec<String>>()
        };
        assert_eq!(erased(2, [0.5, 0.5]), ["######", "##..##", "##..##", "######"]);
        assert_eq!(erased(3, [0.0, 0.99]), ["####..", "####..", "######", "######"]);
        assert_eq!(erased(20, [0.5, 0.5]), ["......"; 4]);
    }
}
