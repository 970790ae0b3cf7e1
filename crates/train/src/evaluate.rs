//! How well a network does on a set of images, in the three numbers that training goes by.

use burn::tensor::Device;
use kiln_data::ImageSet;
use kiln_model::ResNet;

use crate::predict::{Scoring, predict};
use crate::predictions::Predictions;

/// What a network scored; [`Metrics`](crate::Metrics) has more.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Evaluation {
    /// Images evaluated.
    pub samples: usize,
    /// Mean cross-entropy in nats.
    pub loss: f64,
    /// Share of images whose class scored highest, 0..1.
    pub accuracy: f64,
}

impl Evaluation {
    pub fn of(predictions: &Predictions) -> Self {
        Self { samples: predictions.len(), loss: predictions.loss(), accuracy: predictions.accuracy() }
    }
}

/// Scores `model` on the images at `indices`, as [`predict`] runs it.
pub fn evaluate(
    model: &ResNet,
    classes: &[String],
    set: &ImageSet,
    indices: &[u32],
    scoring: &Scoring,
    device: &Device,
    stop: &mut dyn FnMut() -> bool,
) -> Option<Evaluation> {
    predict(model, classes, set, indices, scoring, device, stop).map(|predictions| Evaluation::of(&predictions))
}
