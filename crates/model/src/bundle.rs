//! A trained network as one `.safetensors` file: weights by torchvision name, and everything a
//! program needs to use them in the metadata.

#[cfg(feature = "burn")]
use burn::tensor::Device;
use serde::{Deserialize, Serialize};

#[cfg(feature = "burn")]
use crate::ResNet;
use crate::container::{self, ContainerError, Storage};
use crate::{ConfigError, InferenceError, InferenceResNet, ResNetConfig, StateDict, StateError};

/// A network's weights and what they were trained on.
#[derive(Clone, Debug, PartialEq)]
pub struct Bundle {
    pub metadata: Metadata,
    pub state: StateDict,
}

/// Everything of a bundle but its weights.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Metadata {
    pub architecture: ResNetConfig,
    /// Names in the order of the logits.
    pub classes: Vec<String>,
    /// Height and width of the images the network was trained on, in pixels.
    pub image_size: usize,
    /// Of the training images' channels, pixels scaled to 0..1.
    pub mean: [f32; 3],
    pub std: [f32; 3],
    /// Name and SHA-256 of the data.
    pub dataset: String,
    pub dataset_digest: String,
    /// Accuracy in 0..1 on `accuracy_split`, of `accuracy_samples` images.
    pub accuracy: f64,
    pub accuracy_split: String,
    pub accuracy_samples: usize,
    pub recipe: String,
    pub seed: u64,
    pub kiln_version: String,
    /// Of a file smaller than f32. `accuracy` is then that of the network before it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quantisation: Option<Quantisation>,
}

/// How a network was made smaller for its way to the browser, and what that cost.
///
/// All but the storage is `None` where it was not measured.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Quantisation {
    pub storage: Storage,
    /// Name of the data that both accuracies are of.
    pub dataset: Option<String>,
    /// `test`, or `all` for data that is not split.
    pub split: Option<String>,
    pub samples: Option<usize>,
    /// In 0..1, in f32.
    pub accuracy_before: Option<f64>,
    /// In 0..1, of the weights that the file holds.
    pub accuracy_after: Option<f64>,
}

/// A file that is no bundle, or a damaged one.
#[derive(Debug, thiserror::Error)]
pub enum BundleError {
    #[error(transparent)]
    Container(#[from] ContainerError),
    #[error("the metadata names {names} classes for a network of {classes}")]
    Classes { names: usize, classes: usize },
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    State(#[from] StateError),
}

impl Bundle {
    /// Reads a bundle and checks all of it: container, digest, metadata, values.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, BundleError> {
        let (metadata, state): (Metadata, _) = container::read(bytes)?;
        metadata.architecture.validate()?;
        let (names, classes) = (metadata.classes.len(), metadata.architecture.classes);
        if names != classes {
            return Err(BundleError::Classes { names, classes });
        }
        Ok(Self { metadata, state })
    }

    /// The file's bytes, weights in f32 or as `metadata.quantisation` says; the same contents give the same bytes.
    pub fn to_bytes(&self) -> Result<Vec<u8>, BundleError> {
        let storage = self.metadata.quantisation.as_ref().map_or(Storage::F32, |quantisation| quantisation.storage);
        Ok(container::write(&self.metadata, &self.state, storage)?)
    }

    /// The same network, to be written in that storage, with a record of it that nobody has measured yet.
    pub fn stored_as(mut self, storage: Storage) -> Self {
        self.metadata.quantisation = (storage != Storage::F32).then_some(Quantisation {
            storage,
            dataset: None,
            split: None,
            samples: None,
            accuracy_before: None,
            accuracy_after: None,
        });
        self
    }

    /// The network with these weights, to be run without burn.
    pub fn inference(&self) -> Result<InferenceResNet, InferenceError> {
        InferenceResNet::new(&self.metadata.architecture, &self.state, self.metadata.image_size)
    }

    /// The network with these weights.
    #[cfg(feature = "burn")]
    pub fn model(&self, device: &Device) -> Result<ResNet, BundleError> {
        Ok(self.metadata.architecture.init(0, device)?.load_state_dict(&self.state)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Preset;

    fn bundle() -> Bundle {
        let architecture = ResNetConfig { width: 2, ..ResNetConfig::preset(Preset::ResNet(18), 10) };
        let state = architecture.init(1, &Device::flex()).unwrap().state_dict();
        let metadata = Metadata {
            architecture,
            classes: (0..10).map(|class| format!("class {class}")).collect(),
            image_size: 32,
            mean: [0.5; 3],
            std: [0.25; 3],
            dataset: "synthetic".into(),
            dataset_digest: "0".into(),
            accuracy: 0.1,
            accuracy_split: "test".into(),
            accuracy_samples: 10,
            recipe: "quick".into(),
            seed: 0,
            kiln_version: "0".into(),
            quantisation: None,
        };
        Bundle { metadata, state }
    }

    #[test]
    fn a_bundle_survives_the_way_to_disk_and_back() {
        let bundle = bundle();
        let bytes = bundle.to_bytes().unwrap();
        assert_eq!(Bundle::from_bytes(&bytes).unwrap(), bundle);
        assert_eq!(bundle.to_bytes().unwrap(), bytes, "the same contents give the same bytes");
    }

    #[test]
    fn a_file_in_f32_says_nothing_of_quantisation() {
        let bytes = bundle().to_bytes().unwrap();
        let name = b"quantisation";
        assert!(!bytes.windows(name.len()).any(|window| window == name), "files from before read and stay the same");
    }

    #[test]
    fn a_quantised_bundle_keeps_its_record_and_loads() {
        let whole = bundle().to_bytes().unwrap().len();
        for storage in [Storage::F16, Storage::Int8] {
            let mut bundle = bundle().stored_as(storage);
            bundle.metadata.quantisation.as_mut().unwrap().accuracy_after = Some(0.25);
            let bytes = bundle.to_bytes().unwrap();
            assert!(bytes.len() < whole, "{} of {whole} bytes", bytes.len());
            let read = Bundle::from_bytes(&bytes).unwrap();
            assert_eq!(read.metadata, bundle.metadata);
            assert_eq!(read.state["bn1.running_var"], bundle.state["bn1.running_var"]);
            assert_eq!(read.model(&Device::flex()).unwrap().state_dict(), read.state);
        }
        assert_eq!(bundle().stored_as(Storage::F32), bundle());
    }

    #[test]
    fn the_loaded_network_gives_the_same_state() {
        let bundle = bundle();
        let model = bundle.model(&Device::flex()).unwrap();
        assert_eq!(model.state_dict(), bundle.state);
    }

    #[test]
    fn a_flipped_byte_is_noticed() {
        let mut bytes = bundle().to_bytes().unwrap();
        let last = bytes.len() - 1;
        bytes[last] ^= 1;
        assert!(matches!(Bundle::from_bytes(&bytes), Err(BundleError::Container(ContainerError::Digest))));
    }

    #[test]
    fn a_truncated_file_is_noticed() {
        let bytes = bundle().to_bytes().unwrap();
        for len in [0, 7, 100, bytes.len() - 1] {
            assert!(Bundle::from_bytes(&bytes[..len]).is_err(), "{len} bytes");
        }
    }

    #[test]
    fn weights_of_another_architecture_are_refused_by_name() {
        let mut bundle = bundle();
        bundle.metadata.architecture.depth = 34;
        let error = bundle.model(&Device::flex()).unwrap_err();
        assert!(error.to_string().contains("layer1.2.bn1"), "{error}");
    }

    #[test]
    fn weights_that_are_not_finite_are_never_written() {
        let mut bundle = bundle();
        bundle.state.get_mut("fc.bias").unwrap().values[3] = f32::NAN;
        assert!(
            matches!(bundle.to_bytes(), Err(BundleError::Container(ContainerError::NotFinite(n))) if n == "fc.bias")
        );
    }
}
