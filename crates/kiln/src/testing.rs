//! What comes after the last step: the test images, and the bundle.

use std::collections::VecDeque;

use kiln_data::{Dataset, Split};
use kiln_model::{Bundle, Metadata, StateDict};
use kiln_train::{Checkpoint, EpochMetrics, Evaluation, Pass, Predictions, Trainer};

use crate::Error;

/// What some weights of a run say about the test images.
#[derive(Clone, Debug)]
pub struct Tested {
    /// `best`, `last` or `last_before_averaging`.
    pub weights: &'static str,
    pub plain: Predictions,
    /// Averaged over mirror images, if the recipe asks for it.
    pub flip_tta: Option<Predictions>,
}

/// A run's end.
#[derive(Clone, Debug)]
pub struct Finished {
    pub bundle: Bundle,
    /// The epoch whose weights the bundle has: the best by validation.
    pub best_epoch: EpochMetrics,
    /// The bundle's weights first, then, for comparison, the last epoch's if they are others, and those before
    /// averaging if they are averaged. Empty without test images.
    pub tested: Vec<Tested>,
}

/// The test under way, a batch at a time.
pub struct Testing {
    best: Checkpoint,
    indices: Vec<u32>,
    /// Weights that wait for their test.
    waiting: VecDeque<(&'static str, StateDict)>,
    current: Option<Current>,
    tested: Vec<Tested>,
}

struct Current {
    weights: &'static str,
    pass: Pass,
    /// The images themselves, once they are done and their mirror images are under way.
    plain: Option<Predictions>,
    classifier: kiln_train::BatchClassifier,
}

impl Testing {
    /// Of the best epoch's weights, and of those `last` has.
    pub fn new(best: Checkpoint, last: &Checkpoint, data: &Dataset) -> Self {
        let images = data.test.as_ref().map_or(0, |test| test.len());
        let mut waiting = VecDeque::new();
        if data.test.is_some() {
            waiting.push_back(("best", best.weights().clone()));
            if best.header.step != last.header.step {
                waiting.push_back(("last", last.weights().clone()));
            }
            if !last.ema.is_empty() {
                waiting.push_back(("last_before_averaging", last.model.clone()));
            }
        }
        Self { best, indices: (0..images as u32).collect(), waiting, current: None, tested: vec![] }
    }

    /// Runs the next batch: images done and in all of the pass under way; `None` when everything is tested.
    pub async fn advance(&mut self, trainer: &Trainer<'_>, data: &Dataset) -> Result<Option<[usize; 2]>, Error> {
        let Some(set) = &data.test else { return Ok(None) };
        let training = &self.best.header.recipe.training;
        let mut current = match self.current.take() {
            Some(current) => current,
            None => {
                let Some((weights, state)) = self.waiting.pop_front() else { return Ok(None) };
                let classifier = trainer.classifier_of(&state)?;
                // The report shows the best weights' features.
                let features = training.flip_tta || weights == "best";
                let pass = classifier.clone().pass(self.indices.clone(), features);
                Current { weights, pass, plain: None, classifier }
            }
        };
        let is_last = current.pass.advance(set).await?;
        let progress = current.pass.progress();
        if !is_last {
            self.current = Some(current);
            return Ok(Some(progress));
        }
        let Current { weights, pass, plain, classifier } = current;
        let predictions = pass.finish(set).await?;
        match plain {
            None if training.flip_tta => {
                let pass = classifier.clone().flipped_pass(self.indices.clone(), predictions.clone());
                self.current = Some(Current { weights, pass, plain: Some(predictions), classifier });
            }
            None => self.tested.push(Tested { weights, plain: predictions, flip_tta: None }),
            Some(plain) => self.tested.push(Tested { weights, plain, flip_tta: Some(predictions) }),
        }
        Ok(Some(progress))
    }

    /// The run's end, once everything is tested.
    pub fn finish(&mut self, split: &Split) -> Result<Finished, Error> {
        let best_epoch = self.best.header.history.last().ok_or(Error::NoEpoch)?.clone();
        let test = self.tested.first().map(|tested| tested.plain.evaluation());
        let bundle = bundle(&self.best, &best_epoch, split, test.as_ref());
        Ok(Finished { bundle, best_epoch, tested: std::mem::take(&mut self.tested) })
    }
}

fn bundle(best: &Checkpoint, epoch: &EpochMetrics, split: &Split, test: Option<&Evaluation>) -> Bundle {
    let header = &best.header;
    let (accuracy, accuracy_split, samples) = match test {
        Some(test) => (test.accuracy, "test", test.samples),
        None => match epoch.validation_accuracy {
            Some(accuracy) => (accuracy, "validation", split.validation.len()),
            None => (epoch.train_accuracy, "train", split.train.len()),
        },
    };
    let metadata = Metadata {
        architecture: header.architecture.clone(),
        classes: header.classes.clone(),
        image_size: header.image_size,
        mean: header.mean,
        std: header.std,
        dataset: header.dataset.clone(),
        dataset_digest: header.dataset_digest.clone(),
        accuracy: Some(accuracy),
        accuracy_split: Some(accuracy_split.to_owned()),
        accuracy_samples: Some(samples),
        recipe: header.recipe.name.clone(),
        seed: header.recipe.training.seed,
        kiln_version: env!("CARGO_PKG_VERSION").to_owned(),
        preprocessing: header.preprocessing,
        quantisation: None,
    };
    Bundle { metadata, state: best.weights().clone() }
}
