//! The report of a run: what its files say, and what its network makes of images.

use std::path::PathBuf;

use image::RgbImage;
use kiln_data::{Augment, DataError, Dataset, ImageSet, balanced_subset, bounded_read};
use kiln_model::{Bundle, PredictError, Predictor, Summary};
use kiln_report::{
    About, AugmentedRow, CellImage, ConfusedPair, Embedding, Evidence, Filters, Report, RunRecord, Shown,
    cell_examples, confident_errors, confusions, curves, examples,
};
use kiln_train::run_dir::{RunDir, RunDirError, write_whole};
use kiln_train::{EvaluationReport, Header, Metrics, Predictions, Recipe};

use crate::Error;
use crate::augmentation::{augmentation_rows, augmented_images};
use crate::evaluate::{Evaluator, evaluate, save_evaluation, test_images};
use crate::figures::write_figures;

/// Images of a gallery.
const GALLERY: usize = 16;
const ERRORS: usize = 8;
/// Confusions shown, and images of each.
const PAIRS: usize = 3;
const EXAMPLES: usize = 4;
/// Images in a row of augmentations.
const AUGMENTED: usize = 8;

/// Writes `evaluation.json` unless there is one of just these predictions.
pub fn refresh_evaluation(
    run: &RunDir,
    network: &Evaluator,
    data: &Dataset,
    predictions: &Predictions,
) -> Result<(), Error> {
    let earlier = bounded_read::read(&run.evaluation(), bounded_read::TEXT_BYTES)
        .ok()
        .and_then(|bytes| serde_json::from_slice(&bytes).ok());
    let fits = |earlier: &EvaluationReport| {
        let difference = earlier.metrics.loss - predictions.loss();
        // JSON and the size of a batch may change last digits.
        earlier.metrics.samples == predictions.len() && difference.abs() < 1e-6
    };
    if !earlier.as_ref().is_some_and(fits) {
        let report = evaluate(network, Some(run), &run.bundle(), data, predictions, 0)?;
        save_evaluation(run, &report)?;
    }
    Ok(())
}

/// What only the data shows.
pub fn gather_evidence(
    run: &RunDir,
    bundle: &Bundle,
    data: &Dataset,
    predictions: Predictions,
    embedded: usize,
) -> Result<Evidence, Error> {
    let (part, set) = test_images(data);
    let set = &*set;
    let mut missing = vec![];
    if part == "all" {
        missing.push("Test images: scores are of all images, most of which the network was trained on.".to_owned());
    }
    let embedding = if embedded > 0 { Embedding::of(&predictions, embedded) } else { None };
    if embedded > 0 && embedding.is_none() {
        missing.push("The embedding, which takes 30 images or more whose features differ.".to_owned());
    }
    let mut predictor = Predictor::new(bundle.clone())?;
    let mut shown = |indices: Vec<usize>| -> Result<Vec<Shown>, Error> {
        indices.into_iter().map(|index| shown(&mut predictor, set, index, &predictions)).collect()
    };
    let failed =
        |source| Error::Metrics { model: run.bundle().display().to_string(), dataset: data.name.clone(), source };
    let metrics = Metrics::of(&predictions).map_err(failed)?;
    let pairs = confusions(&metrics.confusion, PAIRS);
    let confused = pairs.iter().map(|pair| {
        let examples = shown(examples(&predictions, pair, EXAMPLES))?;
        Ok(ConfusedPair { label: pair.label, predicted: pair.predicted, count: pair.images, examples })
    });
    let confused = confused.collect::<Result<_, Error>>()?;
    let cells = cell_examples(&predictions, CellImage::most(set.width, set.height));
    let cell = |index| Ok(CellImage::new(&picture(set, index)?, &predictions, index));
    let cells = cells.into_iter().map(cell).collect::<Result<_, DataError>>()?;
    Ok(Evidence {
        some: shown(balanced_subset(&set.labels, GALLERY, 0).into_iter().map(|index| index as usize).collect())?,
        errors: shown(confident_errors(&predictions, ERRORS))?,
        confused,
        cells,
        embedding,
        augmented: augmented(data, &RunRecord::read(run.path())?.recipe)?,
        filters: filters(bundle),
        predictions: Some(predictions),
        missing,
    })
}

/// An image as it was loaded, what the network says about it, and where in it the evidence lies.
fn shown(predictor: &mut Predictor, set: &ImageSet, index: usize, predictions: &Predictions) -> Result<Shown, Error> {
    let prediction = pollster::block_on(predictor.predict(&set.image(index)?)).map_err(PredictError::from)?;
    Ok(Shown {
        image: picture(set, index)?,
        label: predictions.labels[index],
        probabilities: predictions.probabilities(index),
        activation: predictor.activation(&prediction, predictions.predicted(index)),
        activation_width: predictor.activation_size()[1],
    })
}

/// An image as it was loaded, or brought to the network's size.
fn picture(set: &ImageSet, index: usize) -> Result<RgbImage, DataError> {
    let (planes, plane) = (set.image(index)?, set.height * set.width);
    Ok(RgbImage::from_fn(set.width as u32, set.height as u32, |x, y| {
        let at = y as usize * set.width + x as usize;
        image::Rgb([0, 1, 2].map(|channel| planes[channel * plane + at]))
    }))
}

fn augmented(data: &Dataset, recipe: &Recipe) -> Result<Vec<AugmentedRow>, Error> {
    // Those that are trained on: validation images are never augmented.
    let split = recipe.split(data)?;
    let labels: Vec<u32> = split.train.iter().map(|index| data.train.labels[*index as usize]).collect();
    let some = balanced_subset(&labels, AUGMENTED, recipe.training.seed);
    let indices: Vec<u32> = some.into_iter().map(|index| split.train[index as usize]).collect();
    let row = |(name, augment): (&str, Augment)| {
        let images = augmented_images(data, &indices, &augment, recipe.training.seed)?;
        Ok(AugmentedRow { name: name.to_owned(), images })
    };
    augmentation_rows(&recipe.augment, false, data.train.height).into_iter().map(row).collect()
}

fn filters(bundle: &Bundle) -> Option<Filters> {
    let tensor = bundle.state.get("conv1.weight")?;
    Some(Filters { weights: tensor.values.clone(), kernel: *tensor.shape.last()? })
}

/// Writes the pictures and the page; the page's path.
///
/// # Errors
/// If the run has no finished epoch, its files are damaged, or nothing can be written.
pub fn write_report(folder: &RunDir, evidence: &Evidence) -> Result<PathBuf, Error> {
    let run = RunRecord::read(folder.path())?;
    let report = Report { run: &run, about: about(folder)?, evidence, version: env!("CARGO_PKG_VERSION") };
    let sections = report.sections();
    let curves = curves(&[&run]);
    let figures = sections.iter().flat_map(|section| &section.figures).chain([&curves]);
    let scored = run.evaluation.iter().flat_map(|evaluation| &evaluation.metrics.classes);
    let classes: Vec<String> = scored.map(|class| class.class.clone()).collect();
    write_figures(&folder.figures(), figures, &classes)?;
    write_whole(&folder.report(), report.html(&sections).as_bytes())?;
    Ok(folder.report())
}

/// What the last checkpoint knows; `None` if it is gone.
fn about(run: &RunDir) -> Result<Option<About>, Error> {
    let latest = match run.latest() {
        Err(RunDirError::Empty(_)) => return Ok(None),
        latest => latest?,
    };
    let Header { architecture, classes, image_size, dataset, step, total_steps, .. } = latest.checkpoint.header;
    let parameters = Summary::new(&architecture, image_size).parameters();
    Ok(Some(About { dataset, classes: classes.len(), image_size, parameters, step, total_steps }))
}
