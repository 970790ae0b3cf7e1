//! `kiln eval`, and how it and the other commands find a trained network.

mod table;

use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use burn::tensor::Device;
use indicatif::{ProgressBar, ProgressStyle};
use kiln_data::bounded_read;
use kiln_data::{Corruption, Dataset, ImageSet, SEVERITIES, corrupt};
use kiln_kernels::device::choose;
use kiln_model::{Bundle, Metadata};
use kiln_train::run_dir::{RunDir, write_whole};
use kiln_train::{
    Classifier, Corrupted, Evaluation, EvaluationReport, Intervals, Metrics, Predictions, Recipe, Temperature,
    TemperatureScaling,
};

use crate::args::EvalArgs;
use crate::data;

pub fn run(args: EvalArgs) -> Result<ExitCode> {
    let (path, bundle) = open(&args.model)?;
    let mut data_args = args.data.clone();
    data_args.image_size.get_or_insert(bundle.metadata.image_size);
    let chosen = choose(args.device)?;
    let data = data::dataset(&data_args, bundle.metadata.seed)?;
    let network = Network::new(&bundle, &data, args.batch_size.into(), &chosen.device)?;
    let (_, set) = test_images(&data);

    let predictions = network.predict(set, args.tta);
    let run = args.model.is_dir().then(|| RunDir::open(&args.model));
    let mut report = report(&network, run.as_ref(), &path, &data, &predictions, args.seed)?;
    if args.tta {
        report.flip_tta = Some(Metrics::of(&network.predict_flipped(set, &predictions))?);
    }
    if args.corruptions {
        report.corruptions = corruptions(&network, set, args.seed)?;
    }
    if args.json {
        println!("{}", serde_json::to_string(&report)?)
    } else {
        print!("{}", table::of(&report))
    }
    if let Some(run) = run {
        save(&run, &report)?;
        if !args.json {
            println!("\nsaved {}", run.evaluation().display());
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// What predictions on the test images say, and a temperature if the run is known.
pub fn report(
    network: &Network,
    run: Option<&RunDir>,
    path: &Path,
    data: &Dataset,
    predictions: &Predictions,
    seed: u64,
) -> Result<EvaluationReport> {
    let of = format!("{} cannot be evaluated on {}", path.display(), data.name);
    Ok(EvaluationReport {
        model: path.display().to_string(),
        dataset: data.name.clone(),
        split: test_images(data).0.to_owned(),
        metrics: Metrics::of(predictions).context(of)?,
        intervals: Intervals::of(predictions, seed)?,
        flip_tta: None,
        temperature: fit_temperature(network, run, data, predictions),
        corruptions: vec![],
    })
}

/// Writes `evaluation.json`.
pub fn save(run: &RunDir, report: &EvaluationReport) -> Result<()> {
    Ok(write_whole(&run.evaluation(), (serde_json::to_string(report)? + "\n").as_bytes())?)
}

/// A trained network that can be asked about images.
pub struct Network<'a> {
    bundle: &'a Bundle,
    classifier: Classifier,
}

impl<'a> Network<'a> {
    /// Refuses data with other classes than the network's, or images of a size that it does not take.
    pub fn new(bundle: &'a Bundle, data: &Dataset, batch_size: usize, device: &Device) -> Result<Self> {
        check_classes(bundle, data)?;
        bundle.metadata.architecture.check_image_size(data.train.height)?;
        let (network, device, classes) = (bundle.model(device)?, device.clone(), data.classes.clone());
        let Metadata { mean, std, .. } = bundle.metadata;
        Ok(Self { bundle, classifier: Classifier { network, device, classes, mean, std, batch_size } })
    }

    pub fn bundle(&self) -> &Bundle {
        self.bundle
    }

    pub fn predict(&self, set: &ImageSet, features: bool) -> Predictions {
        let indices: Vec<u32> = (0..set.len() as u32).collect();
        self.predict_some(set, &indices, features)
    }

    fn predict_some(&self, set: &ImageSet, indices: &[u32], features: bool) -> Predictions {
        self.classifier.predict(set, indices, features, &mut || false).expect("nothing stops it")
    }

    /// Averaged over mirror images, for which `plain` needs its features.
    fn predict_flipped(&self, set: &ImageSet, plain: &Predictions) -> Predictions {
        let indices: Vec<u32> = (0..set.len() as u32).collect();
        self.classifier.predict_flipped(set, &indices, plain, &mut || false).expect("nothing stops it")
    }
}

/// Scores a bundle on the images to test on.
pub fn score(bundle: &Bundle, data: &Dataset, batch_size: usize, device: &Device) -> Result<Evaluation> {
    let network = Network::new(bundle, data, batch_size, device)?;
    Ok(network.predict(test_images(data).1, false).evaluation())
}

/// A temperature from the images that the run's training kept for validation, if these are known.
fn fit_temperature(network: &Network, run: Option<&RunDir>, data: &Dataset, tested: &Predictions) -> Temperature {
    let skipped = |reason: &str| Temperature::Skipped(reason.to_owned());
    let Some(run) = run else {
        return skipped("a bundle alone does not say which images were kept for validation");
    };
    if data.test.is_none() {
        return skipped("there are no test images apart from those of the training");
    }
    if data.digest() != network.bundle.metadata.dataset_digest {
        return skipped("by their digest, these are not the images of the run's training");
    }
    let validation = match validation_images(run, data) {
        Ok(indices) if indices.is_empty() => return skipped("the recipe keeps no images for validation"),
        Ok(indices) => network.predict_some(&data.train, &indices, false),
        Err(error) => return skipped(&format!("{error:#}")),
    };
    match TemperatureScaling::fit(&validation, tested) {
        Ok(fitted) => Temperature::Fitted(fitted),
        Err(error) => skipped(&error.to_string()),
    }
}

/// Those that the run's training kept for validation.
fn validation_images(run: &RunDir, data: &Dataset) -> Result<Vec<u32>> {
    let path = run.recipe();
    let text = bounded_read::read_text(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let recipe = Recipe::parse(&text, &[]).with_context(|| format!("{} is no recipe", path.display()))?;
    Ok(recipe.split(&data.train.labels)?.validation)
}

/// Every corruption at every severity.
fn corruptions(network: &Network, set: &ImageSet, seed: u64) -> Result<Vec<Corrupted>> {
    let passes = Corruption::ALL.len() * SEVERITIES;
    let bar = if std::io::stderr().is_terminal() { ProgressBar::new(passes as u64) } else { ProgressBar::hidden() };
    bar.set_style(ProgressStyle::with_template("corrupted images {bar:24} {pos}/{len} ETA {eta}")?);
    let mut results = vec![];
    for corruption in Corruption::ALL {
        for severity in 1..=SEVERITIES {
            let metrics = Metrics::of(&network.predict(&corrupt(set, corruption, severity, seed), false))?;
            let corruption = corruption.name().to_owned();
            results.push(Corrupted { corruption, severity, accuracy: metrics.accuracy, loss: metrics.loss });
            bar.inc(1);
        }
    }
    bar.finish_and_clear();
    Ok(results)
}

/// The images to test on: the test split, or all images of a set that is not split.
pub fn test_images(data: &Dataset) -> (&'static str, &ImageSet) {
    match &data.test {
        Some(test) => ("test", test),
        None => ("all", &data.train),
    }
}

/// Opens a bundle, or the bundle of a run's folder.
pub fn open(path: &Path) -> Result<(PathBuf, Bundle)> {
    let path = if path.is_dir() { RunDir::open(path).bundle() } else { path.to_owned() };
    let bytes = bounded_read::read(&path, kiln_model::MAX_BUNDLE_BYTES).with_context(|| {
        format!(
            "cannot read {}: name a bundle, or the folder of a finished run (`kiln train` makes one)",
            path.display()
        )
    })?;
    let bundle = Bundle::from_bytes(&bytes).with_context(|| format!("{} is no usable bundle", path.display()))?;
    Ok((path, bundle))
}

fn check_classes(bundle: &Bundle, data: &Dataset) -> Result<()> {
    let (expected, found) = (&bundle.metadata.classes, &data.classes);
    if expected != found {
        bail!(
            "the network knows the classes {} and {} has {}: evaluate it on data with the same class folders",
            expected.join(", "),
            data.name,
            found.join(", ")
        );
    }
    Ok(())
}
