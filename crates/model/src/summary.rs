//! A network's layers with output shapes, parameters and multiply-adds, counted from its
//! description alone: nothing is allocated.
//!
//! Multiply-adds are counted as torchinfo counts them: a convolution's parameters (its bias too)
//! once an output pixel, every other layer's parameters once a sample; but a transformer's layers once a
//! token, and attention by its two products.

use std::collections::{BTreeMap, BTreeSet};

use kiln_infer::conv2d::Geometry;

use crate::{Architecture, NormKind, ResNetConfig, Shortcut, StateDict, StateError, Stem, VitConfig};

/// One row of a [`Summary`].
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct LayerSummary {
    /// torchvision's name, or the operation's where torchvision has none.
    pub name: String,
    /// Such as `Conv2d 3x3 /2`.
    pub kind: String,
    /// Output shape of one sample: `[C, H, W]` or `[C]`.
    pub output: Vec<usize>,
    pub parameters: usize,
    pub mult_adds: usize,
}

/// A network layer by layer, for one sample.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Summary {
    /// `[C, H, W]`
    pub input: [usize; 3],
    pub layers: Vec<LayerSummary>,
}

impl Summary {
    /// Describes a network for images of `size` by `size` pixels. A transformer's are of its own size.
    pub fn new(architecture: &Architecture, size: usize) -> Self {
        let size = match architecture {
            Architecture::ResNet(_) => size,
            Architecture::Vit(config) => config.image_size,
        };
        Self { input: [3, size, size], layers: Rows::of(architecture, size).layers }
    }

    pub fn parameters(&self) -> usize {
        self.layers.iter().map(|layer| layer.parameters).sum()
    }

    pub fn mult_adds(&self) -> usize {
        self.layers.iter().map(|layer| layer.mult_adds).sum()
    }

    /// Bytes of one sample's layer outputs in f32: what a training step keeps for its backward pass.
    pub fn activation_bytes(&self) -> usize {
        self.layers
            .iter()
            .filter(|layer| layer.parameters > 0)
            .map(|layer| layer.output.iter().product::<usize>() * 4)
            .sum()
    }

    /// Parameters of stem, stages and head: the first part of each layer's name, in order.
    pub fn components(&self) -> Vec<(String, usize)> {
        let mut components: Vec<(String, usize)> = vec![];
        for layer in self.layers.iter().filter(|layer| layer.parameters > 0) {
            let name = match layer.name.split('.').next().unwrap_or_default() {
                "conv1" | "bn1" | "patch_embed" | "pos_embed" => "stem",
                "norm" | "fc" => "head",
                stage => stage,
            };
            match components.last_mut() {
                Some((last, count)) if last == name => *count += layer.parameters,
                _ => components.push((name.to_owned(), layer.parameters)),
            }
        }
        components
    }
}

impl Architecture {
    /// Names and shapes of the network's state dict, in the order of its layers.
    pub fn tensors(&self) -> Vec<(String, Vec<usize>)> {
        Rows::of(self, 1).tensors
    }

    /// The convolutions of a batch of images of `size` by `size` pixels, each once, those of the most work first.
    pub fn convolutions(&self, size: usize, batch: usize) -> Vec<Geometry> {
        let mut convolutions: Vec<Geometry> = vec![];
        for geometry in Rows::of(self, size).convolutions {
            let geometry = Geometry { batch, ..geometry };
            if !convolutions.contains(&geometry) {
                convolutions.push(geometry);
            }
        }
        convolutions.sort_by_key(|geometry| std::cmp::Reverse(geometry.multiply_adds()));
        convolutions
    }

    /// Whether `state` has just the tensors of this network.
    ///
    /// # Errors
    /// If a tensor is missing, has another shape, or is one too many.
    pub fn check_state(&self, state: &StateDict) -> Result<(), StateError> {
        self.check_shapes(&state.iter().map(|(name, tensor)| (name.as_str(), tensor.shape.as_slice())).collect())
    }

    /// Whether tensors of these names and shapes are just this network's.
    ///
    /// # Errors
    /// As [`check_state`](Self::check_state).
    pub fn check_shapes(&self, shapes: &BTreeMap<&str, &[usize]>) -> Result<(), StateError> {
        let tensors = self.tensors();
        let missing: Vec<_> = tensors
            .iter()
            .filter(|(name, _)| !shapes.contains_key(name.as_str()))
            .map(|(name, _)| name.clone())
            .collect();
        if !missing.is_empty() {
            return Err(StateError::Missing(missing));
        }
        for (name, expected) in &tensors {
            let found = shapes[name.as_str()];
            if found != expected {
                let (name, expected, found) = (name.clone(), expected.clone(), found.to_vec());
                return Err(StateError::Shape { name, expected, found });
            }
        }
        if shapes.len() == tensors.len() {
            return Ok(());
        }
        let known: BTreeSet<&str> = tensors.iter().map(|(name, _)| name.as_str()).collect();
        let unexpected = shapes.keys().filter(|name| !known.contains(*name));
        Err(StateError::Unexpected(unexpected.map(|name| (*name).to_owned()).collect()))
    }
}

/// What a walk through a network leaves.
#[derive(Default)]
struct Rows {
    layers: Vec<LayerSummary>,
    /// Names and shapes of the state dict.
    tensors: Vec<(String, Vec<usize>)>,
    /// Of one sample.
    convolutions: Vec<Geometry>,
}

impl Rows {
    /// The whole way, from images of `size` by `size` pixels.
    fn of(architecture: &Architecture, size: usize) -> Self {
        match architecture {
            Architecture::ResNet(config) => {
                let mut walk = Walk { config, rows: Self::default(), channels: 3, size };
                walk.network();
                walk.rows
            }
            Architecture::Vit(config) => {
                let mut rows = Self::default();
                rows.transformer(config);
                rows
            }
        }
    }

    fn tensor(&mut self, name: &str, shape: &[usize]) {
        self.tensors.push((name.to_owned(), shape.to_vec()));
    }

    fn row(&mut self, name: &str, kind: &str, output: Vec<usize>, parameters: usize, mult_adds: usize) {
        self.layers.push(LayerSummary { name: name.to_owned(), kind: kind.to_owned(), output, parameters, mult_adds });
    }

    fn transformer(&mut self, config: &VitConfig) {
        let VitConfig { patch, width, depth, heads, classes, .. } = *config;
        let (side, hidden) = (config.side(), VitConfig::EXPANSION * width);
        let tokens = side * side;
        let size = config.image_size;
        self.convolutions.push(Geometry::new([1, 3, size, size], [width, 3, patch, patch], patch, 0));
        self.tensor("patch_embed.proj.weight", &[width, 3, patch, patch]);
        self.tensor("patch_embed.proj.bias", &[width]);
        let parameters = width * (3 * patch * patch + 1);
        let kind = format!("Conv2d {patch}x{patch} /{patch}");
        self.row("patch_embed.proj", &kind, vec![width, side, side], parameters, parameters * tokens);
        self.tensor("pos_embed", &[1, tokens, width]);
        self.row("pos_embed", "Parameter", vec![tokens, width], tokens * width, tokens * width);
        for block in 0..depth {
            let name = |part: &str| format!("blocks.{block}.{part}");
            self.layer_norm(&name("norm1"), tokens, width);
            self.linear(&name("attn.qkv"), tokens, [width, 3 * width]);
            let kind = format!("Attention, heads: {heads}");
            self.row(&name("attn"), &kind, vec![tokens, width], 0, 2 * tokens * tokens * width);
            self.linear(&name("attn.proj"), tokens, [width, width]);
            self.layer_norm(&name("norm2"), tokens, width);
            self.linear(&name("mlp.fc1"), tokens, [width, hidden]);
            self.linear(&name("mlp.fc2"), tokens, [hidden, width]);
        }
        self.layer_norm("norm", tokens, width);
        self.row("avgpool", "mean over tokens", vec![width], 0, 0);
        self.tensor("head.weight", &[classes, width]);
        self.tensor("head.bias", &[classes]);
        self.row("head", "Linear", vec![classes], (width + 1) * classes, (width + 1) * classes);
    }

    /// On every token.
    fn linear(&mut self, name: &str, tokens: usize, [channels, out]: [usize; 2]) {
        self.tensor(&format!("{name}.weight"), &[out, channels]);
        self.tensor(&format!("{name}.bias"), &[out]);
        let parameters = (channels + 1) * out;
        self.row(name, "Linear", vec![tokens, out], parameters, parameters * tokens);
    }

    fn layer_norm(&mut self, name: &str, tokens: usize, channels: usize) {
        self.tensor(&format!("{name}.weight"), &[channels]);
        self.tensor(&format!("{name}.bias"), &[channels]);
        self.row(name, "LayerNorm", vec![tokens, channels], 2 * channels, 2 * channels * tokens);
    }
}

/// Follows one sample through a residual network.
struct Walk<'a> {
    config: &'a ResNetConfig,
    rows: Rows,
    channels: usize,
    /// Height and width of the current map.
    size: usize,
}

impl Walk<'_> {
    fn network(&mut self) {
        let config = self.config;
        let (kernel, stride) = if config.stem == Stem::Imagenet { (7, 2) } else { (3, 1) };
        self.conv("conv1", config.stem_channels(), kernel, stride, config.stem == Stem::Compact);
        self.norm("bn1");
        if config.stem == Stem::Imagenet {
            self.size = self.size.div_ceil(2);
            self.rows.row("maxpool", "MaxPool2d 3x3 /2", vec![self.channels, self.size, self.size], 0, 0);
        }
        for stage in 0..4 {
            let (mid, first_stride) = config.stage(stage);
            for block in 0..config.blocks()[stage] {
                self.block(&format!("layer{}.{block}", stage + 1), mid, if block == 0 { first_stride } else { 1 });
            }
        }
        self.rows.row("avgpool", "GlobalAveragePool", vec![self.channels], 0, 0);
        let parameters = (self.channels + 1) * config.classes;
        self.rows.tensor("fc.weight", &[config.classes, self.channels]);
        self.rows.tensor("fc.bias", &[config.classes]);
        self.rows.row("fc", "Linear", vec![config.classes], parameters, parameters);
    }

    fn block(&mut self, name: &str, mid: usize, stride: usize) {
        let (input, size, output) = (self.channels, self.size, mid * self.config.expansion());
        let bottleneck = self.config.is_bottleneck();
        let (kernel, first_stride) = if bottleneck { (1, 1) } else { (3, stride) };
        self.conv(&format!("{name}.conv1"), mid, kernel, first_stride, false);
        self.norm(&format!("{name}.bn1"));
        self.conv(&format!("{name}.conv2"), mid, 3, if bottleneck { stride } else { 1 }, false);
        self.norm(&format!("{name}.bn2"));
        if bottleneck {
            self.conv(&format!("{name}.conv3"), output, 1, 1, false);
            self.norm(&format!("{name}.bn3"));
        }
        if stride != 1 || input != output {
            (self.channels, self.size) = (input, size);
            self.conv(&format!("{name}.downsample.0"), output, 1, stride, false);
            if self.config.shortcut == Shortcut::ProjectionNorm {
                self.norm(&format!("{name}.downsample.1"));
            }
        }
    }

    fn conv(&mut self, name: &str, output: usize, kernel: usize, stride: usize, bias: bool) {
        let parameters = output * (self.channels * kernel * kernel + usize::from(bias));
        self.rows.tensor(&format!("{name}.weight"), &[output, self.channels, kernel, kernel]);
        if bias {
            self.rows.tensor(&format!("{name}.bias"), &[output]);
        }
        let (from, weight) = ([1, self.channels, self.size, self.size], [output, self.channels, kernel, kernel]);
        self.rows.convolutions.push(Geometry::new(from, weight, stride, kernel / 2));
        self.channels = output;
        self.size = self.size.div_ceil(stride);
        let kind = if stride == 1 {
            format!("Conv2d {kernel}x{kernel}")
        } else {
            format!("Conv2d {kernel}x{kernel} /{stride}")
        };
        let pixels = self.size * self.size;
        self.rows.row(name, &kind, vec![output, self.size, self.size], parameters, parameters * pixels);
    }

    fn norm(&mut self, name: &str) {
        let kind = match self.config.norm {
            NormKind::Batch => "BatchNorm2d",
            NormKind::Group => "GroupNorm",
        };
        let parts: &[&str] = match self.config.norm {
            NormKind::Batch => &["weight", "bias", "running_mean", "running_var"],
            NormKind::Group => &["weight", "bias"],
        };
        for part in parts {
            self.rows.tensor(&format!("{name}.{part}"), &[self.channels]);
        }
        self.rows.row(name, kind, vec![self.channels, self.size, self.size], 2 * self.channels, 2 * self.channels);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn preset(name: &str) -> Architecture {
        Architecture::preset(name.parse().unwrap(), 10)
    }

    #[test]
    fn parameter_counts_are_pytorchs() {
        // Counted with torch on the same architectures.
        let expected = [
            ("resnet18", 11_173_962),
            ("resnet34", 21_282_122),
            ("resnet50", 23_520_842),
            ("resnet101", 42_512_970),
            ("resnet152", 58_156_618),
            ("resnet18-compact", 11_154_890),
            ("vit-tiny", 5_362_378),
        ];
        for (name, parameters) in expected {
            assert_eq!(Summary::new(&preset(name), 32).parameters(), parameters, "{name}");
        }
    }

    #[test]
    fn the_compact_network_needs_135_million_mult_adds_as_torchinfo_counts() {
        let mult_adds = Summary::new(&preset("resnet18-compact"), 32).mult_adds();
        assert_eq!((mult_adds as f64 / 1e4).round() / 100.0, 135.15);
    }

    #[test]
    fn imagenet_resnet18_matches_torchvision() {
        let config = ResNetConfig { stem: Stem::Imagenet, ..ResNetConfig::new(18, 1000) };
        let summary = Summary::new(&config.into(), 224);
        assert_eq!(summary.parameters(), 11_689_512);
        let last = summary.layers.iter().rfind(|layer| layer.name.starts_with("layer4")).unwrap();
        assert_eq!(last.output, [512, 7, 7]);
    }

    #[test]
    fn each_convolution_is_listed_once() {
        let convolutions = preset("resnet18").convolutions(32, 8);
        // Stem, four stages of 3x3, three of them with another first one and a 1x1 beside it.
        assert_eq!(convolutions.len(), 11);
        assert!(convolutions.contains(&Geometry::new([8, 64, 32, 32], [128, 64, 3, 3], 2, 1)));
        assert!(convolutions.is_sorted_by_key(|geometry| std::cmp::Reverse(geometry.multiply_adds())));
        assert_eq!(preset("vit-tiny").convolutions(32, 1).len(), 1);
    }

    #[cfg(feature = "burn")]
    #[test]
    fn tensors_are_those_of_the_network() {
        let small = |depth| ResNetConfig { width: 4, ..ResNetConfig::new(depth, 10) };
        let compact = || ResNetConfig { width: 4, ..ResNetConfig::compact(10) };
        for config in [
            small(18).into(),
            small(34).into(),
            small(50).into(),
            compact().into(),
            ResNetConfig { stem: Stem::Imagenet, ..small(101) }.into(),
            ResNetConfig { norm: NormKind::Group, groups: 2, ..compact() }.into(),
            ResNetConfig { shortcut: Shortcut::Projection, ..small(152) }.into(),
            Architecture::Vit(VitConfig { width: 6, depth: 2, ..VitConfig::tiny(10) }),
        ] {
            let state = config.init(0, &burn::tensor::Device::flex()).unwrap().state_dict();
            let of_network: Vec<_> = state.iter().map(|(name, tensor)| (name.clone(), tensor.shape.clone())).collect();
            let mut tensors = config.tensors();
            tensors.sort();
            assert_eq!(tensors, of_network, "{config:?}");
            config.check_state(&state).unwrap();
        }
    }

    #[test]
    fn components_add_up() {
        let summary = Summary::new(&preset("resnet50"), 32);
        let components = summary.components();
        assert_eq!(components.iter().map(|(_, count)| count).sum::<usize>(), summary.parameters());
        let names: Vec<_> = components.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["stem", "layer1", "layer2", "layer3", "layer4", "head"]);
        let summary = Summary::new(&preset("vit-tiny"), 32);
        assert_eq!(
            summary.components().iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(),
            ["stem", "blocks", "head"]
        );
    }
}
