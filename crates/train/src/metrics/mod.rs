//! What [`Predictions`] say about a network. Every number agrees with scikit-learn's or SciPy's to 1e-6
//! (tests/metrics/make_fixtures.py), all are computed in double precision, and none depends on the device.

mod bootstrap;
mod calibration;
mod classification;
mod report;

use serde::{Deserialize, Serialize};

pub use bootstrap::{Interval, Intervals};
pub use calibration::{Bin, Calibration, TemperatureError, TemperatureScaling, temperature};
pub use classification::{Averages, ClassMetrics};
pub use report::{Corrupted, EvaluationReport, Temperature};

use crate::predictions::{Predictions, mean};

/// Ranks that [`Metrics::top_k_accuracy`] goes up to.
const MAX_TOP_K: usize = 5;

/// How well a network does on a set of images.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Metrics {
    /// Images evaluated.
    pub samples: usize,
    /// Share of images whose class scored highest, 0..1.
    pub accuracy: f64,
    /// Shares of images whose class was among the 1, 2, .. that scored highest: up to five, or to the number of
    /// classes.
    pub top_k_accuracy: Vec<f64>,
    /// Mean cross-entropy, the negative log-likelihood, in nats.
    pub loss: f64,
    /// Mean squared distance of the probabilities from the one-hot label, 0..2 (Brier 1950).
    pub brier: f64,
    pub calibration: Calibration,
    /// In the order of the logits.
    pub classes: Vec<ClassMetrics>,
    /// Means over the classes.
    pub macro_average: Averages,
    /// Means over the classes, weighted by their images.
    pub weighted_average: Averages,
    /// `confusion[label][predicted]`, in images.
    pub confusion: Vec<Vec<usize>>,
}

/// Predictions that nothing can be said about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MetricsError {
    #[error("there is no image to evaluate on")]
    NoImages,
    #[error(
        "the network's answer to image {index} is not finite: its weights are damaged, or the training that made \
         them diverged; evaluate another checkpoint"
    )]
    NotFinite { index: usize },
}

impl Metrics {
    /// # Errors
    ///
    /// [`MetricsError`] without images, and where a logit is not finite.
    pub fn of(predictions: &Predictions) -> Result<Self, MetricsError> {
        check(predictions)?;
        let confusion = classification::confusion(predictions);
        let classes = classification::by_class(&predictions.classes, &confusion);
        let ranks = 1..=MAX_TOP_K.min(predictions.classes.len());
        Ok(Self {
            samples: predictions.len(),
            accuracy: predictions.accuracy(),
            top_k_accuracy: ranks.map(|k| predictions.top_k_accuracy(k)).collect(),
            loss: predictions.loss(),
            brier: mean((0..predictions.len()).map(|index| brier(predictions, index))),
            calibration: Calibration::of(predictions, 1.0),
            macro_average: Averages::of(&classes, |_| 1.0),
            weighted_average: Averages::of(&classes, |class| class.support as f64),
            classes,
            confusion,
        })
    }
}

/// Whether there is anything to be said about these predictions.
fn check(predictions: &Predictions) -> Result<(), MetricsError> {
    if predictions.is_empty() {
        return Err(MetricsError::NoImages);
    }
    let finite = |(_, logits): (usize, &[f32])| logits.iter().all(|logit| logit.is_finite());
    match predictions.rows().position(|row| !finite(row)) {
        Some(index) => Err(MetricsError::NotFinite { index }),
        None => Ok(()),
    }
}

/// Squared distance of one image's probabilities from its one-hot label.
fn brier(predictions: &Predictions, index: usize) -> f64 {
    let mut distances = predictions.probabilities(index);
    distances[predictions.labels[index]] -= 1.0;
    distances.iter().map(|distance| distance * distance).sum()
}
