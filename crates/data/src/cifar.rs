//! CIFAR-10 and CIFAR-100 in their binary form (<https://www.cs.toronto.edu/~kriz/cifar.html>).
//!
//! A file is a sequence of records: the label, one byte (CIFAR-100: two, coarse and fine), then 32 x 32 bytes
//! each of red, green and blue. That is `[3, 32, 32]`, the layout of an [`ImageSet`].

use std::path::Path;

use crate::{
    dataset::{Dataset, ImageSet, LoadReport},
    error::DataError,
};

/// Pixels per side.
pub const SIDE: usize = 32;

/// Bytes of an image.
const PIXELS: usize = 3 * SIDE * SIDE;

/// A dataset of the family, as its web page describes it.
#[derive(Debug, PartialEq)]
pub struct Cifar {
    /// Name of the dataset made from it.
    pub name: &'static str,
    /// Name in prose.
    pub title: &'static str,
    /// The classes; their positions are the labels.
    pub classes: &'static [&'static str],
    /// Number of label bytes at the start of a record.
    label_bytes: usize,
    /// Index of the byte that is the label in `classes`.
    label_at: usize,
    /// Training files, in order.
    pub train: &'static [&'static str],
    /// Test file.
    pub test: &'static str,
    /// Files with class names that come with them.
    pub names: &'static [&'static str],
    /// Number of records in the largest official file.
    pub most_records: usize,
    /// The folder that the official archive unpacks to.
    pub folder: &'static str,
    /// Name of the official archive.
    pub archive: &'static str,
    /// Address of the official archive.
    pub url: &'static str,
    /// MD5 of the official archive, as the dataset's page states it.
    pub md5: &'static str,
    /// The usual mean of red, green and blue over the training images.
    pub mean: [f32; 3],
    /// The usual standard deviation of red, green and blue.
    pub std: [f32; 3],
}

/// Ten classes, each with 5,000 training images and 1,000 test images.
pub const CIFAR10: Cifar = Cifar {
    name: "cifar10",
    title: "CIFAR-10",
    classes: &["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"],
    label_bytes: 1,
    label_at: 0,
    train: &["data_batch_1.bin", "data_batch_2.bin", "data_batch_3.bin", "data_batch_4.bin", "data_batch_5.bin"],
    test: "test_batch.bin",
    names: &["batches.meta.txt"],
    most_records: 10_000,
    folder: "cifar-10-batches-bin",
    archive: "cifar-10-binary.tar.gz",
    url: "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",
    md5: "c32a1d4ab5d03f1284b67883e8d87530",
    mean: [0.4914, 0.4822, 0.4465],
    std: [0.2470, 0.2435, 0.2616],
};

/// A hundred classes, each with 500 training images and 100 test images.
pub const CIFAR100: Cifar = Cifar {
    name: "cifar100",
    title: "CIFAR-100",
    classes: &FINE,
    label_bytes: 2,
    label_at: 1,
    train: &["train.bin"],
    test: "test.bin",
    names: &["coarse_label_names.txt", "fine_label_names.txt"],
    most_records: 50_000,
    folder: "cifar-100-binary",
    archive: "cifar-100-binary.tar.gz",
    url: "https://www.cs.toronto.edu/~kriz/cifar-100-binary.tar.gz",
    md5: "03b5dce01913d631647c71ecec9e9cb8",
    mean: [0.5071, 0.4865, 0.4409],
    std: [0.2673, 0.2564, 0.2762],
};

/// CIFAR-100 with its twenty superclasses as labels.
pub const CIFAR100_COARSE: Cifar = Cifar { name: "cifar100-coarse", classes: &COARSE, label_at: 0, ..CIFAR100 };

#[rustfmt::skip]
const FINE: [&str; 100] = [
    "apple", "aquarium_fish", "baby", "bear", "beaver", "bed", "bee", "beetle", "bicycle", "bottle", "bowl", "boy",
    "bridge", "bus", "butterfly", "camel", "can", "castle", "caterpillar", "cattle", "chair", "chimpanzee", "clock",
    "cloud", "cockroach", "couch", "crab", "crocodile", "cup", "dinosaur", "dolphin", "elephant", "flatfish",
    "forest", "fox", "girl", "hamster", "house", "kangaroo", "keyboard", "lamp", "lawn_mower", "leopard", "lion",
    "lizard", "lobster", "man", "maple_tree", "motorcycle", "mountain", "mouse", "mushroom", "oak_tree", "orange",
    "orchid", "otter", "palm_tree", "pear", "pickup_truck", "pine_tree", "plain", "plate", "poppy", "porcupine",
    "possum", "rabbit", "raccoon", "ray", "road", "rocket", "rose", "sea", "seal", "shark", "shrew", "skunk",
    "skyscraper", "snail", "snake", "spider", "squirrel", "streetcar", "sunflower", "sweet_pepper", "table", "tank",
    "telephone", "television", "tiger", "tractor", "train", "trout", "tulip", "turtle", "wardrobe", "whale",
    "willow_tree", "wolf", "woman", "worm",
];

#[rustfmt::skip]
const COARSE: [&str; 20] = [
    "aquatic_mammals", "fish", "flowers", "food_containers", "fruit_and_vegetables", "household_electrical_devices",
    "household_furniture", "insects", "large_carnivores", "large_man-made_outdoor_things",
    "large_natural_outdoor_scenes", "large_omnivores_and_herbivores", "medium_mammals", "non-insect_invertebrates",
    "people", "reptiles", "small_mammals", "trees", "vehicles_1", "vehicles_2",
];

impl Cifar {
    /// Bytes of a record: labels and pixels.
    pub fn record_bytes(&self) -> usize {
        self.label_bytes + PIXELS
    }

    /// Builds the dataset from the contents of its files. `contents` is called with each file's name, in order;
    /// `path` is used in errors.
    ///
    /// A file may have any positive number of records; the official ones have 10,000 or 50,000.
    ///
    /// # Errors
    ///
    /// The errors of `contents` and of [`parse`](Self::parse).
    pub fn dataset(
        &self,
        mut contents: impl FnMut(&'static str) -> Result<Vec<u8>, DataError>,
        path: &Path,
    ) -> Result<Dataset, DataError> {
        let [mut train, mut test] = [ImageSet::empty(SIDE, SIDE), ImageSet::empty(SIDE, SIDE)];
        for name in self.train {
            self.parse(&path.join(name), &contents(name)?, &mut train)?;
        }
        self.parse(&path.join(self.test), &contents(self.test)?, &mut test)?;
        Ok(Dataset {
            name: self.name.into(),
            classes: self.classes.iter().map(|&class| class.into()).collect(),
            train,
            test: Some(test),
            mean: self.mean,
            std: self.std,
            report: LoadReport { files: self.train.len() + 1, ..LoadReport::default() },
        })
    }

    /// Appends the records of a file to a set of 32 x 32 images; `path` is used in errors.
    ///
    /// # Errors
    ///
    /// [`DataError::PartialRecord`] if the file is empty or ends within a record, [`DataError::Label`] if a
    /// label is not a class.
    pub fn parse(&self, path: &Path, bytes: &[u8], set: &mut ImageSet) -> Result<(), DataError> {
        let record = self.record_bytes();
        if bytes.is_empty() || !bytes.len().is_multiple_of(record) {
            return Err(DataError::PartialRecord { path: path.into(), bytes: bytes.len(), record, set: self.title });
        }
        set.images.reserve(bytes.len() / record * PIXELS);
        for (number, record) in bytes.chunks_exact(record).enumerate() {
            let (labels, pixels) = record.split_at(self.label_bytes);
            let label = labels[self.label_at];
            if usize::from(label) >= self.classes.len() {
                let last = self.classes.len() - 1;
                return Err(DataError::Label { path: path.into(), record: number, label, last });
            }
            set.labels.push(u32::from(label));
            set.images.extend_from_slice(pixels);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(labels: &[u8], pixel: u8) -> Vec<u8> {
        [labels, &[pixel; PIXELS]].concat()
    }

    #[test]
    fn records_become_labels_and_planar_pixels() {
        let mut set = ImageSet::empty(SIDE, SIDE);
        let mut second = record(&[9], 2);
        second[1 + 1024] = 200;
        let bytes = [record(&[3], 1), second].concat();
        CIFAR10.parse(Path::new("data_batch_1.bin"), &bytes, &mut set).unwrap();
        assert_eq!(set.labels, [3, 9]);
        assert_eq!(set.image(0), [1; 3072]);
        assert_eq!(set.image(1)[1024], 200, "the first green pixel");
    }

    #[test]
    fn a_record_of_cifar100_has_a_coarse_and_a_fine_label() {
        // As in the official files: apples are fruit and vegetables, worms are invertebrates.
        let bytes = [record(&[4, 0], 1), record(&[13, 99], 2)].concat();
        let parsed = |cifar: &Cifar| {
            let mut set = ImageSet::empty(SIDE, SIDE);
            cifar.parse(Path::new("train.bin"), &bytes, &mut set).unwrap();
            assert_eq!((set.image(0), set.image(1)), (&[1; 3072][..], &[2; 3072][..]));
            set.labels.iter().map(|&label| cifar.classes[label as usize]).collect::<Vec<_>>()
        };
        assert_eq!(parsed(&CIFAR100), ["apple", "worm"]);
        assert_eq!(parsed(&CIFAR100_COARSE), ["fruit_and_vegetables", "non-insect_invertebrates"]);
        assert!(FINE.is_sorted() && COARSE.is_sorted());
    }

    #[test]
    fn a_truncated_file_is_named() {
        let mut set = ImageSet::empty(SIDE, SIDE);
        for (cifar, record) in [(&CIFAR10, 3073), (&CIFAR100, 3074)] {
            for length in [0, 1, record - 1, record + 1] {
                let bytes = vec![0; length];
                let error = cifar.parse(Path::new("x/data.bin"), &bytes, &mut set).unwrap_err();
                let message = error.to_string();
                assert!(message.contains("data.bin") && message.contains(cifar.title), "{message}");
                assert!(
                    message.contains(&format!("{length} bytes is not a positive multiple of {record}")),
                    "{message}"
                );
            }
        }
    }

    #[test]
    fn an_impossible_label_names_the_file_and_the_record() {
        let mut set = ImageSet::empty(SIDE, SIDE);
        let bytes = [record(&[9], 0), record(&[10], 0)].concat();
        let error = CIFAR10.parse(Path::new("test_batch.bin"), &bytes, &mut set).unwrap_err().to_string();
        assert!(error.starts_with("test_batch.bin: record 1 has label 10, but labels are 0 to 9"), "{error}");
        let bytes = record(&[20, 99], 0);
        CIFAR100.parse(Path::new("test.bin"), &bytes, &mut set).unwrap();
        let error = CIFAR100_COARSE.parse(Path::new("test.bin"), &bytes, &mut set).unwrap_err().to_string();
        assert!(error.contains("label 20, but labels are 0 to 19"), "{error}");
    }

    #[test]
    fn the_last_batch_is_the_test_set() {
        let contents = |name| Ok(record(&[if name == "test_batch.bin" { 7 } else { 1 }], 0));
        let dataset = CIFAR10.dataset(contents, Path::new("x")).unwrap();
        assert_eq!(dataset.train.labels, [1; 5]);
        assert_eq!(dataset.test.unwrap().labels, [7]);
        assert_eq!(dataset.classes[3], "cat");
    }
}
