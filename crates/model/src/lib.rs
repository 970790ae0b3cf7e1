//! The ResNet family of He et al. (<https://arxiv.org/abs/1512.03385>) for small and large images.
//!
//! [`ResNetConfig`] describes a network and [`ResNetConfig::init`] makes it on any device.
//! Parameters carry torchvision's names (`layer1.0.conv1.weight`), so that a [`Bundle`] opens by
//! name in PyTorch and the other way round.

mod bundle;
mod config;
pub mod container;
mod init;
mod layers;
mod resnet;
mod state;
mod summary;

pub use bundle::{Bundle, BundleError, Metadata};
pub use config::{ConfigError, Init, NormKind, Preset, ResNetConfig, Shortcut, Stem};
pub use resnet::ResNet;
pub use state::{ParameterPath, StateDict, StateError, StateTensor};
pub use summary::{LayerSummary, Summary};
