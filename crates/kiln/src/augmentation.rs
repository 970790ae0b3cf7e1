//! Pictures of what a recipe's augmentation does to images.

use image::{Rgb, RgbImage};
use kiln_data::{Affine, Augment, Augmentation, Color, DataError, Dataset, Flip, Mix, ResizedCrop, fill_batch};

/// Names and settings of the rows: images as they are, each augmentation that is on alone and for
/// every image, and all together as they are trained on. With `every`, those that are off come too, with
/// a usual strength for images of `size` pixels.
pub fn augmentation_rows(recipe: &Augment, every: bool, size: usize) -> Vec<(&'static str, Augment)> {
    let none = Augment { crop_padding: 0, flip: Flip::None, ..Augment::default() };
    let or = |value: f64, usual: f64| if every && value == 0.0 { usual } else { value };
    let pixels = |value: usize, usual: usize| if every && value == 0 { usual } else { value };
    let mut rows = vec![("original", none.clone())];

    let min_area = if every && !recipe.resized_crop.is_on() { 0.25 } else { recipe.resized_crop.min_area };
    let resized_crop = ResizedCrop { min_area, ..recipe.resized_crop };
    if resized_crop.is_on() {
        rows.push(("resized crop", Augment { resized_crop, ..none.clone() }));
    }
    let crop_padding = pixels(recipe.crop_padding, size.div_ceil(8));
    if crop_padding > 0 {
        rows.push(("crop", Augment { crop_padding, ..none.clone() }));
    }
    if every || recipe.flip != Flip::None {
        rows.push(("flip", Augment { flip: Flip::Random, flip_chance: 1.0, ..none.clone() }));
    }
    if every || recipe.affine.chance > 0.0 {
        let Affine { rotation, translation, scale, shear, .. } = recipe.affine;
        let [rotation, shear] = [or(rotation, 15.0), or(shear, 10.0)];
        let [translation, scale] = [or(translation, 0.1), or(scale, 0.15)];
        let affine = Affine { chance: 1.0, rotation, translation, scale, shear };
        rows.push(("affine", Augment { affine, ..none.clone() }));
    }
    let Color { brightness, contrast, saturation } = recipe.color;
    let color = Color { brightness: or(brightness, 0.3), contrast: or(contrast, 0.3), saturation: or(saturation, 0.3) };
    if color != Color::default() {
        rows.push(("color", Augment { color, ..none.clone() }));
    }
    let cutout = pixels(recipe.cutout, size.div_ceil(4));
    if cutout > 0 {
        rows.push(("cutout", Augment { cutout, ..none.clone() }));
    }
    if every || recipe.mix.mixup_chance > 0.0 {
        let mix = Mix { mixup_chance: 1.0, cutmix_chance: 0.0, ..recipe.mix.clone() };
        rows.push(("mixup", Augment { mix, ..none.clone() }));
    }
    if every || recipe.mix.cutmix_chance > 0.0 {
        let mix = Mix { mixup_chance: 0.0, cutmix_chance: 1.0, ..recipe.mix.clone() };
        rows.push(("cutmix", Augment { mix, ..none }));
    }
    rows.push(("all", recipe.clone()));
    rows
}

/// Training images as the network gets them in the first epoch.
///
/// # Errors
///
/// If an image cannot be read any more.
pub fn augmented_images(
    data: &Dataset,
    indices: &[u32],
    augment: &Augment,
    seed: u64,
) -> Result<Vec<RgbImage>, DataError> {
    let set = &data.train;
    let partners: Vec<u32> = (0..set.len() as u32).collect();
    let augmentation = Augmentation { augment, seed, epoch: 0, partners: &partners };
    let mut pixels = vec![];
    fill_batch(set, indices, Some(&augmentation), data.mean, data.std, &mut pixels)?;

    let (height, width) = (set.height as u32, set.width as u32);
    let image = |image: &[f32]| {
        RgbImage::from_fn(width, height, |x, y| {
            let value = |channel: usize| image[channel * set.height * set.width + (y * width + x) as usize];
            // Casts cut to 0..255.
            Rgb([0, 1, 2].map(|c| ((value(c) * data.std[c] + data.mean[c]) * 255.0 + 0.5) as u8))
        })
    };
    Ok(pixels.chunks_exact(set.image_len()).map(image).collect())
}
