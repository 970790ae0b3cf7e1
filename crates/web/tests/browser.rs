//! The classifier in a real browser, against the native answers (`tests/page_fixture.rs`).
//!
//!     bash tests/browser.sh
//!
//! A browser without WebGPU (Firefox on Linux) fails the tests that need it, unless they were built
//! with the feature `skip-webgpu`, which shows them as ignored.
#![cfg(target_family = "wasm")]

use js_sys::{Float32Array, Reflect, Uint8Array};
use kiln_infer::gpu::Adapter;
use kiln_infer::{Conv2d, CpuExecutor, GpuExecutor, Norm, Operator, Plan, Precision, Step};
use kiln_model::Bundle;
use kiln_model::container::Storage;
use kiln_web::Classifier;
use wasm_bindgen::{JsCast, JsError, JsValue};
use wasm_bindgen_test::*;

wasm_bindgen_test_configure!(run_in_browser);

const BUNDLE: &[u8] = include_bytes!("../../../web/models/quick.safetensors");
const PICTURES: [(&[u8], &str); 2] = [
    (include_bytes!("fixture/picture.png"), include_str!("fixture/picture.png.json")),
    (include_bytes!("fixture/picture.jpg"), include_str!("fixture/picture.jpg.json")),
];

async fn load(bundle: &[u8], backend: &str) -> Result<Classifier, String> {
    Classifier::load(bundle, JsValue::from(backend).unchecked_into(), None).await.map_err(message)
}

fn message(error: JsError) -> String {
    js_sys::Error::from(JsValue::from(error)).message().into()
}

fn floats(answer: &JsValue, name: &str) -> Vec<f32> {
    Reflect::get(answer, &name.into()).unwrap().unchecked_into::<Float32Array>().to_vec()
}

fn softmax(logits: &[f32]) -> Vec<f32> {
    let sum: f32 = logits.iter().map(|logit| logit.exp()).sum();
    logits.iter().map(|logit| logit.exp() / sum).collect()
}

async fn agrees_with_native(classifier: &mut Classifier, tolerance: f32) {
    for (picture, native) in PICTURES {
        let native: Vec<f32> = serde_json::from_str(native).unwrap();
        let answer = classifier.classify(picture).await.map_err(message).unwrap();
        close(&floats(&answer, "probabilities"), &softmax(&native), tolerance);
        close(&floats(&answer, "logits"), &native, 10.0 * tolerance);
    }
}

fn close(found: &[f32], expected: &[f32], tolerance: f32) {
    assert_eq!(found.len(), expected.len());
    for (found, expected) in found.iter().zip(expected) {
        assert!((found - expected).abs() <= tolerance, "{found} for {expected}");
    }
}

/// A classifier on WebGPU, which must be there.
async fn on_webgpu() -> Classifier {
    let classifier = load(BUNDLE, "webgpu").await.unwrap();
    assert_eq!(classifier.backend(), "webgpu", "{}", classifier.reason());
    assert!(!classifier.device().is_empty());
    classifier
}

#[wasm_bindgen_test]
async fn the_cpu_path_agrees_with_native() {
    let mut classifier = load(BUNDLE, "cpu").await.unwrap();
    assert_eq!(classifier.backend(), "cpu");
    assert!(classifier.device().contains("SIMD"), "{}", classifier.device());
    agrees_with_native(&mut classifier, 1e-4).await;
}

#[wasm_bindgen_test]
async fn the_automatic_choice_answers_whatever_the_browser_has() {
    let mut classifier = load(BUNDLE, "auto").await.unwrap();
    assert!(!classifier.reason().is_empty());
    agrees_with_native(&mut classifier, 1e-3).await;
}

#[wasm_bindgen_test]
#[cfg_attr(feature = "skip-webgpu", ignore)]
async fn webgpu_agrees_with_native() {
    agrees_with_native(&mut on_webgpu().await, 1e-3).await;
}

#[wasm_bindgen_test]
#[cfg_attr(not(feature = "skip-webgpu"), ignore)]
async fn without_webgpu_the_cpu_answers_and_says_why() {
    let mut classifier = load(BUNDLE, "webgpu").await.unwrap();
    assert_eq!(classifier.backend(), "cpu");
    assert!(classifier.reason().contains("no WebGPU"), "{}", classifier.reason());
    agrees_with_native(&mut classifier, 1e-4).await;
}

#[wasm_bindgen_test]
#[cfg_attr(feature = "skip-webgpu", ignore)]
async fn a_lost_device_comes_back_with_the_same_answer() {
    let mut classifier = on_webgpu().await;
    let before = classifier.classify(PICTURES[0].0).await.map_err(message).unwrap();
    classifier.destroy_device();
    let after = classifier.classify(PICTURES[0].0).await.map_err(message).unwrap();
    assert_eq!(floats(&after, "logits"), floats(&before, "logits"));
    assert_eq!(classifier.backend(), "webgpu");
    assert!(classifier.reason().contains("lost"), "{}", classifier.reason());
}

#[wasm_bindgen_test]
#[cfg_attr(feature = "skip-webgpu", ignore)]
async fn the_backend_can_be_changed() {
    let mut classifier = on_webgpu().await;
    classifier.set_backend(JsValue::from("cpu").unchecked_into()).await.map_err(message).unwrap();
    assert_eq!(classifier.backend(), "cpu");
    agrees_with_native(&mut classifier, 1e-4).await;
}

/// Every shader of `shaders/`, odd sizes, residuals.
#[wasm_bindgen_test]
#[cfg_attr(feature = "skip-webgpu", ignore)]
async fn every_operator_agrees_with_the_cpu() {
    let noise = |len: usize| (0..len).map(|at| ((at * 7919 + 13) % 255) as f32 / 128.0 - 1.0).collect::<Vec<f32>>();
    let conv = |channels: usize, out: usize, kernel: usize, stride: usize| {
        let weight = noise(out * channels * kernel * kernel);
        Operator::Conv2d(Conv2d { weight, bias: noise(out), channels, kernel, stride, padding: kernel / 2 })
    };
    let norm = |groups, per_pixel| {
        Operator::Norm(Norm { weight: noise(18), bias: noise(18), groups, per_pixel, epsilon: 1e-5 })
    };
    let step = |input, operator, residual, relu| Step { input, operator, residual, relu };
    let plan = Plan {
        input: [3, 25, 19],
        steps: vec![
            step(0, conv(3, 9, 7, 2), None, true),
            step(1, Operator::MaxPool { kernel: 3, stride: 2, padding: 1 }, None, false),
            step(2, conv(9, 18, 1, 2), None, false),
            step(2, conv(9, 18, 3, 2), None, true),
            step(4, norm(3, false), Some(3), true),
            step(5, conv(18, 18, 3, 1), Some(3), true),
            step(6, Operator::Position { embedding: noise(18 * 4 * 3) }, None, false),
            step(7, norm(1, true), None, false),
            step(8, conv(18, 54, 1, 1), None, false),
            step(9, Operator::Attention { heads: 2 }, Some(7), false),
            step(10, Operator::Gelu, None, false),
        ],
    };
    let image = noise(3 * 25 * 19);
    let expected = CpuExecutor::new(plan.clone()).unwrap().run(&image);
    let scale = expected.iter().fold(0.0_f32, |max, value| max.max(value.abs()));
    // A shader may have one form for software adapters and one for GPUs: both must be right.
    for is_software in [true, false] {
        let mut adapter = Adapter::request().await.unwrap();
        adapter.is_software = is_software;
        let (found, _) = GpuExecutor::new(&adapter, &plan, Precision::F32).await.unwrap().run(&image).await.unwrap();
        close(&found, &expected, 1e-5 * scale);
    }
}

#[wasm_bindgen_test]
async fn small_bundles_say_nearly_the_same() {
    let bundle = Bundle::from_bytes(BUNDLE).unwrap();
    for (storage, tolerance) in [(Storage::F16, 2e-3), (Storage::Int8, 0.1)] {
        let bytes = bundle.clone().stored_as(storage).to_bytes().unwrap();
        agrees_with_native(&mut load(&bytes, "cpu").await.unwrap(), tolerance).await;
    }
}

#[wasm_bindgen_test]
async fn pixels_are_classified_as_the_file_they_came_from() {
    let mut classifier = load(BUNDLE, "cpu").await.unwrap();
    let input =
        |answer: &JsValue| Reflect::get(answer, &"input".into()).unwrap().unchecked_into::<Uint8Array>().to_vec();
    let file = classifier.classify(PICTURES[0].0).await.map_err(message).unwrap();
    let pixels = classifier.classify_pixels(&input(&file), 32, 32).await.map_err(message).unwrap();
    assert_eq!(floats(&pixels, "logits"), floats(&file, "logits"));
    let activation = floats(&file, "activation");
    let likeliest = floats(&file, "logits").iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1)).unwrap().0;
    assert_eq!(classifier.class_activation(likeliest).map_err(message).unwrap(), activation);
    assert_eq!(activation.len(), 16);
}

#[wasm_bindgen_test]
async fn bad_input_is_an_error_with_a_reason() {
    let mut flipped = BUNDLE.to_vec();
    flipped[BUNDLE.len() - 1000] ^= 1;
    for (bytes, words) in [(flipped.as_slice(), "digest"), (&[], "safetensors"), (&BUNDLE[..1000], "safetensors")] {
        let error = load(bytes, "cpu").await.err().expect("no bundle");
        assert!(error.contains(words), "{error}");
    }
    assert!(load(BUNDLE, "tpu").await.err().unwrap().contains("choose auto, webgpu or cpu"));
    let mut classifier = load(BUNDLE, "cpu").await.unwrap();
    for (file, words) in [(&b""[..], "not an image"), (b"plain text", "not an image"), (&PICTURES[1].0[..900], "ends")]
    {
        let error = message(classifier.classify(file).await.err().expect("no picture"));
        assert!(error.contains(words), "{error}");
    }
    assert!(classifier.classify_pixels(&[0; 8], 2, 2).await.is_err());
    assert!(classifier.class_activation(0).is_err(), "nothing was classified yet");
    agrees_with_native(&mut classifier, 1e-4).await;
    assert!(classifier.class_activation(10).is_err());
}

#[wasm_bindgen_test]
async fn progress_is_told() {
    let told = js_sys::Array::new();
    let callback = js_sys::Function::new_with_args("stage, fraction", "this.push(stage + ' ' + fraction)").bind0(&told);
    let loaded = Classifier::load(BUNDLE, JsValue::from("cpu").unchecked_into(), Some(callback.unchecked_into())).await;
    assert!(loaded.is_ok());
    let told: Vec<String> = told.iter().map(|line| line.as_string().unwrap()).collect();
    assert_eq!(told.first().unwrap(), "read 0");
    assert_eq!(told.last().unwrap(), "prepare 1");
}
