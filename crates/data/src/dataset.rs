//! Images with what is known of them: classes, parts, statistics, a digest.

#[cfg(not(target_family = "wasm"))]
use std::collections::HashMap;

use sha2::{Digest, Sha256};

use crate::{
    decode::Preprocessing,
    digest::hex,
    error::DataError,
    found::LoadReport,
    images::{ImageSet, Images},
    split::{Split, Validation, balanced_subset, split},
};

/// How the digest of a stream begins.
const OF_IMAGES: &str = "images-";

/// Named training images, optionally with test images.
#[derive(Clone, Debug)]
pub struct Dataset {
    /// `cifar10`, `cifar100`, `cifar100-coarse`, `synthetic`, or the name of the folder or archive.
    pub name: String,
    /// Class names; their positions are the labels.
    pub classes: Vec<String>,
    /// Training images, with those to validate on among them.
    pub train: ImageSet,
    /// Indices in `train` of the images to validate on, if the data has such a part. Otherwise some are
    /// [split](Self::split) off.
    pub validation: Option<Vec<u32>>,
    /// Images for the test at the end, of the same size as those of `train`.
    pub test: Option<ImageSet>,
    /// Mean of red, green and blue over the training images, of pixels scaled to 0 to 1.
    pub mean: [f32; 3],
    /// Standard deviation of red, green and blue, scaled like [`mean`](Self::mean); never 0.
    pub std: [f32; 3],
    /// How pictures were brought to this size, for whoever brings others to it; `None` for Kiln's own way.
    pub preprocessing: Option<Preprocessing>,
    /// Files that were not used.
    pub report: LoadReport,
}

impl Dataset {
    /// SHA-256, in hexadecimal, of the class names, shapes, labels and pixels of train and test.
    ///
    /// Two datasets with the same digest train the same model. Name, statistics and report are not included; which images
    /// to validate on are, if the data says so. Of a stream, where all pixels cannot be read again, it is made of the digests
    /// of the images, and begins with `images-`; [`has_digest`](Self::has_digest) compares with either form.
    pub fn digest(&self) -> String {
        if self.is_streamed() { self.digest_of_images() } else { self.digest_of_pixels() }
    }

    /// Whether this is the digest of this dataset, be it in memory or streamed. Of a dataset in memory that is streamed
    /// elsewhere, or the other way around, too, but for a stream that is asked for the digest of pixels.
    pub fn has_digest(&self, digest: &str) -> bool {
        let is_of_images = digest.starts_with(OF_IMAGES);
        let found = if is_of_images || self.is_streamed() { self.digest_of_images() } else { self.digest_of_pixels() };
        found == digest
    }

    /// Whether images are read whenever they are asked for.
    pub fn is_streamed(&self) -> bool {
        [Some(&self.train), self.test.as_ref()]
            .into_iter()
            .flatten()
            .any(|set| matches!(set.images, Images::Streamed(_)))
    }

    fn digest_of_pixels(&self) -> String {
        self.digest_with("kiln dataset 1", |hash, set| {
            if let Images::InMemory(pixels) = &set.images {
                hash.update(pixels);
            }
        })
    }

    fn digest_of_images(&self) -> String {
        let digest = self.digest_with("kiln dataset 2", |hash, set| {
            set.digests().for_each(|image| hash.update(image.to_le_bytes()));
        });
        OF_IMAGES.to_owned() + &digest
    }

    fn digest_with(&self, version: &str, add_images: impl Fn(&mut Sha256, &ImageSet)) -> String {
        // Lengths come before contents, so that different datasets never give the same stream of bytes.
        let mut hash = Sha256::new_with_prefix(version);
        hash.update((self.classes.len() as u64).to_le_bytes());
        for class in &self.classes {
            hash.update((class.len() as u64).to_le_bytes());
            hash.update(class);
        }
        for set in [Some(&self.train), self.test.as_ref()] {
            hash.update([u8::from(set.is_some())]);
            let Some(set) = set else { continue };
            for length in [set.len(), set.height, set.width] {
                hash.update((length as u64).to_le_bytes());
            }
            for label in &set.labels {
                hash.update(label.to_le_bytes());
            }
            add_images(&mut hash, set);
        }
        if let Some(indices) = &self.validation {
            hash.update((indices.len() as u64).to_le_bytes());
            indices.iter().for_each(|index| hash.update(index.to_le_bytes()));
        }
        hex(&hash.finalize())
    }

    /// Images to train and to validate on: those that the data itself keeps for validation or, if it keeps none, a
    /// [`split`](crate::split()).
    ///
    /// # Errors
    ///
    /// [`DataError::Validation`] if the split cannot be taken.
    pub fn split(&self, validation: Validation, seed: u64) -> Result<Split, DataError> {
        let Some(held_out) = &self.validation else { return split(&self.train.labels, validation, seed) };
        Ok(Split { train: self.not_held_out(held_out), validation: held_out.clone() })
    }

    /// Brings labels to the order of a network's classes, by the names of both; images of classes that the network does not know
    /// are dropped. Names that differ in their Unicode form alone are the same.
    #[cfg(not(target_family = "wasm"))]
    pub fn match_classes(&mut self, classes: &[String]) -> Matched {
        let form = |name: &String| crate::folder::normalized(name).into_owned();
        let known: HashMap<String, u32> = classes.iter().map(form).zip(0..).collect();
        let labels: Vec<Option<u32>> = self.classes.iter().map(|class| known.get(&form(class)).copied()).collect();
        let mut matched = Matched::default();
        for (class, label) in self.classes.iter().zip(&labels) {
            let group = if label.is_some() { &mut matched.classes } else { &mut matched.unknown };
            group.push(class.clone());
        }
        let mut keep = |set: &mut ImageSet| -> Vec<u32> {
            let is_known = |index: &u32| labels[set.labels[*index as usize] as usize].is_some();
            let kept: Vec<u32> = (0..set.len() as u32).filter(is_known).collect();
            matched.dropped += set.len() - kept.len();
            if kept.len() < set.len() {
                *set = set.select(&kept);
            }
            set.labels.iter_mut().for_each(|label| *label = labels[*label as usize].expect("kept, so known"));
            kept
        };
        let kept = keep(&mut self.train);
        if let Some(indices) = &mut self.validation {
            *indices = indices.iter().filter_map(|index| kept.binary_search(index).ok()).map(|at| at as u32).collect();
        }
        self.test.as_mut().map(keep);
        self.classes = classes.to_vec();
        matched
    }

    fn not_held_out(&self, held_out: &[u32]) -> Vec<u32> {
        let mut is_train = vec![true; self.train.len()];
        held_out.iter().for_each(|index| is_train[*index as usize] = false);
        (0..self.train.len() as u32).filter(|index| is_train[*index as usize]).collect()
    }

    /// Keeps `limit` training images and a fifth as many test images (at least one per class). Classes are as
    /// balanced as possible, and `seed` selects the images. Of images that the data keeps for validation, a fifth as many
    /// stay in addition. Statistics remain those of the whole set.
    pub fn limit(&mut self, limit: usize, seed: u64) {
        let fifth = (limit / 5).max(self.classes.len());
        match self.validation.take() {
            None => self.train = self.train.select(&balanced_subset(&self.train.labels, limit, seed)),
            Some(held_out) => {
                let some_of = |indices: &[u32], limit: usize| -> Vec<u32> {
                    let labels: Vec<u32> = indices.iter().map(|index| self.train.labels[*index as usize]).collect();
                    balanced_subset(&labels, limit, seed).into_iter().map(|at| indices[at as usize]).collect()
                };
                let mut kept = some_of(&self.not_held_out(&held_out), limit);
                let (first, more) = (kept.len() as u32, some_of(&held_out, fifth));
                self.validation = Some((first..first + more.len() as u32).collect());
                kept.extend(more);
                self.train = self.train.select(&kept);
            }
        }
        if let Some(test) = &mut self.test {
            *test = test.select(&balanced_subset(&test.labels, fifth, seed));
        }
    }
}

/// What became of a dataset's classes in [`Dataset::match_classes`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Matched {
    /// Classes that the network knows.
    pub classes: Vec<String>,
    /// Classes that it does not know.
    pub unknown: Vec<String>,
    /// Number of images of these.
    pub dropped: usize,
}

/// Mean and standard deviation of each channel over all pixels of a set, scaled to 0 to 1.
///
/// Computed from a histogram, so the result does not depend on the order of the images and is exact up to the
/// final rounding. A deviation below one gray level (images of one color, or no images) is raised to 1/255, so
/// that dividing by it is safe.
///
/// # Errors
///
/// [`DataError`] if a source cannot read an image any more.
pub fn channel_statistics(set: &ImageSet) -> Result<([f32; 3], [f32; 3]), DataError> {
    let mut histogram = Histogram::default();
    for index in 0..set.len() {
        histogram.add(&set.image(index)?);
    }
    Ok(histogram.statistics())
}

/// How often each of the 256 values occurs in each channel.
pub(crate) struct Histogram([[u64; 256]; 3]);

impl Default for Histogram {
    fn default() -> Self {
        Self([[0; 256]; 3])
    }
}

impl Histogram {
    /// Counts an image `[3, H, W]`.
    pub fn add(&mut self, image: &[u8]) {
        for (counts, plane) in self.0.iter_mut().zip(image.chunks_exact((image.len() / 3).max(1))) {
            plane.iter().for_each(|value| counts[usize::from(*value)] += 1);
        }
    }

    /// As [`channel_statistics`].
    pub fn statistics(&self) -> ([f32; 3], [f32; 3]) {
        let (mut mean, mut std) = ([0.0; 3], [0.0; 3]);
        for (channel, counts) in self.0.iter().enumerate() {
            let expectation = |value: &dyn Fn(f64) -> f64| {
                let sum: f64 = (0..).zip(counts).map(|(v, &n)| value(f64::from(v)) * n as f64).sum();
                sum / counts.iter().sum::<u64>().max(1) as f64
            };
            let average = expectation(&|v| v);
            let variance = expectation(&|v| (v - average).powi(2));
            mean[channel] = (average / 255.0) as f32;
            std[channel] = (variance.sqrt().max(1.0) / 255.0) as f32;
        }
        (mean, std)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::synthetic;

    #[test]
    fn the_digest_covers_classes_labels_shapes_pixels_and_the_presence_of_a_test_set() {
        let original = synthetic(20, 10, 0);
        let changes: [fn(&mut Dataset); 8] = [
            |d| d.validation = Some(vec![]),
            |d| d.validation = Some(vec![3]),
            |d| d.classes[0].push('s'),
            |d| d.train.labels.swap(0, 1),
            |d| d.train.pixels_mut()[100] ^= 1,
            |d| (d.train.height, d.train.width) = (16, 64),
            |d| d.test = None,
            |d| d.test = Some(ImageSet::empty(32, 32)),
        ];
        let mut digests = vec![original.digest()];
        for change in changes {
            let mut changed = original.clone();
            change(&mut changed);
            assert!(!digests.contains(&changed.digest()));
            digests.push(changed.digest());
        }
        assert_eq!(original.digest(), synthetic(20, 10, 0).digest());
        assert_eq!(original.digest().len(), 64);
    }

    #[test]
    fn statistics_are_those_of_each_channel() {
        let set = ImageSet {
            height: 1,
            width: 2,
            images: Images::InMemory(vec![0, 255, 51, 51, 0, 0, /* second image */ 0, 255, 51, 51, 102, 102]),
            labels: vec![0, 0],
        };
        let (mean, std) = channel_statistics(&set).unwrap();
        assert_eq!(mean, [0.5, 0.2, 0.2]);
        assert_eq!(std, [0.5, 1.0 / 255.0, 0.2]);
    }

    #[test]
    fn statistics_of_no_images_are_finite() {
        let (mean, std) = channel_statistics(&ImageSet::empty(32, 32)).unwrap();
        assert_eq!(mean, [0.0; 3]);
        assert!(std.iter().all(|&s| s > 0.0));
    }

    #[test]
    fn a_limit_keeps_the_classes_balanced() {
        let mut dataset = synthetic(200, 100, 3);
        dataset.limit(40, 1);
        assert_eq!((dataset.train.len(), dataset.test.as_ref().unwrap().len()), (40, 10));
        for class in 0..10 {
            assert_eq!(dataset.train.labels.iter().filter(|&&label| label == class).count(), 4);
        }
        assert_eq!(dataset.train.pixels_mut().len(), 40 * dataset.train.image_len());
    }

    #[test]
    fn classes_are_matched_by_name_and_images_of_others_dropped() {
        let mut dataset = synthetic(20, 10, 0);
        dataset.classes[2] = "cafe\u{301}".to_owned();
        let before = dataset.clone();
        let known: Vec<String> = ["moon", "caf\u{e9}", "disc"].map(String::from).to_vec();
        dataset.validation = Some(vec![0, 1, 12]);
        let matched = dataset.match_classes(&known);
        assert_eq!(
            (matched.classes, matched.unknown.len(), matched.dropped),
            (vec!["disc".into(), before.classes[2].clone()], 8, 24)
        );
        assert_eq!((dataset.classes, &dataset.train.labels[..]), (known, &[2, 1, 2, 1][..]));
        assert_eq!(dataset.train.image(1).unwrap(), before.train.image(2).unwrap());
        assert_eq!(dataset.validation, Some(vec![0, 3]));
        assert_eq!(dataset.test.unwrap().labels, [2, 1]);
    }
}
