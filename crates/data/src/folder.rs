//! Images in folders named after their classes, on disk or in a `.tar.gz` archive.
//!
//! Layouts are `train/<class>/..` with or without `test/<class>/..`, and `<class>/..`, which is all for
//! training. Labels are the positions of the classes in alphabetical order, and images are in the order of
//! their paths; neither depends on the file system or the number of threads.

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
    dataset::{Dataset, ImageSet, LoadReport, SkippedFile, channel_statistics},
    decode::{DecodeError, EXTENSIONS, Input, MAX_IMAGE_SIZE, decode_image, decode_image_file},
    error::DataError,
    progress::LoadProgress,
};

/// Files decoded between two progress reports.
const CHUNK_FILES: usize = 1024;

/// Longest name of a class, in bytes.
const MAX_CLASS_NAME: usize = 1024;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Part {
    Train,
    Test,
}

/// Where an image belongs. `part` is `None` if the layout has no train/ and test/.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Place {
    part: Option<Part>,
    class: String,
}

enum Contents {
    OnDisk,
    InMemory(Vec<u8>),
    /// Unusable, as is known without reading it.
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
    /// Which image of [`Findings::pixels`] it became.
    slot: Result<usize, DecodeError>,
}

/// What was found at a path.
struct Findings {
    /// What images are brought to.
    input: Input,
    images: Vec<Decoded>,
    /// `[N, 3, size, size]`: one buffer, which becomes the dataset's, so that no image is held twice.
    pixels: Vec<u8>,
    /// Class folders, including those without images.
    classes: BTreeSet<(Part, String)>,
    ignored: usize,
}

impl Findings {
    /// # Errors
    ///
    /// [`DataError::ImageSize`] if images cannot be brought to that size.
    fn new(input: Input) -> Result<Self, DataError> {
        if !(1..=MAX_IMAGE_SIZE).contains(&input.size) {
            return Err(DataError::ImageSize { size: input.size });
        }
        Ok(Self { input, images: vec![], pixels: vec![], classes: BTreeSet::new(), ignored: 0 })
    }

    /// Bytes of one image.
    fn image_len(&self) -> usize {
        3 * self.input.size * self.input.size
    }

    /// Decodes on all threads, and adds the images in the order given.
    fn decode(&mut self, candidates: Vec<Candidate>) {
        let input = self.input;
        let decode = |Candidate { place, path, contents }| {
            let pixels = match contents {
                Contents::OnDisk => decode_image_file(&path, input),
                Contents::InMemory(bytes) => decode_image(&bytes, input),
                Contents::Refused(error) => Err(error),
            };
            (place, path, pixels)
        };
        for (place, path, pixels) in candidates.into_par_iter().map(decode).collect::<Vec<_>>() {
            let slot = pixels.map(|pixels| {
                self.pixels.extend_from_slice(&pixels);
                self.pixels.len() / self.image_len() - 1
            });
            self.images.push(Decoded { place, path, slot });
        }
    }
}

/// Loads a folder of images, each brought to the size of `input`.
pub(crate) fn load_folder(
    root: &Path,
    input: impl Into<Input>,
    progress: &mut dyn FnMut(LoadProgress),
) -> Result<Dataset, DataError> {
    let mut findings = Findings::new(input.into())?;
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
        findings.decode(chunk);
        progress(LoadProgress::Decoding { done: findings.images.len(), total: Some(total) });
    }
    assemble(root, findings)
}

/// Refuses a class name that could do harm on a terminal.
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
                // A broken link, a loop of links, or a folder without permission.
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

/// Builds the dataset from what was found.
fn assemble(root: &Path, findings: Findings) -> Result<Dataset, DataError> {
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
    let image_len = findings.image_len();
    let [mut train, mut test] = [(); 2].map(|()| ImageSet::empty(findings.input.size, findings.input.size));
    let [mut train_slots, mut test_slots] = [vec![], vec![]];
    let labels: BTreeMap<&str, u32> = classes.iter().zip(0..).map(|(class, label)| (class.as_str(), label)).collect();
    // Classes without an image so far, with the reason why their first file failed.
    let mut empty: BTreeMap<(Part, String), String> =
        findings.classes.iter().map(|class| (class.clone(), "its folder has no image files".to_string())).collect();
    let mut failed: BTreeSet<(Part, String)> = BTreeSet::new();

    for Decoded { place: Place { part, class }, path, slot } in findings.images {
        let part = part.unwrap_or(Part::Train);
        let (set, slots) =
            if part == Part::Train { (&mut train, &mut train_slots) } else { (&mut test, &mut test_slots) };
        match slot {
            Ok(slot) => {
                set.labels.push(labels[class.as_str()]);
                slots.push(slot);
                empty.remove(&(part, class));
            }
            Err(error) => {
                let key = (part, class);
                if let Some(reason) = empty.get_mut(&key)
                    && failed.insert(key)
                {
                    *reason = format!("{}: {error}", path.display());
                }
                report.skipped.push(SkippedFile { path, error });
            }
        }
    }
    if let Some(((part, class), reason)) = empty.pop_first() {
        let folder = if part == Part::Train { "train" } else { "test" };
        let path = root.join(folder);
        let path = if path.is_dir() { path } else { root.into() };
        return Err(DataError::EmptyClass { class, path, reason });
    }

    train.images = findings.pixels;
    arrange(&mut train.images, image_len, &[train_slots, test_slots].concat());
    test.images = train.images.split_off(train.len() * image_len);
    train.images.shrink_to_fit();

    let (mean, std) = channel_statistics(&train);
    let test = (!test.is_empty()).then_some(test);
    Ok(Dataset { name: name_of(root), classes, train, test, mean, std, report })
}

/// Brings the images at these different slots to the front, in that order and in place, and drops the others.
fn arrange(pixels: &mut Vec<u8>, image_len: usize, slots: &[usize]) {
    let count = pixels.len() / image_len;
    let [mut slot_of, mut image_at]: [Vec<usize>; 2] = [(0..count).collect(), (0..count).collect()];
    for (to, &image) in slots.iter().enumerate() {
        let from = slot_of[image];
        if from != to {
            // The slots before `to` are final, so this one lies behind it.
            let (front, back) = pixels.split_at_mut(from * image_len);
            front[to * image_len..][..image_len].swap_with_slice(&mut back[..image_len]);
            image_at.swap(to, from);
            (slot_of[image_at[to]], slot_of[image_at[from]]) = (to, from);
        }
    }
    pixels.truncate(slots.len() * image_len);
}

/// The last part of a path without the extension of an archive.
fn name_of(root: &Path) -> String {
    // `.` and `data/..` have a name after they are resolved.
    let root = root.canonicalize().unwrap_or_else(|_| root.into());
    let name = root.file_name().map(|name| name.to_string_lossy().into_owned());
    let name = name.unwrap_or_else(|| "folder".into());
    let stem = name.strip_suffix(".tar.gz").or(name.strip_suffix(".tgz"));
    stem.unwrap_or(&name).to_string()
}

#[cfg(test)]
mod tests;
