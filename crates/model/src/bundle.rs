//! A trained network as one `.safetensors` file: weights by torchvision name, and everything a
//! program needs to use them in the metadata.

use std::io;
#[cfg(not(target_family = "wasm"))]
use std::path::{Path, PathBuf};

#[cfg(feature = "burn")]
use burn::tensor::Device;
#[cfg(not(target_family = "wasm"))]
use kiln_data::bounded_read;
use kiln_data::{Input, Preprocessing};
use serde::{Deserialize, Serialize};

#[cfg(feature = "burn")]
use crate::Network;
use crate::container::{self, ContainerError, Storage};
use crate::validate::{self, ClaimError};
use crate::{Architecture, ConfigError, InferenceError, InferenceNetwork, StateDict, StateError};

/// Largest file of a bundle: 2 GiB, far above any network that Kiln makes.
pub const MAX_BUNDLE_BYTES: u64 = 2 << 30;

/// A network's weights and what they were trained on.
#[derive(Clone, Debug, PartialEq)]
pub struct Bundle {
    pub metadata: Metadata,
    pub state: StateDict,
}

/// Everything of a bundle but its weights.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Metadata {
    pub architecture: Architecture,
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
    /// Accuracy in 0..1 on `accuracy_split`, of `accuracy_samples` images. All three are `None` for a network whose
    /// accuracy nobody has measured, such as an imported one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub accuracy: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub accuracy_split: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub accuracy_samples: Option<usize>,
    pub recipe: String,
    pub seed: u64,
    pub kiln_version: String,
    /// How pictures are brought to `image_size`; `None` for the center square, resized.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub preprocessing: Option<Preprocessing>,
    /// How the weights were rounded, in a file smaller than f32. `accuracy` was then measured before rounding.
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

/// Why a file cannot be used as a bundle.
#[derive(Debug, thiserror::Error)]
pub enum BundleError {
    #[error(transparent)]
    Container(#[from] ContainerError),
    #[error(transparent)]
    Claim(#[from] ClaimError),
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    State(#[from] StateError),
    #[cfg(not(target_family = "wasm"))]
    #[error("cannot read {}: {source}", path.display())]
    Io { path: PathBuf, source: io::Error },
}

impl Bundle {
    /// Reads a bundle and checks all of it: container, digest, metadata, and the weights' names, shapes and values.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, BundleError> {
        let (metadata, state): (Metadata, _) = container::read(bytes)?;
        metadata.check()?;
        metadata.architecture.check_state(&state)?;
        Ok(Self { metadata, state })
    }

    /// Reads a bundle's file.
    ///
    /// # Errors
    /// If it cannot be read, is larger than [`MAX_BUNDLE_BYTES`], or is not a whole bundle.
    #[cfg(not(target_family = "wasm"))]
    pub fn open(path: impl AsRef<Path>) -> Result<Self, BundleError> {
        let path = path.as_ref();
        let bytes = bounded_read::read(path, MAX_BUNDLE_BYTES)
            .map_err(|source| BundleError::Io { path: path.to_owned(), source })?;
        Self::from_bytes(&bytes)
    }

    /// The file's bytes, weights in f32 or as `metadata.quantisation` says; the same contents give the same bytes.
    pub fn to_bytes(&self) -> Result<Vec<u8>, BundleError> {
        Ok(container::write(&self.metadata, &self.state, self.storage())?)
    }

    /// Writes the bytes of [`to_bytes`](Self::to_bytes) tensor by tensor, without holding them all in memory.
    pub fn write_to(&self, file: &mut dyn io::Write) -> Result<(), BundleError> {
        Ok(container::write_to(&self.metadata, &self.state, self.storage(), file)?)
    }

    fn storage(&self) -> Storage {
        self.metadata.quantisation.as_ref().map_or(Storage::F32, |quantisation| quantisation.storage)
    }

    /// The same network, to be written in that storage, with a record whose accuracy is not measured yet.
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
    pub fn inference(&self) -> Result<InferenceNetwork, InferenceError> {
        InferenceNetwork::new(&self.metadata.architecture, &self.state, self.metadata.image_size)
    }

    /// The network with these weights.
    #[cfg(feature = "burn")]
    pub fn model(&self, device: &Device) -> Result<Network, BundleError> {
        let architecture = &self.metadata.architecture;
        architecture.validate()?;
        // Before the network takes the memory that its description asks for.
        architecture.check_state(&self.state)?;
        Ok(architecture.init(0, device)?.load_state_dict(&self.state)?)
    }
}

impl Metadata {
    /// The accuracy in 0..1, its split and its number of images, if it was measured.
    pub fn measured_accuracy(&self) -> Option<(f64, &str, usize)> {
        Some((self.accuracy?, self.accuracy_split.as_deref()?, self.accuracy_samples?))
    }

    /// What pictures are brought to before they are normalized.
    pub fn input(&self) -> Input {
        Input { size: self.image_size, preprocessing: self.preprocessing }
    }

    /// Refuses what no training and no import writes.
    ///
    /// # Errors
    /// If a field is out of its range or disagrees with the architecture.
    pub fn check(&self) -> Result<(), BundleError> {
        self.architecture.validate()?;
        validate::check_classes(&self.classes, &self.architecture)?;
        validate::check_image_size(self.image_size)?;
        self.architecture.check_image_size(self.image_size)?;
        validate::check_normalization(self.mean, self.std)?;
        validate::check_preprocessing(self.preprocessing, self.image_size)?;
        match (self.accuracy, &self.accuracy_split, self.accuracy_samples) {
            (Some(accuracy), Some(_), Some(_)) => validate::check_share("the accuracy", accuracy)?,
            (None, None, None) => {}
            _ => return Err(ClaimError::PartOfAccuracy.into()),
        }
        let mut names = vec![
            ("dataset", &self.dataset),
            ("dataset digest", &self.dataset_digest),
            ("recipe", &self.recipe),
            ("version", &self.kiln_version),
        ];
        names.extend(self.accuracy_split.iter().map(|name| ("split", name)));
        if let Some(quantisation) = &self.quantisation {
            for accuracy in [quantisation.accuracy_before, quantisation.accuracy_after].into_iter().flatten() {
                validate::check_share("an accuracy of the export", accuracy)?;
            }
            names.extend(quantisation.dataset.iter().map(|name| ("dataset of the export", name)));
            names.extend(quantisation.split.iter().map(|name| ("split of the export", name)));
        }
        Ok(names.into_iter().try_for_each(|(what, name)| validate::check_name(what, name))?)
    }
}

#[cfg(test)]
mod tests {
    use kiln_data::Interpolation;

    use super::*;
    use crate::ResNetConfig;

    fn bundle() -> Bundle {
        let architecture = Architecture::ResNet(ResNetConfig { width: 2, ..ResNetConfig::new(18, 10) });
        let state = architecture.init(1, &Device::flex()).unwrap().state_dict();
        let metadata = Metadata {
            architecture,
            classes: (0..10).map(|class| format!("class {class}")).collect(),
            image_size: 32,
            mean: [0.5; 3],
            std: [0.25; 3],
            dataset: "synthetic".into(),
            dataset_digest: "0".into(),
            accuracy: Some(0.1),
            accuracy_split: Some("test".into()),
            accuracy_samples: Some(10),
            recipe: "quick".into(),
            seed: 0,
            kiln_version: "0".into(),
            preprocessing: None,
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
    fn a_bundle_without_an_accuracy_says_nothing_of_one() {
        let mut bundle = bundle();
        (bundle.metadata.accuracy, bundle.metadata.accuracy_split, bundle.metadata.accuracy_samples) =
            (None, None, None);
        bundle.metadata.preprocessing = Some(Preprocessing { resize: 36, interpolation: Interpolation::Bicubic });
        let bytes = bundle.to_bytes().unwrap();
        assert_eq!(Bundle::from_bytes(&bytes).unwrap(), bundle);
        assert!(!bytes.windows(8).any(|window| window == b"accuracy"));
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
        resnet(&mut bundle.metadata).depth = 34;
        let error = bundle.model(&Device::flex()).unwrap_err();
        assert!(error.to_string().contains("layer1.2.bn1"), "{error}");
        let error = Bundle::from_bytes(&bundle.to_bytes().unwrap()).unwrap_err();
        assert!(error.to_string().contains("layer1.2.bn1"), "{error}");
    }

    fn resnet(metadata: &mut Metadata) -> &mut ResNetConfig {
        let Architecture::ResNet(config) = &mut metadata.architecture else { panic!("a residual network") };
        config
    }

    /// What a bundle says that was written with a right digest after `change`.
    fn refusal(change: impl FnOnce(&mut Metadata)) -> String {
        let mut bundle = bundle();
        change(&mut bundle.metadata);
        Bundle::from_bytes(&bundle.to_bytes().unwrap()).unwrap_err().to_string()
    }

    #[test]
    fn claims_beyond_reason_are_refused_before_anything_is_made() {
        let says = |words: &str, message: String| assert!(message.contains(words), "{message}");
        says("1000000000 is not a ResNet depth", refusal(|claims| resnet(claims).depth = 1_000_000_000));
        says("width is 1000000000", refusal(|claims| resnet(claims).width = 1_000_000_000));
        says("class count is 1000000000", refusal(|claims| resnet(claims).classes = 1_000_000_000));
        says(
            "class count is 0",
            refusal(|claims| {
                resnet(claims).classes = 0;
                claims.classes = vec![];
            }),
        );
        says("names 10 classes for a network of 99", refusal(|claims| resnet(claims).classes = 99));
        says("image size is 1000000000", refusal(|claims| claims.image_size = 1_000_000_000));
        says("image size is 0", refusal(|claims| claims.image_size = 0));
        // The largest network that a description may ask for has 15,000 million parameters.
        let largest = refusal(|claims| {
            let config = resnet(claims);
            (config.width, config.depth) = (1024, 152);
        });
        says("belong to another architecture", largest);
        says("standard deviation is 0,", refusal(|claims| claims.std[1] = 0.0));
        says("mean is -0.5", refusal(|claims| claims.mean[2] = -0.5));
        says("only a part of the accuracy", refusal(|claims| claims.accuracy_samples = None));
        let resized = |resize| Some(Preprocessing { resize, interpolation: Interpolation::Bilinear });
        says("resize is 31", refusal(|claims| claims.preprocessing = resized(31)));
        says("resize is 1000000000", refusal(|claims| claims.preprocessing = resized(1_000_000_000)));
        says("the accuracy is 1.5", refusal(|claims| claims.accuracy = Some(1.5)));
    }

    #[test]
    fn numbers_that_json_cannot_hold_are_refused() {
        let bytes = bundle().to_bytes().unwrap();
        for (from, to) in [("0.25,0.25,0.25", "0.25,0.25,1e39"), ("\"accuracy\":0.1", "\"accuracy\":1e9")] {
            let (metadata, state): (Box<serde_json::value::RawValue>, _) = container::read(&bytes).unwrap();
            let changed = metadata.get().replace(from, to);
            assert_ne!(changed, metadata.get());
            let metadata: Box<serde_json::value::RawValue> = serde_json::from_str(&changed).unwrap();
            let bytes = container::write(&metadata, &state, Storage::F32).unwrap();
            assert!(matches!(Bundle::from_bytes(&bytes), Err(BundleError::Claim(ClaimError::Value { .. }))));
        }
    }

    #[test]
    fn names_that_would_reach_a_terminal_are_plain() {
        let escape = "\u{1b}[2Jcat".to_owned();
        for message in [
            refusal(|claims| claims.classes[3] = escape.clone()),
            refusal(|claims| claims.recipe = escape.clone()),
            refusal(|claims| claims.dataset = escape.clone()),
        ] {
            assert!(message.contains("holds control characters") && !message.contains('\u{1b}'), "{message}");
        }
        assert!(refusal(|claims| claims.classes[3] = String::new()).contains("is empty"));
        assert!(refusal(|claims| claims.classes[3] = claims.classes[0].clone()).contains("is there twice"));
        let long = refusal(|claims| claims.recipe = "x".repeat(100_000));
        assert!(long.contains("longer than 1024") && long.len() < 200, "{long}");
    }

    #[test]
    fn tensors_that_disagree_with_the_architecture_are_named() {
        let refusal = |change: &dyn Fn(&mut StateDict)| {
            let mut bundle = bundle();
            change(&mut bundle.state);
            Bundle::from_bytes(&bundle.to_bytes().unwrap()).unwrap_err().to_string()
        };
        let missing = refusal(&|state| drop(state.remove("layer3.1.bn2.running_var")));
        assert!(missing.contains("lack 'layer3.1.bn2.running_var'"), "{missing}");
        let extra = refusal(&|state| drop(state.insert("fc.extra".into(), state["fc.bias"].clone())));
        assert!(extra.contains("hold 'fc.extra'"), "{extra}");
        let shape = refusal(&|state| state.get_mut("conv1.weight").unwrap().shape = vec![3, 2, 3, 3]);
        assert!(shape.contains("'conv1.weight' has shape [3, 2, 3, 3]"), "{shape}");
        let empty = refusal(&|state| {
            // No bytes in the file, and a product beyond a machine's word.
            let tensor = state.get_mut("fc.weight").unwrap();
            (tensor.shape, tensor.values) = (vec![0, 1 << 40, 1 << 20], vec![]);
        });
        assert!(empty.contains("'fc.weight' has shape [0,"), "{empty}");
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
