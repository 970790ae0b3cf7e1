//! `kiln report`, and the report at the end of `kiln train`.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Result, ensure};
use image::RgbImage;
use kiln_data::bounded_read;
use kiln_data::{Augment, Dataset, ImageSet, balanced_subset};
use kiln_kernels::device::choose;
use kiln_model::{Bundle, Predictor, Summary};
use kiln_report::{
    About, AugmentedRow, CellImage, ConfusedPair, Embedding, Evidence, Filters, History, Report, Run, Shown,
    cell_examples, confident_errors, confusions, curves, examples,
};
use kiln_train::run_dir::{RunDir, RunDirError, write_whole};
use kiln_train::{EvaluationReport, Header, Metrics, Predictions, Recipe};
use serde_json::json;

use crate::args::{CompareArgs, EMBEDDED, ReportArgs};
use crate::data::of_training;
use crate::eval::{self, Network, test_images};
use crate::figures::write_figures;
use crate::{augment, compare};

/// Images of a gallery.
const GALLERY: usize = 16;
const ERRORS: usize = 8;
/// Confusions shown, and images of each.
const PAIRS: usize = 3;
const EXAMPLES: usize = 4;
/// Images in a row of augmentations.
const AUGMENTED: usize = 8;

pub fn run(args: ReportArgs) -> Result<ExitCode> {
    ensure!(args.out.is_none() || args.runs.len() > 1, "--out is for runs beside each other: name two or more");
    // Before anything is computed for nothing.
    args.runs.iter().try_for_each(|folder| Run::read(folder).map(drop))?;
    args.runs.iter().try_for_each(|folder| report(&args, &RunDir::open(folder)))?;
    match args.out {
        Some(out) => compare::run(CompareArgs { runs: args.runs, out: Some(out), json: args.json }),
        None => Ok(ExitCode::SUCCESS),
    }
}

/// Makes the report of one run.
fn report(args: &ReportArgs, run: &RunDir) -> Result<()> {
    let started = Instant::now();
    let mut evidence = Evidence::default();
    match finished(args, run) {
        Ok((bundle, data)) => {
            let device = choose(args.device)?.device;
            let network = Network::new(&bundle, &data, args.batch_size.into(), &device)?;
            let (_, set) = test_images(&data);
            let predictions = network.predict(set, true);
            evaluate(run, &network, &data, &predictions)?;
            evidence = gather(run, &bundle, &data, predictions, args.embed)?;
        }
        // What the user named has to be there; what the run was trained on may be gone.
        Err(error) if args.data.is_named() => return Err(error),
        Err(error) => {
            evidence.missing.push(format!("Everything that takes the images, for want of them: {error:#}."));
            if !run.evaluation().is_file() {
                evidence.missing.push("Scores on test images, for they were not taken yet.".to_owned());
            }
        }
    }
    let path = write(run, &evidence)?;
    if args.json {
        let analysis = Run::read(run.path()).map(|run| History::of(&run.history).sentences(&run.recipe))?;
        let seconds = started.elapsed().as_secs_f64();
        println!("{}", json!({"report": path, "analysis": analysis, "missing": evidence.missing, "seconds": seconds}));
    } else {
        print_analysis(run, &evidence)?;
        println!("report   {}", path.display());
    }
    Ok(())
}

/// The bundle and the images of a run that has both.
fn finished(args: &ReportArgs, run: &RunDir) -> Result<(Bundle, Dataset)> {
    ensure!(run.bundle().is_file(), "the run has no bundle, since it did not reach its end");
    let (_, bundle) = eval::open(run.path())?;
    let data = of_training(&args.data, &bundle.metadata, "go without the pictures of them")?;
    Ok((bundle, data))
}

fn print_analysis(run: &RunDir, evidence: &Evidence) -> Result<()> {
    let run = Run::read(run.path())?;
    println!("{}", run.name);
    for sentence in History::of(&run.history).sentences(&run.recipe) {
        println!("  {sentence}");
    }
    for sentence in &evidence.missing {
        println!("  Missing: {sentence}");
    }
    println!();
    Ok(())
}

/// Writes `evaluation.json` unless there is one of just these predictions.
fn evaluate(run: &RunDir, network: &Network, data: &Dataset, predictions: &Predictions) -> Result<()> {
    let earlier = bounded_read::read(&run.evaluation(), bounded_read::TEXT_BYTES)
        .ok()
        .and_then(|bytes| serde_json::from_slice(&bytes).ok());
    let fits = |earlier: &EvaluationReport| {
        let difference = earlier.metrics.loss - predictions.loss();
        // JSON and the size of a batch may change last digits.
        earlier.metrics.samples == predictions.len() && difference.abs() < 1e-6
    };
    if !earlier.as_ref().is_some_and(fits) {
        let report = eval::report(network, Some(run), &run.bundle(), data, predictions, 0)?;
        eval::save(run, &report)?;
    }
    Ok(())
}

/// The report of a run that has just ended. `answers` are those to the test images, plain and averaged over mirror
/// images, if there are any.
pub fn after_training(
    run: &RunDir,
    network: &Network,
    data: &Dataset,
    answers: Option<(Predictions, Option<Predictions>)>,
) -> Result<PathBuf> {
    let (predictions, flipped) = answers.unwrap_or_else(|| (network.predict(test_images(data).1, true), None));
    let mut report = eval::report(network, Some(run), &run.bundle(), data, &predictions, 0)?;
    report.flip_tta = flipped.as_ref().map(Metrics::of).transpose()?;
    eval::save(run, &report)?;
    write(run, &gather(run, network.bundle(), data, predictions, EMBEDDED)?)
}

/// What only the data shows.
fn gather(
    run: &RunDir,
    bundle: &Bundle,
    data: &Dataset,
    predictions: Predictions,
    embedded: usize,
) -> Result<Evidence> {
    let (_, set) = test_images(data);
    let mut missing = vec![];
    if data.test.is_none() {
        missing.push("Test images: scores are of all images, most of which the network was trained on.".to_owned());
    }
    let embedding = if embedded > 0 { Embedding::of(&predictions, embedded) } else { None };
    if embedded > 0 && embedding.is_none() {
        missing.push("The embedding, which takes 30 images or more whose features differ.".to_owned());
    }
    let mut predictor = Predictor::new(bundle.clone())?;
    let mut shown = |indices: Vec<usize>| -> Result<Vec<Shown>> {
        indices.into_iter().map(|index| shown(&mut predictor, set, index, &predictions)).collect()
    };
    let metrics = Metrics::of(&predictions)?;
    let pairs = confusions(&metrics.confusion, PAIRS);
    let confused = pairs.iter().map(|pair| {
        let examples = shown(examples(&predictions, pair, EXAMPLES))?;
        Ok(ConfusedPair { label: pair.label, predicted: pair.predicted, count: pair.images, examples })
    });
    let confused = confused.collect::<Result<_>>()?;
    let cells = cell_examples(&predictions, CellImage::most(set.width, set.height));
    let cells = cells.into_iter().map(|index| CellImage::new(&picture(set, index), &predictions, index)).collect();
    Ok(Evidence {
        some: shown(balanced_subset(&set.labels, GALLERY, 0).into_iter().map(|index| index as usize).collect())?,
        errors: shown(confident_errors(&predictions, ERRORS))?,
        confused,
        cells,
        embedding,
        augmented: augmented(data, &Run::read(run.path())?.recipe)?,
        filters: filters(bundle),
        predictions: Some(predictions),
        missing,
    })
}

/// An image as it was loaded, what the network says about it, and where in it the evidence lies.
fn shown(predictor: &mut Predictor, set: &ImageSet, index: usize, predictions: &Predictions) -> Result<Shown> {
    let prediction = pollster::block_on(predictor.predict(set.image(index)))?;
    Ok(Shown {
        image: picture(set, index),
        label: predictions.labels[index],
        probabilities: predictions.probabilities(index),
        activation: predictor.activation(&prediction, predictions.predicted(index)),
        activation_width: predictor.activation_size()[1],
    })
}

/// An image as it was loaded, or brought to the network's size.
fn picture(set: &ImageSet, index: usize) -> RgbImage {
    let (planes, plane) = (set.image(index), set.height * set.width);
    RgbImage::from_fn(set.width as u32, set.height as u32, |x, y| {
        let at = y as usize * set.width + x as usize;
        image::Rgb([0, 1, 2].map(|channel| planes[channel * plane + at]))
    })
}

fn augmented(data: &Dataset, recipe: &Recipe) -> Result<Vec<AugmentedRow>> {
    // Those that are trained on: validation images are never augmented.
    let split = recipe.split(&data.train.labels)?;
    let labels: Vec<u32> = split.train.iter().map(|index| data.train.labels[*index as usize]).collect();
    let some = balanced_subset(&labels, AUGMENTED, recipe.training.seed);
    let indices: Vec<u32> = some.into_iter().map(|index| split.train[index as usize]).collect();
    let row = |(name, augment): (&str, Augment)| AugmentedRow {
        name: name.to_owned(),
        images: augment::images(data, &indices, &augment, recipe.training.seed),
    };
    Ok(augment::rows(&recipe.augment, false, data.train.height).into_iter().map(row).collect())
}

fn filters(bundle: &Bundle) -> Option<Filters> {
    let tensor = bundle.state.get("conv1.weight")?;
    Some(Filters { weights: tensor.values.clone(), kernel: *tensor.shape.last()? })
}

/// Writes the pictures and the page; the page's path.
fn write(folder: &RunDir, evidence: &Evidence) -> Result<PathBuf> {
    let run = Run::read(folder.path())?;
    let report = Report { run: &run, about: about(folder)?, evidence, version: env!("CARGO_PKG_VERSION") };
    let sections = report.sections();
    let curves = curves(&[&run]);
    let figures = sections.iter().flat_map(|section| &section.figures).chain([&curves]);
    write_figures(&folder.figures(), figures)?;
    write_whole(&folder.report(), report.html(&sections).as_bytes())?;
    Ok(folder.report())
}

/// What the last checkpoint knows; `None` if it is gone.
fn about(run: &RunDir) -> Result<Option<About>> {
    let latest = match run.latest() {
        Err(RunDirError::Empty(_)) => return Ok(None),
        latest => latest?,
    };
    let Header { architecture, classes, image_size, dataset, step, total_steps, .. } = latest.checkpoint.header;
    let parameters = Summary::new(&architecture, image_size).parameters();
    Ok(Some(About { dataset, classes: classes.len(), image_size, parameters, step, total_steps }))
}
