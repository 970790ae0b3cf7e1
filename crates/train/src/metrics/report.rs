//! Everything that an evaluation finds, as a run's folder keeps it.

use serde::{Deserialize, Serialize};

use super::{Intervals, Metrics, TemperatureScaling};

/// What `kiln eval` finds, and `evaluation.json` holds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EvaluationReport {
    /// The bundle.
    pub model: String,
    pub dataset: String,
    /// `test`, or `all` for data that is not split.
    pub split: String,
    /// Of the images as they are.
    pub metrics: Metrics,
    pub intervals: Intervals,
    /// Of logits averaged over each image and its mirror image, if asked for.
    pub flip_tta: Option<Metrics>,
    pub temperature: Temperature,
    /// In the order of corruption and severity; empty if not asked for.
    pub corruptions: Vec<Corrupted>,
}

/// A temperature, or why there is none.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Temperature {
    Fitted(TemperatureScaling),
    Skipped(String),
}

/// How well a network does on corrupted images.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Corrupted {
    /// `gaussian_noise`, `gaussian_blur`, `brightness`, `contrast` or `jpeg`.
    pub corruption: String,
    /// 1 to 5.
    pub severity: usize,
    /// 0..1.
    pub accuracy: f64,
    /// Mean cross-entropy in nats.
    pub loss: f64,
}
