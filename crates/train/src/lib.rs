//! Training: recipes, schedules, the optimiser, checkpoints and the loop.
//!
//! [`Trainer`] holds a run in memory and says what happens through [`Event`]s; it never prints and,
//! but for [`run_dir`], knows no files, so that a page trains with it as a terminal does.

mod checkpoint;
mod claims;
mod ema;
mod evaluate;
#[cfg(not(target_family = "wasm"))]
pub mod files;
mod gradients;
mod loss;
mod lr_find;
mod metrics;
mod predictions;
pub mod recipe;
#[cfg(not(target_family = "wasm"))]
pub mod run_dir;
mod schedule;
mod sgd;
#[cfg(not(target_family = "wasm"))]
pub mod tensorboard;
mod trainer;

pub use checkpoint::{Checkpoint, CheckpointError, EpochMetrics, Header, Running, best_epoch};
pub use claims::CheckpointClaimError;
pub use ema::Ema;
pub use evaluate::{Evaluation, evaluate};
pub use gradients::{ParameterGradients, gradients};
pub use loss::{cross_entropy, mixed_targets, soft_targets};
pub use lr_find::{LrFind, LrPoint, RangeTest};
pub use metrics::{
    Averages, Bin, Calibration, ClassMetrics, Corrupted, EvaluationReport, Interval, Intervals, Metrics, MetricsError,
    Temperature, TemperatureError, TemperatureScaling, temperature,
};
pub use predictions::{Predictions, Scoring, predict};
pub use recipe::{Recipe, RecipeError};
pub use sgd::Sgd;
pub use trainer::{Event, HandlerError, Outcome, StepMetrics, TrainError, Trainer};
