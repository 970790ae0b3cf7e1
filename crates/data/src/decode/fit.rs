//! From the pixels of a picture to those of a network's input: crop, resize, turn upright.

use image::{DynamicImage, RgbImage, metadata::Orientation};

use super::{Input, Interpolation, pillow, resize};
use crate::resized_crop::{CropDraw, Rectangle};

/// What is wanted of a picture.
#[derive(Clone, Copy)]
pub(crate) struct View<'a> {
    /// What evaluation sees.
    pub input: Input,
    /// The part to take instead.
    pub crop: Option<&'a CropDraw>,
}

/// An image after its orientation, brought to a network's size.
///
/// It is cropped and resized first and rotated afterwards, because rotating the whole picture would need a copy.
pub(super) fn upright(image: &DynamicImage, orientation: Orientation, view: View) -> RgbImage {
    use Orientation::{FlipHorizontal, FlipVertical, Rotate90, Rotate90FlipH, Rotate180, Rotate270, Rotate270FlipH};

    let turn = Turn {
        is_reversed: [
            matches!(orientation, Rotate180 | FlipHorizontal | Rotate270 | Rotate270FlipH),
            matches!(orientation, Rotate180 | FlipVertical | Rotate90 | Rotate270FlipH),
        ],
        is_transposed: matches!(orientation, Rotate90 | Rotate90FlipH | Rotate270 | Rotate270FlipH),
    };
    let fitted = fit([image.width(), image.height()], view, turn, |y, left, len, out| match image {
        DynamicImage::ImageRgb8(image) => {
            let start = 3 * (y as usize * image.width() as usize + left as usize);
            out.extend(&image.as_raw()[start..][..3 * len as usize]);
        }
        image if image.color().has_alpha() => {
            let row = image.crop_imm(left, y, len, 1).into_rgba8();
            out.extend(row.pixels().flat_map(|pixel| over_white([pixel[0], pixel[1], pixel[2]], pixel[3])));
        }
        image => out.append(&mut image.crop_imm(left, y, len, 1).into_rgb8().into_raw()),
    });
    let mut fitted = DynamicImage::from(fitted);
    fitted.apply_orientation(orientation);
    fitted.into_rgb8()
}

/// What an orientation does to a picture after it is fitted.
#[derive(Clone, Copy, Default)]
pub(super) struct Turn {
    /// Which axes (x, y) of the stored picture it turns around.
    is_reversed: [bool; 2],
    /// Whether its columns become rows.
    is_transposed: bool,
}

impl Turn {
    /// Where a rectangle of the picture as it is seen lies in the stored one of `[width, height]`.
    fn stored(self, seen: Rectangle, [width, height]: [u32; 2]) -> Rectangle {
        let Rectangle { mut left, mut top, width: mut w, height: mut h } = seen;
        if self.is_transposed {
            ((left, w), (top, h)) = ((top, h), (left, w));
        }
        let [x, y] = self.is_reversed;
        Rectangle {
            left: if x { width - left - w } else { left },
            top: if y { height - top - h } else { top },
            width: w,
            height: h,
        }
    }
}

/// Crops and resizes pixels of `[width, height]`. `row` appends so many RGB pixels of a row, from a column on, to its
/// buffer: `row(y, left, len, buffer)`.
pub(super) fn fit(
    [width, height]: [u32; 2],
    View { input: Input { size, preprocessing }, crop }: View,
    turn: Turn,
    mut row: impl FnMut(u32, u32, u32, &mut Vec<u8>),
) -> RgbImage {
    let (size, is_reversed) = (size as u32, turn.is_reversed);
    if let Some(crop) = crop {
        let seen = crop.rectangle(if turn.is_transposed { [height, width] } else { [width, height] });
        let interpolation = preprocessing.map_or(Interpolation::Bilinear, |way| way.interpolation);
        return pillow::crop_and_resize(turn.stored(seen, [width, height]), [size; 2], interpolation, row);
    }
    if let Some(preprocessing) = preprocessing {
        return pillow::resize_and_crop([width, height], preprocessing, size, is_reversed, row);
    }
    let side = width.min(height);
    // If the margin is odd, its smaller half comes first in the final orientation.
    let front = |rest: u32, is_reversed: bool| if is_reversed { rest.div_ceil(2) } else { rest / 2 };
    let (left, top) = (front(width - side, is_reversed[0]), front(height - side, is_reversed[1]));
    resize::resize(side, size, |y, out| row(top + y, left, side, out))
}

/// A part of planar pixels `[3, H, W]` of `[width, height]`, resized to all of their size.
pub(crate) fn crop_planar(pixels: &[u8], size: [u32; 2], crop: &CropDraw) -> Vec<u8> {
    let [width, plane] = [size[0] as usize, (size[0] * size[1]) as usize];
    let row = |y: u32, left: u32, len: u32, out: &mut Vec<u8>| {
        let start = y as usize * width + left as usize;
        out.extend((start..start + len as usize).flat_map(|at| [0, 1, 2].map(|channel| pixels[channel * plane + at])));
    };
    planar(&pillow::crop_and_resize(crop.rectangle(size), size, Interpolation::Bilinear, row))
}

/// `[H, W, 3]` to `[3, H, W]`.
pub(super) fn planar(image: &RgbImage) -> Vec<u8> {
    let pixels = image.as_raw().as_chunks::<3>().0;
    let mut planes = vec![0; 3 * pixels.len()];
    for (channel, plane) in planes.chunks_exact_mut(pixels.len().max(1)).enumerate() {
        plane.iter_mut().zip(pixels).for_each(|(value, pixel)| *value = pixel[channel]);
    }
    planes
}

/// A pixel in front of white.
pub(super) fn over_white(pixel: [u8; 3], alpha: u8) -> [u8; 3] {
    let mix = |value: u8| (u32::from(value) * u32::from(alpha) + 255 * u32::from(255 - alpha) + 127) / 255;
    if alpha == 255 { pixel } else { pixel.map(|value| mix(value) as u8) }
}
