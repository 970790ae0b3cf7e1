//! Kiln as a library: train a residual network on your own pictures, save it, classify with it.
//!
//! ```no_run
//! use kiln::{Predictor, Recipe, Run, RunEvent, RunOptions};
//!
//! # fn main() -> Result<(), kiln::Error> {
//! let recipe = Recipe::named("image-folder")?;
//! let data = recipe.open("photos")?;
//! let mut run = Run::start(recipe, &data, RunOptions::default())?;
//! while let Some(event) = run.next()? {
//!     if let RunEvent::Epoch { metrics, .. } = event {
//!         println!("epoch {}: loss {:.3}", metrics.epoch, metrics.train_loss);
//!     }
//! }
//! let mut predictor = Predictor::open(run.folder().bundle())?;
//! let prediction = predictor.classify_file("cat.jpg")?;
//! println!("{}", predictor.metadata().classes[prediction.class()]);
//! # Ok(())
//! # }
//! ```
//!
//! A [`Run`] trains, saves, resumes, tests and writes the network as a [`Bundle`]; dropping it stops the run, and
//! [`Run::resume`] continues it. Below it are the crates that do the work, for whoever wants a part of it:
//! [`train::Trainer`] for a loop of your own, [`convert`] for weights from elsewhere and to elsewhere, [`model`] for
//! networks, [`data`] for pictures, [`infer`] to run networks without burn, [`kernels`] for operators on burn's tensors,
//! and [`report`](crate::write_report) for pages about runs.
//!
//! Errors state facts, and name no flag of the `kiln` command.

mod augmentation;
mod error;
mod evaluate;
mod figures;
mod plan;
mod report;
mod run;
mod saver;
mod teaching;
mod testing;
mod tuning;

pub use kiln_convert as convert;
pub use kiln_data as data;
pub use kiln_infer as infer;
pub use kiln_kernels as kernels;
pub use kiln_model as model;
pub use kiln_train as train;

pub use augmentation::{augmentation_rows, augmented_images};
pub use error::Error;
pub use evaluate::{Evaluator, evaluate, open_bundle, save_evaluation, score, test_images};
pub use figures::{CLASS_KEY, write_figures};
pub use kiln_data::{Dataset, ImageSet};
pub use kiln_kernels::device::{DeviceRequest, SelectedDevice, choose};
pub use kiln_model::{Bundle, Pixels, Prediction, Predictor};
pub use kiln_train::recipe::Recipe;
pub use kiln_train::run_dir::RunDir;
pub use plan::RunPlan;
pub use report::{gather_evidence, refresh_evaluation, write_report};
pub use run::{ResumeOptions, Run, RunEvent, RunOptions, SavedRun};
pub use teaching::{answers, examples, with_head};
pub use testing::{Finished, Tested};
pub use tuning::{Tuned, use_first_forms, use_known_forms};

/// Makes this thread one of those that share the CPU's work. Otherwise each of the hundreds of short loops of a training
/// step is handed to other threads, and this one put to sleep and woken for it. [`Run`] calls it; it does nothing where
/// rayon's global pool exists already.
pub fn work_in_the_pool() {
    // Only a pool that is there already refuses, and it works too.
    let _ = rayon::ThreadPoolBuilder::new().use_current_thread().build_global();
}
