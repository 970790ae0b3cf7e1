//! `kiln augment`: what a recipe's augmentation does to images.

use std::fs;
use std::io::Cursor;
use std::process::ExitCode;

use anyhow::{Context, Result};
use image::{ImageFormat, Rgb, RgbImage, imageops};
use kiln::{augmentation_rows, augmented_images};
use kiln_data::balanced_subset;
use kiln_train::Recipe;
use kiln_train::run_dir::write_whole;

use crate::args::AugmentArgs;
use crate::{data, recipes};

/// Pixels between two images.
const GAP: u32 = 4;
/// Pixels a side that small images are enlarged to, at least.
const SHOWN: u32 = 96;

pub fn run(args: AugmentArgs) -> Result<ExitCode> {
    let recipe = Recipe::parse(&recipes::text(&args.recipe)?, &args.overrides)?;
    // With `every` there is a row of crops of the originals.
    let mut wanted = recipe.clone();
    if args.every && !wanted.augment.resized_crop.is_on() {
        wanted.augment.resized_crop.min_area = 0.25;
    }
    let data = data::for_training(&args.data, &mut wanted, None)?;
    let size = wanted.training.image_size;
    let indices = balanced_subset(&data.train.labels, args.samples.into(), recipe.training.seed);

    fs::create_dir_all(&args.out).with_context(|| format!("cannot create {}", args.out.display()))?;
    let mut strips = vec![];
    for (row, (name, augment)) in augmentation_rows(&recipe.augment, args.every, size).into_iter().enumerate() {
        let strip = strip(&augmented_images(&data, &indices, &augment, recipe.training.seed)?);
        let path = args.out.join(format!("{row}-{}.png", name.replace(' ', "-")));
        write_whole(&path, &png(&strip)?)?;
        println!("row {row:>2}  {name:<12}  {}", path.display());
        strips.push(strip);
    }
    let path = args.out.join("sheet.png");
    write_whole(&path, &png(&stacked(&strips))?)?;
    println!("all rows, {} images of {} each: {}", indices.len(), data.name, path.display());
    Ok(ExitCode::SUCCESS)
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
