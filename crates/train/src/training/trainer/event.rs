//! What a run says, and how it ends.

use kiln_data::DataError;
use kiln_infer::Precision;
use kiln_model::{ConfigError, StateError};

use crate::{CheckpointError, EpochMetrics};
#[cfg(doc)]
use crate::{MAX_SKIPPED, Trainer};

/// What came of one piece of work of a run.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// Work was done whose numbers come with a later event: a step on a device that works ahead, or a batch of the features
    /// that are kept where only the head trains.
    Queued,
    /// A step's numbers are there, and those of all before it.
    Step(StepMetrics),
    /// A step was left out.
    Skipped(SkippedStep),
    /// Validation images were scored, so many of so many.
    Validating { images: usize, total: usize },
    /// An epoch has ended, validation included: a good moment to save [`Trainer::checkpoint`].
    Epoch {
        metrics: EpochMetrics,
        /// Whether it is the best so far by validation.
        is_best: bool,
    },
}

/// The run at some step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StepMetrics {
    /// Steps done.
    pub step: usize,
    pub total_steps: usize,
    /// Epoch under way, from 1.
    pub epoch: usize,
    /// Means over the epoch so far.
    pub loss: f64,
    pub accuracy: f64,
    pub learning_rate: f64,
}

/// A step whose loss or gradient was not finite: it changed nothing, and the next ones go at half the rate.
///
/// [`MAX_SKIPPED`] of them in a row end the run; after 100 good ones a halving is taken back.
#[derive(Clone, Debug, PartialEq)]
pub struct SkippedStep {
    /// From 1.
    pub step: usize,
    pub loss: f64,
    /// Where a value was not finite first, as in [`TrainError::Diverged`].
    pub place: String,
    /// How many there have been without a good step between them.
    pub in_a_row: usize,
    /// Rate of the next step.
    pub learning_rate: f64,
}

/// Why a run cannot start or continue.
#[derive(Debug, thiserror::Error)]
pub enum TrainError {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Data(#[from] DataError),
    #[error(transparent)]
    State(#[from] StateError),
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    #[error(
        "this device does not multiply {0}: bf16 needs a CPU with AVX512-BF16, f16 a GPU whose matrix units wgpu shows; \
         set training.precision = \"f32\""
    )]
    Precision(Precision),
    #[error("the images have {} x {} pixels and the recipe expects {expected} x {expected} (training.image_size)", found[1], found[0])]
    ImageSize { found: [usize; 2], expected: usize },
    #[error(
        "a random crop with a border of {padding} pixels (augment.crop_padding) leaves nothing of most images of {size} x {size}: set \
         augment.crop_padding = {}, or take larger images", .size / 8
    )]
    CropPadding { padding: usize, size: usize },
    #[error("no image is left to train on: of {0}, validation keeps {1}")]
    NoImages(usize, usize),
    #[error(
        "training diverged at step {step} (epoch {epoch}, learning rate {learning_rate:.3e}): the loss was {loss:?}, and \
         {place} was not finite. Lower optimizer.lr, for example to {advice}, warm up longer, or clip the gradients \
         (training.clip_norm = 1); the checkpoints saved so far are intact"
    )]
    Diverged {
        step: usize,
        epoch: usize,
        loss: f64,
        learning_rate: f64,
        /// Where a value was not finite first: the output of a layer, or the gradient of a parameter.
        place: String,
        advice: f64,
    },
    #[error("the run has done {done} steps, more than the {total} of {epochs} epochs: choose more epochs")]
    Past { done: usize, total: usize, epochs: usize },
}
