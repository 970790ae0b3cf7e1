//! Starts from trained weights on pictures of other classes: only the head starts anew.
//!
//!     cargo run --release --example fine_tune -- BUNDLE PHOTOS
//!
//! BUNDLE is a `model.safetensors` of an earlier run, or one of `web/models`.

use kiln::train::recipe::Model;
use kiln::{Bundle, Recipe, Run, RunEvent, RunOptions};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let [bundle, photos] = std::env::args().skip(1).collect::<Vec<_>>().try_into().map_err(|_| "BUNDLE PHOTOS")?;
    let bundle = Bundle::open(bundle)?;

    // The recipe has to describe the network of the bundle.
    let mut recipe = Recipe::named("quick")?;
    if let Model::ResNet(model) = &mut recipe.model {
        model.width = bundle.metadata.architecture.width();
    }
    recipe.training.image_size = bundle.metadata.image_size;
    recipe.training.epochs = 5;
    recipe.optimizer.lr /= 10.0;

    let data = recipe.open(&photos)?;
    let mut run = Run::start(recipe, &data, RunOptions { initial: Some(bundle), ..RunOptions::default() })?;
    while let Some(event) = run.next()? {
        match event {
            RunEvent::Epoch { metrics, .. } => println!("epoch {}: loss {:.3}", metrics.epoch, metrics.train_loss),
            RunEvent::Finished(finished) => {
                if let Some((accuracy, split, images)) = finished.bundle.metadata.measured_accuracy() {
                    println!("accuracy {:.2} % on {images} {split} images", 100.0 * accuracy);
                }
            }
            _ => {}
        }
    }
    println!("report {}", run.report()?.display());
    Ok(())
}
