//! Corrupted images, to measure robustness: five of the corruptions of CIFAR-10-C (Hendrycks & Dietterich 2019,
//! <https://arxiv.org/abs/1903.12261>) with the strengths of its authors.
//!
//! The strengths are meant for images of 32 x 32 pixels; larger images are corrupted by the same amounts. Noise
//! is drawn from [`random`](crate::random) and does not depend on other images or threads.

use std::sync::Arc;

use jpeg_encoder::{ChromaSubsamplingMethod, ColorType, Encoder, SamplingFactor};
use rayon::prelude::*;

use crate::{
    decode::decode_image,
    digest,
    error::DataError,
    images::{ImageSet, ImageSource, Images, Stream},
    random::KeyedRng,
    resized_crop::CropDraw,
};

/// A kind of corruption.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Corruption {
    /// Independent noise added to every value.
    GaussianNoise,
    /// Blur; beyond the border, the outermost pixels repeat.
    GaussianBlur,
    /// A constant added to the V of HSV.
    Brightness,
    /// Each channel moved toward its mean.
    Contrast,
    /// JPEG compression with half the color resolution.
    Jpeg,
}

impl Corruption {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::GaussianNoise, Self::GaussianBlur, Self::Brightness, Self::Contrast, Self::Jpeg];

    /// The name in CIFAR-10-C, except for `jpeg`.
    pub fn name(self) -> &'static str {
        match self {
            Self::GaussianNoise => "gaussian_noise",
            Self::GaussianBlur => "gaussian_blur",
            Self::Brightness => "brightness",
            Self::Contrast => "contrast",
            Self::Jpeg => "jpeg",
        }
    }

    /// Strength at severities 1 to 5. In the order of the variants: standard deviation as a fraction of 255,
    /// standard deviation in pixels, fraction of 255, factor, and JPEG quality.
    fn strengths(self) -> [f64; SEVERITIES] {
        match self {
            Self::GaussianNoise => [0.04, 0.06, 0.08, 0.09, 0.10],
            Self::GaussianBlur => [0.4, 0.6, 0.7, 0.8, 1.0],
            Self::Brightness => [0.05, 0.1, 0.15, 0.2, 0.3],
            Self::Contrast => [0.75, 0.5, 0.4, 0.3, 0.15],
            Self::Jpeg => [80.0, 65.0, 58.0, 50.0, 40.0],
        }
    }
}

/// Number of severities; they count from 1.
pub const SEVERITIES: usize = 5;

/// Returns the set with every image corrupted; the images of a stream are corrupted when they are asked for. Noise is a
/// function of (seed, severity, index of the image).
///
/// # Panics
///
/// If `severity` is not 1 to 5.
pub fn corrupt(set: &ImageSet, corruption: Corruption, severity: usize, seed: u64) -> ImageSet {
    assert!((1..=SEVERITIES).contains(&severity), "severities are 1 to {SEVERITIES}, not {severity}");
    let mut corrupted = set.clone();
    match &mut corrupted.images {
        Images::InMemory(pixels) => {
            let size = [set.height, set.width];
            pixels
                .par_chunks_exact_mut(set.image_len().max(1))
                .enumerate()
                .for_each(|(index, image)| change(image, size, corruption, severity, seed, index));
        }
        images => {
            let source = Corrupted { set: set.clone(), corruption, severity, seed };
            *images = Images::Streamed(Stream::new(Arc::new(source), (0..set.len() as u32).collect()));
        }
    }
    corrupted
}

/// The images of a set, corrupted.
#[derive(Debug)]
struct Corrupted {
    set: ImageSet,
    corruption: Corruption,
    severity: usize,
    seed: u64,
}

impl ImageSource for Corrupted {
    fn image(&self, index: u32, crop: Option<&CropDraw>) -> Result<Vec<u8>, DataError> {
        let Self { set, corruption, severity, seed } = self;
        let mut image = set.view(index as usize, crop)?.into_owned();
        change(&mut image, [set.height, set.width], *corruption, *severity, *seed, index as usize);
        Ok(image)
    }

    /// Corrupted images are the same where the images are.
    fn digest(&self, index: u32) -> u128 {
        let Self { set, corruption, severity, seed } = self;
        let image = set.select(&[index]).digests().next();
        digest::short(format!("{image:?} {corruption:?} {severity} {seed} {index}").as_bytes())
    }
}

/// Corrupts one image `[3, H, W]` of `[height, width]`.
fn change(image: &mut [u8], size: [usize; 2], corruption: Corruption, severity: usize, seed: u64, index: usize) {
    let strength = corruption.strengths()[severity - 1];
    match corruption {
        Corruption::GaussianNoise => {
            let rng = KeyedRng::new(b"corrupt.", seed, severity as u64, index as u64);
            add_noise(image, 255.0 * strength, rng);
        }
        Corruption::GaussianBlur => image.chunks_exact_mut(size[0] * size[1]).for_each(|plane| {
            blur(plane, size, strength);
        }),
        Corruption::Brightness => brighten(image, 255.0 * strength),
        Corruption::Contrast => {
            image.chunks_exact_mut(size[0] * size[1]).for_each(|plane| flatten(plane, strength));
        }
        Corruption::Jpeg => compress(image, size, strength as u8),
    }
}

/// Adds normal noise with this standard deviation.
fn add_noise(image: &mut [u8], deviation: f64, mut rng: KeyedRng) {
    for pair in image.chunks_mut(2) {
        // The Box-Muller transform of two uniform numbers; the first is not 0.
        let radius = (-2.0 * libm::log(1.0 - f64::from(rng.uniform(0.0, 1.0)))).sqrt();
        let angle = std::f64::consts::TAU * f64::from(rng.uniform(0.0, 1.0));
        for (value, normal) in pair.iter_mut().zip([radius * libm::cos(angle), radius * libm::sin(angle)]) {
            *value = byte(f64::from(*value) + deviation * normal);
        }
    }
}

/// Blurs one channel `[H, W]` with a kernel cut off at four standard deviations.
fn blur(plane: &mut [u8], [height, width]: [usize; 2], deviation: f64) {
    let radius = (4.0 * deviation + 0.5) as isize;
    let mut kernel: Vec<f64> = (-radius..=radius).map(|at| libm::exp(-0.5 * (at as f64 / deviation).powi(2))).collect();
    let sum: f64 = kernel.iter().sum();
    kernel.iter_mut().for_each(|weight| *weight /= sum);

    // Along an axis of `length` values, which `value` returns.
    let filtered = |at: usize, length: usize, value: &dyn Fn(usize) -> f64| -> f64 {
        let weighted = (-radius..)
            .zip(&kernel)
            .map(|(offset, weight)| weight * value((at as isize + offset).clamp(0, length as isize - 1) as usize));
        weighted.sum()
    };
    let columns: Vec<f64> = (0..plane.len())
        .map(|at| filtered(at / width, height, &|row| f64::from(plane[row * width + at % width])))
        .collect();
    for (at, value) in plane.iter_mut().enumerate() {
        let row = &columns[at / width * width..][..width];
        *value = byte(filtered(at % width, width, &|column| row[column]));
    }
}

/// Adds to the largest channel of each pixel and scales the others with it, which keeps hue and saturation.
fn brighten(image: &mut [u8], more: f64) {
    let plane = image.len() / 3;
    for at in 0..plane {
        let pixel = [0, 1, 2].map(|channel| f64::from(image[channel * plane + at]));
        let value = pixel.into_iter().fold(0.0, f64::max);
        let brighter = (value + more).min(255.0);
        for (channel, old) in pixel.into_iter().enumerate() {
            image[channel * plane + at] = byte(if value > 0.0 { old * brighter / value } else { brighter });
        }
    }
}

/// Moves one channel toward its mean.
fn flatten(plane: &mut [u8], factor: f64) {
    let total: u64 = plane.iter().map(|value| u64::from(*value)).sum();
    let mean = total as f64 / plane.len() as f64;
    plane.iter_mut().for_each(|value| *value = byte((f64::from(*value) - mean) * factor + mean));
}

/// Encodes and decodes a JPEG of this quality with 4:2:0 sampling, libjpeg's default.
fn compress(image: &mut [u8], [height, width]: [usize; 2], quality: u8) {
    let plane = height * width;
    let pixels: Vec<u8> = (0..plane).flat_map(|at| [0, 1, 2].map(|channel| image[channel * plane + at])).collect();
    let mut file = vec![];
    let mut encoder = Encoder::new(&mut file, quality);
    encoder.set_sampling_factor(SamplingFactor::R_4_2_0);
    encoder.set_chroma_subsampling_method(ChromaSubsamplingMethod::Average);
    // Images are squares of at most 1024 pixels per side, which fit in a JPEG.
    encoder.encode(&pixels, width as u16, height as u16, ColorType::Rgb).expect("an image that fits a JPEG");
    image.copy_from_slice(&decode_image(&file, height).expect("a JPEG that was just written"));
}

/// Clamped to 0..255 and truncated to an integer, like the authors' conversion.
fn byte(value: f64) -> u8 {
    value as u8
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::synthetic;

    fn pixels_of(set: &ImageSet) -> &[u8] {
        set.images.in_memory().unwrap()
    }

    /// Root mean square difference of all pixels.
    fn distance(a: &ImageSet, b: &ImageSet) -> f64 {
        let squares = pixels_of(a).iter().zip(pixels_of(b)).map(|(a, b)| (f64::from(*a) - f64::from(*b)).powi(2));
        (squares.sum::<f64>() / pixels_of(a).len() as f64).sqrt()
    }

    #[test]
    fn a_higher_severity_changes_images_more_and_keeps_their_labels() {
        let set = synthetic(20, 0, 0).train;
        for corruption in Corruption::ALL {
            let changed = (1..=SEVERITIES).map(|severity| {
                let corrupted = corrupt(&set, corruption, severity, 0);
                assert_eq!((&corrupted.labels, pixels_of(&corrupted).len()), (&set.labels, pixels_of(&set).len()));
                distance(&set, &corrupted)
            });
            let changed: Vec<f64> = changed.collect();
            assert!(changed[0] > 0.5 && changed.is_sorted(), "{corruption:?}: {changed:?}");
        }
    }

    #[test]
    fn noise_is_normal_and_depends_on_seed_severity_and_image_alone() {
        let grey = ImageSet { height: 64, width: 64, images: vec![128; 4 * 3 * 64 * 64].into(), labels: vec![0; 4] };
        let noisy = corrupt(&grey, Corruption::GaussianNoise, 5, 7);
        let differences = || pixels_of(&noisy).iter().map(|value| f64::from(*value) - 128.0);
        let count = pixels_of(&noisy).len() as f64;
        let mean = differences().sum::<f64>() / count;
        let deviation = (differences().map(|d| (d - mean).powi(2)).sum::<f64>() / count).sqrt();
        // Truncation lowers the mean by half a level.
        assert!((mean + 0.5).abs() < 0.3 && (deviation - 25.5).abs() < 0.3, "{mean} {deviation}");
        let beyond = differences().filter(|d| (d - mean).abs() > 2.0 * deviation).count() as f64 / count;
        assert!((beyond - 0.0455).abs() < 0.005, "{beyond} of it beyond two deviations");

        let again = |seed| corrupt(&grey, Corruption::GaussianNoise, 5, seed);
        assert_eq!(pixels_of(&again(7)), pixels_of(&noisy));
        assert_ne!(pixels_of(&again(8)), pixels_of(&noisy));
        let fewer = ImageSet { images: pixels_of(&grey)[..3 * 64 * 64].to_vec().into(), labels: vec![0], ..grey };
        assert_eq!(*pixels_of(&corrupt(&fewer, Corruption::GaussianNoise, 5, 7)), *noisy.image(0).unwrap());
    }

    /// Compares with what scikit-image and Pillow, which CIFAR-10-C's authors use, make of one picture.
    #[test]
    fn blur_brightness_contrast_and_jpeg_are_those_of_the_authors() {
        let fixture = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/metrics/corruptions.json");
        let fixture: serde_json::Value = serde_json::from_slice(&std::fs::read(fixture).unwrap()).unwrap();
        let pixels = |value: &serde_json::Value| -> Vec<u8> { serde_json::from_value(value.clone()).unwrap() };
        let side = fixture["side"].as_u64().unwrap() as usize;
        let set = ImageSet { height: side, width: side, images: pixels(&fixture["image"]).into(), labels: vec![0] };
        for corruption in Corruption::ALL {
            let Some(expected) = fixture[corruption.name()].as_array() else { continue };
            assert_eq!(expected.len(), SEVERITIES);
            for (severity, expected) in (1..).zip(expected) {
                let expected = ImageSet { images: pixels(expected).into(), ..set.clone() };
                let corrupted = corrupt(&set, corruption, severity, 0);
                let pairs = pixels_of(&corrupted).iter().zip(pixels_of(&expected));
                let largest = pairs.map(|(a, b)| a.abs_diff(*b)).max().unwrap();
                let (off, changed) = (distance(&corrupted, &expected), distance(&set, &expected));
                // JPEG decoders use different filters for colors; the others differ where a value is at the edge of a
                // level.
                let limit = if corruption == Corruption::Jpeg { 0.2 * changed } else { 1.0 };
                assert!(off < limit, "{corruption:?} {severity}: {off} off, where the picture changed by {changed}");
                assert!(corruption == Corruption::Jpeg || largest <= 1, "{corruption:?} {severity}: {largest}");
            }
        }
    }
}
