//! Images in folders named after their classes, on disk or in an archive.
//!
//! [`layout`] finds out how they are arranged. Labels are the positions of the classes in alphabetical order, and images
//! are in the order of their paths; neither depends on the file system or the number of threads.

mod archive;
mod assemble;
mod disk;
mod layout;
mod names;

use std::path::{Path, PathBuf};

pub(crate) use names::{is_image, normalized, text};
use rayon::prelude::*;
use sha2::{Digest, Sha256};

use self::{assemble::assemble, layout::Layout};
use crate::{
    dataset::Dataset,
    decode::{DecodeError, Input, MAX_IMAGE_SIZE, Preprocessing, decode_image, decode_image_file},
    error::DataError,
    labels::Labels,
    progress::LoadProgress,
};

/// Files decoded between two progress reports.
const CHUNK_FILES: usize = 1024;

/// How images are to be loaded.
#[derive(Clone, Copy, Default)]
pub(crate) struct Wish<'a> {
    /// Side in pixels that each image is resized to.
    pub size: usize,
    /// How it is brought there; `None` for Kiln's own way.
    pub preprocessing: Option<Preprocessing>,
    /// Labels from a table instead of folders named after classes.
    pub labels: Option<&'a Labels>,
    /// Classes of a network that the images are to be scored with; none for training.
    pub known_classes: &'a [String],
}

impl Wish<'_> {
    fn input(&self) -> Input {
        Input { size: self.size, preprocessing: self.preprocessing }
    }
}

/// A file that was found.
#[derive(Clone, Debug)]
struct Found {
    /// Its path below the root, with `/` between names.
    name: String,
    kind: Kind,
}

#[derive(Clone, Debug)]
enum Kind {
    /// By its name or its first bytes.
    Image,
    /// Unusable, as is known without reading it.
    Refused(DecodeError),
    Other,
}

enum Contents {
    OnDisk(PathBuf),
    InMemory(Vec<u8>),
    Refused(DecodeError),
}

/// An image file to decode.
struct Candidate {
    /// Its index in [`Layout::placed`].
    position: usize,
    contents: Contents,
}

/// Decoded images.
struct Pictures {
    /// What each image is brought to.
    input: Input,
    /// `[N, 3, size, size]`: one buffer, which becomes the dataset's, so that no image is held twice.
    pixels: Vec<u8>,
    /// The start of the SHA-256 of each image's pixels `[N]`.
    digests: Vec<u128>,
    /// Which image each candidate became, by its position.
    outcomes: Vec<Option<Result<usize, DecodeError>>>,
}

impl Pictures {
    fn new(input: Input, candidates: usize) -> Self {
        Self { input, pixels: vec![], digests: vec![], outcomes: vec![None; candidates] }
    }

    /// Decodes on all threads, and adds the images in the order given.
    fn decode(&mut self, candidates: Vec<Candidate>) {
        let input = self.input;
        let decode = |Candidate { position, contents }| {
            let pixels = match contents {
                Contents::OnDisk(path) => decode_image_file(&path, input),
                Contents::InMemory(bytes) => decode_image(&bytes, input),
                Contents::Refused(error) => Err(error),
            };
            (position, pixels.map(|pixels| (digest(&pixels), pixels)))
        };
        for (position, image) in candidates.into_par_iter().map(decode).collect::<Vec<_>>() {
            self.outcomes[position] = Some(image.map(|(digest, pixels)| {
                self.pixels.extend_from_slice(&pixels);
                self.digests.push(digest);
                self.digests.len() - 1
            }));
        }
    }

    /// Number of files that could not be decoded so far.
    fn useless(&self) -> usize {
        self.outcomes.iter().flatten().filter(|outcome| outcome.is_err()).count()
    }
}

fn digest(pixels: &[u8]) -> u128 {
    let digest = Sha256::digest(pixels);
    u128::from_le_bytes(std::array::from_fn(|at| digest[at]))
}

/// # Errors
///
/// [`DataError::ImageSize`] if images cannot be resized to `size` x `size` pixels.
fn check_size(size: usize) -> Result<(), DataError> {
    if (1..=MAX_IMAGE_SIZE).contains(&size) { Ok(()) } else { Err(DataError::ImageSize { size }) }
}

/// Loads a folder of images.
pub(crate) fn load_folder(
    root: &Path,
    wish: &Wish,
    progress: &mut dyn FnMut(LoadProgress),
) -> Result<Dataset, DataError> {
    check_size(wish.size)?;
    let disk::Listing { files, paths, folders } = disk::list(root)?;
    let layout = Layout::of(root, &files, &folders, wish)?;
    let total = layout.placed.len();
    let mut pictures = Pictures::new(wish.input(), total);
    for (chunk, placed) in layout.placed.chunks(CHUNK_FILES).enumerate() {
        let candidate = |(at, (file, _)): (usize, &(usize, _))| {
            let contents = match &files[*file].kind {
                Kind::Refused(error) => Contents::Refused(error.clone()),
                _ => Contents::OnDisk(paths[*file].clone()),
            };
            Candidate { position: chunk * CHUNK_FILES + at, contents }
        };
        pictures.decode(placed.iter().enumerate().map(candidate).collect());
        progress(LoadProgress::Decoding { done: chunk * CHUNK_FILES + placed.len(), total: Some(total) });
    }
    assemble(root, layout, pictures, wish, |file| paths[file].clone())
}

/// Loads the images of an archive without unpacking it to disk.
pub(crate) fn load_archive(
    path: &Path,
    wish: &Wish,
    progress: &mut dyn FnMut(LoadProgress),
) -> Result<Dataset, DataError> {
    check_size(wish.size)?;
    let files = archive::list(path)?;
    let layout = Layout::of(path, &files, &[], wish)?;
    let mut pictures = Pictures::new(wish.input(), layout.placed.len());
    archive::decode(path, &files, &layout, &mut pictures, progress)?;
    assemble(path, layout, pictures, wish, |file| PathBuf::from(&files[file].name))
}

/// The image files below a folder, by their paths, without hidden ones and what operating systems leave.
///
/// # Errors
///
/// [`DataError::Io`] if the folder cannot be read.
pub fn image_files(folder: &Path) -> Result<Vec<PathBuf>, DataError> {
    let disk::Listing { files, paths, .. } = disk::list(folder)?;
    let is_image = |file: &Found| !names::is_leftover(&file.name) && !matches!(file.kind, Kind::Other);
    Ok(files.iter().zip(paths).filter(|(file, _)| is_image(file)).map(|(_, path)| path).collect())
}

#[cfg(test)]
mod tests;
