//! What a network is made of, checked before anything is allocated.

use std::str::FromStr;

use serde::{Deserialize, Serialize};

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

/// Which normalisation follows each convolution.
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
    /// 1x1 convolution, then normalisation (torchvision's).
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

/// Describes one network of the family. Serialised into every bundle as its architecture.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ResNetConfig {
    /// 18 or 34 (basic blocks), 50, 101 or 152 (bottlenecks).
    pub depth: usize,
    /// Channels of the first stage; the later ones have 2, 4 and 8 times as many. 64 in the paper.
    pub width: usize,
    pub stem: Stem,
    pub norm: NormKind,
    /// Groups of a group normalisation; batch normalisation ignores it.
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

/// A network asked for by name: `resnet18` to `resnet152`, or `resnet18-compact`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Preset {
    ResNet(usize),
    Compact,
}

/// A description that makes no network.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    #[error("no model is called '{0}': choose resnet18, resnet34, resnet50, resnet101, resnet152 or resnet18-compact")]
    UnknownPreset(String),
    #[error("depth {0} is no ResNet: choose 18, 34, 50, 101 or 152")]
    UnknownDepth(usize),
    #[error("a {0} of {1} makes no network: it must be between 1 and {2}")]
    OutOfRange(&'static str, usize, usize),
    #[error("{groups} groups do not divide the {channels} channels of a layer: choose a divisor of the width, {width}")]
    Groups { groups: usize, channels: usize, width: usize },
    #[error("a compact stem has half the width's channels: width {0} must be even")]
    OddCompactWidth(usize),
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
            _ => Err(ConfigError::UnknownPreset(name.to_owned())),
        }
    }
}

impl ResNetConfig {
    /// The network of that name with 64 channels in its first stage, for 32x32 images.
    pub fn preset(preset: Preset, classes: usize) -> Self {
        let (depth, stem, shortcut) = match preset {
            Preset::ResNet(depth) => (depth, Stem::Cifar, Shortcut::ProjectionNorm),
            Preset::Compact => (18, Stem::Compact, Shortcut::Projection),
        };
        Self {
            depth,
            width: 64,
            stem,
            norm: NormKind::Batch,
            groups: default_groups(),
            shortcut,
            classes,
            init: default_init(),
        }
    }

    /// Checks every field; the other functions of this type expect a description that passed.
    pub fn validate(&self) -> Result<(), ConfigError> {
        const LIMITS: [usize; 2] = [1024, 100_000];
        if !matches!(self.depth, 18 | 34 | 50 | 101 | 152) {
            return Err(ConfigError::UnknownDepth(self.depth));
        }
        for (name, value, limit) in [("width", self.width, LIMITS[0]), ("class count", self.classes, LIMITS[1])] {
            if value == 0 || value > limit {
                return Err(ConfigError::OutOfRange(name, value, limit));
            }
        }
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
        for name in ["resnet18", "resnet34", "resnet50", "resnet101", "resnet152", "resnet18-compact"] {
            ResNetConfig::preset(name.parse().unwrap(), 10).validate().unwrap();
        }
    }

    #[test]
    fn impossible_networks_are_refused_with_the_reason() {
        let good = ResNetConfig::preset(Preset::ResNet(18), 10);
        let width = ResNetConfig { width: 0, ..good.clone() }.validate().unwrap_err();
        assert!(width.to_string().contains("width of 0"), "{width}");
        let depth = ResNetConfig { depth: 20, ..good.clone() }.validate().unwrap_err();
        assert_eq!(depth, ConfigError::UnknownDepth(20));
        let groups = ResNetConfig { norm: NormKind::Group, groups: 7, ..good.clone() };
        assert!(matches!(groups.validate(), Err(ConfigError::Groups { .. })));
        let compact = ResNetConfig { stem: Stem::Compact, width: 15, ..good };
        assert_eq!(compact.validate(), Err(ConfigError::OddCompactWidth(15)));
    }
}
