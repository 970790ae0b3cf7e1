//! The shaders in a real browser: all of them compile, and those for training, which the page has no
//! use for, give what their references in double precision give. Nothing here needs burn.
//!
//!     bash tests/browser.sh
#![cfg(target_family = "wasm")]

use kiln_infer::batch_norm;
use kiln_infer::check::{noise, relative_error};
use kiln_infer::conv2d::{self, Geometry, Pass};
use kiln_infer::gpu::Adapter;
use kiln_infer::pool;
use kiln_infer::runner::Runner;
use kiln_infer::shader::{ALL, CONV2D};
use kiln_infer::tune::candidates;
use wasm_bindgen_test::*;

wasm_bindgen_test_configure!(run_in_browser);

const EPSILON: f64 = 1e-5;

async fn runner() -> Runner {
    Runner::new(&Adapter::request().await.unwrap()).await.unwrap()
}

fn close(what: &str, found: &[f32], expected: &[f64]) {
    let error = relative_error(found, expected);
    assert!(error < 1e-5, "{what}: {error}");
}

#[wasm_bindgen_test]
#[cfg_attr(feature = "skip-webgpu", ignore)]
async fn every_shader_compiles() {
    let runner = runner().await;
    for shader in ALL.iter().filter(|shader| shader.is_standard()) {
        runner.compile(&shader.with([])).await.unwrap();
    }
    // That an error would be seen.
    let unsigned = CONV2D.with([("PADDING", 1_usize.into())]);
    let error = runner.compile(&unsigned).await.unwrap_err().to_string();
    assert!(error.contains("conv2d"), "{error}");
}

#[wasm_bindgen_test]
#[cfg_attr(feature = "skip-webgpu", ignore)]
async fn every_form_of_a_convolution_and_its_gradients_agrees_with_the_reference() {
    let runner = runner().await;
    for (x, out, kernel, stride, padding) in [
        ([1, 1, 1, 1], 1, 1, 1, 0),
        ([1, 3, 5, 7], 4, 3, 1, 1),
        ([3, 5, 9, 8], 7, 3, 2, 1),
        ([2, 3, 8, 6], 5, 3, 1, 0),
        ([17, 24, 4, 4], 9, 1, 2, 0),
        ([1, 3, 23, 21], 4, 7, 2, 3),
        ([2, 40, 4, 5], 70, 3, 1, 1),
    ] {
        let geometry = Geometry::new(x, [out, x[1], kernel, kernel], stride, padding);
        let [x, weight, grad] = [Pass::BackwardData, Pass::BackwardWeight, Pass::Forward]
            .map(|pass| noise(geometry.output_len(pass), pass as u32 + 1));
        let [x_buffer, weight_buffer, grad_buffer] = [&x, &weight, &grad].map(|values| runner.upload(values));
        for (pass, inputs, expected) in [
            (Pass::Forward, [&x_buffer, &weight_buffer], conv2d::reference::forward(&geometry, &x, &weight)),
            (
                Pass::BackwardData,
                [&grad_buffer, &weight_buffer],
                conv2d::reference::backward_data(&geometry, &weight, &grad),
            ),
            (Pass::BackwardWeight, [&x_buffer, &grad_buffer], conv2d::reference::backward_weight(&geometry, &x, &grad)),
        ] {
            for (form, steps) in candidates(&geometry, pass) {
                let output = runner.poisoned(expected.len());
                let prepared = runner.prepare_steps(&steps, inputs, &output).await.unwrap();
                runner.repeat(&prepared, 1).await.unwrap();
                close(&format!("{pass} of {geometry:?}, {form}"), &runner.read(&output).await.unwrap(), &expected);
            }
        }
    }
}

#[wasm_bindgen_test]
#[cfg_attr(feature = "skip-webgpu", ignore)]
async fn batch_norm_and_its_gradients_agree_with_the_reference() {
    let runner = runner().await;
    for (shape, relu) in [([3, 5, 7, 5], false), ([3, 5, 7, 5], true), ([33, 2, 1, 1], true), ([2, 1, 9, 11], true)] {
        let (len, channels) = (shape.iter().product::<usize>(), shape[1]);
        let (x, grad) = (noise(len, 1), noise(len, 2));
        let (gamma, beta) = (noise(channels, 3), noise(channels, 4));
        let expected = batch_norm::reference::train(shape, &x, &gamma, &beta, &grad, EPSILON, relu);
        let inputs = [&x, &gamma, &beta, &grad].map(|values| runner.upload(values));
        let [output, x_grad] = [len; 2].map(|len| runner.poisoned(len));
        let [mean, variance, gamma_grad, beta_grad] = [channels; 4].map(|len| runner.poisoned(len));
        let [x, gamma, beta, grad] = &inputs;
        let forward = batch_norm::wgsl::forward(shape, EPSILON, relu);
        runner.run(&forward, &[x, gamma, beta, &output, &mean, &variance]).await.unwrap();
        let backward = batch_norm::wgsl::backward(shape, EPSILON, relu);
        let scales = runner.poisoned(backward.scales_len);
        runner.run(&backward.scales, &[gamma, &mean, &variance, &scales]).await.unwrap();
        let buffers = [x, &output, grad, &scales, &x_grad, &gamma_grad, &beta_grad];
        runner.run(&backward.gradients, &buffers).await.unwrap();
        for (what, found, expected) in [
            ("output", output, expected.output),
            ("mean", mean, expected.mean),
            ("variance", variance, expected.variance),
            ("gradient of x", x_grad, expected.x_grad),
            ("gradient of gamma", gamma_grad, expected.gamma_grad),
            ("gradient of beta", beta_grad, expected.beta_grad),
        ] {
            close(&format!("{what} of {shape:?}, ReLU {relu}"), &runner.read(&found).await.unwrap(), &expected);
        }
    }
}

#[wasm_bindgen_test]
#[cfg_attr(feature = "skip-webgpu", ignore)]
async fn global_average_pooling_and_its_gradient_agree_with_the_reference() {
    let runner = runner().await;
    for (maps, area) in [(1, 1), (15, 63), (67, 16)] {
        let (x, grad) = (noise(maps * area, 1), noise(maps, 2));
        for (what, launch, input, expected) in [
            ("forward", pool::wgsl::forward(maps, area), &x, pool::reference::forward(area, &x)),
            ("gradient", pool::wgsl::backward(maps, area), &grad, pool::reference::backward(area, &grad)),
        ] {
            let output = runner.poisoned(expected.len());
            runner.run(&launch, &[&runner.upload(input), &output]).await.unwrap();
            close(&format!("{what} of {maps} maps of {area}"), &runner.read(&output).await.unwrap(), &expected);
        }
    }
}
