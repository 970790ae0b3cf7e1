//! How good a trained network is, on images that it has not seen.

use std::borrow::Cow;
use std::path::{Path, PathBuf};

use burn::tensor::Device;
use kiln_data::{Dataset, ImageSet, bounded_read};
use kiln_model::{Bundle, BundleError, Metadata};
use kiln_train::run_dir::{RunDir, write_whole};
use kiln_train::{
    BatchClassifier, Evaluation, EvaluationReport, Intervals, Metrics, Predictions, Recipe, Temperature,
    TemperatureScaling,
};
use pollster::block_on;

use crate::Error;

/// What predictions on the test images say, and a temperature if the run is known.
pub fn evaluate(
    network: &Evaluator,
    run: Option<&RunDir>,
    path: &Path,
    data: &Dataset,
    predictions: &Predictions,
    seed: u64,
) -> Result<EvaluationReport, Error> {
    let failed = |source| Error::Metrics { model: path.display().to_string(), dataset: data.name.clone(), source };
    Ok(EvaluationReport {
        model: path.display().to_string(),
        dataset: data.name.clone(),
        split: test_images(data).0.to_owned(),
        metrics: Metrics::of(predictions).map_err(failed)?,
        intervals: Intervals::of(predictions, seed).map_err(failed)?,
        flip_tta: None,
        temperature: fit_temperature(network, run, data, predictions)?,
        corruptions: vec![],
    })
}

/// Writes `evaluation.json`.
pub fn save_evaluation(run: &RunDir, report: &EvaluationReport) -> Result<(), Error> {
    let text = serde_json::to_string(report).expect("a report is plain numbers and names");
    Ok(write_whole(&run.evaluation(), (text + "\n").as_bytes())?)
}

/// A trained network that can be asked about images.
pub struct Evaluator<'a> {
    bundle: &'a Bundle,
    classifier: BatchClassifier,
}

impl<'a> Evaluator<'a> {
    /// Refuses data with other classes than the network's, or images of a size that it does not take.
    pub fn new(bundle: &'a Bundle, data: &Dataset, batch_size: usize, device: &Device) -> Result<Self, Error> {
        check_classes(bundle, data)?;
        bundle.metadata.architecture.check_image_size(data.train.height)?;
        let (network, device, classes) = (bundle.model(device)?, device.clone(), data.classes.clone());
        let Metadata { mean, std, .. } = bundle.metadata;
        Ok(Self { bundle, classifier: BatchClassifier { network, device, classes, mean, std, batch_size } })
    }

    /// The metrics of predictions on images like those of this evaluator's data.
    ///
    /// # Errors
    /// If there is no image.
    pub fn metrics(&self, predictions: &Predictions) -> Result<Metrics, Error> {
        Metrics::of(predictions).map_err(|source| Error::Metrics {
            model: self.bundle.metadata.recipe.clone(),
            dataset: self.bundle.metadata.dataset.clone(),
            source,
        })
    }

    pub fn bundle(&self) -> &Bundle {
        self.bundle
    }

    /// What the network says of every image; with `features` also what its head saw.
    ///
    /// # Errors
    /// If an image cannot be read any more.
    pub fn predict(&self, set: &ImageSet, features: bool) -> Result<Predictions, Error> {
        let indices: Vec<u32> = (0..set.len() as u32).collect();
        self.predict_some(set, &indices, features)
    }

    fn predict_some(&self, set: &ImageSet, indices: &[u32], features: bool) -> Result<Predictions, Error> {
        Ok(block_on(self.classifier.predict(set, indices, features))?)
    }

    /// Averaged over mirror images, for which `plain` needs its features.
    ///
    /// # Errors
    /// If an image cannot be read any more.
    pub fn predict_flipped(&self, set: &ImageSet, plain: &Predictions) -> Result<Predictions, Error> {
        let indices: Vec<u32> = (0..set.len() as u32).collect();
        Ok(block_on(self.classifier.predict_flipped(set, &indices, plain))?)
    }
}

/// Scores a bundle on the images to test on.
pub fn score(bundle: &Bundle, data: &Dataset, batch_size: usize, device: &Device) -> Result<Evaluation, Error> {
    let network = Evaluator::new(bundle, data, batch_size, device)?;
    Ok(network.predict(&test_images(data).1, false)?.evaluation())
}

/// A temperature from the images that the run's training kept for validation, if these are known.
fn fit_temperature(
    network: &Evaluator,
    run: Option<&RunDir>,
    data: &Dataset,
    tested: &Predictions,
) -> Result<Temperature, Error> {
    let skipped = |reason: &str| Ok(Temperature::Skipped(reason.to_owned()));
    let Some(run) = run else {
        return skipped("a bundle alone does not say which images were kept for validation");
    };
    if data.test.is_none() {
        return skipped("there are no test images apart from those of the training");
    }
    if !data.has_digest(&network.bundle.metadata.dataset_digest) {
        return skipped("by their digest, these are not the images of the run's training");
    }
    let validation = match validation_images(run, data) {
        Ok(indices) if indices.is_empty() => return skipped("the recipe keeps no images for validation"),
        Ok(indices) => network.predict_some(&data.train, &indices, false)?,
        Err(error) => return skipped(&error),
    };
    match TemperatureScaling::fit(&validation, tested) {
        Ok(fitted) => Ok(Temperature::Fitted(fitted)),
        Err(error) => skipped(&error.to_string()),
    }
}

/// Those that the run's training kept for validation.
fn validation_images(run: &RunDir, data: &Dataset) -> Result<Vec<u32>, String> {
    let path = run.recipe();
    let text = bounded_read::read_text(&path).map_err(|error| format!("cannot read {}: {error}", path.display()))?;
    let recipe = Recipe::parse(&text, &[]).map_err(|error| format!("{} is not a recipe: {error}", path.display()))?;
    Ok(recipe.split(data).map_err(|error| error.to_string())?.validation)
}

/// The images to test on: the test part, or the part to validate on, or all images of a set that has neither.
pub fn test_images(data: &Dataset) -> (&'static str, Cow<'_, ImageSet>) {
    match (&data.test, &data.validation) {
        (Some(test), _) => ("test", Cow::Borrowed(test)),
        (None, Some(indices)) => ("validation", Cow::Owned(data.train.select(indices))),
        (None, None) => ("all", Cow::Borrowed(&data.train)),
    }
}

/// Opens a bundle, or the bundle of a run's folder; its path and what it holds.
///
/// # Errors
/// If there is none that can be read.
pub fn open_bundle(path: &Path) -> Result<(PathBuf, Bundle), Error> {
    let path = if path.is_dir() { RunDir::open(path).bundle() } else { path.to_owned() };
    match Bundle::open(&path) {
        Ok(bundle) => Ok((path, bundle)),
        Err(error @ BundleError::Io { .. }) => Err(error.into()),
        Err(source) => Err(Error::NoBundle { path, source }),
    }
}

fn check_classes(bundle: &Bundle, data: &Dataset) -> Result<(), Error> {
    let (expected, found) = (&bundle.metadata.classes, &data.classes);
    if expected != found {
        let (expected, found) = (expected.clone(), found.clone());
        return Err(Error::Classes { dataset: data.name.clone(), expected, found });
    }
    Ok(())
}
