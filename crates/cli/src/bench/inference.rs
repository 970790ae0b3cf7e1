//! `kiln bench inference`

use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use burn::tensor::Device;
use kiln_kernels::device::{Chosen, Path, Request, choose};
use kiln_kernels::inference::{Plan, cpu, gpu};
use kiln_model::{InferenceResNet, Preset, ResNetConfig};
use serde_json::json;

const IMAGE_SIZE: usize = 32;

pub fn run(width: usize, runs: u32, device: Request, json: bool) -> Result<ExitCode> {
    ensure!((1..=1024).contains(&width), "a width of {width} makes no network: it must be between 1 and 1024");
    let chosen = choose(device)?;
    let config = ResNetConfig { width, ..ResNetConfig::preset(Preset::ResNet(18), 10) };
    let state = config.init(0, &Device::flex())?.state_dict();
    let mut network = InferenceResNet::new(&config, &state, IMAGE_SIZE)?;
    let mut executor = executor(std::mem::take(&mut network.plan), &chosen)?;
    let image: Vec<f32> = (0..3 * IMAGE_SIZE * IMAGE_SIZE).map(|index| (index as f32).sin()).collect();
    let mut times = vec![];
    for run in 0..=runs {
        let start = Instant::now();
        network.predict(&executor(&image)?);
        // The first run is not timed.
        times.extend((run > 0).then_some(1000.0 * start.elapsed().as_secs_f64()));
    }
    times.sort_by(f64::total_cmp);
    let (p50, p90) = (times[times.len() / 2], times[times.len() * 9 / 10]);
    if json {
        println!("{}", json!({"device": chosen.name, "width": width, "runs": runs, "p50_ms": p50, "p90_ms": p90}));
    } else {
        println!("one image of {IMAGE_SIZE}x{IMAGE_SIZE} through ResNet-18 at width {width} on {}", chosen.name);
        println!("p50 {p50:.2} ms   p90 {p90:.2} ms, of {runs} runs");
    }
    Ok(ExitCode::SUCCESS)
}

type Run = Box<dyn FnMut(&[f32]) -> Result<Vec<f32>>>;

/// The plan on the device: an image in, its feature map out.
fn executor(plan: Plan, chosen: &Chosen) -> Result<Run> {
    if Path::of(&chosen.device) == Path::Cpu {
        let mut executor = cpu::Executor::new(plan)?;
        return Ok(Box::new(move |image| Ok(executor.run(image))));
    }
    let adapter = chosen.adapter.as_ref().context("plans run on the CPU and through wgpu, not through CUDA")?;
    let executor = pollster::block_on(gpu::Executor::new(&adapter.for_inference(), &plan))?;
    Ok(Box::new(move |image| Ok(pollster::block_on(executor.run(image))?.0)))
}
