//! Images in folders named after their classes, on disk or in an archive.
//!
//! [`layout`] finds out how they are arranged. Labels are the positions of the classes in alphabetical order, and images
//! are in the order of their paths; neither depends on the file system or the number of threads.

mod archive;
mod assemble;
mod disk;
mod layout;
mod names;
mod pictures;

use std::path::{Path, PathBuf};

pub(crate) use names::{is_image, normalized, text};

use self::{assemble::assemble, layout::Layout, pictures::Pictures};
use crate::{
    dataset::Dataset,
    decode::{DecodeError, Input, MAX_IMAGE_SIZE, Preprocessing, dimensions, with_file},
    error::DataError,
    labels::Labels,
    progress::LoadProgress,
};

/// Files decoded between two progress reports.
const CHUNK_FILES: usize = 256;

/// Bytes of pixels that are kept in memory; larger sets are read whenever an image is asked for. The same on every machine,
/// so that the same data gives the same run.
const MOST_IN_MEMORY: usize = 2 << 30;

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
    /// Whether crops of the originals will be wanted.
    pub originals: bool,
}

impl Wish<'_> {
    fn input(&self) -> Input {
        Input { size: self.size, preprocessing: self.preprocessing }
    }

    /// Whether so many images are read whenever they are asked for, instead of being kept in memory.
    fn streams(&self, images: usize) -> bool {
        self.originals || images.saturating_mul(3 * self.size * self.size) > MOST_IN_MEMORY
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
    let mut pictures = Pictures::new(wish, &layout);
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
    let mut pictures = Pictures::new(wish, &layout);
    archive::decode(path, &files, &layout, &mut pictures, progress)?;
    assemble(path, layout, pictures, wish, |file| PathBuf::from(&files[file].name))
}

/// Images that are looked at to find out how large they are.
const MOST_MEASURED: usize = 64;

/// The image size that suits most of a folder's images: 224, 128, 64 or 32, the largest that is not above the median of
/// their shorter sides.
pub(crate) fn usual_size(root: &Path) -> Result<usize, DataError> {
    let files = image_files(root)?;
    let some = (0..files.len().min(MOST_MEASURED)).map(|at| &files[at * files.len() / files.len().min(MOST_MEASURED)]);
    let sides = some.filter_map(|path| with_file(path, dimensions).ok());
    Ok(suitable(sides.map(|[width, height]| width.min(height)).collect()))
}

/// The same of an archive, by its first images.
pub(crate) fn usual_size_in(path: &Path) -> Result<usize, DataError> {
    Ok(suitable(archive::shorter_sides(path, MOST_MEASURED)?))
}

fn suitable(mut shorter_sides: Vec<u32>) -> usize {
    shorter_sides.sort_unstable();
    let median = shorter_sides.get(shorter_sides.len() / 2).copied().unwrap_or(0);
    [224, 128, 64].into_iter().find(|size| median >= *size).unwrap_or(32) as usize
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
