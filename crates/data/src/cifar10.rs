//! CIFAR-10 in its binary form (<https://www.cs.toronto.edu/~kriz/cifar.html>).
//!
//! A batch file is a row of records: one byte for the label, then 32 x 32 bytes each of red, green and
//! blue. That is `[3, 32, 32]`, the layout of an [`ImageSet`].

use std::path::Path;

use crate::{
    dataset::{Dataset, ImageSet, LoadReport},
    error::DataError,
};

/// The classes; their positions are the labels.
pub const CLASSES: [&str; 10] =
    ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"];

/// Pixels a side.
pub const SIDE: usize = 32;

/// Bytes of a record: label and pixels.
pub const RECORD_BYTES: usize = 1 + 3 * SIDE * SIDE;

/// Mean of red, green and blue over the training images, as is usual for CIFAR-10.
pub const MEAN: [f32; 3] = [0.4914, 0.4822, 0.4465];

/// Standard deviation of red, green and blue over the training images.
pub const STD: [f32; 3] = [0.2470, 0.2435, 0.2616];

/// The folder that the official archive unpacks to.
pub const FOLDER: &str = "cifar-10-batches-bin";

/// Where the official archive is.
pub const URL: &str = "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz";

/// MD5 of the official archive, as its page states it.
pub const MD5: &str = "c32a1d4ab5d03f1284b67883e8d87530";

/// The batch files, those to train on first and the one to test on last.
pub const BATCHES: [&str; 6] = [
    "data_batch_1.bin",
    "data_batch_2.bin",
    "data_batch_3.bin",
    "data_batch_4.bin",
    "data_batch_5.bin",
    "test_batch.bin",
];

/// Makes the dataset out of the contents of the [`BATCHES`], asked for by name and in their order.
/// `path` is where they are from, for errors.
///
/// Any positive number of records a file will do; the official ones have 10,000.
///
/// # Errors
///
/// Those of `contents`, and those of [`parse_batch`].
pub fn from_batches(
    mut contents: impl FnMut(&'static str) -> Result<Vec<u8>, DataError>,
    path: &Path,
) -> Result<Dataset, DataError> {
    let [mut train, mut test] = [ImageSet::empty(SIDE, SIDE), ImageSet::empty(SIDE, SIDE)];
    for name in BATCHES {
        let set = if name == "test_batch.bin" { &mut test } else { &mut train };
        parse_batch(&path.join(name), &contents(name)?, set)?;
    }
    Ok(Dataset {
        name: "cifar10".into(),
        classes: CLASSES.map(String::from).to_vec(),
        train,
        test: Some(test),
        mean: MEAN,
        std: STD,
        report: LoadReport { files: BATCHES.len(), ..LoadReport::default() },
    })
}

/// Appends the records of a batch file to a set of 32 x 32 images; `path` is for the error.
///
/// # Errors
///
/// [`DataError::PartialRecord`] if the file is empty or ends within a record, [`DataError::Label`] if
/// a label is none of the ten.
pub fn parse_batch(path: &Path, bytes: &[u8], set: &mut ImageSet) -> Result<(), DataError> {
    let (records, rest) = bytes.as_chunks::<RECORD_BYTES>();
    if records.is_empty() || !rest.is_empty() {
        return Err(DataError::PartialRecord { path: path.into(), bytes: bytes.len() });
    }
    set.images.reserve(records.len() * set.image_len());
    for (number, [label, pixels @ ..]) in records.iter().enumerate() {
        if usize::from(*label) >= CLASSES.len() {
            return Err(DataError::Label { path: path.into(), record: number, label: *label });
        }
        set.labels.push(u32::from(*label));
        set.images.extend_from_slice(pixels);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(label: u8, pixel: u8) -> Vec<u8> {
        let mut record = vec![pixel; RECORD_BYTES];
        record[0] = label;
        record
    }

    #[test]
    fn records_become_labels_and_planar_pixels() {
        let mut set = ImageSet::empty(SIDE, SIDE);
        let mut second = record(9, 2);
        second[1 + 1024] = 200;
        let bytes = [record(3, 1), second].concat();
        parse_batch(Path::new("data_batch_1.bin"), &bytes, &mut set).unwrap();
        assert_eq!(set.labels, [3, 9]);
        assert_eq!(set.image(0), [1; 3072]);
        assert_eq!(set.image(1)[1024], 200, "the first green pixel");
    }

    #[test]
    fn a_truncated_batch_file_names_the_file() {
        let mut set = ImageSet::empty(SIDE, SIDE);
        for length in [0, 1, RECORD_BYTES - 1, RECORD_BYTES + 1] {
            let bytes = vec![0; length];
            let error = parse_batch(Path::new("x/data_batch_4.bin"), &bytes, &mut set).unwrap_err();
            let message = error.to_string();
            assert!(message.contains("data_batch_4.bin"), "{message}");
            assert!(message.contains(&format!("{length} bytes")), "{message}");
        }
    }

    #[test]
    fn an_impossible_label_names_the_file_and_the_record() {
        let mut set = ImageSet::empty(SIDE, SIDE);
        let bytes = [record(9, 0), record(10, 0)].concat();
        let error = parse_batch(Path::new("test_batch.bin"), &bytes, &mut set).unwrap_err();
        assert!(error.to_string().starts_with("test_batch.bin: record 1 has label 10"), "{error}");
    }

    #[test]
    fn the_last_batch_is_the_test_set() {
        let contents = |name| Ok(record(if name == "test_batch.bin" { 7 } else { 1 }, 0));
        let dataset = from_batches(contents, Path::new("x")).unwrap();
        assert_eq!(dataset.train.labels, [1; 5]);
        assert_eq!(dataset.test.unwrap().labels, [7]);
        assert_eq!(dataset.classes[3], "cat");
    }
}
