//! `kiln predict`

mod inputs;
mod table;

use std::fs;
use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, anyhow};
use indicatif::{ProgressBar, ProgressStyle};
use kiln::{SelectedDevice, choose};
use kiln_data::{DecodeError, Decoded, Input, decode_damaged_file};
use kiln_model::{Bundle, Metadata, Prediction, Predictor};
use kiln_train::run_dir::write_whole;
use rayon::prelude::*;
use serde_json::json;

use self::table::Table;
use crate::args::PredictArgs;
use crate::model::open;
use crate::printable::{message, printable};

/// Pictures that are decoded at a time, on all cores, while the network waits.
const BATCH: usize = 64;

/// An image's answer, and what is wrong with its file.
struct Answer {
    prediction: Prediction,
    damage: Option<DecodeError>,
}

pub fn run(args: PredictArgs) -> Result<ExitCode> {
    let images = inputs::files(&args.images)?;
    let path = args.model.map_or_else(newest_run, Ok)?;
    let (path, bundle) = open(&path)?;
    let mut predictor = predictor(bundle, &choose(args.device)?)?;
    let Metadata { classes, recipe, architecture, accuracy, .. } = predictor.metadata().clone();
    let input = predictor.metadata().input();
    let top = usize::from(args.top).min(classes.len());
    if !args.json {
        let unknown = if accuracy.is_none() { ", accuracy not known" } else { "" };
        println!("{} ({} at width {}{unknown})", path.display(), recipe, architecture.width());
    }
    let is_shown = images.len() > BATCH && std::io::stderr().is_terminal();
    let bar = if is_shown { ProgressBar::new(images.len() as u64) } else { ProgressBar::hidden() };
    bar.set_style(ProgressStyle::with_template("images {bar:30} {pos}/{len} {per_sec} ETA {eta}")?);
    let (mut table, mut failed) = (args.csv.is_some().then(|| Table::new(top)), false);
    for batch in images.chunks(BATCH) {
        for (image, answer) in batch.iter().zip(answers(&mut predictor, batch, input)?) {
            if let Some(table) = &mut table {
                table.add(image, &answer, &classes);
            }
            match answer {
                Ok(answer) => bar.suspend(|| show(image, &answer, &classes, top, args.json)),
                Err(error) => {
                    failed = true;
                    bar.suspend(|| eprintln!("error: {}", message(format!("{}: {error}", image.display()))));
                }
            }
            bar.inc(1);
        }
    }
    bar.finish_and_clear();
    if let (Some(table), Some(path)) = (table, &args.csv) {
        write_whole(path, table.text().as_bytes()).context("the answers cannot be written")?;
    }
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// The answer for each file, or why it cannot be read.
fn answers(predictor: &mut Predictor, files: &[PathBuf], input: Input) -> Result<Vec<Result<Answer, DecodeError>>> {
    let decoded: Vec<_> = files.par_iter().map(|file| decode_damaged_file(file, input)).collect();
    let (mut pictures, mut damages) = (vec![], vec![]);
    for decoded in decoded {
        damages.push(decoded.map(|Decoded { pixels, damage }| {
            pictures.push(pixels);
            damage
        }));
    }
    let mut predictions = pollster::block_on(predictor.predict_batch(&pictures))?.into_iter();
    let mut answer = |damage| Answer { prediction: predictions.next().expect("one for each picture"), damage };
    Ok(damages.into_iter().map(|damage| damage.map(&mut answer)).collect())
}

fn show(image: &Path, answer: &Answer, classes: &[String], top: usize, as_json: bool) {
    let Answer { prediction, damage } = answer;
    if let Some(damage) = damage {
        eprintln!("warning: {}", message(format!("{}: {damage}", image.display())));
    }
    let ranked: Vec<_> = prediction.top(top).into_iter().map(|(class, p)| (p, &classes[class])).collect();
    if as_json {
        let top: Vec<_> = ranked.iter().map(|(p, class)| json!({"class": class, "probability": p})).collect();
        let mut line = json!({"image": image, "top": top, "logits": prediction.logits});
        if let Some(damage) = damage {
            line["warning"] = damage.to_string().into();
        }
        println!("{line}");
        return;
    }
    println!("\n{}", printable(image.display()));
    let width = ranked.iter().map(|(_, class)| class.chars().count()).max().unwrap_or(0);
    for (probability, class) in ranked {
        println!("  {class:<width$}  {:>5.1} %  {}", 100.0 * probability, bar(probability));
    }
}

/// The network on the selected adapter, or on the CPU. Inference plans run on wgpu alone, so a CUDA device falls back to
/// the CPU, and the user is told.
pub fn predictor(bundle: Bundle, selected: &SelectedDevice) -> Result<Predictor> {
    if let Some(adapter) = &selected.adapter {
        return Ok(pollster::block_on(Predictor::on_gpu(bundle, &adapter.for_inference()))?);
    }
    if selected.is_gpu {
        eprintln!("note: {} is not reached by wgpu; classifying on the CPU", selected.name);
    }
    Ok(Predictor::new(bundle)?)
}

/// Up to 30 characters long, in eighths.
fn bar(share: f32) -> String {
    let eighths = (share * 240.0).round() as usize;
    let rest = ["", "▏", "▎", "▍", "▌", "▋", "▊", "▉"][eighths % 8];
    "█".repeat(eighths / 8) + rest
}

fn newest_run() -> Result<PathBuf> {
    let runs = fs::read_dir("runs").into_iter().flatten().flatten().map(|entry| entry.path().join("model.safetensors"));
    let finished = runs.filter_map(|path| Some((path.metadata().ok()?.modified().ok()?, path)));
    let newest = finished.max().map(|(_, path)| path);
    newest.ok_or_else(|| {
        anyhow!("there is no finished run under runs/: train one with `kiln train`, or name a bundle with --model")
    })
}
