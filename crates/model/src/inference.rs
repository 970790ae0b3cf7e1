//! A trained network as a plan of fused convolutions, to be run without burn.

use std::collections::BTreeSet;
use std::sync::Arc;

use kiln_infer::{Conv2d, Layout, Operator, Plan, PlanError, Step, Timings, Value};

use crate::validate::MAX_IMAGE_SIZE;
use crate::{
    Architecture, ConfigError, NormKind, Prediction, ResNetConfig, Shortcut, StateDict, StateError, StateTensor, Stem,
    VitConfig,
};

/// Added to the variance before its root, as in PyTorch.
const EPSILON: f32 = 1e-5;
/// The same of a layer normalization, as in timm.
const LAYER_EPSILON: f32 = 1e-6;
/// Most memory that one image may take on its way: 1 GiB. ResNet-18 of width 64 takes 0.8 at 1024 pixels a side.
const MAX_BYTES: usize = 1 << 30;

/// A network up to its last feature map as a [`Plan`], and its head.
///
/// Batch normalizations are folded into the convolutions before them; group and layer normalizations
/// cannot be, as their statistics are the image's. A transformer's tokens are the pixels of a map, and
/// its linear layers 1x1 convolutions.
#[derive(Clone, Debug)]
pub struct InferenceNetwork {
    /// Makes the feature map `[C, H', W']`.
    pub plan: Arc<Plan>,
    /// `[C, H', W']`
    feature_map: [usize; 3],
    /// `[classes, C]`
    weight: Vec<f32>,
    bias: Vec<f32>,
}

#[derive(Debug, thiserror::Error)]
pub enum InferenceError {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    State(#[from] StateError),
    #[error("no network takes images of {0} pixels a side: it must be 1 to {MAX_IMAGE_SIZE}")]
    ImageSize(usize),
    #[error(
        "an image of {size} pixels a side would take {} MiB on its way through the network, and the limit is {}",
        .bytes >> 20, MAX_BYTES >> 20
    )]
    Memory { size: usize, bytes: usize },
    #[error(transparent)]
    Plan(#[from] PlanError),
}

impl InferenceNetwork {
    /// The network of that description with those weights, for images of `image_size` pixels a side.
    ///
    /// # Errors
    /// If the description makes no network, or `state` lacks a tensor, has one too many or one of
    /// another shape.
    pub fn new(architecture: &Architecture, state: &StateDict, image_size: usize) -> Result<Self, InferenceError> {
        architecture.validate()?;
        architecture.check_image_size(image_size)?;
        if image_size == 0 || image_size > MAX_IMAGE_SIZE {
            return Err(InferenceError::ImageSize(image_size));
        }
        let weights = Weights::new(state);
        let plan = Plan { input: [3, image_size, image_size], steps: vec![] };
        let (plan, mut weights) = match architecture {
            Architecture::ResNet(config) => Builder { config, weights, plan }.network()?,
            Architecture::Vit(config) => Builder { config, weights, plan }.network()?,
        };
        let [weight, bias] = architecture.head();
        let weight = weights.take(weight, &[architecture.classes(), architecture.feature_channels()])?;
        let bias = weights.take(bias, &[architecture.classes()])?;
        weights.nothing_left()?;
        let numbers: usize = Layout::new(&plan, [1, 1])?.buffers.iter().sum();
        let bytes = numbers.saturating_mul(size_of::<f32>());
        if bytes > MAX_BYTES {
            return Err(InferenceError::Memory { size: image_size, bytes });
        }
        let feature_map = *plan.shapes()?.last().expect("there is always the input");
        Ok(Self { plan: Arc::new(plan), feature_map, weight, bias })
    }

    /// Shape of the feature map, `[C, H', W']`.
    pub fn feature_map(&self) -> [usize; 3] {
        self.feature_map
    }

    /// Pooling and head: what the feature map `[C, H', W']` that the plan made says.
    pub fn predict(&self, feature_map: Vec<f32>) -> Prediction {
        let [channels, height, width] = self.feature_map;
        let area = height * width;
        let features: Vec<f32> =
            feature_map.chunks_exact(area).map(|map| map.iter().sum::<f32>() / area as f32).collect();
        let score = |(row, bias): (&[f32], &f32)| row.iter().zip(&features).map(|(w, x)| w * x).sum::<f32>() + bias;
        let logits: Vec<f32> = self.weight.chunks_exact(channels).zip(&self.bias).map(score).collect();
        Prediction { probabilities: softmax(&logits), logits, features, feature_map, timings: Timings::default() }
    }

    /// Where the evidence for `class` lies, `[H', W']`; see `ResNet::class_activation`.
    ///
    /// # Panics
    /// If there is no such class.
    pub fn class_activation(&self, feature_map: &[f32], class: usize) -> Vec<f32> {
        let [channels, height, width] = self.feature_map;
        let mut activation = vec![0.0; height * width];
        let weight = &self.weight[class * channels..][..channels];
        for (weight, map) in weight.iter().zip(feature_map.chunks_exact(height * width)) {
            activation.iter_mut().zip(map).for_each(|(sum, value)| *sum += weight * value);
        }
        activation
    }
}

fn softmax(logits: &[f32]) -> Vec<f32> {
    let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let exponentials: Vec<f32> = logits.iter().map(|logit| (logit - max).exp()).collect();
    let sum: f32 = exponentials.iter().sum();
    exponentials.iter().map(|value| value / sum).collect()
}

/// A state dict of which every tensor must be taken once.
struct Weights<'a> {
    state: &'a StateDict,
    left: BTreeSet<&'a str>,
}

impl<'a> Weights<'a> {
    fn new(state: &'a StateDict) -> Self {
        Self { state, left: state.keys().map(String::as_str).collect() }
    }

    fn take(&mut self, name: &str, shape: &[usize]) -> Result<Vec<f32>, StateError> {
        let StateTensor { shape: found, values } =
            self.state.get(name).ok_or_else(|| StateError::Missing(vec![name.to_owned()]))?;
        if found != shape {
            let (name, expected, found) = (name.to_owned(), shape.to_vec(), found.clone());
            return Err(StateError::Shape { name, expected, found });
        }
        self.left.remove(name);
        Ok(values.clone())
    }

    fn nothing_left(&self) -> Result<(), StateError> {
        if self.left.is_empty() {
            return Ok(());
        }
        Err(StateError::Unexpected(self.left.iter().map(|name| (*name).to_owned()).collect()))
    }
}

/// Walks a network in the order of its `forward` and lists its steps.
struct Builder<'a, C> {
    config: &'a C,
    weights: Weights<'a>,
    plan: Plan,
}

impl<C> Builder<'_, C> {
    fn push(&mut self, step: Step) -> Value {
        self.plan.steps.push(step);
        self.plan.steps.len()
    }
}

/// A convolution and the normalization after it, by their names in the state dict.
struct ConvNorm<'a> {
    conv: &'a str,
    norm: Option<&'a str>,
    channels: [usize; 2],
    kernel: usize,
    stride: usize,
    bias: bool,
}

impl<'a> Builder<'a, ResNetConfig> {
    fn network(mut self) -> Result<(Plan, Weights<'a>), StateError> {
        let config = self.config;
        let stem = config.stem_channels();
        let (kernel, stride) = if config.stem == Stem::Imagenet { (7, 2) } else { (3, 1) };
        let bias = config.stem == Stem::Compact;
        let first = ConvNorm { conv: "conv1", norm: Some("bn1"), channels: [3, stem], kernel, stride, bias };
        let mut value = self.conv_norm(0, first, None, true)?;
        if config.stem == Stem::Imagenet {
            let operator = Operator::MaxPool { kernel: 3, stride: 2, padding: 1 };
            value = self.push(Step { input: value, operator, residual: None, relu: false });
        }
        let mut channels = stem;
        for (stage, blocks) in config.blocks().into_iter().enumerate() {
            let (mid, first_stride) = config.stage(stage);
            for block in 0..blocks {
                let stride = if block == 0 { first_stride } else { 1 };
                let name = format!("layer{}.{block}", stage + 1);
                value = self.block(&name, value, [channels, mid], stride)?;
                channels = mid * config.expansion();
            }
        }
        Ok((self.plan, self.weights))
    }

    fn block(
        &mut self,
        name: &str,
        input: Value,
        [channels, mid]: [usize; 2],
        stride: usize,
    ) -> Result<Value, StateError> {
        let config = self.config;
        let output = mid * config.expansion();
        let [conv1, bn1, conv2, bn2, conv3, bn3] =
            ["conv1", "bn1", "conv2", "bn2", "conv3", "bn3"].map(|part| format!("{name}.{part}"));
        let shortcut = if stride != 1 || channels != output {
            let (conv, norm) = (format!("{name}.downsample.0"), format!("{name}.downsample.1"));
            let norm = (config.shortcut == Shortcut::ProjectionNorm).then_some(norm.as_str());
            let channels = [channels, output];
            self.conv_norm(
                input,
                ConvNorm { conv: &conv, norm, channels, kernel: 1, stride, bias: false },
                None,
                false,
            )?
        } else {
            input
        };
        let layer = |conv, norm, channels, kernel, stride| ConvNorm {
            conv,
            norm: Some(norm),
            channels,
            kernel,
            stride,
            bias: false,
        };
        if config.is_bottleneck() {
            let value = self.conv_norm(input, layer(&conv1, &bn1, [channels, mid], 1, 1), None, true)?;
            let value = self.conv_norm(value, layer(&conv2, &bn2, [mid, mid], 3, stride), None, true)?;
            self.conv_norm(value, layer(&conv3, &bn3, [mid, output], 1, 1), Some(shortcut), true)
        } else {
            let value = self.conv_norm(input, layer(&conv1, &bn1, [channels, mid], 3, stride), None, true)?;
            self.conv_norm(value, layer(&conv2, &bn2, [mid, mid], 3, 1), Some(shortcut), true)
        }
    }

    fn conv_norm(
        &mut self,
        input: Value,
        layer: ConvNorm,
        residual: Option<Value>,
        relu: bool,
    ) -> Result<Value, StateError> {
        let [channels, out] = layer.channels;
        let ConvNorm { kernel, stride, .. } = layer;
        let mut weight = self.weights.take(&format!("{}.weight", layer.conv), &[out, channels, kernel, kernel])?;
        let mut bias = match layer.bias {
            true => self.weights.take(&format!("{}.bias", layer.conv), &[out])?,
            false => vec![0.0; out],
        };
        let norm = layer.norm.map(|norm| self.norm(norm, out)).transpose()?;
        if let Some(Norm { gamma, beta, statistics: Some((mean, variance)) }) = &norm {
            let filters = weight.chunks_exact_mut(channels * kernel * kernel).zip(&mut bias);
            for (o, (filter, bias)) in filters.enumerate() {
                let scale = gamma[o] / (variance[o] + EPSILON).sqrt();
                filter.iter_mut().for_each(|weight| *weight *= scale);
                *bias = (*bias - mean[o]) * scale + beta[o];
            }
        }
        let operator = Operator::Conv2d(Conv2d { weight, bias, channels, kernel, stride, padding: kernel / 2 });
        match norm {
            Some(Norm { gamma, beta, statistics: None }) => {
                let input = self.push(Step { input, operator, residual: None, relu: false });
                let (weight, bias, groups) = (gamma, beta, self.config.groups);
                let norm = kiln_infer::Norm { weight, bias, groups, per_pixel: false, epsilon: EPSILON };
                Ok(self.push(Step { input, operator: Operator::Norm(norm), residual, relu }))
            }
            _ => Ok(self.push(Step { input, operator, residual, relu })),
        }
    }

    fn norm(&mut self, name: &str, channels: usize) -> Result<Norm, StateError> {
        let mut take = |part: &str| self.weights.take(&format!("{name}.{part}"), &[channels]);
        let (gamma, beta) = (take("weight")?, take("bias")?);
        let statistics = match self.config.norm {
            NormKind::Batch => Some((take("running_mean")?, take("running_var")?)),
            NormKind::Group => None,
        };
        Ok(Norm { gamma, beta, statistics })
    }
}

impl<'a> Builder<'a, VitConfig> {
    fn network(mut self) -> Result<(Plan, Weights<'a>), StateError> {
        let VitConfig { patch, width, depth, heads, .. } = *self.config;
        let tokens = self.config.side() * self.config.side();
        let weight = self.weights.take("patch_embed.proj.weight", &[width, 3, patch, patch])?;
        let bias = self.weights.take("patch_embed.proj.bias", &[width])?;
        let patches = Conv2d { weight, bias, channels: 3, kernel: patch, stride: patch, padding: 0 };
        let value = self.step(0, Operator::Conv2d(patches), None);
        let position = self.weights.take("pos_embed", &[1, tokens, width])?;
        // Channels first.
        let embedding = (0..width).flat_map(|c| position.iter().skip(c).step_by(width).copied()).collect();
        let mut x = self.step(value, Operator::Position { embedding }, None);
        for block in 0..depth {
            let name = |part: &str| format!("blocks.{block}.{part}");
            let value = self.layer_norm(x, &name("norm1"))?;
            let value = self.linear(value, &name("attn.qkv"), [width, 3 * width], None)?;
            let value = self.step(value, Operator::Attention { heads }, None);
            x = self.linear(value, &name("attn.proj"), [width, width], Some(x))?;
            let hidden = VitConfig::EXPANSION * width;
            let value = self.layer_norm(x, &name("norm2"))?;
            let value = self.linear(value, &name("mlp.fc1"), [width, hidden], None)?;
            let value = self.step(value, Operator::Gelu, None);
            x = self.linear(value, &name("mlp.fc2"), [hidden, width], Some(x))?;
        }
        self.layer_norm(x, "norm")?;
        Ok((self.plan, self.weights))
    }

    /// On every token.
    fn linear(
        &mut self,
        input: Value,
        name: &str,
        [channels, out]: [usize; 2],
        residual: Option<Value>,
    ) -> Result<Value, StateError> {
        let weight = self.weights.take(&format!("{name}.weight"), &[out, channels])?;
        let bias = self.weights.take(&format!("{name}.bias"), &[out])?;
        let conv = Conv2d { weight, bias, channels, kernel: 1, stride: 1, padding: 0 };
        Ok(self.step(input, Operator::Conv2d(conv), residual))
    }

    fn layer_norm(&mut self, input: Value, name: &str) -> Result<Value, StateError> {
        let [weight, bias] = ["weight", "bias"].map(|part| format!("{name}.{part}"));
        let weight = self.weights.take(&weight, &[self.config.width])?;
        let bias = self.weights.take(&bias, &[self.config.width])?;
        let norm = kiln_infer::Norm { weight, bias, groups: 1, per_pixel: true, epsilon: LAYER_EPSILON };
        Ok(self.step(input, Operator::Norm(norm), None))
    }

    fn step(&mut self, input: Value, operator: Operator, residual: Option<Value>) -> Value {
        self.push(Step { input, operator, residual, relu: false })
    }
}

/// A normalization's parameters; running mean and variance only of a batch normalization.
struct Norm {
    gamma: Vec<f32>,
    beta: Vec<f32>,
    statistics: Option<(Vec<f32>, Vec<f32>)>,
}

#[cfg(all(test, feature = "burn"))]
mod tests {
    use burn::tensor::{Device, Int, Tensor, TensorData};
    use kiln_infer::CpuExecutor;

    use super::*;

    fn configs() -> Vec<Architecture> {
        let small = |depth| ResNetConfig { width: 4, ..ResNetConfig::new(depth, 5) };
        vec![
            small(18).into(),
            small(50).into(),
            ResNetConfig { width: 4, ..ResNetConfig::compact(5) }.into(),
            ResNetConfig { stem: Stem::Imagenet, ..small(34) }.into(),
            ResNetConfig { norm: NormKind::Group, groups: 2, ..small(18) }.into(),
            VitConfig { width: 12, depth: 2, heads: 3, ..VitConfig::tiny(5) }.into(),
        ]
    }

    /// Weights in which no norm is the identity and no bias zero.
    fn state(config: &Architecture) -> StateDict {
        let mut state = config.init(3, &Device::flex()).unwrap().state_dict();
        for (index, (name, tensor)) in state.iter_mut().enumerate() {
            if tensor.shape.len() == 1 {
                let offset = if name.ends_with("bias") || name.ends_with("mean") { -0.1 } else { 0.7 };
                let value = |at: usize| ((index * 31 + at * 17) % 23) as f32 / 40.0 + offset;
                tensor.values = (0..tensor.values.len()).map(value).collect();
            }
        }
        state
    }

    #[test]
    fn the_folded_network_agrees_with_the_burn_module() {
        let device = Device::flex();
        for config in configs() {
            let state = state(&config);
            let imagenet = matches!(&config, Architecture::ResNet(ResNetConfig { stem: Stem::Imagenet, .. }));
            let size = if imagenet { 64 } else { 32 };
            let pixels: Vec<f32> = (0..3 * size * size).map(|at| ((at * 7919) % 255) as f32 / 128.0 - 1.0).collect();
            let images = Tensor::<4>::from_data(TensorData::new(pixels.clone(), [1, 3, size, size]), &device);
            let module = config.init(0, &device).unwrap().load_state_dict(&state).unwrap();
            let read = |tensor: Tensor<2>| tensor.into_data().try_into_vec::<f32>().unwrap();
            let logits = read(module.forward(images.clone()));
            let features = read(module.features(images.clone()));
            let class = Tensor::<1, Int>::from_data([2], &device);
            let activation = module.class_activation(images, class).into_data().try_into_vec::<f32>().unwrap();

            let network = InferenceNetwork::new(&config, &state, size).unwrap();
            let map = CpuExecutor::new(network.plan.clone()).unwrap().run(&pixels);
            let found = network.predict(map.clone());
            let close = |found: &[f32], expected: &[f32]| {
                let scale = expected.iter().fold(1e-3_f32, |max, value| max.max(value.abs()));
                assert_eq!(found.len(), expected.len());
                for (found, expected) in found.iter().zip(expected) {
                    assert!((found - expected).abs() <= 1e-4 * scale, "{found} for {expected} in {config:?}");
                }
            };
            close(&found.logits, &logits);
            close(&found.features, &features);
            close(&network.class_activation(&map, 2), &activation);
            assert!((found.probabilities.iter().sum::<f32>() - 1.0).abs() < 1e-5);
        }
    }

    #[test]
    fn weights_that_do_not_fit_are_named() {
        let config = &configs()[0];
        let good = state(config);
        let error = |state: &StateDict| InferenceNetwork::new(config, state, 32).unwrap_err().to_string();
        let mut missing = good.clone();
        missing.remove("layer2.0.downsample.1.running_var");
        assert!(error(&missing).contains("layer2.0.downsample.1.running_var"));
        let mut extra = good.clone();
        extra.insert("fc.scale".into(), StateTensor { shape: vec![1], values: vec![1.0] });
        assert!(error(&extra).contains("fc.scale"));
        let mut shape = good;
        shape.get_mut("fc.bias").unwrap().shape = vec![1];
        assert!(error(&shape).contains("fc.bias"));
    }

    #[test]
    fn an_image_size_that_would_take_all_memory_is_refused() {
        let config: Architecture = ResNetConfig { width: 128, ..ResNetConfig::new(18, 10) }.into();
        let zeros = |(name, shape): (String, Vec<usize>)| {
            let values = vec![0.0; shape.iter().product()];
            (name, StateTensor { shape, values })
        };
        let state: StateDict = config.tensors().into_iter().map(zeros).collect();
        assert!(InferenceNetwork::new(&config, &state, 512).is_ok());
        let error = InferenceNetwork::new(&config, &state, 1024).unwrap_err();
        assert!(matches!(error, InferenceError::Memory { size: 1024, .. }), "{error}");
        for size in [0, 1025, usize::MAX] {
            assert!(matches!(InferenceNetwork::new(&config, &state, size), Err(InferenceError::ImageSize(_))));
        }
    }

    #[test]
    fn multiply_adds_are_those_of_the_paper() {
        let config: Architecture = ResNetConfig::new(18, 10).into();
        let state = config.init(0, &Device::flex()).unwrap().state_dict();
        let network = InferenceNetwork::new(&config, &state, 32).unwrap();
        assert_eq!(network.plan.multiply_adds().unwrap(), 555_417_600);
        assert_eq!(network.feature_map(), [512, 4, 4]);
    }

    #[test]
    fn a_transformer_takes_images_of_its_size_alone() {
        let config: Architecture = VitConfig { width: 6, depth: 1, ..VitConfig::tiny(2) }.into();
        let state = state(&config);
        assert_eq!(InferenceNetwork::new(&config, &state, 32).unwrap().feature_map(), [6, 8, 8]);
        let error = InferenceNetwork::new(&config, &state, 64).unwrap_err();
        assert!(error.to_string().contains("32 pixels a side and no others"), "{error}");
    }
}
