//! How far metrics might be off for there being so many images and no more.

use kiln_data::random::KeyedRng;
use serde::{Deserialize, Serialize};

use super::classification::scores;
use super::{MAX_TOP_K, MetricsError, brier, check};
use crate::predictions::{Predictions, argmax, cross_entropy, rank};

/// Drawn sets of images.
const RESAMPLES: u64 = 1000;
/// Share of them within an interval.
const LEVEL: f64 = 0.95;

/// Percentile bootstrap intervals (Efron 1979): each metric's spread over 1000 sets of as many images, drawn from
/// the evaluated ones with replacement.
///
/// The calibration error has none: it grows with every set drawn twice over, so that the percentiles would often
/// lie above the error itself.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Intervals {
    /// Share of the drawn sets within each interval, 0..1.
    pub level: f64,
    pub resamples: u64,
    /// What the draws depend on.
    pub seed: u64,
    pub accuracy: Interval,
    /// Of the last of [`Metrics::top_k_accuracy`](super::Metrics::top_k_accuracy).
    pub top_k_accuracy: Interval,
    pub loss: Interval,
    pub brier: Interval,
    /// Of the macro average.
    pub f1: Interval,
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Interval {
    pub low: f64,
    pub high: f64,
}

/// What one image adds to the metrics.
struct Sample {
    label: usize,
    predicted: usize,
    in_top_k: bool,
    loss: f64,
    brier: f64,
}

/// Accuracy, top-k accuracy, loss, Brier score and macro F1 of a drawn set.
type Drawn = [f64; 5];

impl Intervals {
    /// # Errors
    ///
    /// [`MetricsError`] as for [`Metrics::of`](super::Metrics::of).
    pub fn of(predictions: &Predictions, seed: u64) -> Result<Self, MetricsError> {
        check(predictions)?;
        let sample = |(index, (label, logits)): (usize, (usize, &[f32]))| Sample {
            label,
            predicted: argmax(logits),
            in_top_k: rank(logits, label) < MAX_TOP_K,
            loss: cross_entropy(logits, label, 1.0),
            brier: brier(predictions, index),
        };
        let samples: Vec<Sample> = predictions.rows().enumerate().map(sample).collect();
        let classes = predictions.classes.len();
        let drawn: Vec<Drawn> = (0..RESAMPLES).map(|resample| draw(&samples, classes, seed, resample)).collect();
        let interval = |metric: usize| Interval::of(drawn.iter().map(|drawn| drawn[metric]).collect());
        Ok(Self {
            level: LEVEL,
            resamples: RESAMPLES,
            seed,
            accuracy: interval(0),
            top_k_accuracy: interval(1),
            loss: interval(2),
            brier: interval(3),
            f1: interval(4),
        })
    }
}

/// The metrics of as many samples as there are, drawn with replacement.
fn draw(samples: &[Sample], classes: usize, seed: u64, resample: u64) -> Drawn {
    let mut rng = KeyedRng::new(b"resample", seed, resample, 0);
    let mut sums = [0.0; 4];
    // Of each class: images rightly taken for it, images taken for it, its images.
    let mut counts = vec![[0_usize; 3]; classes];
    for _ in samples {
        let sample = &samples[rng.below(samples.len() as u32) as usize];
        let correct = sample.predicted == sample.label;
        counts[sample.label][0] += usize::from(correct);
        counts[sample.predicted][1] += 1;
        counts[sample.label][2] += 1;
        let terms = [f64::from(u8::from(correct)), f64::from(u8::from(sample.in_top_k)), sample.loss, sample.brier];
        sums.iter_mut().zip(terms).for_each(|(sum, term)| *sum += term);
    }
    let [accuracy, top_k_accuracy, loss, brier] = sums.map(|sum| sum / samples.len() as f64);
    let f1: Vec<f64> =
        counts.iter().filter_map(|&[correct, taken, support]| scores(correct, taken, support)[2]).collect();
    [accuracy, top_k_accuracy, loss, brier, f1.iter().sum::<f64>() / f1.len() as f64]
}

impl Interval {
    fn of(mut values: Vec<f64>) -> Self {
        values.sort_unstable_by(f64::total_cmp);
        let tail = (1.0 - LEVEL) / 2.0;
        Self { low: percentile(&values, tail), high: percentile(&values, 1.0 - tail) }
    }
}

/// The value below which that share of sorted values lies, between two of them in proportion, as NumPy's.
fn percentile(sorted: &[f64], share: f64) -> f64 {
    let position = share * (sorted.len() - 1) as f64;
    let (below, part) = (position as usize, position.fract());
    let above = (below + 1).min(sorted.len() - 1);
    sorted[below] + part * (sorted[above] - sorted[below])
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two classes; the first `correct` of `images` answers are right.
    fn predictions(images: usize, correct: usize) -> Predictions {
        let labels = (0..images).map(|index| index % 2).collect();
        let logits = (0..images).flat_map(|index| {
            let right = (index % 2 == 0) == (index < correct);
            if right { [1.0, 0.0] } else { [0.0, 1.0] }
        });
        Predictions { classes: vec!["a".into(), "b".into()], labels, logits: logits.collect(), features: vec![] }
    }

    #[test]
    fn the_interval_of_an_accuracy_is_the_binomials() {
        let intervals = Intervals::of(&predictions(1000, 800), 0).unwrap();
        // 1.96 standard deviations of 1000 draws with a chance of 0.8.
        let reach = 1.96 * (0.8 * 0.2 / 1000.0_f64).sqrt();
        let Interval { low, high } = intervals.accuracy;
        assert!(
            (low - (0.8 - reach)).abs() < 0.1 * reach && (high - (0.8 + reach)).abs() < 0.1 * reach,
            "{low} {high}"
        );
        assert_eq!(intervals.top_k_accuracy, Interval { low: 1.0, high: 1.0 }, "both classes are among five");
        assert!((intervals.f1.low - low).abs() < 0.01, "classes alike: F1 is near accuracy");
    }

    #[test]
    fn a_seed_gives_the_same_intervals_and_another_one_others() {
        let of = |seed| Intervals::of(&predictions(50, 30), seed).unwrap();
        assert_eq!(of(1), of(1));
        assert_ne!(of(1).loss, of(2).loss);
    }

    #[test]
    fn percentiles_lie_between_values_in_proportion() {
        let values = [1.0, 2.0, 4.0];
        assert_eq!([0.0, 0.25, 0.5, 0.75, 1.0].map(|share| percentile(&values, share)), [1.0, 1.5, 2.0, 3.0, 4.0]);
        assert_eq!(percentile(&[7.0], 0.9), 7.0);
    }
}
