//! From arguments to a dataset, with its progress on the terminal.

use std::io::IsTerminal;
use std::path::PathBuf;

use anyhow::{Result, bail, ensure};
use clap::ValueEnum;
use indicatif::{ProgressBar, ProgressStyle};
use kiln_data::cifar::{CIFAR10, CIFAR100, CIFAR100_COARSE};
use kiln_data::{Dataset, Input, LabelTable, LoadOptions, LoadProgress, Matched, Source, load};
use kiln_model::Metadata;
use kiln_train::Recipe;

use crate::args::{Columns, DataArgs, DatasetName, TeachArgs};
use crate::printable::message;

/// Loads what the arguments name as a recipe wants it, and says what a user should know of it on stderr. Pictures are brought to
/// their size in the way of `earlier`, weights to start with or the run to resume, if that is of the same size. The recipe gets the
/// size.
pub fn for_training(args: &DataArgs, recipe: &mut Recipe, earlier: Option<Input>) -> Result<Dataset> {
    let size = &mut recipe.training.image_size;
    *size = args.image_size.unwrap_or(*size);
    let mut options = recipe.load_options(source(args)?)?;
    recipe.training.image_size = options.image_size.unwrap_or(recipe.training.image_size);
    if let Some(earlier) = earlier.filter(|earlier| earlier.size == recipe.training.image_size) {
        options.preprocessing = earlier.preprocessing.or(options.preprocessing);
    }
    load_images(args, options)
}

/// Loads what the arguments name to score a network on it: pictures are brought to its size as it wants them, and classes to
/// its own by their names.
pub fn to_score(args: &DataArgs, trained: &Metadata) -> Result<Dataset> {
    Ok(of_known_classes(for_network(args, trained, false)?, trained))
}

fn for_network(args: &DataArgs, trained: &Metadata, originals: bool) -> Result<Dataset> {
    let size = args.image_size.unwrap_or(trained.image_size);
    let options = LoadOptions {
        source: source(args)?,
        known_classes: trained.classes.clone(),
        image_size: Some(size),
        preprocessing: trained.preprocessing.filter(|_| size == trained.image_size),
        originals,
        seed: trained.seed,
        ..LoadOptions::default()
    };
    load_images(args, options)
}

/// Loads pictures to teach a network by, brought to its size as it wants them.
pub fn to_teach(args: &TeachArgs, trained: &Metadata) -> Result<Dataset> {
    let options = LoadOptions {
        source: Source::from_path(&args.images)?,
        labels: table(args.labels.clone(), args.label_columns.clone()),
        image_size: Some(trained.image_size),
        preprocessing: trained.preprocessing,
        limit: args.limit,
        ..LoadOptions::default()
    };
    shown(options)
}

fn table(path: Option<PathBuf>, columns: Option<Columns>) -> Option<LabelTable> {
    path.map(|path| LabelTable { path, columns: columns.map(|it| it.0) })
}

fn source(args: &DataArgs) -> Result<Source> {
    Ok(match (&args.data, args.dataset) {
        (Some(path), _) => Source::from_path(path)?,
        (None, DatasetName::Auto) => Source::Auto,
        (None, DatasetName::Cifar10) => Source::Cifar(&CIFAR10),
        (None, DatasetName::Cifar100) => Source::Cifar(&CIFAR100),
        (None, DatasetName::Cifar100Coarse) => Source::Cifar(&CIFAR100_COARSE),
        (None, DatasetName::Synthetic) => Source::Synthetic,
    })
}

/// Loads with what the arguments say beside the options.
fn load_images(args: &DataArgs, options: LoadOptions) -> Result<Dataset> {
    let options = LoadOptions {
        data_dir: args.data_dir.clone(),
        labels: table(args.labels.clone(), args.label_columns.clone()),
        offline: args.offline,
        limit: args.limit,
        ..options
    };
    shown(options)
}

/// Loads with its progress on the terminal, and a word about what was found.
fn shown(options: LoadOptions) -> Result<Dataset> {
    let bar = ProgressBar::hidden();
    if std::io::stderr().is_terminal() {
        bar.set_draw_target(indicatif::ProgressDrawTarget::stderr());
    }
    let counted = |template: &str| ProgressStyle::with_template(template).expect("a valid template");
    let loaded = load(&options, &mut |progress| match progress {
        LoadProgress::Downloading { received, total } => {
            bar.set_style(counted("downloading images {bar:30} {bytes}/{total_bytes} {bytes_per_sec} ETA {eta}"));
            bar.set_length(total.unwrap_or(received));
            bar.set_position(received);
        }
        LoadProgress::Unpacking => {
            bar.set_style(counted("{spinner} checking and unpacking"));
            bar.tick();
        }
        LoadProgress::Decoding { done, total } => {
            bar.set_style(counted("decoding images {bar:30} {pos}/{len}"));
            bar.set_length(total.unwrap_or(done) as u64);
            bar.set_position(done as u64);
        }
    });
    bar.finish_and_clear();
    let loaded = loaded?;
    if let Some(note) = &loaded.note {
        eprintln!("note: {}; pass --data PATH to use your own images", message(note));
    }
    let Dataset { name, report, .. } = &loaded.dataset;
    if !report.arrangement.is_empty() {
        let aside = if report.aside.is_empty() { String::new() } else { format!("; left aside: {}", report.aside) };
        let images = report.files - report.skipped.len();
        let streamed = if report.is_streamed { ", decoded anew whenever they are needed" } else { "" };
        eprintln!("found    {}", message(format!("{name}: {}; {images} images{streamed}{aside}", report.arrangement)));
    }
    let skipped = (!report.skipped.is_empty()).then(|| report.skipped_files());
    for warning in skipped.iter().chain(&report.notes) {
        eprintln!("warning: {}", message(warning));
    }
    Ok(loaded.dataset)
}

/// Data with the network's classes, by their names, and a word about what that changes.
fn of_known_classes(mut data: Dataset, trained: &Metadata) -> Dataset {
    if data.classes == trained.classes {
        return data;
    }
    let mut found = data.clone();
    let Matched { classes, unknown, dropped } = found.match_classes(&trained.classes);
    // With none of the classes, an error will say which there are.
    if !classes.is_empty() {
        let (known, all) = (classes.len(), trained.classes.len());
        let rest = if unknown.is_empty() {
            String::new()
        } else {
            format!("; left aside: {dropped} images of classes that it does not know, {}", unknown.join(", "))
        };
        let classes = classes.join(", ");
        eprintln!(
            "note: {}",
            message(format!("{} has {known} of the network's {all} classes: {classes}{rest}", data.name))
        );
        data = found;
    }
    data
}

/// The images that the user names, or else those that a network was trained on: never another set that
/// happens to be at hand; for crops with their `originals`. `otherwise` is what the user can do without them.
pub fn of_training(args: &DataArgs, trained: &Metadata, originals: bool, otherwise: &str) -> Result<Dataset> {
    let mut args = args.clone();
    let named = args.is_named();
    if !named {
        let known = DatasetName::value_variants().iter().filter(|dataset| **dataset != DatasetName::Auto);
        args.dataset = match known.copied().find(|dataset| dataset.name() == trained.dataset) {
            Some(dataset) => dataset,
            None => bail!(
                "the network was trained on your own images, '{}': say where they are with --data PATH (and --limit, \
                 if the training had one), or {otherwise}",
                trained.dataset
            ),
        };
    }
    let data = for_network(&args, trained, originals)?;
    if data.has_digest(&trained.dataset_digest) {
        return Ok(data);
    }
    ensure!(
        named,
        "the network was trained on another {} than this one, by its digest: give --limit and --image-size as its \
         training had them, name other images with --data or --dataset, or {otherwise}",
        trained.dataset
    );
    eprintln!(
        "note: {} is not what the network was trained on ({}), by its digest; scoring on it anyway",
        data.name, trained.dataset
    );
    Ok(of_known_classes(data, trained))
}
