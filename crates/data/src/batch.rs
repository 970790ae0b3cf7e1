//! The order of an epoch, and batches of normalised images.

use crate::{
    augment::{Augment, Transform},
    dataset::ImageSet,
    random::KeyedRng,
};

/// The order in which an epoch visits the images at `indices`: a Fisher–Yates shuffle from the stream
/// `order...` of (seed, epoch, 0).
pub fn epoch_order(indices: &[u32], seed: u64, epoch: u64) -> Vec<u32> {
    let mut order = indices.to_vec();
    KeyedRng::new(b"order...", seed, epoch, 0).shuffle(&mut order);
    order
}

/// Overwrites `out` with the images at `indices` as `[indices.len(), 3, H, W]`, each pixel
/// `(value / 255 - mean) / std`.
///
/// `augment` is the settings with (seed, epoch), or `None` for images as they are. What becomes of an
/// image depends on (seed, epoch, its index in `set`), not on the batch it is in. The border of a crop
/// is black, that is 0 before normalisation, as torchvision's `RandomCrop` makes it.
///
/// # Panics
///
/// If an index is not below `set.len()`.
pub fn fill_batch(
    set: &ImageSet,
    indices: &[u32],
    augment: Option<(&Augment, u64, u64)>,
    mean: [f32; 3],
    std: [f32; 3],
    out: &mut Vec<f32>,
) {
    // Every pixel is one of 256 values: normalise those once.
    let tables: [[f32; 256]; 3] = std::array::from_fn(|channel| {
        std::array::from_fn(|value| (value as f32 / 255.0 - mean[channel]) / std[channel])
    });
    out.resize(indices.len() * set.image_len(), 0.0);
    for (image, &index) in out.chunks_exact_mut(set.image_len().max(1)).zip(indices) {
        let (transform, padding) = match augment {
            Some((augment, seed, epoch)) => (augment.draw(seed, epoch, index), augment.crop_padding),
            None => (Transform { row: 0, column: 0, flip: false }, 0),
        };
        let pixels = set.image(index as usize);
        let planes = set.height * set.width;
        for (channel, table) in tables.iter().enumerate() {
            let plane = channel * planes..(channel + 1) * planes;
            let (pixels, image) = (&pixels[plane.clone()], &mut image[plane]);
            crop_plane(pixels, set.width, transform, padding, table, image);
        }
    }
}

/// Writes the crop of one channel `[H, W]` out of its padded form, through the channel's table.
fn crop_plane(pixels: &[u8], width: usize, transform: Transform, padding: usize, table: &[f32; 256], out: &mut [f32]) {
    let height = pixels.len() / width;
    // Part of an output row that comes from the image; the rest is border.
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

#[cfg(test)]
mod tests {
    use sha2::{Digest, Sha256};

    use super::*;
    use crate::{Flip, dataset::hex, synthetic};

    const MEAN: [f32; 3] = [0.5, 0.25, 0.0];
    const STD: [f32; 3] = [0.5, 0.25, 1.0];

    /// Three images of 4 x 5, each pixel different from its neighbours.
    fn small() -> ImageSet {
        let images = (0..3 * 3 * 4 * 5).map(|i| (i * 37 % 255 + 1) as u8).collect();
        ImageSet { height: 4, width: 5, images, labels: vec![0, 1, 2] }
    }

    fn batch(set: &ImageSet, indices: &[u32], augment: Option<(&Augment, u64, u64)>) -> Vec<f32> {
        // Stale, and too long: all of it has to be overwritten.
        let mut out = vec![f32::NAN; 10_000];
        fill_batch(set, indices, augment, MEAN, STD, &mut out);
        out
    }

    /// The same by the book: pad the image, crop, mirror, normalise, one pixel after the other.
    fn reference(set: &ImageSet, index: u32, padding: usize, transform: Transform) -> Vec<f32> {
        let mut out = Vec::new();
        for channel in 0..3 {
            for y in 0..set.height {
                for x in 0..set.width {
                    let x = if transform.flip { set.width - 1 - x } else { x };
                    let row = (y + transform.row).checked_sub(padding).filter(|&v| v < set.height);
                    let column = (x + transform.column).checked_sub(padding).filter(|&v| v < set.width);
                    let value = match (row, column) {
                        (Some(row), Some(column)) => {
                            set.image(index as usize)[(channel * set.height + row) * set.width + column]
                        }
                        _ => 0,
                    };
                    out.push((f32::from(value) / 255.0 - MEAN[channel]) / STD[channel]);
                }
            }
        }
        out
    }

    #[test]
    fn without_augmentation_pixels_are_normalised_and_nothing_else() {
        let set = small();
        let as_is = Transform { row: 0, column: 0, flip: false };
        let expected = [reference(&set, 2, 0, as_is), reference(&set, 0, 0, as_is)].concat();
        assert_eq!(batch(&set, &[2, 0], None), expected);
        assert!(batch(&set, &[], None).is_empty());
    }

    #[test]
    fn every_crop_and_flip_agrees_with_the_one_by_the_book() {
        let set = small();
        // Also with a border wider than the image, where a crop may hold nothing but border.
        for padding in [0, 1, 3, 9] {
            let augment = Augment { crop_padding: padding, flip: Flip::Random };
            for epoch in 0..60 {
                let transform = augment.draw(1, epoch, 1);
                assert_eq!(
                    batch(&set, &[1], Some((&augment, 1, epoch))),
                    reference(&set, 1, padding, transform),
                    "{transform:?}"
                );
            }
        }
    }

    #[test]
    fn an_image_is_the_same_whatever_batch_it_is_in() {
        let set = synthetic(20, 0, 0).train;
        let augment = Augment::default();
        let all: Vec<u32> = (0..20).collect();
        let together = batch(&set, &all, Some((&augment, 4, 2)));
        let backwards: Vec<u32> = all.iter().rev().copied().collect();
        let reversed = batch(&set, &backwards, Some((&augment, 4, 2)));
        for index in all {
            let alone = batch(&set, &[index], Some((&augment, 4, 2)));
            let at = |position: usize| position * set.image_len()..(position + 1) * set.image_len();
            assert_eq!(alone, together[at(index as usize)]);
            assert_eq!(alone, reversed[at(19 - index as usize)]);
        }
    }

    /// Runs that are resumed, or repeated on another machine, rest on these not changing.
    #[test]
    fn a_seed_gives_the_same_draws_order_and_batch_for_ever() {
        let augment = Augment::default();
        let draws = [(0, 0), (0, 1), (1, 0)].map(|(epoch, index)| {
            let Transform { row, column, flip } = augment.draw(42, epoch, index);
            (row, column, flip)
        });
        assert_eq!(draws, [(5, 6, false), (1, 2, true), (8, 7, true)]);
        assert_eq!(epoch_order(&[0, 1, 2, 3, 4, 5, 6, 7], 42, 0), [3, 5, 2, 0, 1, 4, 6, 7]);

        let set = synthetic(8, 0, 0).train;
        let out = batch(&set, &[3, 0, 7], Some((&augment, 42, 5)));
        let bytes: Vec<u8> = out.iter().flat_map(|value| value.to_le_bytes()).collect();
        let golden = "ad6b10c51bc701a129c6a37adfbff536c60241d2cfe3ee5ad1e8cc2ad3ba3621";
        assert_eq!(hex(&Sha256::digest(bytes)), golden);
    }

    #[test]
    fn an_epoch_visits_every_image_once_in_an_order_of_its_own() {
        let indices: Vec<u32> = (100..200).collect();
        let (first, second) = (epoch_order(&indices, 3, 0), epoch_order(&indices, 3, 1));
        assert_ne!(first, second);
        assert_ne!(first, epoch_order(&indices, 4, 0));
        assert_eq!(first, epoch_order(&indices, 3, 0));
        for mut order in [first, second] {
            order.sort_unstable();
            assert_eq!(order, indices);
        }
    }
}
