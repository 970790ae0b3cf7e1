//! `kiln bench inference`

use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use burn::tensor::{Tensor, TensorData};
use kiln_infer::Precision;
use kiln_infer::{CpuExecutor, GpuExecutor};
use kiln_kernels::device::{DeviceRequest, OperatorPath, choose};
use kiln_model::{Architecture, InferenceNetwork, ResNetConfig};
use serde_json::json;

use super::{check_batch, peak, print_json, print_peak};

/// Runs before the clock starts.
const WARM_UP: usize = 3;

pub fn run(
    [width, batch]: [usize; 2],
    runs: u32,
    precision: Precision,
    device: DeviceRequest,
    json: bool,
) -> Result<ExitCode> {
    check_batch(batch)?;
    ensure!((1..=1024).contains(&width), "the width is {width}; it must be between 1 and 1024");
    let config: Architecture = ResNetConfig { width, ..ResNetConfig::new(18, 10) }.into();
    let chosen = choose(device)?;
    let model = config.init(0, &chosen.device)?;
    let network = InferenceNetwork::new(&config, &model.state_dict(), 32)?;
    let pixels: Vec<f32> = (0..batch * 3072).map(|index| (index as f32).sin()).collect();

    let (network, pixels) = (&network, &pixels);
    let mut plan: Box<dyn FnMut() -> Result<Vec<f32>>> = if OperatorPath::of(&chosen.device) == OperatorPath::Cpu {
        ensure!(precision == Precision::F32, "a CPU's plans are f32: choose a GPU with --device");
        let mut executor = CpuExecutor::new(network.plan.clone())?;
        Box::new(move || {
            let maps = executor.run(pixels);
            Ok(maps.chunks(maps.len() / batch).flat_map(|map| network.predict(map.to_vec()).logits).collect())
        })
    } else {
        let adapter = chosen.adapter.as_ref().context("plans run on the CPU and through wgpu, not through CUDA")?;
        let executor = pollster::block_on(GpuExecutor::new(&adapter.for_inference(), &network.plan, precision))?;
        // That executor takes one image at a time.
        let logits = move |image| Ok(network.predict(pollster::block_on(executor.run(image))?.0).logits);
        Box::new(move || Ok(pixels.chunks(3072).map(&logits).collect::<Result<Vec<_>>>()?.concat()))
    };
    let images = Tensor::<4>::from_data(TensorData::new(pixels.clone(), [batch, 3, 32, 32]), &chosen.device);
    let mut module = || Ok(model.forward(images.clone()).into_data().convert::<f32>().try_into_vec::<f32>()?);
    let [plan, module] = in_turn(runs as usize, [&mut plan, &mut module], precision)?;
    let peak = peak(&chosen)?;
    let operations = 2.0 * (batch * network.plan.multiply_adds()?) as f64;
    let peers = [("plan", plan), ("burn", module)].map(|(name, times)| {
        let (p50, p90) = (quantile(&times, 0.5), quantile(&times, 0.9));
        (name, p50, p90, 1000.0 * batch as f64 / p50, operations / p50 / 1e6)
    });
    if json {
        let mut fields = json!({"width": width, "batch": batch, "runs": runs, "precision": precision.to_string()});
        for (name, p50, p90, images, gflops) in peers {
            fields["milliseconds"][name] = json!({"p50": p50, "p90": p90});
            fields["images_per_second"][name] = json!(images);
            fields["gflops"][name] = json!(gflops);
        }
        print_json(&chosen, peak, fields);
    } else {
        println!("ResNet-18 at width {width}, {runs} times a batch of {batch} on {}", chosen.name);
        print_peak(peak);
        for (name, p50, p90, images, gflops) in peers {
            let share = peak.map_or(String::new(), |peak| format!(", {:.0} % of the peak", 100.0 * gflops / peak));
            println!(
                "{name:<6} p50 {p50:>8.2} ms   p90 {p90:>8.2} ms   {images:>8.1} images/s   {gflops:>8.1} GFLOP/s{share}"
            );
        }
    }
    Ok(ExitCode::SUCCESS)
}

type Run<'a> = &'a mut dyn FnMut() -> Result<Vec<f32>>;

/// Sorted milliseconds of each, whose answers must agree.
fn in_turn(runs: usize, mut peers: [Run; 2], precision: Precision) -> Result<[Vec<f64>; 2]> {
    let mut times = [vec![], vec![]];
    let limit = if precision == Precision::F32 { 1e-3 } else { 3e-2 };
    for run in 0..WARM_UP + runs {
        let mut answers = vec![];
        for (peer, times) in peers.iter_mut().zip(&mut times) {
            let start = Instant::now();
            answers.push(peer()?);
            if run >= WARM_UP {
                times.push(1000.0 * start.elapsed().as_secs_f64());
            }
        }
        let scale = answers[1].iter().fold(1e-3_f32, |max, value| max.max(value.abs()));
        let agree = answers[0].iter().zip(&answers[1]).all(|(a, b)| (a - b).abs() <= limit * scale);
        ensure!(agree, "the plan and the burn module do not agree: see `kiln doctor`");
    }
    times.iter_mut().for_each(|times| times.sort_by(f64::total_cmp));
    Ok(times)
}

fn quantile(sorted: &[f64], q: f64) -> f64 {
    sorted[(q * (sorted.len() - 1) as f64) as usize]
}
