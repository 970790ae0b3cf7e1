//! How pictures become a network's input, where a file of weights does not say it.

use std::str::FromStr;

use kiln_data::{Interpolation, Preprocessing};

use crate::ConvertError;

/// Mean and standard deviation of the channels, pixels scaled to 0..1.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Normalization {
    pub mean: [f32; 3],
    pub std: [f32; 3],
}

impl Normalization {
    /// ImageNet's, as torchvision and timm use them.
    pub const IMAGENET: Self = Self { mean: [0.485, 0.456, 0.406], std: [0.229, 0.224, 0.225] };
    /// CIFAR-10's.
    pub const CIFAR10: Self = Self { mean: [0.4914, 0.4822, 0.4465], std: [0.2470, 0.2435, 0.2616] };
    /// CIFAR-100's.
    pub const CIFAR100: Self = Self { mean: [0.5071, 0.4865, 0.4409], std: [0.2673, 0.2564, 0.2762] };
}

/// A way from a picture to a network's input.
///
/// By name: `imagenet` (torchvision's `Resize(256)`, `CenterCrop(224)`), `imagenet-v2` (`Resize(232)`, for torchvision's
/// newer weights), `cifar`, `cifar10` and `cifar100` (32 pixels). Or by its parts: `resize=256,crop=224`, with
/// `interpolation=bicubic` if it is not bilinear, or `crop=224` alone for the center square.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Preset {
    pub image_size: usize,
    pub preprocessing: Option<Preprocessing>,
    /// Of a preset with a name.
    pub normalization: Option<Normalization>,
}

impl Preset {
    /// torchvision's evaluation on ImageNet.
    pub fn imagenet() -> Self {
        Self::resized(256, Normalization::IMAGENET)
    }

    fn resized(resize: usize, normalization: Normalization) -> Self {
        let preprocessing = Preprocessing { resize, interpolation: Interpolation::Bilinear };
        Self { image_size: 224, preprocessing: Some(preprocessing), normalization: Some(normalization) }
    }

    fn small(normalization: Normalization) -> Self {
        Self { image_size: 32, preprocessing: None, normalization: Some(normalization) }
    }

    fn of_parts(text: &str) -> Result<Self, String> {
        let (mut resize, mut crop, mut interpolation) = (None, None, Interpolation::Bilinear);
        for part in text.split(',') {
            let (key, value) = part.trim().split_once('=').ok_or_else(|| format!("'{part}' has no value"))?;
            let number = || value.parse::<usize>().map_err(|_| format!("'{value}' is not a number of pixels"));
            match key {
                "resize" => resize = Some(number()?),
                "crop" => crop = Some(number()?),
                "interpolation" => {
                    interpolation = [Interpolation::Bilinear, Interpolation::Bicubic]
                        .into_iter()
                        .find(|known| known.name() == value)
                        .ok_or_else(|| format!("'{value}' is neither bilinear nor bicubic"))?;
                }
                _ => return Err(format!("'{key}' is not one of resize, crop and interpolation")),
            }
        }
        let crop = crop.ok_or("it has no crop, the size of the network's images in pixels")?;
        if resize.is_some_and(|resize| resize < crop) {
            return Err("the crop is larger than the resize".to_owned());
        }
        let preprocessing = resize.map(|resize| Preprocessing { resize, interpolation });
        Ok(Self { image_size: crop, preprocessing, normalization: None })
    }
}

impl FromStr for Preset {
    type Err = ConvertError;

    fn from_str(text: &str) -> Result<Self, ConvertError> {
        let refused = |fault| ConvertError::Preprocess { text: text.to_owned(), fault };
        match text {
            "imagenet" => Ok(Self::imagenet()),
            "imagenet-v2" => Ok(Self::resized(232, Normalization::IMAGENET)),
            "cifar" | "cifar10" => Ok(Self::small(Normalization::CIFAR10)),
            "cifar100" => Ok(Self::small(Normalization::CIFAR100)),
            parts if parts.contains('=') => Self::of_parts(parts).map_err(refused),
            _ => Err(refused(
                "choose imagenet, imagenet-v2, cifar10, cifar100, or parts such as resize=256,crop=224".to_owned(),
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_way_is_named_or_put_together() {
        assert_eq!("imagenet".parse::<Preset>().unwrap(), Preset::imagenet());
        let parts: Preset = "resize=235,crop=224,interpolation=bicubic".parse().unwrap();
        let expected = Preprocessing { resize: 235, interpolation: Interpolation::Bicubic };
        assert_eq!((parts.image_size, parts.preprocessing, parts.normalization), (224, Some(expected), None));
        assert_eq!("crop=64".parse::<Preset>().unwrap().preprocessing, None);
    }

    #[test]
    fn what_is_no_way_is_explained() {
        for (text, words) in [
            ("mnist", "choose imagenet"),
            ("resize=256", "no crop"),
            ("resize=100,crop=224", "larger than the resize"),
            ("crop=x", "not a number"),
            ("crop=32,interpolation=lanczos", "neither bilinear nor bicubic"),
            ("crop=32,pad=4", "'pad' is not one of"),
        ] {
            let error = text.parse::<Preset>().unwrap_err().to_string();
            assert!(error.contains(words), "{error}");
        }
    }
}
