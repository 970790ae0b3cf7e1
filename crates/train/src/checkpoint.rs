//! Everything that a run needs to go on exactly where it stood.

use kiln_model::container::{self, ContainerError, Storage};
use kiln_model::{ResNetConfig, StateDict};
use serde::{Deserialize, Serialize};

use crate::{CheckpointClaimError, Recipe};

/// A run at some step, as it lies in a file.
#[derive(Clone, Debug, PartialEq)]
pub struct Checkpoint {
    pub header: Header,
    /// Parameters and running statistics.
    pub model: StateDict,
    /// The optimiser's momentum; empty before the first step.
    pub momentum: StateDict,
    /// The moving average of the model; empty if the recipe has none, and before the first step.
    pub ema: StateDict,
}

/// All of a checkpoint but its tensors.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Header {
    pub recipe: Recipe,
    pub architecture: ResNetConfig,
    pub classes: Vec<String>,
    pub image_size: usize,
    pub mean: [f32; 3],
    pub std: [f32; 3],
    pub dataset: String,
    pub dataset_digest: String,
    /// Steps done, and steps of the whole run.
    pub step: usize,
    pub total_steps: usize,
    /// Training seconds so far, without start-up.
    pub seconds: f64,
    pub running: Running,
    /// Every finished epoch.
    pub history: Vec<EpochMetrics>,
}

/// Sums over the current epoch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Running {
    /// Of each image's loss.
    pub loss: f64,
    /// Images trained on whose class scored highest; of two mixed ones, the class with the greater share.
    pub correct: usize,
    pub images: usize,
    /// Spent training them.
    pub seconds: f64,
}

/// One epoch, as `metrics.jsonl` holds it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EpochMetrics {
    /// From 1.
    pub epoch: usize,
    /// Steps since the start of the run.
    pub step: usize,
    /// Learning rate of the epoch's last step.
    pub learning_rate: f64,
    /// Mean over the epoch's batches as they were trained on: augmented, before each update.
    pub train_loss: f64,
    pub train_accuracy: f64,
    /// Absent if the recipe keeps no images for validation.
    pub validation_loss: Option<f64>,
    pub validation_accuracy: Option<f64>,
    /// Training and validation seconds since the start of the run.
    pub seconds: f64,
    /// Training images a second over the epoch, without validation.
    pub images_per_second: f64,
}

/// A file that is no checkpoint, or one of something else.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    #[error(transparent)]
    Container(#[from] ContainerError),
    #[error(transparent)]
    Claim(#[from] CheckpointClaimError),
    #[error(
        "the checkpoint's {what} is {found}, this run's is {expected}: resume with what the run was started with, or \
         start a new run"
    )]
    Mismatch { what: &'static str, found: String, expected: String },
}

const MODEL: &str = "model.";
const MOMENTUM: &str = "momentum.";
const EMA: &str = "ema.";

impl Checkpoint {
    /// The bytes of its file.
    pub fn to_bytes(&self) -> Result<Vec<u8>, CheckpointError> {
        let named = |prefix: &'static str, state: &StateDict| {
            state.iter().map(move |(name, tensor)| (format!("{prefix}{name}"), tensor.clone())).collect::<Vec<_>>()
        };
        let parts = [(MODEL, &self.model), (MOMENTUM, &self.momentum), (EMA, &self.ema)];
        let tensors = parts.into_iter().flat_map(|(prefix, state)| named(prefix, state)).collect();
        Ok(container::write(&self.header, &tensors, Storage::F32)?)
    }

    /// Reads what [`Checkpoint::to_bytes`] wrote.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, CheckpointError> {
        let (header, tensors) = container::read(bytes)?;
        let (mut model, mut momentum, mut ema) = (StateDict::new(), StateDict::new(), StateDict::new());
        for (name, tensor) in tensors {
            if let Some(name) = name.strip_prefix(MODEL) {
                model.insert(name.to_owned(), tensor);
            } else if let Some(name) = name.strip_prefix(MOMENTUM) {
                momentum.insert(name.to_owned(), tensor);
            } else if let Some(name) = name.strip_prefix(EMA) {
                ema.insert(name.to_owned(), tensor);
            }
        }
        let checkpoint = Self { header, model, momentum, ema };
        checkpoint.check()?;
        Ok(checkpoint)
    }

    /// What is scored and goes into the bundle: the moving average if there is one, else the model.
    pub fn weights(&self) -> &StateDict {
        if self.ema.is_empty() { &self.model } else { &self.ema }
    }
}

/// The best epoch by validation accuracy, the first of equals; the last without validation.
pub fn best_epoch(history: &[EpochMetrics]) -> Option<&EpochMetrics> {
    // A value that is no number is never the best.
    let finite = |accuracy: f64| if accuracy.is_finite() { accuracy } else { f64::NEG_INFINITY };
    let score = |metrics: &EpochMetrics| metrics.validation_accuracy.map_or(metrics.epoch as f64, finite);
    history.iter().rev().max_by(|a, b| score(a).total_cmp(&score(b)))
}

impl Header {
    /// The epoch that [`best_epoch`] names.
    pub fn best(&self) -> Option<&EpochMetrics> {
        best_epoch(&self.history)
    }

    /// Whether a run with that recipe, data and architecture can go on from here.
    pub fn matches(&self, run: &Header) -> Result<(), CheckpointError> {
        let architecture = |header: &Header| serde_json::to_string(&header.architecture).unwrap_or_default();
        let recipe = |header: &Header| {
            let lines = header.recipe.entries().into_iter();
            lines.map(|(key, value)| format!("{key} = {value}")).collect::<Vec<_>>()
        };
        let (here, there) = (recipe(self), recipe(run));
        let (here, there): (Vec<_>, Vec<_>) = here.into_iter().zip(there).filter(|(a, b)| a != b).unzip();
        let pairs = [
            ("architecture", architecture(self), architecture(run)),
            ("dataset", self.dataset.clone(), run.dataset.clone()),
            ("dataset's digest", self.dataset_digest.clone(), run.dataset_digest.clone()),
            ("recipe", here.join(", "), there.join(", ")),
        ];
        match pairs.into_iter().find(|(_, found, expected)| found != expected) {
            Some((what, found, expected)) => Err(CheckpointError::Mismatch { what, found, expected }),
            None => Ok(()),
        }
    }
}
