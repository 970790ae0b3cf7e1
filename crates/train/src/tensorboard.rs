//! Event files for TensorBoard, one scalar summary an epoch.
//!
//! A file is a sequence of TFRecords, each an `Event` message. Both are a few fields, so that they are
//! written by hand: <https://www.tensorflow.org/tutorials/load_data/tfrecord> and tensorboard's `event.proto` and
//! `summary.proto`.

use std::fs::OpenOptions;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use crate::checkpoint::EpochMetrics;
use crate::run_dir::{RunDirError, failed, write_whole};

/// What TensorBoard knows an event file by is `.tfevents.`; one name, so that a resumed run has one file.
const FILE: &str = "events.out.tfevents.kiln";

/// Where a run in that folder has its event file.
pub fn path(folder: &Path) -> PathBuf {
    folder.join(FILE)
}

/// A run's event file.
#[derive(Debug)]
pub struct EventFile {
    path: PathBuf,
    /// Unix time in seconds at which the run's clock stood at 0.
    start: f64,
}

impl EventFile {
    /// Writes a run's event file anew, with the epochs that are over; `seconds` is what its clock says now.
    ///
    /// # Errors
    ///
    /// [`RunDirError::Io`] if it cannot be written.
    pub fn create(folder: &Path, history: &[EpochMetrics], seconds: f64) -> Result<Self, RunDirError> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
        let file = Self { path: path(folder), start: now - seconds };
        let version = record(&[double(1, file.start), bytes(3, b"brain.Event:2")].concat());
        let epochs = history.iter().flat_map(|epoch| file.epoch(epoch));
        write_whole(&file.path, &version.into_iter().chain(epochs).collect::<Vec<u8>>())?;
        Ok(file)
    }

    /// Adds an epoch. TensorBoard reads on where it was, and leaves a record that is cut off for later.
    ///
    /// # Errors
    ///
    /// [`RunDirError::Io`] if it cannot be written.
    pub fn append(&self, epoch: &EpochMetrics) -> Result<(), RunDirError> {
        let append = || OpenOptions::new().append(true).open(&self.path)?.write_all(&self.epoch(epoch));
        append().map_err(failed("write", &self.path))
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The record of one epoch; its step is the optimizer's.
    fn epoch(&self, epoch: &EpochMetrics) -> Vec<u8> {
        let scalars = [
            ("loss/train", Some(epoch.train_loss)),
            ("loss/validation", epoch.validation_loss),
            ("accuracy/train", Some(epoch.train_accuracy)),
            ("accuracy/validation", epoch.validation_accuracy),
            ("learning_rate", Some(epoch.learning_rate)),
            ("images_per_second", Some(epoch.images_per_second)),
        ];
        let summary = scalars.into_iter().filter_map(|(tag, value)| Some(scalar(tag, value?))).collect::<Vec<_>>();
        record(
            &[double(1, self.start + epoch.seconds), integer(2, epoch.step as u64), bytes(5, &summary.concat())]
                .concat(),
        )
    }
}

/// `Summary.Value` with a tag and a `simple_value`, as field 1 of a `Summary`.
fn scalar(tag: &str, value: f64) -> Vec<u8> {
    let value = [varint(2 << 3 | FIXED_32), (value as f32).to_le_bytes().to_vec()].concat();
    bytes(1, &[bytes(1, tag.as_bytes()), value].concat())
}

// Protocol Buffers' wire types.
const VARINT: u64 = 0;
const FIXED_64: u64 = 1;
const LENGTH_DELIMITED: u64 = 2;
const FIXED_32: u64 = 5;

fn double(field: u64, value: f64) -> Vec<u8> {
    [varint(field << 3 | FIXED_64), value.to_le_bytes().to_vec()].concat()
}

fn integer(field: u64, value: u64) -> Vec<u8> {
    [varint(field << 3 | VARINT), varint(value)].concat()
}

fn bytes(field: u64, contents: &[u8]) -> Vec<u8> {
    [varint(field << 3 | LENGTH_DELIMITED), varint(contents.len() as u64), contents.to_vec()].concat()
}

/// Seven bits a byte, the lowest first; the eighth says that more follow.
fn varint(mut value: u64) -> Vec<u8> {
    let mut out = vec![];
    while value > 0x7f {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
    out
}

/// A TFRecord: length, its checksum, contents, their checksum; all little-endian.
fn record(contents: &[u8]) -> Vec<u8> {
    let length = (contents.len() as u64).to_le_bytes();
    [&length[..], &checksum(&length), contents, &checksum(contents)].concat()
}

/// CRC-32C, masked as TFRecords have it, so that a checksum over checksums is none of zeros.
fn checksum(contents: &[u8]) -> [u8; 4] {
    crc32c(contents).rotate_right(15).wrapping_add(0xa282_ead8).to_le_bytes()
}

/// Castagnoli's cyclic redundancy check, bit by bit: a record has a few hundred bytes.
fn crc32c(contents: &[u8]) -> u32 {
    const REVERSED_POLYNOMIAL: u32 = 0x82f6_3b78;
    let shift = |crc: u32, _| (crc >> 1) ^ (REVERSED_POLYNOMIAL * (crc & 1));
    !contents.iter().fold(u32::MAX, |crc, byte| (0..8).fold(crc ^ u32::from(*byte), shift))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn epoch(epoch: usize, validation: Option<f64>) -> EpochMetrics {
        EpochMetrics {
            epoch,
            step: 300 * epoch,
            learning_rate: 0.1,
            train_loss: 1.5,
            train_accuracy: 0.5,
            validation_loss: validation,
            validation_accuracy: validation,
            validation_balanced_accuracy: None,
            seconds: 60.0 * epoch as f64,
            images_per_second: 500.0,
        }
    }

    #[test]
    fn the_checksum_is_castagnolis() {
        // RFC 3720, appendix B.4, and the usual check value.
        assert_eq!(crc32c(&[0; 32]), 0x8a91_36aa);
        assert_eq!(crc32c(&[0xff; 32]), 0x62a8_ab43);
        assert_eq!(crc32c(b"123456789"), 0xe306_9283);
    }

    #[test]
    fn varints_are_those_of_the_protocol_buffers_documentation() {
        assert_eq!(varint(1), [1]);
        assert_eq!(varint(150), [0x96, 1]);
        assert_eq!(integer(1, 150), [8, 0x96, 1]);
        assert_eq!(bytes(2, b"testing"), *b"\x12\x07testing");
    }

    /// Contents of each record, whose lengths and checksums are checked.
    fn records(mut file: &[u8]) -> Vec<Vec<u8>> {
        let mut records = vec![];
        while !file.is_empty() {
            let (length, rest) = file.split_at(8);
            assert_eq!(rest[..4], checksum(length));
            let (contents, rest) = rest[4..].split_at(u64::from_le_bytes(length.try_into().unwrap()) as usize);
            assert_eq!(rest[..4], checksum(contents));
            records.push(contents.to_vec());
            file = &rest[4..];
        }
        records
    }

    #[test]
    fn a_resumed_run_has_one_file_with_every_epoch_once() {
        let folder = tempfile::tempdir().unwrap();
        let file = EventFile::create(folder.path(), &[], 0.0).unwrap();
        file.append(&epoch(1, Some(0.25))).unwrap();
        file.append(&epoch(2, None)).unwrap();
        let first = records(&std::fs::read(file.path()).unwrap());
        assert_eq!(first.len(), 3);
        let holds = |record: &[u8], word: &[u8]| record.windows(word.len()).any(|window| window == word);
        assert!(holds(&first[0], b"brain.Event:2"));
        assert!(holds(&first[1], b"loss/validation") && !holds(&first[2], b"validation"));
        // Field 2, a step of 600.
        assert!(holds(&first[2], &[0x10, 0xd8, 0x04]));

        let file = EventFile::create(folder.path(), &[epoch(1, Some(0.25))], 60.0).unwrap();
        file.append(&epoch(2, None)).unwrap();
        let again = records(&std::fs::read(file.path()).unwrap());
        let summaries =
            |records: &[Vec<u8>]| records[1..].iter().map(|record| record[9..].to_vec()).collect::<Vec<_>>();
        assert_eq!(summaries(&again), summaries(&first), "all but the time");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
