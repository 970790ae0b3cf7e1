//! Everything that a run needs to continue exactly where it stopped.

use std::collections::BTreeMap;

use kiln_data::Preprocessing;
use kiln_model::container::{self, ContainerError, Storage};
use kiln_model::{Architecture, StateDict};
use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::value::RawValue;

use crate::recipe::{canonical_name, current_key};
use crate::{CheckpointClaimError, Recipe, Recovery};

/// A run at some step, as it lies in a file.
#[derive(Clone, Debug, PartialEq)]
pub struct Checkpoint {
    pub header: Header,
    /// Parameters and running statistics.
    pub model: StateDict,
    /// The optimizer's momentum; empty before the first step.
    pub momentum: StateDict,
    /// The moving average of the model; empty if the recipe has none, and before the first step.
    pub ema: StateDict,
}

/// All of a checkpoint but its tensors.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Header {
    pub recipe: Recipe,
    pub architecture: Architecture,
    pub classes: Vec<String>,
    pub image_size: usize,
    pub mean: [f32; 3],
    pub std: [f32; 3],
    /// How the data's pictures were brought to that size, for whoever asks the network about others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub preprocessing: Option<Preprocessing>,
    pub dataset: String,
    pub dataset_digest: String,
    /// Steps done, and steps of the whole run.
    pub step: usize,
    pub total_steps: usize,
    /// Training seconds so far, without start-up.
    #[serde(deserialize_with = "exact")]
    pub seconds: f64,
    pub running: Running,
    #[serde(default)]
    pub recovery: Recovery,
    /// Every finished epoch.
    pub history: Vec<EpochMetrics>,
}

/// Sums over the current epoch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Running {
    /// Of each image's loss.
    #[serde(deserialize_with = "exact")]
    pub loss: f64,
    /// Images trained on whose class scored highest; of two mixed ones, the class with the greater share.
    pub correct: usize,
    pub images: usize,
    /// Spent training them.
    #[serde(deserialize_with = "exact")]
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
    #[serde(deserialize_with = "exact")]
    pub learning_rate: f64,
    /// Mean over the epoch's batches as they were trained on: augmented, before each update.
    #[serde(deserialize_with = "exact")]
    pub train_loss: f64,
    #[serde(deserialize_with = "exact")]
    pub train_accuracy: f64,
    /// Absent if the recipe keeps no images for validation.
    #[serde(default, deserialize_with = "exact_or_none")]
    pub validation_loss: Option<f64>,
    #[serde(default, deserialize_with = "exact_or_none")]
    pub validation_accuracy: Option<f64>,
    /// The mean of the classes' own accuracies, where they differ in size by more than 2 to 1.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "exact_or_none")]
    pub validation_balanced_accuracy: Option<f64>,
    /// Training and validation seconds since the start of the run.
    #[serde(deserialize_with = "exact")]
    pub seconds: f64,
    /// Training images a second over the epoch, without validation.
    #[serde(deserialize_with = "exact")]
    pub images_per_second: f64,
}

/// A number as it was written. serde_json reads one of many digits to within a unit in the last place, which would make
/// a resumed run's metrics others than those of a run that was never stopped.
fn exact<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
    Box::<RawValue>::deserialize(deserializer)?.get().parse().map_err(D::Error::custom)
}

fn exact_or_none<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<f64>, D::Error> {
    let number = Option::<Box<RawValue>>::deserialize(deserializer)?;
    number.map(|number| number.get().parse().map_err(D::Error::custom)).transpose()
}

/// Why a file cannot be used as a checkpoint.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    #[error(transparent)]
    Container(#[from] ContainerError),
    #[error(transparent)]
    Claim(#[from] CheckpointClaimError),
    #[error("the checkpoint does not fit this data: {0}")]
    Inconsistent(&'static str),
    #[error("{}", list(.0))]
    Mismatch(Vec<Difference>),
}

/// What differs between a checkpoint and the run that is to resume from it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// `architecture`, `dataset`, or a key of the recipe.
    pub field: String,
    pub found: String,
    pub expected: String,
    /// Whether a resumed run takes it if told to.
    pub may_change: bool,
}

fn list(differences: &[Difference]) -> String {
    let line = |difference: &Difference| {
        let Difference { field, found, expected, may_change } = difference;
        let advice = match may_change {
            true => format!("resume with what the run was started with, or allow {field} to change"),
            false => "this cannot change within a run: start a new one, with these weights if you like".to_owned(),
        };
        format!("the checkpoint's {field} is {found}, now it is {expected} ({advice})")
    };
    differences.iter().map(line).collect::<Vec<_>>().join("; ")
}

/// Keys of the recipe on which it depends which images a step sees, and which are kept from training.
const FIXED: [&str; 4] = ["training.batch_size", "training.validation", "training.image_size", "training.seed"];

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
    // NaN is never the best.
    let finite = |accuracy: f64| if accuracy.is_finite() { accuracy } else { f64::NEG_INFINITY };
    let score = |metrics: &EpochMetrics| metrics.validation_accuracy.map_or(metrics.epoch as f64, finite);
    history.iter().rev().max_by(|a, b| score(a).total_cmp(&score(b)))
}

impl Header {
    /// The epoch that [`best_epoch`] names.
    pub fn best(&self) -> Option<&EpochMetrics> {
        best_epoch(&self.history)
    }

    /// Whether a run with that recipe, data and architecture can resume from here, except for the fields whose change
    /// is `allowed`.
    pub fn matches(&self, run: &Header, allowed: &[String]) -> Result<(), CheckpointError> {
        let architecture = |header: &Header| serde_json::to_string(&header.architecture).unwrap_or_default();
        let dataset = |header: &Header| format!("{} with digest {}", header.dataset, header.dataset_digest);
        let mut differences = vec![("architecture".to_owned(), architecture(self), architecture(run))];
        // The same images under another name are the same.
        if self.dataset_digest != run.dataset_digest {
            differences.push(("dataset".to_owned(), dataset(self), dataset(run)));
        }
        // A run keeps the name that its recipe had when it was started.
        let entries = |recipe: &Recipe| {
            let name = canonical_name(&recipe.name).to_owned();
            Recipe { name, ..recipe.clone() }.entries()
        };
        let now: BTreeMap<_, _> = entries(&run.recipe).into_iter().collect();
        let expected = |key: &str| now.get(key).cloned().unwrap_or_else(|| "not there".to_owned());
        differences.extend(entries(&self.recipe).into_iter().map(|(key, found)| {
            let expected = expected(&key);
            (key, found, expected)
        }));
        let differences = differences.into_iter().filter(|(_, found, expected)| found != expected);
        let differences = differences.map(|(field, found, expected)| {
            let may_change = field != "architecture" && !field.starts_with("model.") && !FIXED.contains(&&*field);
            Difference { field, found, expected, may_change }
        });
        let refused = |difference: &Difference| {
            !difference.may_change || !allowed.iter().any(|field| current_key(field) == difference.field)
        };
        let differences: Vec<_> = differences.filter(refused).collect();
        if differences.is_empty() { Ok(()) } else { Err(CheckpointError::Mismatch(differences)) }
    }
}
