//! Kiln against PyTorch: `tests/parity/make_fixtures.py` says what the fixtures hold.

use std::collections::BTreeMap;

use burn::module::Module;
use burn::tensor::{Device, Int, Tensor, TensorData};
use kiln_kernels::device;
use kiln_model::{
    Architecture, Init, Network, NormKind, ResNetConfig, Shortcut, StateDict, StateTensor, Stem, VitConfig,
};
use kiln_train::recipe::{Optimizer, Schedule, ScheduleKind};
use kiln_train::{Sgd, cross_entropy, gradients, soft_targets};
use safetensors::SafeTensors;

const CASES: [(&str, &[u8]); 6] = [
    ("resnet18", include_bytes!("parity/resnet18.safetensors")),
    ("resnet50", include_bytes!("parity/resnet50.safetensors")),
    ("group norm", include_bytes!("parity/resnet18_group_norm.safetensors")),
    ("imagenet stem", include_bytes!("parity/resnet18_imagenet_stem.safetensors")),
    ("compact", include_bytes!("parity/resnet18_compact.safetensors")),
    ("transformer", include_bytes!("parity/vit.safetensors")),
];

/// Relative error of what one forward and backward pass makes.
const ONE_STEP: f64 = 1e-4;

struct Fixture {
    architecture: Architecture,
    sgd: bool,
    tensors: BTreeMap<String, StateTensor>,
    labels: Vec<u32>,
}

impl Fixture {
    fn read(bytes: &[u8]) -> Self {
        let (_, metadata) = SafeTensors::read_metadata(bytes).unwrap();
        let case = &metadata.metadata().as_ref().unwrap()["case"];
        let case: serde_json::Value = serde_json::from_str(case).unwrap();
        let number = |key: &str| case[key].as_u64().unwrap() as usize;
        let [depth, width, classes] = ["depth", "width", "classes"].map(number);
        let compact = case["shortcut"] == "projection";
        let architecture = if case["patch"].is_number() {
            let (image_size, patch, heads) = (number("image_size"), number("patch"), number("heads"));
            VitConfig { image_size, patch, width, depth, heads, classes }.into()
        } else {
            let stem = match (compact, case["stem"].as_str().unwrap()) {
                (true, _) => Stem::Compact,
                (_, "imagenet") => Stem::Imagenet,
                _ => Stem::Cifar,
            };
            let norm = if case["norm"] == "group" { NormKind::Group } else { NormKind::Batch };
            let shortcut = if compact { Shortcut::Projection } else { Shortcut::ProjectionNorm };
            let (groups, init) = (number("groups"), Init::KaimingFanOut);
            ResNetConfig { depth, width, stem, norm, groups, shortcut, classes, init }.into()
        };
        let file = SafeTensors::deserialize(bytes).unwrap();
        let mut labels = vec![];
        let mut tensors = BTreeMap::new();
        for (name, view) in file.iter() {
            if name == "labels" {
                labels = view.data().as_chunks().0.iter().map(|bytes| i64::from_le_bytes(*bytes) as u32).collect();
            } else {
                let values = view.data().as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect();
                tensors.insert(name.to_owned(), StateTensor { shape: view.shape().to_vec(), values });
            }
        }
        Self { architecture, sgd: case["sgd"].as_bool().unwrap(), tensors, labels }
    }

    /// The tensors whose names start with `prefix`, by the rest of their names.
    fn state(&self, prefix: &str) -> StateDict {
        let named = self.tensors.iter().filter_map(|(name, tensor)| Some((name.strip_prefix(prefix)?, tensor)));
        named.map(|(name, tensor)| (name.to_owned(), tensor.clone())).collect()
    }

    fn input(&self, device: &Device) -> Tensor<4> {
        let StateTensor { shape, values } = &self.tensors["input"];
        Tensor::from_data(TensorData::new(values.clone(), shape.clone()), device)
    }

    /// The network with the fixture's starting values.
    fn model(&self, device: &Device) -> Network {
        self.architecture.init(0, device).unwrap().load_state_dict(&self.state("init/")).unwrap()
    }

    fn close<const D: usize>(&self, case: &str, name: &str, found: Tensor<D>, tolerance: f64) {
        let expected = &self.tensors[name];
        let found = found.into_data().convert::<f32>().try_into_vec::<f32>().unwrap();
        let error =
            norm(found.iter().zip(&expected.values).map(|(a, b)| a - b)) / norm(expected.values.iter().copied());
        assert_eq!(found.len(), expected.values.len(), "{case}: {name}");
        assert!(error <= tolerance, "{case}: {name} is off by {error:e}");
    }
}

/// Euclidean norm; NaN stays NaN.
fn norm(values: impl Iterator<Item = f32>) -> f64 {
    values.map(|value| f64::from(value).powi(2)).sum::<f64>().sqrt()
}

/// Whether every tensor is within `tolerance` of its own norm, or of a hundredth of all their norms:
/// a bias before a batch norm has no gradient but rounding.
fn all_close(case: &str, found: &StateDict, expected: &StateDict, tolerance: f64) {
    assert!(!expected.is_empty(), "{case}: the fixture has nothing to compare with");
    let all = norm(expected.values().flat_map(|tensor| tensor.values.iter().copied()));
    for (name, expected) in expected {
        let found = found.get(name).unwrap_or_else(|| panic!("{case}: no {name}"));
        let difference = norm(found.values.iter().zip(&expected.values).map(|(a, b)| a - b));
        let scale = norm(expected.values.iter().copied()).max(1e-2 * all);
        assert!(difference <= tolerance * scale, "{case}: {name} is off by {:e}", difference / scale);
    }
}

fn evaluation_agrees(device: &Device) {
    for (case, bytes) in CASES {
        let fixture = Fixture::read(bytes);
        let model = fixture.model(device);
        fixture.close(case, "eval_logits", model.forward(fixture.input(device)), ONE_STEP);
        fixture.close(case, "features", model.features(fixture.input(device)), ONE_STEP);
        let labels: Vec<i32> = fixture.labels.iter().map(|label| *label as i32).collect();
        let labels = Tensor::<1, Int>::from_data(TensorData::new(labels, [fixture.labels.len()]), device);
        fixture.close(case, "cam", model.class_activation(fixture.input(device), labels), ONE_STEP);
    }
}

fn a_training_step_agrees(device: &Device) {
    let device = &device.clone().autodiff();
    for (case, bytes) in CASES {
        let fixture = Fixture::read(bytes);
        let model = fixture.model(device);
        let logits = model.forward(fixture.input(device));
        let targets = |smoothing| soft_targets(&fixture.labels, fixture.architecture.classes(), smoothing, device);
        fixture.close(case, "train_logits", logits.clone(), ONE_STEP);
        fixture.close(case, "loss_smoothed", cross_entropy(logits.clone(), targets(0.1)), ONE_STEP);
        let loss = cross_entropy(logits, targets(0.0));
        fixture.close(case, "loss", loss.clone(), ONE_STEP);
        all_close(case, &gradients(&model, &loss.backward()), &fixture.state("grad/"), ONE_STEP);
        let running = fixture.state("running/");
        let averages = matches!(&fixture.architecture, Architecture::ResNet(config) if config.norm == NormKind::Batch);
        assert_eq!(!running.is_empty(), averages, "{case}");
        if averages {
            all_close(case, &model.state_dict(), &running, ONE_STEP);
        }
    }
}

fn ten_steps_of_sgd_agree(device: &Device) {
    let device = &device.clone().autodiff();
    let optimizer = Optimizer { lr: 0.05, nesterov: true, ..Optimizer::default() };
    let schedule = Schedule {
        kind: ScheduleKind::Cosine,
        warmup: 0.3,
        start_factor: 1.0 / 3.0,
        final_factor: 0.0,
        milestones: vec![],
        gamma: 0.1,
    };
    let fixtures = CASES.map(|(case, bytes)| (case, Fixture::read(bytes)));
    assert_eq!(fixtures.iter().filter(|(_, fixture)| fixture.sgd).count(), 3);
    for (case, fixture) in fixtures.iter().filter(|(_, fixture)| fixture.sgd) {
        let (rates, losses) = (&fixture.tensors["sgd/lr"].values, &fixture.tensors["sgd/losses"].values);
        let mut model = fixture.model(device);
        let mut sgd = Sgd::new(optimizer.clone());
        let width = fixture.tensors["input"].shape[3];
        for step in 0..10 {
            let lr = optimizer.lr * schedule.factor(step, 10);
            assert!((lr - f64::from(rates[step])).abs() < 1e-8, "{case}: rate {step} is {lr}, not {}", rates[step]);
            // Rolled to the right by `step` columns.
            let input = fixture.input(device);
            let input = match step {
                0 => input,
                _ => {
                    Tensor::cat(vec![input.clone().narrow(3, width - step, step), input.narrow(3, 0, width - step)], 3)
                }
            };
            let targets = soft_targets(&fixture.labels, fixture.architecture.classes(), 0.0, device);
            let loss = cross_entropy(model.forward(input), targets);
            let value: f32 = loss.clone().into_scalar();
            let error = (value - losses[step]).abs() / losses[step];
            assert!(f64::from(error) < ONE_STEP, "{case}: loss {step} is {value}, not {}", losses[step]);
            model = sgd.step(model, &loss.backward(), lr);
        }
        all_close(case, &model.valid().state_dict(), &fixture.state("sgd/final/"), 1e-3);
    }
}

#[test]
fn evaluation_agrees_on_the_cpu() {
    evaluation_agrees(&Device::flex());
}

#[test]
fn a_training_step_agrees_on_the_cpu() {
    a_training_step_agrees(&Device::flex());
}

#[test]
fn ten_steps_of_sgd_agree_on_the_cpu() {
    ten_steps_of_sgd_agree(&Device::flex());
}

#[test]
fn evaluation_agrees_on_wgpu() {
    device::for_tests().iter().for_each(evaluation_agrees);
}

#[test]
fn a_training_step_agrees_on_wgpu() {
    device::for_tests().iter().for_each(a_training_step_agrees);
}

#[test]
fn ten_steps_of_sgd_agree_on_wgpu() {
    device::for_tests().iter().for_each(ten_steps_of_sgd_agree);
}

/// A stem of one channel is where fused kernels once gave wrong gradients.
#[test]
fn one_channel_has_the_cpus_gradients_on_wgpu() {
    let Some(device) = device::for_tests() else { return };
    let config = ResNetConfig { width: 2, ..ResNetConfig::compact(3) };
    let run = |device: &Device| {
        let device = &device.clone().autodiff();
        let model: Network = config.init(1, device).unwrap().into();
        let pixels: Vec<f32> = (0..4 * 3072).map(|index| (index as f32 * 0.37).sin()).collect();
        let images = Tensor::<4>::from_data(TensorData::new(pixels, [4, 3, 32, 32]), device);
        let loss = cross_entropy(model.forward(images), soft_targets(&[0, 1, 2, 1], 3, 0.0, device));
        gradients(&model, &loss.backward())
    };
    all_close("one channel", &run(&device), &run(&Device::flex()), 1e-3);
}
