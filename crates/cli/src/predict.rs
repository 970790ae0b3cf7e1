//! `kiln predict`

use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Result, anyhow};
use kiln::{SelectedDevice, choose};
use kiln_model::{Bundle, Metadata, Predictor};
use serde_json::json;

use crate::args::PredictArgs;
use crate::model::open;
use crate::printable::{message, printable};

pub fn run(args: PredictArgs) -> Result<ExitCode> {
    let path = args.model.map_or_else(newest_run, Ok)?;
    let (path, bundle) = open(&path)?;
    let mut predictor = predictor(bundle, &choose(args.device)?)?;
    let Metadata { classes, recipe, architecture, accuracy, .. } = predictor.metadata().clone();
    let mut failed = false;
    if !args.json {
        let unknown = if accuracy.is_none() { ", accuracy not known" } else { "" };
        println!("{} ({} at width {}{unknown})", path.display(), recipe, architecture.width());
    }
    for image in &args.images {
        let prediction = match predictor.classify_file(image) {
            Ok(prediction) => prediction,
            Err(error) => {
                failed = true;
                eprintln!("error: {}", message(format!("{}: {error}", image.display())));
                continue;
            }
        };
        let ranked = prediction.top(5).into_iter().map(|(class, probability)| (probability, &classes[class]));
        let ranked: Vec<_> = ranked.collect();
        if args.json {
            let top: Vec<_> = ranked.iter().map(|(p, class)| json!({"class": class, "probability": p})).collect();
            println!("{}", json!({"image": image, "top": top, "logits": prediction.logits}));
            continue;
        }
        println!("\n{}", printable(image.display()));
        let width = ranked.iter().map(|(_, class)| class.chars().count()).max().unwrap_or(0);
        for (probability, class) in ranked {
            println!("  {class:<width$}  {:>5.1} %  {}", 100.0 * probability, bar(probability));
        }
    }
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// The network on the selected adapter, or on the CPU. Inference plans run on wgpu alone, so a CUDA device falls back to
/// the CPU, and the user is told.
fn predictor(bundle: Bundle, selected: &SelectedDevice) -> Result<Predictor> {
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
