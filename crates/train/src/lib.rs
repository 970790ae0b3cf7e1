//! Training: recipes, schedules, the optimizer, checkpoints and the loop.
//!
//! `Trainer` holds a run in memory and says what happens through `Event`s; it never prints and,
//! but for [`run_dir`] and [`atomic_write`], knows no files, so that a page trains with it as a terminal does.
//!
//! Without the feature `burn` what a run leaves behind can still be read: recipes, checkpoints, metrics.

#[cfg(not(target_family = "wasm"))]
pub mod atomic_write;
mod checkpoint;
mod lr_find;
mod metrics;
mod predictions;
pub mod recipe;
mod recovery;
#[cfg(not(target_family = "wasm"))]
pub mod run_dir;
mod schedule;
pub mod teach;
#[cfg(not(target_family = "wasm"))]
pub mod tensorboard;
#[cfg(feature = "burn")]
mod training;
mod validate;

pub use checkpoint::{Checkpoint, CheckpointError, Difference, EpochMetrics, Header, Running, best_epoch};
#[cfg(feature = "burn")]
pub use lr_find::RangeTest;
pub use lr_find::{LrFind, LrPoint};
pub use metrics::{
    Averages, Bin, Calibration, ClassMetrics, Corrupted, EvaluationReport, Interval, Intervals, Metrics, MetricsError,
    Temperature, TemperatureError, TemperatureScaling, temperature,
};
pub use predictions::{Evaluation, Predictions};
pub use recipe::{Recipe, RecipeError};
pub use recovery::{MAX_SKIPPED, Recovery};
#[cfg(feature = "burn")]
pub use training::{
    BatchClassifier, Ema, Event, ParameterGradients, Pass, Sgd, SkippedStep, StepMetrics, TrainError, Trainer,
    cross_entropy, gradients, mixed_targets, soft_targets,
};
pub use validate::CheckpointClaimError;
