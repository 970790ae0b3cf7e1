//! What a network is made of, checked before anything is allocated.

use std::fmt;
use std::str::FromStr;

use kiln_infer::MAX_TOKENS;
use serde::{Deserialize, Serialize};

use crate::validate::MAX_IMAGE_SIZE;

const MAX_CLASSES: usize = 100_000;

/// The first layers, before the four stages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stem {
    /// 3x3 convolution at stride 1 without pooling, for 32x32 images.
    Cifar,
    /// 7x7 convolution at stride 2, then 3x3 max-pooling at stride 2, for 224x224 images.
    Imagenet,
    /// 3x3 convolution at stride 1 with a bias and half the first stage's channels; the first
    /// block of *every* stage then has stride 2.
    Compact,
}

/// Which normalization follows each convolution.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NormKind {
    Batch,
    Group,
}

/// The shortcut of a block whose input and output shapes differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Shortcut {
    /// 1x1 convolution, then normalization (torchvision's).
    ProjectionNorm,
    /// 1x1 convolution alone.
    Projection,
}

/// How weights are drawn. Norms always start as the identity and biases at zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Init {
    /// Convolutions Kaiming normal by fan-out, head N(0, 0.01) (torchvision's).
    KaimingFanOut,
    /// Convolutions and head Kaiming normal by fan-in.
    KaimingFanIn,
    /// As by fan-out; training then gives the first convolution filters that whiten the patches of its images.
    Whitening,
}

/// Describes one network of the family. Serialized into every bundle as its architecture.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ResNetConfig {
    /// 18 or 34 (basic blocks), 50, 101 or 152 (bottlenecks).
    pub depth: usize,
    /// Channels of the first stage; the later ones have 2, 4 and 8 times as many. 64 in the paper.
    pub width: usize,
    pub stem: Stem,
    pub norm: NormKind,
    /// Groups of a group normalization; batch normalization ignores it.
    #[serde(default = "default_groups")]
    pub groups: usize,
    pub shortcut: Shortcut,
    pub classes: usize,
    #[serde(default = "default_init")]
    pub init: Init,
}

fn default_groups() -> usize {
    32
}

fn default_init() -> Init {
    Init::KaimingFanOut
}

/// Describes a vision transformer (Dosovitskiy et al., <https://arxiv.org/abs/2010.11929>) without a class token: the
/// head sees the mean of all tokens (Beyer et al., <https://arxiv.org/abs/2205.01580>).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VitConfig {
    /// Height and width of the images in pixels: each of their patches has an embedding of its own.
    pub image_size: usize,
    /// Height and width in pixels of the patch that a token is made of.
    pub patch: usize,
    /// Channels of a token.
    pub width: usize,
    /// Blocks.
    pub depth: usize,
    /// Parts of the channels that attend by themselves.
    pub heads: usize,
    pub classes: usize,
}

/// A network of either family. Serialized into every bundle.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged, expecting = "the architecture describes neither a residual network nor a vision transformer")]
pub enum Architecture {
    ResNet(ResNetConfig),
    Vit(VitConfig),
}

/// A network asked for by name: `resnet18` to `resnet152`, `resnet18-compact` or `vit-tiny`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Preset {
    ResNet(usize),
    Compact,
    Vit,
}

/// A description that makes no network.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    #[error(
        "no model is called '{0}': choose resnet18, resnet34, resnet50, resnet101, resnet152, resnet18-compact or vit-tiny"
    )]
    UnknownPreset(String),
    #[error("{0} is not a ResNet depth: choose 18, 34, 50, 101 or 152")]
    UnknownDepth(usize),
    #[error("the {0} is {1}; it must be between 1 and {2}")]
    OutOfRange(&'static str, usize, usize),
    #[error("{groups} groups do not divide the {channels} channels of a layer: choose a divisor of the width, {width}")]
    Groups { groups: usize, channels: usize, width: usize },
    #[error("a compact stem has half the width's channels: width {0} must be even")]
    OddCompactWidth(usize),
    #[error("{heads} heads do not share the {width} channels of a token: choose a divisor of the width")]
    Heads { heads: usize, width: usize },
    #[error("images of {size} pixels a side are not made of patches of {patch}: choose a divisor as model.patch")]
    Patch { patch: usize, size: usize },
    #[error("{0} tokens are too many, {MAX_TOKENS} the most: choose larger patches or smaller images")]
    Tokens(usize),
    #[error("this transformer takes images of {expected} pixels a side and no others, such as {size}")]
    ImageSize { expected: usize, size: usize },
}

impl FromStr for Preset {
    type Err = ConfigError;

    fn from_str(name: &str) -> Result<Self, ConfigError> {
        match name {
            "resnet18" => Ok(Self::ResNet(18)),
            "resnet34" => Ok(Self::ResNet(34)),
            "resnet50" => Ok(Self::ResNet(50)),
            "resnet101" => Ok(Self::ResNet(101)),
            "resnet152" => Ok(Self::ResNet(152)),
            "resnet18-compact" => Ok(Self::Compact),
            "vit-tiny" => Ok(Self::Vit),
            _ => Err(ConfigError::UnknownPreset(name.to_owned())),
        }
    }
}

impl Architecture {
    /// The network of that name for 32x32 images, as wide as in its paper.
    pub fn preset(preset: Preset, classes: usize) -> Self {
        match preset {
            Preset::ResNet(depth) => Self::ResNet(ResNetConfig::new(depth, classes)),
            Preset::Compact => Self::ResNet(ResNetConfig::compact(classes)),
            Preset::Vit => Self::Vit(VitConfig::tiny(classes)),
        }
    }

    /// Checks every field; the other functions of this type expect a description that passed.
    pub fn validate(&self) -> Result<(), ConfigError> {
        match self {
            Self::ResNet(config) => config.validate(),
            Self::Vit(config) => config.validate(),
        }
    }

    /// Whether it takes images of so many pixels a side, as a residual network does of all.
    pub fn check_image_size(&self, size: usize) -> Result<(), ConfigError> {
        match self {
            Self::Vit(VitConfig { image_size, .. }) if *image_size != size => {
                Err(ConfigError::ImageSize { expected: *image_size, size })
            }
            _ => Ok(()),
        }
    }

    pub fn classes(&self) -> usize {
        match self {
            Self::ResNet(config) => config.classes,
            Self::Vit(config) => config.classes,
        }
    }

    /// The same with a head for that many classes.
    pub fn with_classes(self, classes: usize) -> Self {
        match self {
            Self::ResNet(config) => Self::ResNet(ResNetConfig { classes, ..config }),
            Self::Vit(config) => Self::Vit(VitConfig { classes, ..config }),
        }
    }

    /// Channels of a residual network's first stage or of a transformer's tokens.
    pub fn width(&self) -> usize {
        match self {
            Self::ResNet(config) => config.width,
            Self::Vit(config) => config.width,
        }
    }

    /// Channels that the head sees.
    pub fn feature_channels(&self) -> usize {
        match self {
            Self::ResNet(config) => config.feature_channels(),
            Self::Vit(config) => config.width,
        }
    }

    /// What the head's weight and bias are called.
    pub fn head(&self) -> [&'static str; 2] {
        match self {
            Self::ResNet(_) => ["fc.weight", "fc.bias"],
            Self::Vit(_) => ["head.weight", "head.bias"],
        }
    }

    /// Stages of a residual network, or blocks of a transformer.
    pub fn stages(&self) -> usize {
        match self {
            Self::ResNet(_) => 4,
            Self::Vit(config) => config.depth,
        }
    }

    /// How far from the images a parameter lies, by its name in a state dict: 0 in the stem or the embedding, 1 and more
    /// in the stages or blocks, [`stages`](Self::stages) + 1 in the head and the norm before it.
    pub fn depth_of(&self, name: &str) -> usize {
        let last = self.stages() + 1;
        let numbered = |rest: &str| rest.split('.').next().and_then(|number| number.parse::<usize>().ok());
        match self {
            Self::ResNet(_) if self.head().contains(&name) => last,
            Self::ResNet(_) => name.strip_prefix("layer").and_then(numbered).unwrap_or(0),
            Self::Vit(_) if name.starts_with("head.") || name.starts_with("norm.") => last,
            Self::Vit(_) => name.strip_prefix("blocks.").and_then(numbered).map_or(0, |block| block + 1),
        }
    }
}

/// What of a network stays as it is while the rest trains: weights, and batch norms' running statistics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Frozen {
    #[default]
    Nothing,
    /// The stem or embedding, and so many stages or blocks after it.
    Stages(usize),
    /// All but the head.
    Backbone,
}

impl Frozen {
    /// Whether a parameter of that name in a state dict stays as it is.
    pub fn has(self, architecture: &Architecture, name: &str) -> bool {
        match self {
            Self::Nothing => false,
            Self::Stages(stages) => architecture.depth_of(name) <= stages,
            Self::Backbone => !architecture.head().contains(&name),
        }
    }
}

impl From<ResNetConfig> for Architecture {
    fn from(config: ResNetConfig) -> Self {
        Self::ResNet(config)
    }
}

impl From<VitConfig> for Architecture {
    fn from(config: VitConfig) -> Self {
        Self::Vit(config)
    }
}

impl fmt::Display for Architecture {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Self::ResNet(ResNetConfig { depth, width, stem, norm, .. }) => {
                let stem = match stem {
                    Stem::Cifar => "CIFAR's stem",
                    Stem::Imagenet => "ImageNet's stem",
                    Stem::Compact => "the compact stem",
                };
                let norm = match norm {
                    NormKind::Batch => "batch norm",
                    NormKind::Group => "group norm",
                };
                write!(f, "ResNet-{depth} of width {width} with {stem} and {norm}")
            }
            Self::Vit(VitConfig { image_size, patch, width, depth, heads, .. }) => {
                write!(f, "transformer of {depth} blocks of width {width} with {heads} heads, for patches of {patch}")?;
                write!(f, " in images of {image_size} pixels a side")
            }
        }
    }
}

impl VitConfig {
    /// Hidden channels of a block's perceptron over those of a token.
    pub const EXPANSION: usize = 4;

    /// DeiT-Ti's size (Touvron et al., <https://arxiv.org/abs/2012.12877>) with patches of 4 pixels for images of 32.
    pub fn tiny(classes: usize) -> Self {
        Self { image_size: 32, patch: 4, width: 192, depth: 12, heads: 3, classes }
    }

    /// Checks every field; the other functions of this type expect a description that passed.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let Self { image_size, patch, width, depth, heads, classes } = *self;
        in_range("image size", image_size, MAX_IMAGE_SIZE)?;
        in_range("patch", patch, image_size)?;
        in_range("width", width, 768)?;
        in_range("depth", depth, 48)?;
        in_range("number of heads", heads, width)?;
        in_range("class count", classes, MAX_CLASSES)?;
        if !width.is_multiple_of(heads) {
            return Err(ConfigError::Heads { heads, width });
        }
        if !image_size.is_multiple_of(patch) {
            return Err(ConfigError::Patch { patch, size: image_size });
        }
        let tokens = self.side() * self.side();
        if tokens > MAX_TOKENS { Err(ConfigError::Tokens(tokens)) } else { Ok(()) }
    }

    /// Tokens along each side of an image.
    pub fn side(&self) -> usize {
        self.image_size / self.patch
    }
}

fn in_range(name: &'static str, value: usize, most: usize) -> Result<(), ConfigError> {
    if (1..=most).contains(&value) { Ok(()) } else { Err(ConfigError::OutOfRange(name, value, most)) }
}

impl ResNetConfig {
    /// ResNet of that depth for 32x32 images.
    pub fn new(depth: usize, classes: usize) -> Self {
        Self {
            depth,
            width: 64,
            stem: Stem::Cifar,
            norm: NormKind::Batch,
            groups: default_groups(),
            shortcut: Shortcut::ProjectionNorm,
            classes,
            init: default_init(),
        }
    }

    /// ResNet-18 whose every stage starts at stride 2.
    pub fn compact(classes: usize) -> Self {
        Self { stem: Stem::Compact, shortcut: Shortcut::Projection, ..Self::new(18, classes) }
    }

    /// Checks every field; the other functions of this type expect a description that passed.
    pub fn validate(&self) -> Result<(), ConfigError> {
        if !matches!(self.depth, 18 | 34 | 50 | 101 | 152) {
            return Err(ConfigError::UnknownDepth(self.depth));
        }
        in_range("width", self.width, 1024)?;
        in_range("class count", self.classes, MAX_CLASSES)?;
        if self.stem == Stem::Compact && !self.width.is_multiple_of(2) {
            return Err(ConfigError::OddCompactWidth(self.width));
        }
        // Every layer's channels are a multiple of the narrowest one's.
        let channels = self.stem_channels();
        if self.norm == NormKind::Group && (self.groups == 0 || !channels.is_multiple_of(self.groups)) {
            return Err(ConfigError::Groups { groups: self.groups, channels, width: self.width });
        }
        Ok(())
    }

    /// Blocks of each stage.
    pub fn blocks(&self) -> [usize; 4] {
        match self.depth {
            18 => [2, 2, 2, 2],
            34 | 50 => [3, 4, 6, 3],
            101 => [3, 4, 23, 3],
            _ => [3, 8, 36, 3],
        }
    }

    /// Whether blocks are bottlenecks (1x1, 3x3, 1x1) rather than two 3x3 convolutions.
    pub fn is_bottleneck(&self) -> bool {
        self.depth >= 50
    }

    /// Output channels of a block over the channels of its 3x3 convolution.
    pub fn expansion(&self) -> usize {
        if self.is_bottleneck() { 4 } else { 1 }
    }

    /// Channels between stem and first stage.
    pub fn stem_channels(&self) -> usize {
        if self.stem == Stem::Compact { self.width / 2 } else { self.width }
    }

    /// Channels and stride of the 3x3 convolution of a stage's first block; `stage` counts from 0.
    pub fn stage(&self, stage: usize) -> (usize, usize) {
        let stride = if stage == 0 && self.stem != Stem::Compact { 1 } else { 2 };
        (self.width << stage, stride)
    }

    /// Channels that the head sees.
    pub fn feature_channels(&self) -> usize {
        (self.width << 3) * self.expansion()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_preset_is_valid() {
        for name in ["resnet18", "resnet34", "resnet50", "resnet101", "resnet152", "resnet18-compact", "vit-tiny"] {
            Architecture::preset(name.parse().unwrap(), 10).validate().unwrap();
        }
    }

    #[test]
    fn impossible_transformers_are_refused_with_the_reason() {
        let good = VitConfig::tiny(10);
        let refused = |config: VitConfig| config.validate().unwrap_err().to_string();
        assert!(refused(VitConfig { heads: 5, ..good.clone() }).contains("5 heads"));
        assert!(refused(VitConfig { heads: 0, ..good.clone() }).contains("heads is 0"));
        assert!(refused(VitConfig { patch: 5, ..good.clone() }).contains("patches of 5"));
        assert!(refused(VitConfig { patch: 64, ..good.clone() }).contains("patch is 64"));
        assert!(refused(VitConfig { patch: 1, image_size: 33, ..good.clone() }).contains("1089 tokens"));
        assert!(refused(VitConfig { depth: 1_000_000_000, ..good.clone() }).contains("depth is 1000000000"));
        assert!(Architecture::Vit(good).check_image_size(64).unwrap_err().to_string().contains("32 pixels"));
    }

    #[test]
    fn an_architecture_is_known_by_its_fields() {
        for name in ["resnet18-compact", "vit-tiny"] {
            let architecture = Architecture::preset(name.parse().unwrap(), 10);
            let text = serde_json::to_string(&architecture).unwrap();
            assert_eq!(serde_json::from_str::<Architecture>(&text).unwrap(), architecture);
            let more = text.replacen('{', "{\"dilation\":2,", 1);
            let error = serde_json::from_str::<Architecture>(&more).unwrap_err().to_string();
            assert!(error.contains("neither a residual network nor a vision transformer"), "{error}");
        }
    }

    #[test]
    fn impossible_networks_are_refused_with_the_reason() {
        let good = ResNetConfig::new(18, 10);
        let width = ResNetConfig { width: 0, ..good.clone() }.validate().unwrap_err();
        assert!(width.to_string().contains("width is 0"), "{width}");
        let depth = ResNetConfig { depth: 20, ..good.clone() }.validate().unwrap_err();
        assert_eq!(depth, ConfigError::UnknownDepth(20));
        let groups = ResNetConfig { norm: NormKind::Group, groups: 7, ..good.clone() };
        assert!(matches!(groups.validate(), Err(ConfigError::Groups { .. })));
        let compact = ResNetConfig { stem: Stem::Compact, width: 15, ..good };
        assert_eq!(compact.validate(), Err(ConfigError::OddCompactWidth(15)));
    }
}
