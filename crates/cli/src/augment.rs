//! `kiln augment`: what a recipe's augmentation does to images.

use std::fs;
use std::io::Cursor;
use std::process::ExitCode;

use anyhow::{Context, Result};
use image::{ImageFormat, Rgb, RgbImage, imageops};
use kiln_data::{Affine, Augment, Augmentation, Colour, Dataset, Flip, Mix, balanced_subset, fill_batch};
use kiln_train::Recipe;
use kiln_train::run_dir::write_whole;

use crate::args::{AugmentArgs, DataArgs};
use crate::{data, recipes};

/// Pixels between two images.
const GAP: u32 = 4;
/// Pixels a side that small images are enlarged to, at least.
const SHOWN: u32 = 96;

pub fn run(args: AugmentArgs) -> Result<ExitCode> {
    let recipe = Recipe::parse(&recipes::text(&args.recipe)?, &args.overrides)?;
    let size = args.data.image_size.unwrap_or(recipe.training.image_size);
    let data_args = DataArgs { image_size: Some(size), ..args.data };
    let data = data::dataset(&data_args, recipe.training.seed)?;
    let indices = balanced_subset(&data.train.labels, args.samples.into(), recipe.training.seed);

    fs::create_dir_all(&args.out).with_context(|| format!("cannot create {}", args.out.display()))?;
    let mut strips = vec![];
    for (row, (name, augment)) in rows(&recipe.augment, args.every, size).into_iter().enumerate() {
        let strip = strip(&images(&data, &indices, &augment, recipe.training.seed));
        let path = args.out.join(format!("{row}-{name}.png"));
        write_whole(&path, &png(&strip)?)?;
        println!("row {row:>2}  {name:<12}  {}", path.display());
        strips.push(strip);
    }
    let path = args.out.join("sheet.png");
    write_whole(&path, &png(&stacked(&strips))?)?;
    println!("all rows, {} images of {} each: {}", indices.len(), data.name, path.display());
    Ok(ExitCode::SUCCESS)
}

/// Names and settings of the rows: images as they are, each augmentation that is on by itself and for
/// every image, and all together as they are trained on. With `every`, those that are off come too, with
/// a usual strength for images of `size` pixels.
pub fn rows(recipe: &Augment, every: bool, size: usize) -> Vec<(&'static str, Augment)> {
    let none = Augment { crop_padding: 0, flip: Flip::None, ..Augment::default() };
    let or = |value: f64, usual: f64| if every && value == 0.0 { usual } else { value };
    let pixels = |value: usize, usual: usize| if every && value == 0 { usual } else { value };
    let mut rows = vec![("original", none.clone())];

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
    let Colour { brightness, contrast, saturation } = recipe.colour;
    let colour =
        Colour { brightness: or(brightness, 0.3), contrast: or(contrast, 0.3), saturation: or(saturation, 0.3) };
    if colour != Colour::default() {
        rows.push(("colour", Augment { colour, ..none.clone() }));
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
pub fn images(data: &Dataset, indices: &[u32], augment: &Augment, seed: u64) -> Vec<RgbImage> {
    let set = &data.train;
    let partners: Vec<u32> = (0..set.len() as u32).collect();
    let augmentation = Augmentation { augment, seed, epoch: 0, partners: &partners };
    let mut pixels = vec![];
    fill_batch(set, indices, Some(&augmentation), data.mean, data.std, &mut pixels);

    let (height, width) = (set.height as u32, set.width as u32);
    let image = |image: &[f32]| {
        RgbImage::from_fn(width, height, |x, y| {
            let value = |channel: usize| image[channel * set.height * set.width + (y * width + x) as usize];
            // Casts cut to 0..255.
            Rgb([0, 1, 2].map(|c| ((value(c) * data.std[c] + data.mean[c]) * 255.0 + 0.5) as u8))
        })
    };
    pixels.chunks_exact(set.image_len()).map(image).collect()
}

/// Images of one size side by side.
fn strip(images: &[RgbImage]) -> RgbImage {
    let (width, height) = images.first().map_or((1, 1), RgbImage::dimensions);
    let zoom = SHOWN.div_ceil(height.max(width));
    let (shown_height, shown_width) = (height * zoom, width * zoom);
    let mut strip = blank(images.len() as u32 * (shown_width + GAP) + GAP, shown_height);
    for (column, image) in images.iter().enumerate() {
        let image = imageops::resize(image, shown_width, shown_height, imageops::FilterType::Nearest);
        let left = GAP + column as u32 * (shown_width + GAP);
        imageops::replace(&mut strip, &image, left.into(), 0);
    }
    strip
}

/// Strips of one size, one above the other.
fn stacked(strips: &[RgbImage]) -> RgbImage {
    let (width, height) = strips[0].dimensions();
    let mut sheet = blank(width, strips.len() as u32 * (height + GAP) + GAP);
    for (row, strip) in strips.iter().enumerate() {
        imageops::replace(&mut sheet, strip, 0, (GAP + row as u32 * (height + GAP)).into());
    }
    sheet
}

fn blank(width: u32, height: u32) -> RgbImage {
    RgbImage::from_pixel(width, height, Rgb([255; 3]))
}

fn png(image: &RgbImage) -> Result<Vec<u8>> {
    let mut bytes = Cursor::new(vec![]);
    image.write_to(&mut bytes, ImageFormat::Png)?;
    Ok(bytes.into_inner())
}
