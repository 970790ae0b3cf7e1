//! The confusion matrix and what follows from it by class, as scikit-learn's `classification_report` has it
//! with `zero_division=nan`.

use serde::{Deserialize, Serialize};

use crate::predictions::{Predictions, argmax};

/// How one class is told from the others. A share of nothing is `None`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ClassMetrics {
    pub class: String,
    /// Share of the images taken for this class that are of it, 0..1; `None` if none was taken for it.
    pub precision: Option<f64>,
    /// Share of this class's images that were recognized, 0..1; `None` if there are none.
    pub recall: Option<f64>,
    /// Harmonic mean of precision and recall, 0..1; `None` if there is neither.
    pub f1: Option<f64>,
    /// Images of this class.
    pub support: usize,
}

/// Means over the classes for which there is a value.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Averages {
    pub precision: f64,
    pub recall: f64,
    pub f1: f64,
}

impl Averages {
    pub(super) fn of(classes: &[ClassMetrics], weight: impl Fn(&ClassMetrics) -> f64) -> Self {
        let average = |value: fn(&ClassMetrics) -> Option<f64>| {
            let values = || classes.iter().filter_map(|class| Some((value(class)?, weight(class))));
            let total: f64 = values().map(|(_, weight)| weight).sum();
            // Weights are all 0 only where no class with images has the value.
            if total > 0.0 { values().map(|(value, weight)| value * weight).sum::<f64>() / total } else { 0.0 }
        };
        Self {
            precision: average(|class| class.precision),
            recall: average(|class| class.recall),
            f1: average(|class| class.f1),
        }
    }
}

/// `confusion[label][predicted]`, in images.
pub(super) fn confusion(predictions: &Predictions) -> Vec<Vec<usize>> {
    let classes = predictions.classes.len();
    let mut confusion = vec![vec![0; classes]; classes];
    for (label, logits) in predictions.rows() {
        confusion[label][argmax(logits)] += 1;
    }
    confusion
}

pub(super) fn by_class(names: &[String], confusion: &[Vec<usize>]) -> Vec<ClassMetrics> {
    let scores = |(class, name): (usize, &String)| {
        let support: usize = confusion[class].iter().sum();
        let taken: usize = confusion.iter().map(|row| row[class]).sum();
        let [precision, recall, f1] = scores(confusion[class][class], taken, support);
        ClassMetrics { class: name.clone(), precision, recall, f1, support }
    };
    names.iter().enumerate().map(scores).collect()
}

/// Precision, recall and F1 of a class with `support` images, for which `taken` were taken, `correct` of them
/// rightly.
pub(super) fn scores(correct: usize, taken: usize, support: usize) -> [Option<f64>; 3] {
    let share = |numerator: usize, of: usize| (of > 0).then(|| numerator as f64 / of as f64);
    [share(correct, taken), share(correct, support), share(2 * correct, taken + support)]
}
