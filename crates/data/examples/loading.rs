//! How fast a folder of pictures becomes training batches: decoded, cropped at random, mirrored, normalized.
//!
//!     cargo run --release -p kiln-data --example loading -- PHOTOS [--size 224] [--batch 64] [--epochs 2]
//!
//! Prints a line of JSON for each epoch. `benchmarks/loading_vs_torchvision.py` compares it with a `DataLoader`.

use std::error::Error;
use std::time::Instant;

use kiln_data::{Augment, Augmentation, LoadOptions, ResizedCrop, Source, epoch_order, fill_batch, load, prefetch};

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let path = arguments.first().ok_or("say which folder")?;
    let number = |name: &str, usual: usize| -> Result<usize, Box<dyn Error>> {
        match arguments.iter().position(|argument| argument == name) {
            Some(at) => Ok(arguments.get(at + 1).ok_or("a number is missing")?.parse()?),
            None => Ok(usual),
        }
    };
    let (size, batch, epochs) = (number("--size", 224)?, number("--batch", 64)?, number("--epochs", 2)?);

    let started = Instant::now();
    let source = Source::from_path(path.as_ref())?;
    let options = LoadOptions { source, image_size: Some(size), originals: true, ..LoadOptions::default() };
    let data = load(&options, &mut |_| {})?.dataset;
    let opened = started.elapsed().as_secs_f64();

    let resized_crop = ResizedCrop { min_area: 0.08, ..ResizedCrop::default() };
    let augment = Augment { resized_crop, crop_padding: 0, ..Augment::default() };
    let indices: Vec<u32> = (0..data.train.len() as u32).collect();
    for epoch in 0..epochs as u64 {
        let augmentation = Augmentation { augment: &augment, seed: 0, epoch, partners: &indices };
        let order = epoch_order(&indices, 0, epoch);
        let (started, mut pixels) = (Instant::now(), vec![]);
        let mut batches = order.chunks(batch).peekable();
        while let Some(indices) = batches.next() {
            fill_batch(&data.train, indices, Some(&augmentation), data.mean, data.std, &mut pixels)?;
            if let Some(next) = batches.peek() {
                prefetch(&data.train, next, Some(&augmentation));
            }
        }
        let seconds = started.elapsed().as_secs_f64();
        let (images, rate) = (order.len(), order.len() as f64 / seconds);
        println!(
            "{{\"images\":{images},\"seconds\":{seconds:.3},\"images_per_second\":{rate:.1},\"opened\":{opened:.3}}}"
        );
    }
    Ok(())
}
