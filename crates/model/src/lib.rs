//! The ResNet family of He et al. (<https://arxiv.org/abs/1512.03385>) for small and large images.
//!
//! [`ResNetConfig`] describes a network and [`ResNetConfig::init`] makes it on any device.
//! Parameters carry torchvision's names (`layer1.0.conv1.weight`), so that a [`Bundle`] opens by
//! name in PyTorch and the other way round. A small vision transformer ([`VitConfig`]) stands beside
//! them for comparison; [`Architecture`] and [`Network`] are either.
//!
//! A trained network runs in two ways: as the burn module it was trained as, and, without burn, as
//! an [`InferenceNetwork`] with its batch normalisations folded into the convolutions. The page has the
//! second alone (this crate without its feature `burn`).

mod bundle;
mod config;
pub mod container;
mod inference;
#[cfg(feature = "burn")]
mod init;
#[cfg(feature = "burn")]
mod layers;
#[cfg(feature = "burn")]
mod network;
#[cfg(feature = "burn")]
mod parameters;
mod predictor;
#[cfg(feature = "burn")]
mod resnet;
mod state;
mod summary;
pub mod validate;
#[cfg(feature = "burn")]
mod vit;

pub use bundle::{Bundle, BundleError, MAX_BUNDLE_BYTES, Metadata, Quantisation};
pub use config::{Architecture, ConfigError, Frozen, Init, NormKind, Preset, ResNetConfig, Shortcut, Stem, VitConfig};
pub use inference::{InferenceError, InferenceNetwork};
#[cfg(feature = "burn")]
pub use network::Network;
#[cfg(feature = "burn")]
pub use parameters::ParameterPath;
pub use predictor::{Pixels, PredictError, Prediction, Predictor};
#[cfg(feature = "burn")]
pub use resnet::ResNet;
pub use state::{StateDict, StateError, StateTensor};
pub use summary::{LayerSummary, Summary};
#[cfg(feature = "burn")]
pub use vit::Vit;
