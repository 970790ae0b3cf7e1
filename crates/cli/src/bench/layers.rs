//! `kiln bench layers`

use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Result, ensure};
use burn::tensor::module::conv2d as burn_conv2d;
use burn::tensor::ops::ConvOptions;
use burn::tensor::{Device, Tensor, TensorData};
use kiln_kernels::device::{DeviceRequest, multiplies};
use kiln_kernels::{Precision, conv2d};
use serde_json::json;

use crate::devices::choose;

use super::{SMALLEST_PHOTO, check_batch, check_image_size, peak, print_json, print_peak};

/// One convolution of the network, and how often it occurs.
struct Layer {
    channels: [usize; 2],
    size: usize,
    kernel: usize,
    stride: usize,
    count: usize,
}

/// The convolutions of ResNet-18: with CIFAR's stem for images of up to 63 pixels a side, with ImageNet's for larger ones.
fn layers(width: usize, image_size: usize) -> Vec<Layer> {
    let layer = |channels, size, kernel, stride, count| Layer { channels, size, kernel, stride, count };
    let (stem, first) = if image_size < SMALLEST_PHOTO {
        (layer([3, width], image_size, 3, 1, 1), image_size)
    } else {
        (layer([3, width], image_size, 7, 2, 1), image_size.div_ceil(2).div_ceil(2))
    };
    let mut layers = vec![stem, layer([width, width], first, 3, 1, 4)];
    let mut size = first;
    for stage in 1..4 {
        let out = width << stage;
        layers.push(layer([out / 2, out], size, 3, 2, 1));
        layers.push(layer([out / 2, out], size, 1, 2, 1));
        size = size.div_ceil(2);
        layers.push(layer([out, out], size, 3, 1, 3));
    }
    layers
}

impl Layer {
    /// Floating-point operations of a forward pass, or of either gradient.
    fn operations(&self, batch: usize) -> f64 {
        let (pixels, patch) = (self.size.div_ceil(self.stride).pow(2), self.channels[0] * self.kernel * self.kernel);
        2.0 * (batch * pixels * patch * self.channels[1]) as f64
    }

    fn name(&self) -> String {
        let [channels, out] = self.channels;
        format!("{0}x{0} {channels}->{out} at {1}x{1} /{2}", self.kernel, self.size, self.stride)
    }
}

/// Seconds of the forward pass, and of forward and backward together.
struct Times {
    forward: f64,
    both: f64,
}

pub fn run(
    [width, batch, image_size]: [usize; 3],
    runs: u32,
    precision: Precision,
    device: DeviceRequest,
    json: bool,
) -> Result<ExitCode> {
    check_batch(batch)?;
    ensure!((1..=1024).contains(&width), "the width is {width}; it must be between 1 and 1024");
    check_image_size(image_size)?;
    let chosen = choose(device)?;
    ensure!(multiplies(&chosen.device, precision), "{} does not multiply {precision}", chosen.name);
    let peak = peak(&chosen)?;
    if !json {
        println!(
            "convolutions of ResNet-18 at width {width}, batch {batch}, {image_size} x {image_size} pixels, in {precision} on {}; GFLOP/s, median of {runs}",
            chosen.name
        );
        print_peak(peak);
        println!();
        println!("{:<32} {:>9} {:>9} {:>9} {:>9}", "", "forward", "", "backward", "");
        println!("{:<32} {:>9} {:>9} {:>9} {:>9}", "layer (input size)", "kiln", "burn", "kiln", "burn");
    }
    let mut rows = vec![];
    let mut totals = [0.0; 4];
    let mut forward_operations = 0.0;
    for layer in layers(width, image_size) {
        let ours = time(&layer, batch, runs, &chosen.device, |x, weight, stride, padding| {
            conv2d(x, weight, stride, padding, precision)
        })?;
        let theirs = time(&layer, batch, runs, &chosen.device, |x, weight, stride, padding| {
            burn_conv2d(x, weight, None, ConvOptions::new([stride; 2], [padding; 2], [1; 2], 1))
        })?;
        let seconds = [ours.forward, theirs.forward, ours.both - ours.forward, theirs.both - theirs.forward];
        totals.iter_mut().zip(seconds).for_each(|(total, seconds)| *total += layer.count as f64 * seconds);
        let operations = layer.operations(batch);
        forward_operations += layer.count as f64 * operations;
        let rate = |seconds: f64, passes: f64| passes * operations / seconds.max(1e-9) / 1e9;
        let rates = [rate(seconds[0], 1.0), rate(seconds[1], 1.0), rate(seconds[2], 2.0), rate(seconds[3], 2.0)];
        if json {
            rows.push(json!({
                "layer": layer.name(), "count": layer.count, "seconds": {
                    "kiln_forward": seconds[0], "burn_forward": seconds[1],
                    "kiln_backward": seconds[2], "burn_backward": seconds[3],
                },
            }));
        } else {
            let [a, b, c, d] = rates;
            println!("{:<32} {a:>9.1} {b:>9.1} {c:>9.1} {d:>9.1}", layer.name());
        }
    }
    // Both gradients of the backward pass are as much work as the forward pass each.
    let passes = [1.0, 1.0, 2.0, 2.0];
    let rates: [f64; 4] = std::array::from_fn(|at| passes[at] * forward_operations / totals[at] / 1e9);
    if json {
        let [a, b, c, d] = rates;
        let gflops = json!({"kiln_forward": a, "burn_forward": b, "kiln_backward": c, "burn_backward": d});
        let fields = json!({
            "width": width, "batch": batch, "image_size": image_size, "runs": runs, "precision": precision.to_string(), "layers": rows, "gflops": gflops,
        });
        print_json(&chosen, peak, fields);
    } else {
        let line = |name: &str, [a, b, c, d]: [f64; 4]| println!("{name:<32} {a:>9.1} {b:>9.1} {c:>9.1} {d:>9.1}");
        println!();
        line("all of them, ms", totals.map(|seconds| 1000.0 * seconds));
        line("all of them, GFLOP/s", rates);
        if let Some(peak) = peak {
            line("% of the measured f32 peak", rates.map(|rate| 100.0 * rate / peak));
        }
        println!("{:<32} {:>9.2} {:>9} {:>9.2}", "times as fast", totals[1] / totals[0], "", totals[3] / totals[2]);
    }
    Ok(ExitCode::SUCCESS)
}

/// Median times of one convolution; the first run, which compiles, is not timed.
fn time(
    layer: &Layer,
    batch: usize,
    runs: u32,
    device: &Device,
    conv: impl Fn(Tensor<4>, Tensor<4>, usize, usize) -> Tensor<4>,
) -> Result<Times> {
    let device = device.clone().autodiff();
    let tensor = |shape: [usize; 4]| {
        let values: Vec<f32> = (0..shape.iter().product::<usize>()).map(|index| (index as f32).sin()).collect();
        Tensor::<4>::from_data(TensorData::new(values, shape), &device).require_grad()
    };
    let [channels, out] = layer.channels;
    let x = tensor([batch, channels, layer.size, layer.size]);
    let weight = tensor([out, channels, layer.kernel, layer.kernel]);
    let (mut forward, mut both) = (vec![], vec![]);
    for run in 0..=runs {
        device.sync()?;
        let start = Instant::now();
        let y = conv(x.clone(), weight.clone(), layer.stride, layer.kernel / 2);
        device.sync()?;
        let middle = start.elapsed();
        let grads = y.sum().backward();
        let _ = (x.grad(&grads), weight.grad(&grads));
        device.sync()?;
        if run > 0 {
            forward.push(middle.as_secs_f64());
            both.push(start.elapsed().as_secs_f64());
        }
    }
    let median = |mut times: Vec<f64>| {
        times.sort_by(f64::total_cmp);
        times[times.len() / 2]
    };
    Ok(Times { forward: median(forward), both: median(both) })
}
