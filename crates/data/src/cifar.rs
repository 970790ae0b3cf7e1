//! CIFAR-10 and CIFAR-100 in their binary form and in that for Python (<https://www.cs.toronto.edu/~kriz/cifar.html>).
//!
//! A binary file is a sequence of records: the label, one byte (CIFAR-100: two, coarse and fine), then 32 x 32 bytes
//! each of red, green and blue. That is `[3, 32, 32]`, the layout of an [`ImageSet`].

#[cfg(not(target_family = "wasm"))]
use std::borrow::Cow;
use std::path::Path;

#[cfg(not(target_family = "wasm"))]
use crate::pickle::{Pickle, PickleError};
use crate::{dataset::Dataset, error::DataError, found::LoadReport, images::ImageSet};

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
    /// Number of records in each official training file, which is the largest.
    pub most_records: usize,
    /// The form for Python.
    pub python: Python,
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

/// The form in which Python's torchvision keeps a set: pickles with an array of pixels and lists of labels.
#[derive(Debug, PartialEq)]
pub struct Python {
    /// Training files, in order.
    pub train: &'static [&'static str],
    /// Test file.
    pub test: &'static str,
    /// The folder that the official archive unpacks to.
    pub folder: &'static str,
    /// Keys of the lists of labels, in the order of a record's label bytes.
    labels: &'static [&'static str],
}

/// The two forms of a set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// Records of bytes.
    Binary,
    /// Pickles.
    Python,
}

/// Number of records in the official test file of each set.
const TEST_RECORDS: usize = 10_000;

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
    python: Python {
        train: &["data_batch_1", "data_batch_2", "data_batch_3", "data_batch_4", "data_batch_5"],
        test: "test_batch",
        folder: "cifar-10-batches-py",
        labels: &["labels"],
    },
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
    python: Python {
        train: &["train"],
        test: "test",
        folder: "cifar-100-python",
        labels: &["coarse_labels", "fine_labels"],
    },
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

    /// Training files of a form, in order, with the test file behind them.
    pub fn files(&self, form: Form) -> Vec<&'static str> {
        match form {
            Form::Binary => [self.train, &[self.test]].concat(),
            Form::Python => [self.python.train, &[self.python.test]].concat(),
        }
    }

    /// The folder of a form.
    pub fn folder(&self, form: Form) -> &'static str {
        match form {
            Form::Binary => self.folder,
            Form::Python => self.python.folder,
        }
    }

    /// Most bytes of an official file of a form, or somewhat more.
    pub fn most_bytes(&self, form: Form) -> usize {
        let records = self.most_records * self.record_bytes();
        match form {
            Form::Binary => records,
            // In protocol 2 of Python 3 bytes are text, half of them two bytes long; there are file names too.
            Form::Python => 2 * records + (1 << 20),
        }
    }

    /// Builds the dataset from the contents of its files. `contents` is called with each file's name, in order;
    /// `path` is used in errors.
    ///
    /// A file may have any positive number of records; the official ones have 10,000 or 50,000, and the report says so if one
    /// has fewer.
    ///
    /// # Errors
    ///
    /// The errors of `contents` and of [`parse`](Self::parse), and [`DataError::Pickle`].
    pub fn dataset(
        &self,
        form: Form,
        mut contents: impl FnMut(&'static str) -> Result<Vec<u8>, DataError>,
        path: &Path,
    ) -> Result<Dataset, DataError> {
        let [mut train, mut test] = [ImageSet::empty(SIDE, SIDE), ImageSet::empty(SIDE, SIDE)];
        let files = self.files(form);
        let mut notes = vec![];
        for (index, name) in files.iter().enumerate() {
            let is_test = index + 1 == files.len();
            let (set, official) = if is_test { (&mut test, TEST_RECORDS) } else { (&mut train, self.most_records) };
            let before = set.len();
            let (path, bytes) = (path.join(name), contents(name)?);
            self.parse(&path, &self.records(form, &path, &bytes)?, set)?;
            let found = set.len() - before;
            if found < official {
                notes.push(format!("{name} has {found} of its {official} images: it may be cut off"));
            }
        }
        Ok(Dataset {
            name: self.name.into(),
            classes: self.classes.iter().map(|&class| class.into()).collect(),
            train,
            validation: None,
            test: Some(test),
            mean: self.mean,
            std: self.std,
            preprocessing: None,
            report: LoadReport { files: files.len(), notes, ..LoadReport::default() },
        })
    }

    /// A file's contents as records.
    #[cfg(not(target_family = "wasm"))]
    fn records<'a>(&self, form: Form, path: &Path, bytes: &'a [u8]) -> Result<Cow<'a, [u8]>, DataError> {
        if form == Form::Binary {
            return Ok(bytes.into());
        }
        let records = self.unpickled(bytes);
        records.map(Cow::Owned).map_err(|error| DataError::Pickle {
            path: path.into(),
            set: self.title,
            problem: error.to_string(),
        })
    }

    /// The records of a pickle: its labels, and its array of pixels `[N, 3072]`.
    #[cfg(not(target_family = "wasm"))]
    fn unpickled(&self, bytes: &[u8]) -> Result<Vec<u8>, PickleError> {
        let pickle = Pickle::read(bytes)?;
        let ([images, length], pixels) = pickle.matrix("data")?;
        let labels = self.python.labels.iter().map(|key| pickle.numbers(key)).collect::<Result<Vec<_>, _>>()?;
        if length != PIXELS {
            return Err(PickleError::Unexpected("data"));
        }
        if labels.iter().any(|labels| labels.len() != images) {
            return Err(PickleError::Unexpected("labels"));
        }
        let mut records = Vec::with_capacity(images * self.record_bytes());
        for (index, pixels) in pixels.chunks_exact(PIXELS).enumerate() {
            records.extend(labels.iter().map(|labels| labels[index]));
            records.extend_from_slice(pixels);
        }
        Ok(records)
    }

    /// A browser has no use for pickles.
    #[cfg(target_family = "wasm")]
    fn records<'a>(&self, _: Form, _: &Path, bytes: &'a [u8]) -> Result<&'a [u8], DataError> {
        Ok(bytes)
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
        set.pixels_mut().reserve(bytes.len() / record * PIXELS);
        for (number, record) in bytes.chunks_exact(record).enumerate() {
            let (labels, pixels) = record.split_at(self.label_bytes);
            let label = labels[self.label_at];
            if usize::from(label) >= self.classes.len() {
                let last = self.classes.len() - 1;
                return Err(DataError::Label { path: path.into(), record: number, label, last });
            }
            set.push(pixels, u32::from(label));
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
        assert_eq!(*set.image(0).unwrap(), [1; 3072]);
        assert_eq!(set.image(1).unwrap()[1024], 200, "the first green pixel");
    }

    #[test]
    fn a_record_of_cifar100_has_a_coarse_and_a_fine_label() {
        // As in the official files: apples are fruit and vegetables, worms are invertebrates.
        let bytes = [record(&[4, 0], 1), record(&[13, 99], 2)].concat();
        let parsed = |cifar: &Cifar| {
            let mut set = ImageSet::empty(SIDE, SIDE);
            cifar.parse(Path::new("train.bin"), &bytes, &mut set).unwrap();
            assert_eq!(set.images.in_memory().unwrap(), [[1; 3072], [2; 3072]].concat());
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
        let dataset = CIFAR10.dataset(Form::Binary, contents, Path::new("x")).unwrap();
        assert_eq!(dataset.train.labels, [1; 5]);
        assert_eq!(dataset.test.unwrap().labels, [7]);
        assert_eq!(dataset.classes[3], "cat");
    }

    /// A pickle of two images, one black and one of the value 200, as a machine would write it.
    fn pickle(labels: &[(&str, [u8; 2])], pixels: &[u8], as_text: bool) -> Vec<u8> {
        let mut bytes =
            b"\x80\x02}q\x01(U\x04dataq\x02cnumpy.core.multiarray\n_reconstruct\nq\x03cnumpy\nndarray\nq\x04".to_vec();
        bytes.extend(b"K\0\x85U\x01b\x87R(K\x01K\x02M\0\x0c\x86cnumpy\ndtype\nU\x02u1K\0K\x01\x87R(K\x03U\x01|NNNJ\xff\xff\xff\xffJ");
        bytes.extend(b"\xff\xff\xff\xffK\0tb\x89");
        if as_text {
            let text: String = pixels.iter().map(|byte| char::from(*byte)).collect();
            bytes.extend(b"c_codecs\nencode\nX");
            bytes.extend((text.len() as u32).to_le_bytes());
            bytes.extend(text.as_bytes());
            bytes.extend(b"X\x06\0\0\0latin1\x86R");
        } else {
            bytes.push(b'T');
            bytes.extend((pixels.len() as u32).to_le_bytes());
            bytes.extend(pixels);
        }
        bytes.extend(b"tb");
        for (key, [first, second]) in labels {
            bytes.extend([b'X', key.len() as u8, 0, 0, 0]);
            bytes.extend(key.as_bytes());
            bytes.extend([b']', b'(', b'K', *first, b'K', *second, b'e']);
        }
        bytes.extend(b"u.");
        bytes
    }

    #[test]
    fn the_form_for_python_has_the_same_images() {
        let pixels = [[0; PIXELS], [200; PIXELS]].concat();
        let records = [record(&[3], 0), record(&[9], 200)].concat();
        let binary = CIFAR10.dataset(Form::Binary, |_| Ok(records.clone()), Path::new("x")).unwrap();
        for as_text in [false, true] {
            let file = pickle(&[("labels", [3, 9])], &pixels, as_text);
            let python = CIFAR10.dataset(Form::Python, |_| Ok(file.clone()), Path::new("x")).unwrap();
            assert_eq!(python.digest(), binary.digest());
        }
        let file = pickle(&[("fine_labels", [0, 99]), ("coarse_labels", [4, 13])], &pixels, false);
        let fine = CIFAR100.dataset(Form::Python, |_| Ok(file.clone()), Path::new("x")).unwrap();
        let coarse = CIFAR100_COARSE.dataset(Form::Python, |_| Ok(file.clone()), Path::new("x")).unwrap();
        assert_eq!((&fine.train.labels[..], &coarse.train.labels[..]), (&[0, 99][..], &[4, 13][..]));
    }

    #[test]
    fn a_pickle_that_is_not_of_the_set_is_refused_and_not_executed() {
        let pixels = [[0; PIXELS], [200; PIXELS]].concat();
        let whole = pickle(&[("labels", [3, 9])], &pixels, false);
        let refusal = |file: &[u8]| {
            let error = CIFAR10.dataset(Form::Python, |_| Ok(file.to_vec()), Path::new("x")).unwrap_err().to_string();
            assert!(error.contains("data_batch_1"), "{error}");
            error
        };
        for length in [0, 10, 100, whole.len() / 2, whole.len() - 1] {
            assert!(refusal(&whole[..length]).contains("ends too early"));
        }
        assert!(refusal(&pickle(&[], &pixels, false)).contains("has no labels"));
        assert!(
            refusal(&pickle(&[("labels", [3, 9])], &pixels[1..], false)).contains("data are not what they should be")
        );
        assert!(refusal(&pickle(&[("labels", [3, 10])], &pixels, false)).contains("label 10"));
        assert!(refusal(b"\x80\x02cos\nsystem\nX\x02\0\0\0ls\x85R.").contains("refers to os.system"));
        // The same text encoded again and again.
        let mut bomb = b"c_codecs\nencode\nq\x00X\0\0\x01\0".to_vec();
        bomb.extend([b'a'; 1 << 16]);
        bomb.extend(b"X\x06\0\0\0latin1\x86q\x01R");
        bomb.extend(b"h\x00h\x01R".repeat(1000));
        assert!(refusal(&bomb).contains("more objects"));
    }

    #[test]
    fn a_file_cut_off_behind_a_record_is_said() {
        let dataset = CIFAR10.dataset(Form::Binary, |_| Ok(record(&[1], 0).repeat(3)), Path::new("x")).unwrap();
        assert_eq!(dataset.train.len(), 15);
        assert_eq!(dataset.report.notes[0], "data_batch_1.bin has 3 of its 10000 images: it may be cut off");
    }
}
