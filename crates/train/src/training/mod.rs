//! What needs burn: the loop, the optimizer, the loss, and predictions on a device.

mod classifier;
mod ema;
mod gradients;
mod loss;
mod sgd;
mod trainer;
mod whitening;

pub use classifier::{BatchClassifier, Pass};
pub use ema::Ema;
pub use gradients::{ParameterGradients, gradients};
pub use loss::{cross_entropy, mixed_targets, soft_targets};
pub use sgd::Sgd;
pub use trainer::{Event, SkippedStep, StepMetrics, TrainError, Trainer};
