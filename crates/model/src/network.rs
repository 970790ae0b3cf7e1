//! Networks of both families behind one set of functions: what training, evaluation and bundles know.

use burn::module::Module;
use burn::tensor::{Device, Int, Tensor};
use kiln_kernels::Precision;

use crate::{Architecture, ConfigError, Frozen, ResNet, StateDict, StateError, Vit, parameters};

/// A network for classification; made by [`Architecture::init`].
///
/// On a device with autodiff it trains; [`Module::valid`] gives the network for evaluation.
#[derive(Module, Debug)]
#[allow(clippy::large_enum_variant, reason = "there is one network, and its weights are elsewhere")]
pub enum Network {
    ResNet(ResNet),
    Vit(Vit),
}

impl Architecture {
    /// Makes the network with weights drawn from `seed`, the same on every device.
    pub fn init(&self, seed: u64, device: &Device) -> Result<Network, ConfigError> {
        match self {
            Self::ResNet(config) => Ok(Network::ResNet(config.init(seed, device)?)),
            Self::Vit(config) => Ok(Network::Vit(config.init(seed, device)?)),
        }
    }
}

impl From<ResNet> for Network {
    fn from(network: ResNet) -> Self {
        Self::ResNet(network)
    }
}

impl Network {
    /// Class scores before softmax: `[N, 3, H, W]` -> `[N, classes]`.
    pub fn forward(&self, images: Tensor<4>) -> Tensor<2> {
        self.classify(self.features(images))
    }

    /// The head alone: features `[N, features]` -> `[N, classes]`.
    pub fn classify(&self, features: Tensor<2>) -> Tensor<2> {
        match self {
            Self::ResNet(network) => network.classify(features),
            Self::Vit(network) => network.classify(features),
        }
    }

    /// What the head sees: `[N, 3, H, W]` -> `[N, features]`.
    pub fn features(&self, images: Tensor<4>) -> Tensor<2> {
        match self {
            Self::ResNet(network) => network.features(images),
            Self::Vit(network) => network.features(images),
        }
    }

    /// [`features`](Self::features), where what is frozen runs as for evaluation: it has no gradients, and its batch norms
    /// keep their running statistics. The network must be on a device with autodiff.
    pub fn features_beyond(&self, images: Tensor<4>, frozen: Frozen) -> Tensor<2> {
        match self {
            Self::ResNet(network) => network.features_beyond(images, frozen),
            Self::Vit(network) => network.features_beyond(images, frozen),
        }
    }

    /// Where the evidence for one class a sample lies; see [`ResNet::class_activation`].
    pub fn class_activation(&self, images: Tensor<4>, classes: Tensor<1, Int>) -> Tensor<3> {
        match self {
            Self::ResNet(network) => network.class_activation(images, classes),
            Self::Vit(network) => network.class_activation(images, classes),
        }
    }

    /// The same network with convolutions of another precision; a transformer has none.
    pub fn with_precision(self, precision: Precision) -> Self {
        match self {
            Self::ResNet(network) => Self::ResNet(network.with_precision(precision)),
            Self::Vit(network) => Self::Vit(network),
        }
    }

    /// See [`ResNet::running_statistics`]; a transformer has none.
    pub fn running_statistics(&self) -> Vec<Tensor<1>> {
        match self {
            Self::ResNet(network) => network.running_statistics(),
            Self::Vit(_) => vec![],
        }
    }

    /// Puts back what [`running_statistics`](Self::running_statistics) gave.
    ///
    /// # Panics
    /// If they are those of another network.
    pub fn restore_running_statistics(&self, statistics: Vec<Tensor<1>>) {
        match self {
            Self::ResNet(network) => network.restore_running_statistics(statistics),
            Self::Vit(_) => assert!(statistics.is_empty(), "running statistics of another network"),
        }
    }

    /// The first part of the network, by its name in a state dict, whose output for these images
    /// `[N, 3, H, W]` is not finite; `None` if all are. Waits for the device after each part.
    pub async fn first_non_finite(&self, images: Tensor<4>) -> Option<String> {
        match self {
            Self::ResNet(network) => network.first_non_finite(images).await,
            Self::Vit(network) => network.first_non_finite(images).await,
        }
    }

    /// Copies every parameter and running statistic to the host. Waits for the device.
    pub fn state_dict(&self) -> StateDict {
        parameters::read(self)
    }

    /// As [`state_dict`](Self::state_dict), without blocking.
    pub async fn state_dict_async(&self) -> StateDict {
        parameters::read_async(self).await
    }

    /// Takes every parameter and running statistic from `state`.
    ///
    /// # Errors
    /// When a name is missing or unknown or a shape differs; the network is then lost, `state` not.
    pub fn load_state_dict(self, state: &StateDict) -> Result<Self, StateError> {
        parameters::load(self, state)
    }
}

/// Whether all values are finite, but for sums beyond f32. Waits for the device.
pub(crate) async fn is_finite<const D: usize>(x: Tensor<D>) -> bool {
    let sum = x.sum().into_scalar_async::<f32>().await;
    sum.unwrap_or_else(|error| panic!("{error}")).is_finite()
}
