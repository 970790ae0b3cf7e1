//! `kiln eval`, and how it and the other commands find a trained network.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use burn::tensor::Device;
use kiln_data::{Dataset, ImageSet};
use kiln_kernels::device::choose;
use kiln_model::Bundle;
use kiln_train::run_dir::RunDir;
use kiln_train::{Evaluation, Scoring, evaluate};
use serde_json::json;

use crate::args::EvalArgs;
use crate::data;

pub fn run(args: EvalArgs) -> Result<ExitCode> {
    let (path, bundle) = open(&args.model)?;
    let mut data_args = args.data.clone();
    data_args.image_size.get_or_insert(bundle.metadata.image_size);
    let chosen = choose(args.device)?;
    let data = data::dataset(&data_args, bundle.metadata.seed)?;
    let (split, _) = test_images(&data);
    let evaluation = score(&bundle, &data, args.batch_size.into(), args.tta, &chosen.device)?;
    if args.json {
        let event = json!({
            "model": path, "dataset": data.name, "split": split, "flip_tta": args.tta, "evaluation": evaluation,
        });
        println!("{event}");
    } else {
        let tta = if args.tta { ", averaged over mirror images" } else { "" };
        println!("{} on {} ({split}, {} images{tta})", path.display(), data.name, evaluation.samples);
        print_scores(&evaluation, &data.classes);
    }
    Ok(ExitCode::SUCCESS)
}

/// Scores a bundle on the images to test on.
pub fn score(
    bundle: &Bundle,
    data: &Dataset,
    batch_size: usize,
    flip_tta: bool,
    device: &Device,
) -> Result<Evaluation> {
    check_classes(bundle, data)?;
    let model = bundle.model(device)?;
    let (_, set) = test_images(data);
    let indices: Vec<u32> = (0..set.len() as u32).collect();
    let scoring = Scoring { mean: bundle.metadata.mean, std: bundle.metadata.std, batch_size, flip_tta };
    let evaluation = evaluate(&model, set, &indices, &scoring, device, &mut || false);
    evaluation.context("the evaluation was stopped")
}

/// Accuracy, loss and a line a class.
fn print_scores(evaluation: &Evaluation, classes: &[String]) {
    println!(
        "accuracy {:.2} %   top-5 {:.2} %   loss {:.4}\n",
        100.0 * evaluation.accuracy,
        100.0 * evaluation.top5,
        evaluation.loss
    );
    let width = classes.iter().map(String::len).max().unwrap_or(0).max(5);
    println!("{:<width$}  images  accuracy  most often taken for", "class");
    for (label, row) in evaluation.confusion.iter().enumerate() {
        let images: usize = row.iter().sum();
        let wrong = (0..row.len()).filter(|other| *other != label).max_by_key(|other| row[*other]);
        let wrong = wrong.filter(|other| row[*other] > 0).map(|other| format!("{} ({})", classes[other], row[other]));
        let accuracy = 100.0 * row[label] as f64 / images.max(1) as f64;
        println!("{:<width$}  {images:>6}  {accuracy:>6.2} %  {}", classes[label], wrong.unwrap_or_default());
    }
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
    let bytes = std::fs::read(&path).with_context(|| {
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
