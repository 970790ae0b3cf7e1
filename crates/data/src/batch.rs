//! The order of an epoch, and batches of normalized images with their targets.

#[cfg(not(target_family = "wasm"))]
use rayon::prelude::*;

use crate::{
    augment::{Augment, MixDraw},
    error::DataError,
    images::{ImageSet, Images},
    pixels,
    random::KeyedRng,
};

/// The order in which an epoch visits the images at `indices`: a Fisher–Yates shuffle from the stream
/// `order...` of (seed, epoch, 0).
pub fn epoch_order(indices: &[u32], seed: u64, epoch: u64) -> Vec<u32> {
    let mut order = indices.to_vec();
    KeyedRng::new(b"order...", seed, epoch, 0).shuffle(&mut order);
    order
}

/// The augmentation of one epoch.
#[derive(Clone, Copy, Debug)]
pub struct Augmentation<'a> {
    /// The settings.
    pub augment: &'a Augment,
    /// Seed of the run.
    pub seed: u64,
    /// The epoch, from 0.
    pub epoch: u64,
    /// Images to mix with, usually all training images; if empty, nothing is mixed.
    pub partners: &'a [u32],
}

/// The target that a network is trained on for an image.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Target {
    /// Class of the image itself.
    pub label: u32,
    /// Class of the image it is mixed with; its own class if it is not mixed.
    pub other: u32,
    /// Weight of `label`, 0 to 1.
    pub share: f32,
}

impl Target {
    /// The class with the greater weight.
    pub fn main(&self) -> u32 {
        if self.share < 0.5 { self.other } else { self.label }
    }
}

impl Augmentation<'_> {
    fn mix(&self, set: &ImageSet, index: u32) -> Option<MixDraw> {
        self.augment.draw_mix(self.seed, self.epoch, index, self.partners, [set.height, set.width])
    }
}

/// Starts to read the images that [`fill_batch`] will be asked for next, in the background; those of an earlier call that it
/// was not asked for are forgotten. A set in memory needs none of this.
///
/// # Panics
///
/// If an index is not below `set.len()`.
pub fn prefetch(set: &ImageSet, indices: &[u32], augmentation: Option<&Augmentation>) {
    let Images::Streamed(stream) = &set.images else { return };
    let with_partner = |&index: &u32| {
        let partner = augmentation.and_then(|augmentation| augmentation.mix(set, index)).map(|mix| mix.partner);
        [Some(index), partner]
    };
    let crop = |index: u32| {
        augmentation
            .and_then(|&Augmentation { augment, seed, epoch, .. }| augment.resized_crop.draw(seed, epoch, index))
    };
    stream.prefetch(indices.iter().flat_map(with_partner).flatten().map(|index| (index, crop(index))));
}

/// The targets of the images at `indices`, as [`fill_batch`] mixes them.
///
/// # Panics
///
/// If an index is not below `set.len()`.
pub fn targets(set: &ImageSet, indices: &[u32], augmentation: Option<&Augmentation>) -> Vec<Target> {
    let target = |&index: &u32| {
        let label = set.labels[index as usize];
        match augmentation.and_then(|augmentation| augmentation.mix(set, index)) {
            Some(MixDraw { partner, share, .. }) => Target { label, other: set.labels[partner as usize], share },
            None => Target { label, other: label, share: 1.0 },
        }
    };
    indices.iter().map(target).collect()
}

/// Overwrites `out` with the images at `indices` as `[indices.len(), 3, H, W]`, each pixel
/// `(value / 255 - mean) / std`.
///
/// Without `augmentation`, images are only normalized. The result for an image depends on (seed, epoch, its
/// index in `set`), not on its batch. The border of a crop is black, that is 0 before normalization, like that
/// of torchvision's `RandomCrop`.
///
/// # Errors
///
/// [`DataError`] if a source cannot read an image any more.
///
/// # Panics
///
/// If an index is not below `set.len()`.
pub fn fill_batch(
    set: &ImageSet,
    indices: &[u32],
    augmentation: Option<&Augmentation>,
    mean: [f32; 3],
    std: [f32; 3],
    out: &mut Vec<f32>,
) -> Result<(), DataError> {
    let tables = tables(mean, std);
    let fill = |buffers: &mut Buffers, (image, &index): (&mut [f32], &u32)| {
        let Some(augmentation) = augmentation else { return fill_plain(set, index, &tables, image) };
        fill_image(set, index, augmentation, &tables, buffers, image)?;
        match augmentation.mix(set, index) {
            Some(mix) => blend(set, &mix, augmentation, &tables, buffers, image),
            None => Ok(()),
        }
    };
    let image_len = set.image_len().max(1);
    out.resize(indices.len() * set.image_len(), 0.0);
    #[cfg(not(target_family = "wasm"))]
    return out.par_chunks_exact_mut(image_len).zip(indices).try_for_each_init(Buffers::default, fill);
    #[cfg(target_family = "wasm")]
    {
        let mut buffers = Buffers::default();
        out.chunks_exact_mut(image_len).zip(indices).try_for_each(|image| fill(&mut buffers, image))
    }
}

/// One image `[3, H, W]` as [`fill_batch`] gives it: `(value / 255 - mean) / std`.
pub fn normalize(pixels: &[u8], mean: [f32; 3], std: [f32; 3]) -> Vec<f32> {
    let tables = tables(mean, std);
    let planes = pixels.chunks_exact((pixels.len() / 3).max(1)).zip(&tables);
    planes.flat_map(|(plane, table)| plane.iter().map(|&pixel| table[usize::from(pixel)])).collect()
}

/// Normalized values of each channel's 256.
type Tables = [[f32; 256]; 3];

/// Every pixel is one of 256 values, which are normalized once.
fn tables(mean: [f32; 3], std: [f32; 3]) -> Tables {
    std::array::from_fn(|channel| std::array::from_fn(|value| (value as f32 / 255.0 - mean[channel]) / std[channel]))
}

/// Scratch buffers, reused from image to image.
#[derive(Default)]
struct Buffers {
    pixels: Vec<u8>,
    bordered: pixels::Bordered,
    partner: Vec<f32>,
}

fn fill_plain(set: &ImageSet, index: u32, tables: &Tables, image: &mut [f32]) -> Result<(), DataError> {
    let plane = set.height * set.width;
    let original = set.image(index as usize)?;
    let planes = image.chunks_exact_mut(plane).zip(original.chunks_exact(plane));
    for ((out, pixels), table) in planes.zip(tables) {
        for (value, &pixel) in out.iter_mut().zip(pixels) {
            *value = table[usize::from(pixel)];
        }
    }
    Ok(())
}

/// Overwrites `image` with one image, augmented but not mixed.
fn fill_image(
    set: &ImageSet,
    index: u32,
    &Augmentation { augment, seed, epoch, .. }: &Augmentation,
    tables: &Tables,
    buffers: &mut Buffers,
    image: &mut [f32],
) -> Result<(), DataError> {
    let transform = augment.draw(seed, epoch, index);
    let size = [set.height, set.width];
    let Buffers { pixels: changed, bordered, .. } = buffers;
    changed.clear();
    let crop = augment.resized_crop.draw(seed, epoch, index);
    let original = &*set.view(index as usize, crop.as_ref())?;
    if let Some(draw) = &transform.affine {
        pixels::warp(original, size, draw, bordered, changed);
    }
    if let Some(factors) = transform.color {
        if changed.is_empty() {
            changed.extend_from_slice(original);
        }
        pixels::jitter(changed, factors);
    }
    let source = if changed.is_empty() { original } else { changed };
    let plane = set.height * set.width;
    for ((out, pixels), table) in image.chunks_exact_mut(plane).zip(source.chunks_exact(plane)).zip(tables) {
        pixels::crop(pixels, set.width, &transform, augment.crop_padding, table, out);
    }
    if let Some(centre) = transform.cutout {
        pixels::cutout(image, size, augment.cutout, centre);
    }
    Ok(())
}

/// Mixes `image` with its partner, which is augmented as in the same epoch.
fn blend(
    set: &ImageSet,
    mix: &MixDraw,
    augmentation: &Augmentation,
    tables: &Tables,
    buffers: &mut Buffers,
    image: &mut [f32],
) -> Result<(), DataError> {
    let mut partner = std::mem::take(&mut buffers.partner);
    partner.resize(image.len(), 0.0);
    fill_image(set, mix.partner, augmentation, tables, buffers, &mut partner)?;
    match mix.patch {
        None => {
            for (value, other) in image.iter_mut().zip(&partner) {
                *value = mix.share * *value + (1.0 - mix.share) * other;
            }
        }
        Some(patch) => {
            let rows = image.chunks_exact_mut(set.width).zip(partner.chunks_exact(set.width)).enumerate();
            for (row, (out, from)) in rows {
                if (patch.top..patch.bottom).contains(&(row % set.height)) {
                    out[patch.left..patch.right].copy_from_slice(&from[patch.left..patch.right]);
                }
            }
        }
    }
    buffers.partner = partner;
    Ok(())
}

#[cfg(test)]
mod tests {
    use sha2::{Digest, Sha256};

    use super::*;
    use crate::{Affine, Color, Flip, Mix, Transform, digest::hex, synthetic};

    const MEAN: [f32; 3] = [0.5, 0.25, 0.0];
    const STD: [f32; 3] = [0.5, 0.25, 1.0];

    /// Three images of 4 x 5 in which each pixel differs from its neighbors.
    fn small() -> ImageSet {
        let images = (0..3 * 3 * 4 * 5).map(|i| (i * 37 % 255 + 1) as u8).collect();
        ImageSet { height: 4, width: 5, images: Images::InMemory(images), labels: vec![0, 1, 2] }
    }

    fn batch(set: &ImageSet, indices: &[u32], augment: Option<(&Augment, u64, u64)>) -> Vec<f32> {
        // Stale and too long: all of it must be overwritten.
        let mut out = vec![f32::NAN; 10_000];
        let partners: Vec<u32> = (0..set.len() as u32).collect();
        let augmentation =
            augment.map(|(augment, seed, epoch)| Augmentation { augment, seed, epoch, partners: &partners });
        fill_batch(set, indices, augmentation.as_ref(), MEAN, STD, &mut out).unwrap();
        out
    }

    /// A simple implementation: pad, crop, mirror and normalize, one pixel at a time.
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
                            set.image(index as usize).unwrap()[(channel * set.height + row) * set.width + column]
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
        let as_is = Transform::default();
        let expected = [reference(&set, 2, 0, as_is), reference(&set, 0, 0, as_is)].concat();
        assert_eq!(batch(&set, &[2, 0], None), expected);
        assert!(batch(&set, &[], None).is_empty());
    }

    #[test]
    fn every_crop_and_flip_agrees_with_the_one_by_the_book() {
        let set = small();
        // One border is wider than the image, so a crop may contain nothing else.
        for padding in [0, 1, 3, 9] {
            let augment = Augment { crop_padding: padding, ..Augment::default() };
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

    /// Every augmentation, often.
    fn everything() -> Augment {
        Augment {
            cutout: 8,
            affine: Affine { chance: 0.5, rotation: 20.0, translation: 0.1, scale: 0.2, shear: 10.0 },
            color: Color { brightness: 0.3, contrast: 0.3, saturation: 0.3 },
            mix: Mix { mixup_chance: 0.4, mixup_alpha: 0.4, cutmix_chance: 0.4, cutmix_alpha: 1.0 },
            ..Augment::default()
        }
    }

    #[test]
    fn each_augmentation_changes_pixels_and_all_stay_finite() {
        let set = synthetic(40, 0, 0).train;
        let all: Vec<u32> = (0..40).collect();
        let as_is = batch(&set, &all, None);
        let none = Augment { crop_padding: 0, flip: Flip::None, ..Augment::default() };
        assert_eq!(batch(&set, &all, Some((&none, 1, 0))), as_is);
        let alone: [fn(&mut Augment); 6] = [
            |a| a.cutout = 8,
            |a| a.affine = Affine { chance: 1.0, rotation: 20.0, ..Affine::default() },
            |a| a.color.contrast = 0.5,
            |a| a.mix.mixup_chance = 1.0,
            |a| a.mix.cutmix_chance = 1.0,
            |a| *a = everything(),
        ];
        let mut seen = vec![as_is];
        for change in alone {
            let mut augment = none.clone();
            change(&mut augment);
            let batch = batch(&set, &all, Some((&augment, 1, 0)));
            assert!(batch.iter().all(|value| value.is_finite()));
            assert!(!seen.contains(&batch), "{augment:?}");
            seen.push(batch);
        }
    }

    #[test]
    fn mixed_images_and_targets_are_shared_in_the_same_proportion() {
        let set = synthetic(30, 0, 0).train;
        let all: Vec<u32> = (0..30).collect();
        // The partner is augmented as in the same epoch, mirrored or not.
        let plain = Augment { crop_padding: 0, flip: Flip::Alternating, ..Augment::default() };
        for (mixup, cutmix) in [(1.0, 0.0), (0.0, 1.0)] {
            let mut augment = plain.clone();
            (augment.mix.mixup_chance, augment.mix.cutmix_chance) = (mixup, cutmix);
            let augmentation = Augmentation { augment: &augment, seed: 1, epoch: 0, partners: &[7] };
            let mut mixed = vec![];
            fill_batch(&set, &all, Some(&augmentation), MEAN, STD, &mut mixed).unwrap();
            let own = batch(&set, &all, Some((&plain, 1, 0)));
            let partner = batch(&set, &[7], Some((&plain, 1, 0)));
            let targets = targets(&set, &all, Some(&augmentation));
            let len = set.image_len();
            for (index, target) in targets.into_iter().enumerate() {
                assert_eq!((target.label, target.other), (set.labels[index], set.labels[7]));
                let (mixed, own) = (&mixed[index * len..][..len], &own[index * len..][..len]);
                if mixup > 0.0 {
                    for ((mixed, own), partner) in mixed.iter().zip(own).zip(&partner) {
                        assert!((mixed - (target.share * own + (1.0 - target.share) * partner)).abs() < 1e-5);
                    }
                } else {
                    let outside = mixed.iter().zip(own).filter(|(mixed, own)| mixed == own).count();
                    let inside = mixed.iter().zip(&partner).filter(|(mixed, partner)| mixed == partner).count();
                    assert!(outside as f32 >= target.share * len as f32, "{index}");
                    assert!(inside as f32 >= (1.0 - target.share) * len as f32 * 0.999, "{index}");
                }
            }
        }
        let unmixed = targets(&set, &[2], None);
        assert_eq!(unmixed, [Target { label: 2, other: 2, share: 1.0 }]);
        let main = |share| Target { label: 2, other: 7, share }.main();
        assert_eq!([0.0, 0.4, 0.6, 1.0].map(main), [7, 7, 2, 2]);
    }

    #[test]
    fn an_image_is_the_same_whatever_batch_it_is_in() {
        let set = synthetic(20, 0, 0).train;
        let augment = everything();
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

    /// Resumed runs, and runs repeated on another machine, rely on these values.
    #[test]
    fn a_seed_gives_the_same_draws_order_and_batch_for_ever() {
        let augment = Augment::default();
        let draws = [(0, 0), (0, 1), (1, 0)].map(|(epoch, index)| {
            let Transform { row, column, flip, .. } = augment.draw(42, epoch, index);
            (row, column, flip)
        });
        assert_eq!(draws, [(5, 6, false), (1, 2, true), (8, 7, true)]);
        assert_eq!(epoch_order(&[0, 1, 2, 3, 4, 5, 6, 7], 42, 0), [3, 5, 2, 0, 1, 4, 6, 7]);

        let set = synthetic(8, 0, 0).train;
        let out = batch(&set, &[3, 0, 7], Some((&augment, 42, 5)));
        let bytes: Vec<u8> = out.iter().flat_map(|value| value.to_le_bytes()).collect();
        let golden = "ad6b10c51bc701a129c6a37adfbff536c60241d2cfe3ee5ad1e8cc2ad3ba3621";
        assert_eq!(hex(&Sha256::digest(bytes)), golden);

        let all: Vec<u32> = (0..8).collect();
        let out = batch(&set, &all, Some((&everything(), 42, 5)));
        let bytes: Vec<u8> = out.iter().flat_map(|value| value.to_le_bytes()).collect();
        let golden = "7f87db1b9308fe85f733d2abf08fa0ac4edff58d9a98836dd240a931570a6ba9";
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
