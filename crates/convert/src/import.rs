//! A file of weights, found out and read, and the bundle made of it.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::Path;

use kiln_data::Preprocessing;
use kiln_model::validate::check_classes;
use kiln_model::{Architecture, Bundle, Metadata, ResNetConfig, StateDict, Stem};

use crate::preprocess::{Normalization, Preset};
use crate::tensor::Tensors;
use crate::{ConvertError, Hints, architecture, names, onnx, pytorch, safetensors_file};

/// Largest file that is read: 2 GiB, as for bundles.
pub const MAX_FILE_BYTES: u64 = kiln_model::MAX_BUNDLE_BYTES;
/// The recipe that an imported bundle names.
pub const RECIPE: &str = "imported";
/// What an imported bundle says of its training's data.
const UNKNOWN: &str = "unknown";

/// The kinds of files that are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    Safetensors,
    Pytorch,
    Onnx,
}

/// A network of another program.
#[derive(Clone, Debug)]
pub struct Imported {
    pub format: Format,
    pub architecture: Architecture,
    /// By torchvision's names.
    pub state: StateDict,
    /// What the file says beside the weights.
    pub known: Known,
    /// What was passed over or changed on the way, in sentences without a capital letter or a period.
    pub notes: Vec<String>,
}

/// What a file says of a network beside its weights. An ONNX model may say some of it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Known {
    pub classes: Option<Vec<String>>,
    pub normalization: Option<Normalization>,
    pub image_size: Option<usize>,
    /// `Some(None)` where the file says that pictures are neither resized nor cropped as torchvision does it.
    pub preprocessing: Option<Option<Preprocessing>>,
}

/// What the user says of a network, where its file does not or says it wrongly.
#[derive(Clone, Debug, Default)]
pub struct Choices {
    /// Names in the order of the logits; numbers if nobody names them.
    pub classes: Option<Vec<String>>,
    pub normalization: Option<Normalization>,
    pub preset: Option<Preset>,
    /// Height and width of the network's images in pixels.
    pub image_size: Option<usize>,
}

/// Reads a file of weights in any of the known formats.
///
/// # Errors
/// If it is none, is larger than [`MAX_FILE_BYTES`], is damaged or hostile, or holds a network that Kiln does not have;
/// the error then names the tensor or node that shows it.
pub fn open(path: impl AsRef<Path>, hints: Hints) -> Result<Imported, ConvertError> {
    let path = path.as_ref();
    let (start, len) = start(path).map_err(|source| ConvertError::Io { path: path.to_owned(), source })?;
    match Format::of(&start).ok_or(ConvertError::UnknownFormat)? {
        Format::Safetensors => weights(Format::Safetensors, safetensors_file::tensors(path, len)?, len, hints),
        Format::Pytorch => {
            let (tensors, wrapper) = pytorch::tensors(path)?;
            let mut imported = weights(Format::Pytorch, tensors, len, hints)?;
            imported.notes.extend(wrapper.map(|key| format!("the weights are those under '{key}'")));
            Ok(imported)
        }
        Format::Onnx => onnx::import(path),
    }
}

/// The format of a file, by its first bytes.
///
/// # Errors
/// If it cannot be read, is larger than [`MAX_FILE_BYTES`], or has none of the known formats.
pub fn format(path: impl AsRef<Path>) -> Result<Format, ConvertError> {
    let path = path.as_ref();
    let (start, _) = start(path).map_err(|source| ConvertError::Io { path: path.to_owned(), source })?;
    Format::of(&start).ok_or(ConvertError::UnknownFormat)
}

impl Format {
    fn of(start: &[u8]) -> Option<Self> {
        match start {
            _ if safetensors_file::is_safetensors(start) => Some(Self::Safetensors),
            _ if pytorch::is_pytorch(start) => Some(Self::Pytorch),
            _ if onnx::is_onnx(start) => Some(Self::Onnx),
            _ => None,
        }
    }

    /// As in text: `safetensors`, `PyTorch` or `ONNX`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Safetensors => "safetensors",
            Self::Pytorch => "PyTorch",
            Self::Onnx => "ONNX",
        }
    }
}

/// A file's first bytes and its length.
fn start(path: &Path) -> io::Result<(Vec<u8>, u64)> {
    let metadata = fs::metadata(path)?;
    let wrong = |what: String| Err(io::Error::new(io::ErrorKind::InvalidInput, what));
    // A pipe may never end, and even opening one may block.
    if !metadata.is_file() {
        return wrong("it is not a regular file".to_owned());
    }
    if metadata.len() > MAX_FILE_BYTES {
        return wrong(format!("it has {} bytes, and the limit for such a file is {MAX_FILE_BYTES}", metadata.len()));
    }
    let mut start = vec![];
    File::open(path)?.take(512).read_to_end(&mut start)?;
    Ok((start, metadata.len()))
}

/// The network that a file's tensors make.
fn weights(format: Format, tensors: Tensors, len: u64, hints: Hints) -> Result<Imported, ConvertError> {
    let (tensors, notes) = names::normalized(tensors)?;
    let shapes = tensors.iter().map(|(name, tensor)| (name.as_str(), tensor.shape.as_slice())).collect();
    let architecture = architecture::detect(&shapes, hints)?;
    // torch.save compresses nothing: more is a bomb, or views of the same numbers.
    let claimed = tensors.values().try_fold(0_u64, |sum, tensor| sum.checked_add(tensor.claimed()?));
    match claimed {
        Some(claimed) if claimed <= len => {}
        claimed => return Err(ConvertError::Claim { claimed: claimed.unwrap_or(u64::MAX), bytes: len }),
    }
    let state = tensors.iter().map(|(name, tensor)| Ok((name.clone(), tensor.load(name)?)));
    let state = state.collect::<Result<_, ConvertError>>()?;
    Ok(Imported { format, architecture, state, known: Known::default(), notes })
}

impl Imported {
    /// The network as a bundle, and notes of what was assumed.
    ///
    /// # Errors
    /// If nothing says how pictures are normalized (ImageNet's way is assumed for its stem), or if a choice does not fit
    /// the network.
    pub fn bundle(self, choices: Choices) -> Result<(Bundle, Vec<String>), ConvertError> {
        let Self { architecture, state, known, mut notes, .. } = self;
        let has_imagenet_stem =
            matches!(&architecture, Architecture::ResNet(ResNetConfig { stem: Stem::Imagenet, .. }));
        let mut preset = choices.preset;
        let chosen_size = choices.image_size.or(preset.map(|preset| preset.image_size));
        let known_normalization = choices.normalization.or(known.normalization);
        if preset.is_none() && known.preprocessing.is_none() && has_imagenet_stem {
            preset = Some(Preset::imagenet());
            let normalization = if known_normalization.is_none() { " and ImageNet's mean and deviation" } else { "" };
            notes.push(format!("Resize(256), CenterCrop(224){normalization} are assumed, as torchvision has them"));
        }
        let of_preset = preset.and_then(|preset| preset.normalization);
        let normalization = known_normalization.or(of_preset).ok_or(ConvertError::NeedsNormalization)?;
        let own_size = match &architecture {
            Architecture::Vit(config) => Some(config.image_size),
            Architecture::ResNet(_) => known.image_size,
        };
        let assumed_size = preset.map_or(32, |preset| preset.image_size);
        let image_size = chosen_size.or(own_size).unwrap_or(assumed_size);
        let preprocessing = match preset {
            Some(preset) => preset.preprocessing.map(|way| scaled(way, preset.image_size, image_size)),
            None => known.preprocessing.flatten(),
        };
        let classes = match choices.classes.or(known.classes) {
            Some(classes) => distinct(classes, &mut notes),
            None => {
                notes.push(format!("the {} classes have numbers, as the file has no names", architecture.classes()));
                (0..architecture.classes()).map(|class| format!("class {class}")).collect()
            }
        };
        check_classes(&classes, &architecture)?;
        let metadata = Metadata {
            architecture,
            classes,
            image_size,
            mean: normalization.mean,
            std: normalization.std,
            dataset: UNKNOWN.to_owned(),
            dataset_digest: UNKNOWN.to_owned(),
            accuracy: None,
            accuracy_split: None,
            accuracy_samples: None,
            recipe: RECIPE.to_owned(),
            seed: 0,
            kiln_version: env!("CARGO_PKG_VERSION").to_owned(),
            preprocessing,
            quantisation: None,
        };
        metadata.check()?;
        Ok((Bundle { metadata, state }, notes))
    }
}

/// The same share of a picture for images of another size.
fn scaled(way: Preprocessing, from: usize, to: usize) -> Preprocessing {
    Preprocessing { resize: (way.resize * to + from / 2) / from, ..way }
}

/// The names, with a number after one that is there already: ImageNet has two cranes and two maillots.
fn distinct(names: Vec<String>, notes: &mut Vec<String>) -> Vec<String> {
    let mut seen = std::collections::BTreeMap::new();
    let mut numbered = vec![];
    let mut distinct = Vec::with_capacity(names.len());
    for name in names {
        let count = seen.entry(name.clone()).and_modify(|count| *count += 1).or_insert(1);
        if *count > 1 {
            numbered.push(name.clone());
            distinct.push(format!("{name} ({count})"));
        } else {
            distinct.push(name);
        }
    }
    if !numbered.is_empty() {
        notes.push(format!("classes of the same name got numbers: {}", numbered.join(", ")));
    }
    distinct
}

/// Class names from a text: a JSON array, or a name a line.
///
/// # Errors
/// If it starts like an array and is none of names.
pub fn parse_classes(text: &str) -> Result<Vec<String>, ConvertError> {
    if text.trim_start().starts_with('[') {
        return serde_json::from_str(text).map_err(ConvertError::Classes);
    }
    Ok(text.lines().map(|line| line.trim().to_owned()).filter(|line| !line.is_empty()).collect())
}

#[cfg(test)]
mod tests {
    use kiln_data::Interpolation;
    use kiln_model::StateTensor;

    use super::*;

    fn imported(stem: Stem) -> Imported {
        let architecture: Architecture = ResNetConfig { stem, width: 1, ..ResNetConfig::new(18, 3) }.into();
        let zeros = |(name, shape): (String, Vec<usize>)| {
            (name, StateTensor { values: vec![0.5; shape.iter().product()], shape })
        };
        let state = architecture.tensors().into_iter().map(zeros).collect();
        Imported { format: Format::Onnx, architecture, state, known: Known::default(), notes: vec![] }
    }

    #[test]
    fn imagenets_way_is_assumed_for_its_stem_and_said() {
        let (bundle, notes) = imported(Stem::Imagenet).bundle(Choices::default()).unwrap();
        let Metadata { image_size, mean, preprocessing, accuracy, classes, .. } = bundle.metadata.clone();
        assert_eq!((image_size, mean, accuracy), (224, Normalization::IMAGENET.mean, None));
        assert_eq!(preprocessing, Some(Preprocessing { resize: 256, interpolation: Interpolation::Bilinear }));
        assert_eq!(classes, ["class 0", "class 1", "class 2"]);
        assert!(notes.iter().any(|note| note.contains("Resize(256)")), "{notes:?}");
        assert_eq!(Bundle::from_bytes(&bundle.to_bytes().unwrap()).unwrap(), bundle);
    }

    #[test]
    fn other_stems_have_to_be_told_their_normalization() {
        let error = imported(Stem::Cifar).bundle(Choices::default()).unwrap_err();
        assert!(matches!(error, ConvertError::NeedsNormalization));
        let choices = Choices { preset: Some("cifar".parse().unwrap()), ..Choices::default() };
        let (bundle, _) = imported(Stem::Cifar).bundle(choices).unwrap();
        assert_eq!((bundle.metadata.image_size, bundle.metadata.preprocessing), (32, None));
    }

    #[test]
    fn a_smaller_image_shows_the_same_share_of_the_picture() {
        let choices = Choices { image_size: Some(112), ..Choices::default() };
        let (bundle, _) = imported(Stem::Imagenet).bundle(choices).unwrap();
        assert_eq!((bundle.metadata.image_size, bundle.metadata.preprocessing.unwrap().resize), (112, 128));
    }

    #[test]
    fn classes_of_the_same_name_get_numbers() {
        let classes = ["crane", "cat", "crane"].map(String::from).to_vec();
        let choices = Choices { classes: Some(classes), ..Choices::default() };
        let (bundle, notes) = imported(Stem::Imagenet).bundle(choices).unwrap();
        assert_eq!(bundle.metadata.classes, ["crane", "cat", "crane (2)"]);
        assert!(notes.iter().any(|note| note.contains("crane")));
        let choices = Choices { classes: Some(vec!["cat".into()]), ..Choices::default() };
        let error = imported(Stem::Imagenet).bundle(choices).unwrap_err().to_string();
        assert!(error.contains("names 1 classes for a network of 3"), "{error}");
    }

    #[test]
    fn classes_come_a_line_each_or_as_json() {
        assert_eq!(parse_classes("cat\r\n\n dog \n").unwrap(), ["cat", "dog"]);
        assert_eq!(parse_classes(" [\"cat\", \"a, b\"]").unwrap(), ["cat", "a, b"]);
        assert!(parse_classes("[1]").is_err());
    }
}
