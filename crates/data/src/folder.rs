//! Images in folders named after their classes, on disk or in a `.tar.gz` archive.
//!
//! `train/<class>/..` with or without `test/<class>/..`, or `<class>/..` directly, which then is all
//! training. Labels are the positions of the classes in alphabetical order, images are in the order of
//! their paths, and neither depends on the file system or the number of threads.

mod archive;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

pub(crate) use archive::{is_archived_image, load_archive};
use rayon::prelude::*;
use walkdir::WalkDir;

use crate::{
    dataset::{Dataset, ImageSet, LoadReport, Skipped, channel_statistics},
    decode::{DecodeError, EXTENSIONS, MAX_IMAGE_SIZE, decode_image, decode_image_file},
    error::DataError,
    progress::Progress,
};

/// Files decoded between two reports of progress.
const CHUNK_FILES: usize = 1024;

/// Longest name of a class, in bytes.
const MAX_CLASS_NAME: usize = 1024;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Part {
    Train,
    Test,
}

/// Where an image belongs. `part` is `None` where the layout has no train/ and test/.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Place {
    part: Option<Part>,
    class: String,
}

enum Contents {
    OnDisk,
    InMemory(Vec<u8>),
    /// Known to be of no use without a look inside.
    Refused(DecodeError),
}

/// An image file that was found.
struct Candidate {
    place: Place,
    path: PathBuf,
    contents: Contents,
}

/// An image file after decoding.
struct Decoded {
    place: Place,
    path: PathBuf,
    pixels: Result<Vec<u8>, DecodeError>,
}

/// What was found at a path.
#[derive(Default)]
struct Findings {
    images: Vec<Decoded>,
    /// Class folders, also those without images.
    classes: BTreeSet<(Part, String)>,
    ignored: usize,
}

/// Loads a folder of images, each brought to `size` x `size` pixels.
pub(crate) fn load_folder(root: &Path, size: usize, progress: &mut dyn FnMut(Progress)) -> Result<Dataset, DataError> {
    check_size(size)?;
    let mut findings = Findings::default();
    let mut candidates = Vec::new();
    let train = root.join("train");
    if train.is_dir() {
        find_images(&train, Part::Train, &mut candidates, &mut findings)?;
        let test = root.join("test");
        if test.is_dir() {
            find_images(&test, Part::Test, &mut candidates, &mut findings)?;
        }
    } else {
        find_images(root, Part::Train, &mut candidates, &mut findings)?;
    }

    let total = candidates.len();
    let mut candidates = candidates.into_iter();
    while candidates.len() > 0 {
        let chunk = candidates.by_ref().take(CHUNK_FILES).collect();
        findings.images.extend(decode_all(chunk, size));
        progress(Progress::Decoding { done: findings.images.len(), total: Some(total) });
    }
    assemble(root, size, findings)
}

fn check_size(size: usize) -> Result<(), DataError> {
    if (1..=MAX_IMAGE_SIZE).contains(&size) { Ok(()) } else { Err(DataError::ImageSize { size }) }
}

/// Refuses a class whose name would do harm on a terminal.
fn check_class(root: &Path, class: &str) -> Result<(), DataError> {
    if class.len() <= MAX_CLASS_NAME && !class.chars().any(char::is_control) {
        return Ok(());
    }
    Err(DataError::ClassName { path: root.into(), class: class.chars().take(40).collect() })
}

fn is_hidden(name: &std::ffi::OsStr) -> bool {
    name.as_encoded_bytes().starts_with(b".")
}

fn is_image_name(path: &Path) -> bool {
    let extension = path.extension().and_then(|extension| extension.to_str());
    extension.is_some_and(|e| EXTENSIONS.iter().any(|known| known.eq_ignore_ascii_case(e)))
}

/// Lists the images of one part: `<root>/<class>/**`, sorted by path.
fn find_images(
    root: &Path,
    part: Part,
    candidates: &mut Vec<Candidate>,
    findings: &mut Findings,
) -> Result<(), DataError> {
    let mut entries = fs::read_dir(root)
        .and_then(|entries| entries.collect::<Result<Vec<_>, _>>())
        .map_err(DataError::io("read", root))?;
    entries.sort_by_key(|entry| entry.file_name());
    for entry in entries.iter().filter(|entry| !is_hidden(&entry.file_name())) {
        let folder = entry.path();
        if !folder.is_dir() {
            findings.ignored += 1;
            continue;
        }
        let place = Place { part: Some(part), class: entry.file_name().to_string_lossy().into_owned() };
        check_class(root, &place.class)?;
        findings.classes.insert((part, place.class.clone()));
        let files = WalkDir::new(&folder)
            .follow_links(true)
            .sort_by_file_name()
            .into_iter()
            .filter_entry(|entry| !is_hidden(entry.file_name()));
        for file in files {
            let candidate = |path, contents| Candidate { place: place.clone(), path, contents };
            match file {
                Ok(file) if file.file_type().is_dir() => {}
                Ok(file) if is_image_name(file.path()) => {
                    candidates.push(candidate(file.into_path(), Contents::OnDisk));
                }
                Ok(_) => findings.ignored += 1,
                // A dangling link, a circle of links, or a folder without permission.
                Err(error) => {
                    let path = error.path().unwrap_or(&folder).to_path_buf();
                    let error = DecodeError::Unreadable(error.to_string());
                    candidates.push(candidate(path, Contents::Refused(error)));
                }
            }
        }
    }
    Ok(())
}

/// Decodes on all threads, in the order given.
fn decode_all(candidates: Vec<Candidate>, size: usize) -> Vec<Decoded> {
    let decode = |Candidate { place, path, contents }| {
        let pixels = match contents {
            Contents::OnDisk => decode_image_file(&path, size),
            Contents::InMemory(bytes) => decode_image(&bytes, size),
            Contents::Refused(error) => Err(error),
        };
        Decoded { place, path, pixels }
    };
    candidates.into_par_iter().map(decode).collect()
}

/// Makes the dataset out of what was found.
fn assemble(root: &Path, size: usize, findings: Findings) -> Result<Dataset, DataError> {
    if findings.images.is_empty() {
        return Err(DataError::NoImages { path: root.into() });
    }
    let classes_of = |part: Part| -> Vec<String> {
        let of_part = findings.classes.iter().filter(|(its, _)| *its == part);
        of_part.map(|(_, class)| class.clone()).collect()
    };
    let (classes, test_classes) = (classes_of(Part::Train), classes_of(Part::Test));
    if !test_classes.is_empty() && classes != test_classes {
        let without = |these: &[String], those: &[String]| -> Vec<String> {
            these.iter().filter(|class| !those.contains(class)).cloned().collect()
        };
        return Err(DataError::ClassMismatch {
            path: root.into(),
            only_train: without(&classes, &test_classes),
            only_test: without(&test_classes, &classes),
        });
    }
    if let [class] = &classes[..] {
        return Err(DataError::OneClass { path: root.into(), class: class.clone() });
    }

    let mut report = LoadReport { files: findings.images.len(), ignored: findings.ignored, ..Default::default() };
    let [mut train, mut test] = [ImageSet::empty(size, size), ImageSet::empty(size, size)];
    let labels: BTreeMap<&str, u32> = classes.iter().zip(0..).map(|(class, label)| (class.as_str(), label)).collect();
    // Classes without an image so far, with what happened to their first file.
    let mut empty: BTreeMap<(Part, String), String> =
        findings.classes.iter().map(|class| (class.clone(), "its folder has no image file".to_string())).collect();
    let mut failed: BTreeSet<(Part, String)> = BTreeSet::new();

    for Decoded { place: Place { part, class }, path, pixels } in findings.images {
        let part = part.unwrap_or(Part::Train);
        let set = if part == Part::Train { &mut train } else { &mut test };
        match pixels {
            Ok(pixels) => {
                set.labels.push(labels[class.as_str()]);
                set.images.extend_from_slice(&pixels);
                empty.remove(&(part, class));
            }
            Err(error) => {
                let key = (part, class);
                if let Some(reason) = empty.get_mut(&key)
                    && failed.insert(key)
                {
                    *reason = format!("{}: {error}", path.display());
                }
                report.skipped.push(Skipped { path, error });
            }
        }
    }
    if let Some(((part, class), reason)) = empty.pop_first() {
        let folder = if part == Part::Train { "train" } else { "test" };
        let path = root.join(folder);
        let path = if path.is_dir() { path } else { root.into() };
        return Err(DataError::EmptyClass { class, path, reason });
    }

    let (mean, std) = channel_statistics(&train);
    let test = (!test.is_empty()).then_some(test);
    Ok(Dataset { name: name_of(root), classes, train, test, mean, std, report })
}

/// The last part of a path without the ending of an archive.
fn name_of(root: &Path) -> String {
    // `.` and `data/..` have a name once they are resolved.
    let root = root.canonicalize().unwrap_or_else(|_| root.into());
    let name = root.file_name().map(|name| name.to_string_lossy().into_owned());
    let name = name.unwrap_or_else(|| "folder".into());
    let stem = name.strip_suffix(".tar.gz").or(name.strip_suffix(".tgz"));
    stem.unwrap_or(&name).to_string()
}

#[cfg(test)]
mod tests;
