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

use crate::predictions::{Predictions, differ_in_size, mean};

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
    #[error("there are no images to evaluate on")]
    NoImages,
    #[error(
        "the network's answer to image {index} is not finite: its weights are damaged, or the training that made \
         them diverged; evaluate another checkpoint"
    )]
    NotFinite { index: usize },
}

impl Metrics {
    /// As [`Predictions::balanced_accuracy`]: `None` where no class has more than twice as many images as another.
    pub fn balanced_accuracy(&self) -> Option<f64> {
        // The mean of the recalls of the classes that have images.
        differ_in_size(self.classes.iter().map(|class| class.support)).then_some(self.macro_average.recall)
    }

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

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    /// The cases of tests/metrics/make_fixtures.py.
    fn cases() -> Vec<(Predictions, Value)> {
        let fixture = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/metrics/metrics.json");
        let cases: Vec<Value> = serde_json::from_slice(&std::fs::read(fixture).unwrap()).unwrap();
        let predictions = |case: &Value| Predictions {
            classes: (0..case["classes"].as_u64().unwrap()).map(|class| format!("class {class}")).collect(),
            labels: serde_json::from_value(case["labels"].clone()).unwrap(),
            logits: serde_json::from_value::<Vec<Vec<f32>>>(case["logits"].clone()).unwrap().concat(),
            features: vec![],
        };
        cases.into_iter().map(|case| (predictions(&case), case)).collect()
    }

    /// Asserts that numbers agree to 1e-6 and everything else exactly, however deep they are.
    fn agrees(ours: &Value, theirs: &Value, what: &str) {
        match (ours, theirs) {
            (Value::Number(a), Value::Number(b)) => {
                let (a, b) = (a.as_f64().unwrap(), b.as_f64().unwrap());
                assert!((a - b).abs() <= 1e-6, "{what}: {a} here, {b} there");
            }
            (Value::Array(a), Value::Array(b)) => {
                assert_eq!(a.len(), b.len(), "{what}");
                a.iter().zip(b).enumerate().for_each(|(index, (a, b))| agrees(a, b, &format!("{what}[{index}]")));
            }
            (Value::Object(_), Value::Object(b)) => {
                b.iter().for_each(|(key, b)| agrees(&ours[key], b, &format!("{what}.{key}")));
            }
            _ => assert_eq!(ours, theirs, "{what}"),
        }
    }

    #[test]
    fn every_metric_is_scikit_learns() {
        let cases = cases();
        assert!(cases.len() >= 5);
        for (predictions, case) in &cases {
            let name = case["name"].as_str().unwrap();
            let ours = serde_json::to_value(Metrics::of(predictions).unwrap()).unwrap();
            for key in ["accuracy", "top_k_accuracy", "loss", "brier", "macro_average", "weighted_average", "confusion"]
            {
                agrees(&ours[key], &case[key], &format!("{name}: {key}"));
            }
            for key in ["precision", "recall", "f1", "support"] {
                let column = ours["classes"].as_array().unwrap().iter().map(|class| class[key].clone()).collect();
                agrees(&Value::Array(column), &case[key], &format!("{name}: {key}"));
            }
            for key in ["expected_calibration_error", "bins"] {
                agrees(&ours["calibration"][key], &case[key], &format!("{name}: {key}"));
            }
        }
    }

    #[test]
    fn the_temperature_is_where_scipy_finds_the_least_loss() {
        for (predictions, case) in cases() {
            let name = &case["name"];
            let Some(expected) = case["temperature"].as_f64() else {
                assert_eq!(temperature(&predictions), Err(TemperatureError::OutOfRange), "{name}");
                continue;
            };
            let found = temperature(&predictions).unwrap();
            assert!((found - expected).abs() < 1e-6 * expected, "{name}: {found} here, {expected} there");
            let scaled = TemperatureScaling::fit(&predictions, &predictions).unwrap();
            assert!(scaled.loss <= predictions.loss() && scaled.fitted_on == predictions.len(), "{name}");
        }
    }

    #[test]
    fn a_report_comes_back_from_json_as_it_was() {
        let (predictions, _) = &cases()[3];
        let report = EvaluationReport {
            model: "model.safetensors".into(),
            dataset: "cifar100".into(),
            split: "test".into(),
            metrics: Metrics::of(predictions).unwrap(),
            intervals: Intervals::of(predictions, 0).unwrap(),
            flip_tta: None,
            temperature: Temperature::Fitted(TemperatureScaling::fit(predictions, predictions).unwrap()),
            corruptions: vec![],
        };
        assert!(report.metrics.classes.iter().any(|class| class.recall.is_none()), "a class without images");
        let json = serde_json::to_string(&report).unwrap();
        let back: EvaluationReport = serde_json::from_str(&json).unwrap();
        // serde_json's own reading of numbers may be off in the last place.
        agrees(&serde_json::to_value(&back).unwrap(), &serde_json::to_value(&report).unwrap(), "report");
    }

    #[test]
    fn logits_that_are_not_finite_and_sets_without_images_are_refused() {
        let (mut predictions, _) = cases().swap_remove(0);
        for damage in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            predictions.logits[10 * 7 + 2] = damage;
            assert_eq!(Metrics::of(&predictions), Err(MetricsError::NotFinite { index: 7 }));
            assert_eq!(Intervals::of(&predictions, 0), Err(MetricsError::NotFinite { index: 7 }));
            assert!(TemperatureScaling::fit(&predictions, &predictions).is_err());
        }
        let none = Predictions { labels: vec![], logits: vec![], ..predictions };
        assert_eq!(Metrics::of(&none), Err(MetricsError::NoImages));
        assert_eq!((none.loss(), none.accuracy()), (0.0, 0.0));
    }
}
