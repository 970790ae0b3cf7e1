//! Pictures from anywhere: a dataset is bytes and labels. For more than memory holds, implement `kiln::data::ImageSource`.
//!
//!     cargo run --release --example custom_dataset

use kiln::data::{LoadReport, channel_statistics};
use kiln::{Dataset, ImageSet, Recipe, Run, RunEvent, RunOptions};

const SIZE: usize = 16;

/// Stripes of a random phase, upright (class 0) or level (class 1), as planar RGB `[3, SIZE, SIZE]`.
fn stripes(class: u32, phase: usize) -> Vec<u8> {
    let at = |pixel: usize| if class == 0 { pixel % SIZE } else { pixel / SIZE };
    (0..3 * SIZE * SIZE).map(|value| if (at(value % (SIZE * SIZE)) + phase) % 8 < 4 { 220 } else { 40 }).collect()
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut train = ImageSet::empty(SIZE, SIZE);
    for index in 0..400 {
        let label = index % 2;
        train.push(&stripes(label, index as usize * 7 % 8), label);
    }
    let (mean, std) = channel_statistics(&train)?;
    let classes = ["upright".to_owned(), "level".to_owned()].to_vec();
    let report = LoadReport::default();
    let name = "stripes".to_owned();
    let data = Dataset { name, classes, train, validation: None, test: None, mean, std, preprocessing: None, report };

    let mut recipe = Recipe::named("quick")?;
    recipe.training.image_size = SIZE;
    recipe.training.epochs = 3;
    recipe.training.batch_size = 32;
    let folder = std::env::temp_dir().join(format!("kiln-stripes-{}", std::process::id()));
    let options = RunOptions { folder: Some(folder.clone()), ..RunOptions::default() };
    let mut run = Run::start(recipe, &data, options)?;
    while let Some(event) = run.next()? {
        if let RunEvent::Epoch { metrics, .. } = event {
            println!("epoch {}: accuracy {:.1} %", metrics.epoch, 100.0 * metrics.train_accuracy);
        }
    }
    println!("saved {}", run.folder().bundle().display());
    drop(run);
    std::fs::remove_dir_all(folder)?;
    Ok(())
}
