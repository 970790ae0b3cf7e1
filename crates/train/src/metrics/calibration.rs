//! Whether a network's confidence is how often it is right, and a temperature that makes it so
//! (Guo et al. 2017, <https://arxiv.org/abs/1706.04599>).

use serde::{Deserialize, Serialize};

use super::{MetricsError, check};
use crate::predictions::{Predictions, argmax, mean, softmax};

/// Bins of equal width that confidences are sorted into.
const BINS: usize = 15;

/// Confidence, the probability of the answer, against accuracy.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Calibration {
    /// Mean over the images of the distance between their bin's confidence and accuracy, 0..1.
    pub expected_calibration_error: f64,
    /// What a reliability diagram shows: 15 bins of equal width over 0..1.
    pub bins: Vec<Bin>,
}

/// Images whose confidence is above `lower` and not above `upper`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Bin {
    pub lower: f64,
    pub upper: f64,
    pub samples: usize,
    /// Mean, 0..1; 0 in an empty bin.
    pub confidence: f64,
    /// 0..1; 0 in an empty bin.
    pub accuracy: f64,
}

impl Calibration {
    /// Of `softmax(logits / temperature)`.
    pub(super) fn of(predictions: &Predictions, temperature: f64) -> Self {
        let edge = |bin: usize| bin as f64 / BINS as f64;
        let (mut samples, mut confidences, mut correct) = ([0_usize; BINS], [0.0; BINS], [0_usize; BINS]);
        for (label, logits) in predictions.rows() {
            let answer = argmax(logits);
            let confidence = softmax(logits, temperature)[answer];
            let bin = (1..BINS).filter(|&bin| confidence > edge(bin)).count();
            samples[bin] += 1;
            confidences[bin] += confidence;
            correct[bin] += usize::from(answer == label);
        }
        let bin = |bin: usize| {
            let divisor = samples[bin].max(1) as f64;
            Bin {
                lower: edge(bin),
                upper: edge(bin + 1),
                samples: samples[bin],
                confidence: confidences[bin] / divisor,
                accuracy: correct[bin] as f64 / divisor,
            }
        };
        let bins: Vec<Bin> = (0..BINS).map(bin).collect();
        let gaps = bins.iter().map(|bin| bin.samples as f64 * (bin.confidence - bin.accuracy).abs());
        Self { expected_calibration_error: gaps.sum::<f64>() / predictions.len().max(1) as f64, bins }
    }
}

/// What dividing the logits by a temperature does to loss and calibration. It changes no answer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TemperatureScaling {
    /// Above 1 for a network that is too sure of itself.
    pub temperature: f64,
    /// Validation images that it was fitted on.
    pub fitted_on: usize,
    /// Mean cross-entropy on the evaluated images with it, in nats.
    pub loss: f64,
    /// Of the evaluated images with it.
    pub calibration: Calibration,
}

impl TemperatureScaling {
    /// Fits a temperature to the predictions on validation images and applies it to those evaluated.
    ///
    /// # Errors
    ///
    /// [`TemperatureError`] where no temperature fits best.
    pub fn fit(validation: &Predictions, evaluated: &Predictions) -> Result<Self, TemperatureError> {
        check(validation)?;
        let temperature = temperature(validation)?;
        Ok(Self {
            temperature,
            fitted_on: validation.len(),
            loss: evaluated.scaled_loss(temperature),
            calibration: Calibration::of(evaluated, temperature),
        })
    }
}

/// Why there is no best temperature.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TemperatureError {
    #[error(transparent)]
    Predictions(#[from] MetricsError),
    #[error("the best temperature on the validation images lies outside of {MIN} to {MAX}")]
    OutOfRange,
}

/// Bounds of a fitted temperature. Without them there is none for a network that is always right (0) or no
/// better than chance (infinite).
const MIN: f64 = 0.01;
const MAX: f64 = 100.0;

/// The temperature with the least cross-entropy on these predictions.
///
/// # Errors
///
/// [`TemperatureError::OutOfRange`] if it is not within 0.01 to 100.
pub fn temperature(predictions: &Predictions) -> Result<f64, TemperatureError> {
    // The loss is convex in the inverse temperature: its slope there, the mean over the images of the expected
    // logit less the label's, rises through 0 at the minimum.
    let slope = |inverse: f64| {
        mean(predictions.rows().map(|(label, logits)| {
            let expected: f64 =
                softmax(logits, 1.0 / inverse).iter().zip(logits).map(|(p, logit)| p * f64::from(*logit)).sum();
            expected - f64::from(logits[label])
        }))
    };
    let (mut low, mut high) = (1.0 / MAX, 1.0 / MIN);
    if !(slope(low) < 0.0 && slope(high) > 0.0) {
        return Err(TemperatureError::OutOfRange);
    }
    // Halving the range in proportion; 50 times leave less than a rounding step.
    for _ in 0..50 {
        let middle = (low * high).sqrt();
        if slope(middle) < 0.0 { low = middle } else { high = middle }
    }
    Ok(1.0 / (low * high).sqrt())
}
