//! `kiln predict`

use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Result, anyhow};
use burn::tensor::{Device, Tensor, TensorData, activation::softmax};
use kiln_data::{ImageSet, decode_image_file, fill_batch};
use kiln_kernels::device::choose;
use kiln_kernels::inference::cpu::Executor;
use kiln_model::{Bundle, Metadata};
use serde_json::json;

use crate::args::PredictArgs;
use crate::eval::open;
use crate::printable::{message, printable};

pub fn run(args: PredictArgs) -> Result<ExitCode> {
    let path = args.model.map_or_else(newest_run, Ok)?;
    let (path, bundle) = open(&path)?;
    let device = choose(args.device)?.device;
    let (metadata, mut classify) = classifier(bundle, &device)?;
    let mut failed = false;
    if !args.json {
        println!("{} ({} at width {})", path.display(), metadata.recipe, metadata.architecture.width());
    }
    for image in &args.images {
        let pixels = match decode_image_file(image, metadata.image_size) {
            Ok(pixels) => pixels,
            Err(error) => {
                failed = true;
                eprintln!("error: {}", message(format!("{}: {error}", image.display())));
                continue;
            }
        };
        let mut ranked: Vec<_> = classify(&normalised(&metadata, pixels)).into_iter().zip(&metadata.classes).collect();
        ranked.sort_by(|a, b| b.0.total_cmp(&a.0));
        ranked.truncate(5);
        if args.json {
            let top: Vec<_> = ranked.iter().map(|(p, class)| json!({"class": class, "probability": p})).collect();
            println!("{}", json!({"image": image, "top": top}));
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

type Classify = Box<dyn FnMut(&[f32]) -> Vec<f32>>;

/// Makes probabilities `[classes]` of normalised pixels `[3, size, size]`: on a CPU by the plan that
/// the page runs too, elsewhere by the burn module. Of the bundle only the metadata stays.
fn classifier(bundle: Bundle, device: &Device) -> Result<(Metadata, Classify)> {
    if *device == Device::flex() {
        let mut network = bundle.inference()?;
        let mut executor = Executor::new(std::mem::take(&mut network.plan))?;
        let classify = move |pixels: &[f32]| network.predict(&executor.run(pixels)).probabilities;
        return Ok((bundle.metadata, Box::new(classify)));
    }
    let (model, size, device) = (bundle.model(device)?, bundle.metadata.image_size, device.clone());
    let classify = move |pixels: &[f32]| {
        let images = Tensor::<4>::from_data(TensorData::new(pixels.to_vec(), [1, 3, size, size]), &device);
        let data = softmax(model.forward(images), 1).into_data();
        data.convert::<f32>().try_into_vec().expect("converted to f32")
    };
    Ok((bundle.metadata, Box::new(classify)))
}

/// What the network takes for planar RGB pixels `[3, size, size]`.
fn normalised(metadata: &Metadata, images: Vec<u8>) -> Vec<f32> {
    let size = metadata.image_size;
    let set = ImageSet { height: size, width: size, images, labels: vec![0] };
    let mut pixels = vec![];
    fill_batch(&set, &[0], None, metadata.mean, metadata.std, &mut pixels);
    pixels
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
