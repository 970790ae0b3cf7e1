//! The written analysis: sentences that depend on the numbers.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use kiln_train::recipe::Recipe;
use kiln_train::{Bin, EpochMetrics, EvaluationReport, Metrics, Predictions, Temperature};

use crate::RunRecord;
use crate::words::{count, grouped, list, percent, points};

/// Training accuracy this far above validation accuracy counts as overfitting.
pub const OVERFITTING_GAP: f64 = 0.05;

/// If the accuracy rises by more than this at the end, a longer run is suggested.
const RISING: f64 = 0.005;

/// A summary of a run's history.
#[derive(Clone, Debug, PartialEq)]
pub struct History {
    /// Finished epochs.
    pub epochs: usize,
    /// The epoch whose weights were kept, and its accuracy: on validation images if there are any, otherwise on
    /// training images.
    pub best_epoch: usize,
    pub best_accuracy: f64,
    pub validated: bool,
    /// The best epoch's accuracy minus the first epoch's.
    pub improvement: f64,
    /// Training minus validation accuracy in the last epoch.
    pub gap: Option<f64>,
    /// Whether the gap is more than [`OVERFITTING_GAP`].
    pub overfitting: Option<bool>,
    /// Epoch of the lowest validation loss, and how far the last epoch's loss is above it, as a fraction.
    pub least_loss: Option<(usize, f64)>,
    /// How far the accuracy rose over the last tenth of the epochs, if there are ten or more.
    pub late_rise: Option<f64>,
    /// Epochs with a loss or an accuracy that is not finite.
    pub broken: Vec<usize>,
}

impl History {
    /// # Panics
    ///
    /// Without epochs.
    pub fn of(history: &[EpochMetrics]) -> Self {
        let best = kiln_train::best_epoch(history).expect("there is an epoch");
        let score = |epoch: &EpochMetrics| epoch.validation_accuracy.unwrap_or(epoch.train_accuracy);
        let (first, last) = (&history[0], &history[history.len() - 1]);
        let gap = last.validation_accuracy.map(|validation| last.train_accuracy - validation);
        let gap = gap.filter(|gap| gap.is_finite());
        let losses = history.iter().filter_map(|epoch| Some((epoch.epoch, epoch.validation_loss?)));
        let least = losses.filter(|(_, loss)| loss.is_finite()).min_by(|a, b| a.1.total_cmp(&b.1));
        let is_broken = |epoch: &&EpochMetrics| {
            let validation = [epoch.validation_loss, epoch.validation_accuracy].into_iter().flatten();
            [epoch.train_loss, epoch.train_accuracy].into_iter().chain(validation).any(|value| !value.is_finite())
        };
        let tenth = history.len().div_ceil(10);
        let earlier = (history.len() >= 10).then(|| score(&history[history.len() - 1 - tenth]));
        let late_rise = earlier.map(|earlier| score(last) - earlier).filter(|rise| rise.is_finite());
        Self {
            epochs: history.len(),
            late_rise,
            best_epoch: best.epoch,
            best_accuracy: score(best),
            validated: best.validation_accuracy.is_some(),
            improvement: score(best) - score(first),
            gap,
            overfitting: gap.map(|gap| gap > OVERFITTING_GAP),
            least_loss: least.zip(last.validation_loss).map(|((epoch, least), last)| (epoch, last / least - 1.0)),
            broken: history.iter().filter(is_broken).map(|epoch| epoch.epoch).collect(),
        }
    }

    /// The analysis in sentences.
    pub fn sentences(&self, recipe: &Recipe) -> Vec<String> {
        let on = if self.validated { "validation" } else { "training" };
        let mut sentences = vec![];
        match (self.overfitting, self.gap) {
            (Some(overfitting), Some(gap)) => {
                let side = if gap < 0.0 { "below" } else { "above" };
                let verdict = if overfitting { "yes" } else { "no" };
                sentences.push(format!(
                    "Overfitting: {verdict}. In the last epoch training accuracy is {} {side} validation accuracy; \
                     more than {:.0} points above counts as overfitting.",
                    points(gap.abs()),
                    100.0 * OVERFITTING_GAP
                ));
                if !overfitting && is_augmented(recipe) {
                    sentences.push(
                        "Training accuracy is measured on augmented images, which are harder: on plain images the gap \
                         would likely be wider."
                            .to_owned(),
                    );
                }
            }
            _ => sentences.push(
                "Overfitting: unknown, because there are no validation images to compare the training accuracy with."
                    .to_owned(),
            ),
        }
        if self.epochs > 1 && self.improvement.is_finite() {
            sentences.push(format!(
                "Improvement: {} of {on} accuracy from the first epoch to the best.",
                points(self.improvement)
            ));
        }
        let of = if self.epochs == 1 { ", the only one".to_owned() } else { format!(" of {}", self.epochs) };
        let accuracy = match self.best_accuracy.is_finite() {
            true => format!(", with {} {on} accuracy", percent(self.best_accuracy)),
            false => String::new(),
        };
        sentences.push(format!("Best epoch: {}{of}{accuracy}.", self.best_epoch));
        if let Some(rise) = self.late_rise.filter(|rise| *rise > RISING) {
            sentences.push(format!(
                "Over the last tenth of the epochs {on} accuracy still rose by {}: a longer run might do better.",
                points(rise)
            ));
        }
        if let Some((epoch, above)) = self.least_loss.filter(|(_, above)| *above > 0.05) {
            sentences.push(format!(
                "Validation loss was lowest in epoch {epoch} and ended {:.0} % above that: later training made the \
                 network's confidence worse.",
                100.0 * above
            ));
        }
        if !self.broken.is_empty() {
            let epochs: Vec<String> = self.broken.iter().map(usize::to_string).collect();
            sentences.push(format!(
                "Some numbers of {} {} are missing because they were not finite; the curves have gaps there.",
                if epochs.len() == 1 { "epoch" } else { "epochs" },
                list(&epochs)
            ));
        }
        sentences
    }
}

/// Whether augmentation makes training images harder than plain ones.
fn is_augmented(recipe: &Recipe) -> bool {
    let augment = &recipe.augment;
    augment.crop_padding > 0
        || augment.cutout > 0
        || augment.affine.chance > 0.0
        || augment.mix.mixup_chance > 0.0
        || augment.mix.cutmix_chance > 0.0
        || augment.color != Default::default()
}

/// Number of images of one class that were predicted as another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Confusion {
    pub label: usize,
    pub predicted: usize,
    pub images: usize,
}

/// The most frequent confusions, at most `most`, sorted from the most frequent.
pub fn confusions(confusion: &[Vec<usize>], most: usize) -> Vec<Confusion> {
    let cells = confusion.iter().enumerate().flat_map(|(label, row)| {
        row.iter().enumerate().map(move |(predicted, &images)| Confusion { label, predicted, images })
    });
    let mut found: Vec<_> = cells.filter(|cell| cell.label != cell.predicted && cell.images > 0).collect();
    found.sort_by_key(|cell| (std::cmp::Reverse(cell.images), cell.label, cell.predicted));
    found.truncate(most);
    found
}

/// Accuracy with its interval, and the best and worst classes.
pub(crate) fn quality(evaluation: &EvaluationReport) -> Vec<String> {
    let (metrics, intervals) = (&evaluation.metrics, &evaluation.intervals);
    let mut sentences = vec![format!(
        "{} of {} of {} ({}) are classified correctly; on other images of the same kind, {} to {} would be expected \
         ({:.0} % bootstrap interval).",
        percent(metrics.accuracy),
        count(metrics.samples, "image", "images"),
        evaluation.dataset,
        evaluation.split,
        percent(intervals.accuracy.low),
        percent(intervals.accuracy.high),
        100.0 * intervals.level
    )];
    if let Some(flipped) = &evaluation.flip_tta {
        sentences.push(format!(
            "With predictions averaged over each image and its mirror image, the accuracy is {}.",
            percent(flipped.accuracy)
        ));
    }
    let mut ranked: Vec<_> = metrics.classes.iter().filter_map(|class| Some((class.f1?, class))).collect();
    ranked.sort_by(|a, b| a.0.total_cmp(&b.0));
    if let [(worst, low), .., (best, high)] = ranked[..] {
        sentences.push(format!(
            "The best class is {} (F1 {best:.3}), the worst is {} (F1 {worst:.3}).",
            high.class, low.class
        ));
    }
    let worst = evaluation.corruptions.iter().min_by(|a, b| a.accuracy.total_cmp(&b.accuracy));
    if let Some(worst) = worst {
        sentences.push(format!(
            "The most harmful corruption is {} at severity {}, with an accuracy of {}.",
            worst.corruption.replace('_', " "),
            worst.severity,
            percent(worst.accuracy)
        ));
    }
    let empty: Vec<String> =
        metrics.classes.iter().filter(|class| class.support == 0).map(|class| class.class.clone()).collect();
    if !empty.is_empty() {
        let (verb, they) = if empty.len() == 1 { ("has", "it has") } else { ("have", "they have") };
        let names = capitalised(&shortened(&empty));
        sentences.push(format!("{names} {verb} no images here, so {they} no scores."));
    }
    sentences
}

/// Which classes are confused with each other.
pub(crate) fn confusion(metrics: &Metrics) -> Vec<String> {
    let errors =
        metrics.samples - (0..metrics.classes.len()).map(|class| metrics.confusion[class][class]).sum::<usize>();
    if errors == 0 {
        return vec!["No image is misclassified.".to_owned()];
    }
    let name = |class: usize| &metrics.classes[class].class;
    let tops = confusions(&metrics.confusion, 3);
    let mut sentences: Vec<String> = tops
        .iter()
        .map(|&Confusion { label, predicted, images }| {
            let support = metrics.classes[label].support;
            format!(
                "{} is predicted as {} in {} of {} ({}).",
                capitalised(name(label)),
                name(predicted),
                images,
                count(support, "image", "images"),
                percent(images as f64 / support as f64)
            )
        })
        .collect();
    let top = tops[0];
    let back = metrics.confusion[top.predicted][top.label];
    if errors > 1 {
        sentences.push(format!(
            "Confusions between {} and {} make up {} of all {} errors.",
            name(top.label),
            name(top.predicted),
            percent((top.images + back) as f64 / errors as f64),
            grouped(errors),
        ));
    }
    sentences
}

/// Whether the confidence is reliable.
pub(crate) fn calibration(evaluation: &EvaluationReport) -> Vec<String> {
    let calibration = &evaluation.metrics.calibration;
    let weight = |bins: &[Bin], value: fn(&Bin) -> f64| {
        let samples: usize = bins.iter().map(|bin| bin.samples).sum();
        let sum: f64 = bins.iter().map(|bin| bin.samples as f64 * value(bin)).sum();
        sum / samples.max(1) as f64
    };
    let bins = &calibration.bins;
    let (confidence, accuracy) = (weight(bins, |bin| bin.confidence), weight(bins, |bin| bin.accuracy));
    let error = calibration.expected_calibration_error;
    let verdict = match (error > CALIBRATED, confidence > accuracy) {
        (false, _) => "The network is well calibrated",
        (true, true) => "The network is overconfident",
        (true, false) => "The network is underconfident",
    };
    let mut sentences = vec![format!(
        "{verdict}: its mean confidence is {}, and {} of its predictions are correct. The expected calibration error, \
         the average distance between confidence and accuracy, is {} (below {:.0} points counts as well calibrated).",
        percent(confidence),
        percent(accuracy),
        points(error),
        100.0 * CALIBRATED
    )];
    let sure: Vec<Bin> = bins.iter().filter(|bin| bin.lower > 0.79).copied().collect();
    let samples: usize = sure.iter().map(|bin| bin.samples).sum();
    if samples > 0 {
        let right = weight(&sure, |bin| bin.accuracy);
        sentences.push(format!(
            "Of {} with more than {:.0} % confidence, {} are correct.",
            count(samples, "prediction", "predictions"),
            100.0 * sure[0].lower,
            percent(right)
        ));
    }
    sentences.push(match &evaluation.temperature {
        Temperature::Fitted(scaling) => format!(
            "Dividing the logits by a temperature of {:.3}, fitted on {}, changes the calibration error from {} to {} \
             and the loss from {:.4} to {:.4} nats. It changes no prediction.",
            scaling.temperature,
            count(scaling.fitted_on, "validation image", "validation images"),
            points(error),
            points(scaling.calibration.expected_calibration_error),
            evaluation.metrics.loss,
            scaling.loss
        ),
        Temperature::Skipped(reason) => format!("No temperature was fitted: {reason}."),
    });
    sentences
}

/// An expected calibration error up to this counts as well calibrated.
const CALIBRATED: f64 = 0.02;

/// The predicted class for which the network is most overconfident.
pub(crate) fn overconfidence(predictions: &Predictions) -> Option<String> {
    // For each class: predictions, correct ones, and the sum of the confidences.
    let mut answers = vec![(0_usize, 0_usize, 0.0); predictions.classes.len()];
    for index in 0..predictions.len() {
        let answer = predictions.predicted(index);
        let (given, right, confidence) = &mut answers[answer];
        *given += 1;
        *right += usize::from(predictions.labels[index] == answer);
        *confidence += predictions.probabilities(index)[answer];
    }
    let gap = |&(given, right, confidence): &(usize, usize, f64)| (confidence - right as f64) / given as f64;
    // The mean of fewer predictions says little.
    let frequent = answers.iter().enumerate().filter(|(_, (given, ..))| *given >= 20);
    let (class, answer) = frequent.max_by(|a, b| gap(a.1).total_cmp(&gap(b.1)))?;
    let &(given, right, confidence) = answer;
    (gap(answer) > 0.0).then(|| {
        format!(
            "It is most overconfident when it predicts {}: {} of {} are correct, at a mean confidence of {}.",
            predictions.classes[class],
            percent(right as f64 / given as f64),
            count(given, "such prediction", "such predictions"),
            percent(confidence / given as f64)
        )
    })
}

/// Indices of the wrong predictions, most confident first, at most `most`.
pub fn confident_errors(predictions: &Predictions, most: usize) -> Vec<usize> {
    let wrong = (0..predictions.len()).filter(|&index| predictions.predicted(index) != predictions.labels[index]);
    surest(predictions, wrong.collect(), most)
}

/// Indices of the images of a confusion, most confident first, at most `most`.
pub fn examples(predictions: &Predictions, confusion: &Confusion, most: usize) -> Vec<usize> {
    let is_one = |index: &usize| {
        predictions.labels[*index] == confusion.label && predictions.predicted(*index) == confusion.predicted
    };
    surest(predictions, (0..predictions.len()).filter(is_one).collect(), most)
}

/// Indices of images for the cells of the confusion matrix, at most `most`: the most confident prediction of every
/// cell, then the next of every cell, so that small cells are complete. Cells come row by row, and the images of a cell
/// are sorted from the most confident. A cell has up to 200 images if they are errors, 40 if they are correct.
pub fn cell_examples(predictions: &Predictions, most: usize) -> Vec<usize> {
    let mut cells = BTreeMap::<_, Vec<usize>>::new();
    for index in 0..predictions.len() {
        cells.entry((predictions.labels[index], predictions.predicted(index))).or_default().push(index);
    }
    let ranked = cells.into_iter().flat_map(|(cell, images)| {
        let size = Reverse(images.len());
        let surest = surest(predictions, images, if cell.0 == cell.1 { 40 } else { 200 });
        surest.into_iter().enumerate().map(move |(rank, index)| (rank, size, cell, index))
    });
    // If there is no room for the next image of every cell, larger cells come first.
    let mut chosen: Vec<_> = ranked.collect();
    chosen.sort();
    chosen.truncate(most);
    chosen.sort_by_key(|(rank, _, cell, _)| (*cell, *rank));
    chosen.into_iter().map(|(.., index)| index).collect()
}

fn surest(predictions: &Predictions, indices: Vec<usize>, most: usize) -> Vec<usize> {
    let confidence = |index: usize| predictions.probabilities(index)[predictions.predicted(index)];
    let mut ranked: Vec<_> = indices.into_iter().map(|index| (confidence(index), index)).collect();
    ranked.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
    ranked.into_iter().take(most).map(|(_, index)| index).collect()
}

/// The speed of training, and how much it varied.
pub(crate) fn throughput(run: &RunRecord) -> Option<String> {
    let rates: Vec<f64> =
        run.history.iter().map(|epoch| epoch.images_per_second).filter(|rate| rate.is_finite()).collect();
    let slowest = rates.iter().copied().reduce(f64::min)?;
    let fastest = rates.iter().copied().reduce(f64::max)?;
    let mean = rates.iter().sum::<f64>() / rates.len() as f64;
    Some(match rates.len() {
        1 => format!("Training processed {mean:.0} images per second."),
        _ => format!(
            "Training processed {mean:.0} images per second on average, from {slowest:.0} in the slowest epoch to \
             {fastest:.0} in the fastest."
        ),
    })
}

/// A list of at most five names.
fn shortened(names: &[String]) -> String {
    match names.len() {
        0..=5 => list(names),
        more => format!("{} and {} more", names[..4].join(", "), more - 4),
    }
}

fn capitalised(name: &str) -> String {
    let mut letters = name.chars();
    letters.next().map(|first| first.to_uppercase().chain(letters).collect()).unwrap_or_default()
}
