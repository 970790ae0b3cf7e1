//! Trains on a folder of your own pictures, saves the network and classifies a picture with it.
//!
//!     cargo run --release --example train_folder -- PHOTOS PICTURE
//!
//! PHOTOS holds `train/<class>/*.jpg` and, if you have them, `test/<class>/*.jpg`.

use kiln::{Predictor, Recipe, Run, RunEvent, RunOptions};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let [photos, picture] = std::env::args().skip(1).collect::<Vec<_>>().try_into().map_err(|_| "PHOTOS PICTURE")?;
    let recipe = Recipe::named("image-folder")?;
    let data = recipe.open(&photos)?;
    let mut run = Run::start(recipe, &data, RunOptions::default())?;
    while let Some(event) = run.next()? {
        if let RunEvent::Epoch { metrics, .. } = event {
            println!("epoch {}: loss {:.3}, {:.0} s", metrics.epoch, metrics.train_loss, metrics.seconds);
        }
    }
    let mut predictor = Predictor::open(run.folder().bundle())?;
    for (class, probability) in predictor.classify_file(&picture)?.top(3) {
        println!("{:>5.1} % {}", 100.0 * probability, predictor.metadata().classes[class]);
    }
    Ok(())
}
