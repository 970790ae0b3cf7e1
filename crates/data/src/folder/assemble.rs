//! From decoded images to a dataset.

use std::{
    collections::{BTreeMap, HashMap},
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{
    Wish,
    layout::{Layout, Place},
    names::Part,
    pictures::{Files, Kept, Pictures},
};
use crate::{
    dataset::Dataset,
    error::DataError,
    found::{LoadReport, SkippedFile, listed},
    images::{ImageSet, ImageSource, Images, Stream},
};

/// Bytes of an archive's pictures that are held in memory without a word.
const MOST_ARCHIVE: usize = 2 << 30;

/// A class with fewer training images is said to be nearly empty.
const FEW_IMAGES: usize = 5;

/// Builds the dataset. `path_of` gives the path of the file with that index.
pub(super) fn assemble(
    root: &Path,
    layout: Layout,
    pictures: Pictures,
    wish: &Wish,
    path_of: impl Fn(usize) -> PathBuf,
) -> Result<Dataset, DataError> {
    let Layout { classes, placed, aside, arrangement, mut notes } = layout;
    let Pictures { input, kept, digests, histogram, outcomes, .. } = pictures;
    let mut parts: [Members; 3] = Default::default();
    let (mut skipped, mut first_error) = (vec![], BTreeMap::new());
    for ((file, Place { part, class }), outcome) in placed.iter().zip(outcomes) {
        let members = &mut parts[*part as usize];
        match outcome {
            Some(Ok(slot)) => members.push(slot, *class),
            Some(Err(error)) => {
                let path = path_of(*file);
                first_error.entry((*part, *class)).or_insert_with(|| format!("{}: {error}", path.display()));
                skipped.push(SkippedFile { path, error });
            }
            // The archive changed while it was read.
            None => {}
        }
    }
    let [train, validation, test] = &parts;
    let is_for_training = wish.known_classes.is_empty() && placed.iter().any(|(_, place)| place.part == Part::Train);
    let counts = train.counts(classes.len());
    if is_for_training && let Some(class) = counts.iter().position(|count| *count == 0) {
        let error = first_error.remove(&(Part::Train, class as u32));
        let reason = error.unwrap_or_else(|| "its folder has no image files".to_owned());
        return Err(DataError::EmptyClass { class: classes[class].clone(), path: root.into(), reason });
    }
    if parts.iter().all(|members| members.slots.is_empty()) {
        let reason = first_error.into_values().next();
        return Err(reason.map_or(DataError::NoImages { path: root.into() }, |reason| DataError::EmptyClass {
            class: classes.first().cloned().unwrap_or_default(),
            path: root.into(),
            reason,
        }));
    }
    if is_for_training {
        notes.extend(imbalance(&classes, &counts));
    }
    notes.extend(repeated(&parts, &digests, &classes));

    let (mean, std) = histogram.statistics();
    let [first, last] = [train.slots.len(), train.slots.len() + validation.slots.len()].map(|at| at as u32);
    let labels = [&train.labels[..], &validation.labels].concat();
    let has_test = !test.slots.is_empty();
    let mut is_streamed = false;
    let [train_images, test_images] = match kept {
        Kept::Pixels(mut pixels) => {
            let image_len = 3 * input.size * input.size;
            arrange(&mut pixels, image_len, &[&train.slots[..], &validation.slots, &test.slots].concat());
            let test = pixels.split_off(last as usize * image_len);
            pixels.shrink_to_fit();
            [pixels, test].map(Images::InMemory)
        }
        Kept::Files(files) => {
            is_streamed = true;
            let files = Files::new(files, digests, input);
            let bytes = files.bytes_in_memory();
            if bytes > MOST_ARCHIVE {
                let gigabytes = bytes as f64 / 1e9;
                notes.push(format!(
                    "the archive's {gigabytes:.1} GB of pictures are held in memory: unpacked, they are read from disk"
                ));
            }
            let source: Arc<dyn ImageSource> = Arc::new(files);
            let of = |slots: &[&[u32]]| Images::Streamed(Stream::new(source.clone(), slots.concat()));
            [of(&[&train.slots, &validation.slots]), of(&[&test.slots])]
        }
    };
    let set = |images, labels| ImageSet { height: input.size, width: input.size, images, labels };
    let test = has_test.then(|| set(test_images, test.labels.clone()));
    let validation = (first < last).then(|| (first..last).collect());
    let report = LoadReport { arrangement, files: placed.len(), skipped, aside, notes, is_streamed };
    let (train, preprocessing) = (set(train_images, labels), input.preprocessing);
    Ok(Dataset { name: name_of(root), classes, train, validation, test, mean, std, preprocessing, report })
}

/// The images of a part: where they are, and their labels.
#[derive(Default)]
struct Members {
    slots: Vec<u32>,
    labels: Vec<u32>,
}

impl Members {
    fn push(&mut self, slot: usize, label: u32) {
        self.slots.push(slot as u32);
        self.labels.push(label);
    }

    fn counts(&self, classes: usize) -> Vec<usize> {
        let mut counts = vec![0; classes];
        self.labels.iter().for_each(|label| counts[*label as usize] += 1);
        counts
    }
}

/// What to say of classes with very different numbers of training images.
fn imbalance(classes: &[String], counts: &[usize]) -> Vec<String> {
    let name = |class: usize| format!("{} {}", classes[class], counts[class]);
    let by_count = |class: &usize| counts[*class];
    let largest = (0..counts.len()).max_by_key(by_count).unwrap_or(0);
    let smallest = (0..counts.len()).min_by_key(by_count).unwrap_or(0);
    let mut notes = vec![];
    if counts[largest] > 2 * counts[smallest] {
        notes.push(format!("the classes are not balanced: {}, {}", name(largest), name(smallest)));
    }
    let few: Vec<usize> = (0..counts.len()).filter(|class| counts[*class] < FEW_IMAGES).collect();
    // Tiny sets are made for tests.
    if !few.is_empty() && counts[largest] >= 2 * FEW_IMAGES {
        notes.push(format!("few images to train on: {}", listed(few.into_iter().map(name))));
    }
    notes
}

/// What to say of equal images in several parts, or in several classes.
fn repeated(parts: &[Members; 3], digests: &[u128], classes: &[String]) -> Vec<String> {
    let [train, ..] = parts;
    let mut known: HashMap<u128, u32> = HashMap::new();
    let mut labelled_twice: Vec<[u32; 2]> = vec![];
    for (slot, label) in train.slots.iter().zip(&train.labels) {
        let first = *known.entry(digests[*slot as usize]).or_insert(*label);
        if first != *label {
            labelled_twice.push([first, *label]);
        }
    }
    let mut notes = vec![];
    if let Some([first, second]) = labelled_twice.first().map(|pair| pair.map(|label| &classes[label as usize])) {
        let count = labelled_twice.len();
        notes.push(format!("{count} training images are also there with another label, such as {first} and {second}"));
    }
    for part in [Part::Validation, Part::Test] {
        let members = &parts[part as usize];
        let count = members.slots.iter().filter(|slot| known.contains_key(&digests[**slot as usize])).count();
        if count > 0 {
            let (all, name) = (members.slots.len(), part.name());
            notes.push(format!("{count} of {all} {name} images are also training images, pixel by pixel"));
        }
    }
    notes
}

/// Brings the images at these different slots to the front, in that order and in place, and drops the others.
pub(super) fn arrange(pixels: &mut Vec<u8>, image_len: usize, slots: &[u32]) {
    let count = pixels.len() / image_len;
    let [mut slot_of, mut image_at]: [Vec<usize>; 2] = [(0..count).collect(), (0..count).collect()];
    for (to, image) in slots.iter().map(|slot| *slot as usize).enumerate() {
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

/// The last part of a path without the ending of an archive.
fn name_of(root: &Path) -> String {
    // `.` and `data/..` have a name after they are resolved.
    let root = root.canonicalize().unwrap_or_else(|_| root.into());
    let name = root.file_name().map(|name| name.to_string_lossy().into_owned());
    let name = name.unwrap_or_else(|| "folder".into());
    if root.is_dir() { name } else { crate::archive::stem(&name).unwrap_or(&name).to_owned() }
}
