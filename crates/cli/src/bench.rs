//! `kiln bench`

use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Result, ensure};
use burn::tensor::{Device, Tensor, TensorData};
use kiln_data::{Dataset, ImageSet, synthetic, synthetic_image};
use kiln_infer::{Precision, peak};
use kiln_kernels::device::{DeviceRequest, OperatorPath, SelectedDevice, awake, multiplies};
use kiln_train::{Event, Recipe, Sgd, Trainer, cross_entropy, recipe, soft_targets};
use serde_json::{Value, json};

use crate::args::{Bench, BenchArgs};
use crate::devices::choose;
use crate::machine;

mod inference;
mod layers;

const WARM_UP: usize = 3;

pub fn run(args: BenchArgs) -> Result<ExitCode> {
    match args.what {
        Bench::TrainStep { width, batch, image_size, steps, precision, device, json } => {
            train_step([width, batch, image_size], steps, precision, device, json)
        }
        Bench::Inference { width, batch, runs, precision, device, json } => {
            inference::run([width, batch], runs, precision, device, json)
        }
        Bench::Layers { width, batch, image_size, runs, precision, device, json } => {
            layers::run([width, batch, image_size], runs, precision, device, json)
        }
    }
}

/// The most that a device does, in GFLOP/s; not known for CUDA, which nothing here measures.
pub fn peak(chosen: &SelectedDevice) -> Result<Option<f64>> {
    let operations = match &chosen.adapter {
        Some(adapter) => pollster::block_on(kiln_infer::gpu::peak(&adapter.for_inference()))?,
        None if OperatorPath::of(&chosen.device) == OperatorPath::Cpu => peak::cpu(),
        None => return Ok(None),
    };
    Ok(Some(operations / 1e9))
}

/// Prints a bench's own fields as JSON, with what every result needs: where, by what, and the peak there.
pub fn print_json(chosen: &SelectedDevice, peak: Option<f64>, fields: Value) {
    let mut whole = json!({
        "machine": machine::describe(), "versions": machine::versions(), "device": chosen.name, "peak_gflops": peak,
    });
    whole.as_object_mut().zip(fields.as_object()).into_iter().for_each(|(whole, fields)| whole.extend(fields.clone()));
    println!("{whole}");
}

fn print_peak(peak: Option<f64>) {
    if let Some(peak) = peak {
        println!("measured f32 peak: {peak:.1} GFLOP/s");
    }
}

/// Smaller images go through CIFAR's stem, which keeps their size.
const SMALLEST_PHOTO: usize = 64;

fn check_image_size(image_size: usize) -> Result<()> {
    ensure!((8..=1024).contains(&image_size), "the images have {image_size} pixels a side; 8 to 1024 are possible");
    Ok(())
}

fn train_step(
    [width, batch, image_size]: [usize; 3],
    steps: u32,
    precision: Precision,
    device: DeviceRequest,
    json: bool,
) -> Result<ExitCode> {
    check_batch(batch)?;
    check_image_size(image_size)?;
    let chosen = choose(device)?;
    let overrides = [
        format!("model.stem={}", if image_size < SMALLEST_PHOTO { "cifar" } else { "imagenet" }),
        format!("training.image_size={image_size}"),
        format!("model.width={width}"),
        format!("training.batch_size={batch}"),
        format!("training.precision={precision}"),
    ];
    let recipe = Recipe::parse(recipe::BUILT_IN[0].1, &overrides)?;
    ensure!(multiplies(&chosen.device, precision), "{} does not multiply {precision}", chosen.name);
    let bare = bare_step(&recipe, batch, steps as usize, &chosen.device)?;
    let whole = whole_step(&recipe, batch, steps as usize, &chosen)?;
    let rate = |seconds: f64| batch as f64 / seconds;
    if json {
        let fields = json!({
            "width": width, "batch": batch, "image_size": image_size, "steps": steps, "precision": precision.to_string(),
            "images_per_second": rate(bare), "loop_images_per_second": rate(whole),
        });
        print_json(&chosen, peak(&chosen)?, fields);
    } else {
        println!(
            "ResNet-18 at width {width}, batch {batch}, {image_size} x {image_size} pixels, {steps} steps in {precision} on {}",
            chosen.name
        );
        println!("bare training step   {:>8.1} images/s", rate(bare));
        println!("whole loop           {:>8.1} images/s, loading, augmentation and metrics included", rate(whole));
    }
    Ok(ExitCode::SUCCESS)
}

fn check_batch(batch: usize) -> Result<()> {
    ensure!((1..=65_536).contains(&batch), "a batch of {batch} cannot be timed: it must be between 1 and 65536");
    Ok(())
}

/// Seconds of forward, backward and update on one batch that is on the device already.
fn bare_step(recipe: &Recipe, batch: usize, steps: usize, device: &Device) -> Result<f64> {
    let device = device.clone().autodiff();
    let size = recipe.training.image_size;
    let mut model = recipe.architecture(10, size)?.init(0, &device)?.with_precision(recipe.training.precision);
    let mut sgd = Sgd::new(recipe.optimizer.clone());
    let pixels: Vec<f32> = (0..batch * 3 * size * size).map(|index| (index as f32).sin()).collect();
    let images = Tensor::<4>::from_data(TensorData::new(pixels, [batch, 3, size, size]), &device);
    let labels: Vec<u32> = (0..batch as u32).map(|index| index % 10).collect();
    let targets = soft_targets(&labels, 10, 0.0, &device);
    let mut since = Instant::now();
    for step in 0..WARM_UP + steps {
        if step == WARM_UP {
            device.sync()?;
            since = Instant::now();
        }
        let _awake = awake(&device);
        let grads = cross_entropy(model.forward(images.clone()), targets.clone()).backward();
        model = sgd.step(model, &grads, 1e-4);
    }
    device.sync()?;
    Ok(since.elapsed().as_secs_f64() / steps as f64)
}

/// Drawn pictures of that size.
fn pictures(count: usize, size: usize) -> Dataset {
    let mut data = synthetic(count, 0, 0);
    if size != data.train.height {
        let mut train = ImageSet::empty(size, size);
        (0..count).for_each(|index| train.push(&synthetic_image(index % 10, index as u64, size), index as u32 % 10));
        data.train = train;
    }
    data
}

/// Seconds of a step of the training loop as `kiln train` runs it.
fn whole_step(recipe: &Recipe, batch: usize, steps: usize, chosen: &SelectedDevice) -> Result<f64> {
    let mut recipe = recipe.clone();
    recipe.training.validation = 0.0;
    let data = pictures(batch * (steps + WARM_UP + 1), recipe.training.image_size);
    let mut trainer = Trainer::new(recipe, &data, None, &chosen.device)?.with_max_pending(0);
    let (mut done, mut since) = (0, Instant::now());
    while let Some(event) = pollster::block_on(trainer.next())? {
        if let Event::Step(_) = event {
            done += 1;
            if done == WARM_UP {
                since = Instant::now();
            }
            if done == WARM_UP + steps {
                break;
            }
        }
    }
    Ok(since.elapsed().as_secs_f64() / steps as f64)
}
