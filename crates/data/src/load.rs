//! Loads the dataset that the user asked for.

use std::io::Read;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use crate::{
    archive,
    cifar::{self, CIFAR10, CIFAR100, Cifar},
    dataset::Dataset,
    decode::{Input, Preprocessing},
    download::{Digest, download},
    error::DataError,
    folder,
    progress::LoadProgress,
    synthetic::synthetic,
};

/// Number of training and test images in the synthetic set.
const SYNTHETIC_SIZES: (usize, usize) = (4000, 1000);

/// Where images come from.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Source {
    /// CIFAR-10 if it is on disk or can be downloaded, otherwise the synthetic set.
    #[default]
    Auto,
    /// This set from [`LoadOptions::data_dir`], downloaded first if it is missing.
    Cifar(&'static Cifar),
    /// The set's binary files in this folder.
    CifarFolder(&'static Cifar, PathBuf),
    /// Images in folders named after their classes.
    Folder(PathBuf),
    /// A `.tar.gz` of one of these, CIFAR-100 with its fine labels.
    Archive(PathBuf),
    /// Ten classes of images drawn in code.
    Synthetic,
}

impl Source {
    /// Detects the kind of a path: a folder with the binary files of CIFAR-10 or CIFAR-100 (or a folder that
    /// contains their folder), any other folder, or a `.tar.gz` archive.
    ///
    /// # Errors
    ///
    /// [`DataError::Io`] if the path does not exist, [`DataError::UnknownKind`] for any other file.
    pub fn from_path(path: &Path) -> Result<Self, DataError> {
        let metadata = path.metadata().map_err(DataError::io("open", path))?;
        if metadata.is_dir() {
            for set in [&CIFAR10, &CIFAR100] {
                let inner = path.join(set.folder);
                if path.join(set.train[0]).is_file() {
                    return Ok(Self::CifarFolder(set, path.into()));
                }
                if inner.is_dir() {
                    return Ok(Self::CifarFolder(set, inner));
                }
            }
            return Ok(Self::Folder(path.into()));
        }
        let name = path.file_name().unwrap_or_default().to_string_lossy().to_ascii_lowercase();
        if name.ends_with(".tar.gz") || name.ends_with(".tgz") {
            return Ok(Self::Archive(path.into()));
        }
        Err(DataError::UnknownKind { path: path.into() })
    }
}

/// What to load, and how.
#[derive(Clone, Debug)]
pub struct LoadOptions {
    /// Where images come from.
    pub source: Source,
    /// Folder that downloads are kept in.
    pub data_dir: PathBuf,
    /// Size in pixels per side that a folder's images are resized to, 1 to 1024; 32 by default.
    pub image_size: Option<usize>,
    /// How a folder's images are brought to that size; `None` for the center square.
    pub preprocessing: Option<Preprocessing>,
    /// Download nothing.
    pub offline: bool,
    /// Use only this many training images and a fifth as many test images, see [`Dataset::limit`].
    pub limit: Option<usize>,
    /// Seed of the synthetic set and of the subset that `limit` selects.
    pub seed: u64,
    /// Where to download a set's archive from instead of its official address.
    pub mirror: Option<Mirror>,
}

/// An alternative address of an archive.
#[derive(Clone, Debug)]
pub struct Mirror {
    /// The address.
    pub url: String,
    /// The digest that the file must have.
    pub digest: Digest,
}

impl Default for LoadOptions {
    fn default() -> Self {
        Self {
            source: Source::Auto,
            data_dir: "data".into(),
            image_size: None,
            preprocessing: None,
            offline: false,
            limit: None,
            seed: 0,
            mirror: None,
        }
    }
}

/// A dataset and a note about it.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The dataset.
    pub dataset: Dataset,
    /// One line that explains why the synthetic set replaced CIFAR-10.
    pub note: Option<String>,
}

/// Loads a dataset.
///
/// Only [`Source::Auto`] falls back to the synthetic set, and only if CIFAR-10 is neither on disk nor
/// downloadable. Damaged files are an error.
///
/// # Errors
///
/// Any [`DataError`].
pub fn load(options: &LoadOptions, progress: &mut dyn FnMut(LoadProgress)) -> Result<Loaded, DataError> {
    if options.limit == Some(0) {
        return Err(DataError::ZeroLimit);
    }
    let size = options.image_size.unwrap_or(cifar::SIDE);
    let input = Input { size, preprocessing: options.preprocessing };
    let drawn = || synthetic(SYNTHETIC_SIZES.0, SYNTHETIC_SIZES.1, options.seed);
    let mut note = None;
    let mut dataset = match &options.source {
        Source::Synthetic => drawn(),
        Source::Cifar(set) => read(set, &obtain(set, options, progress)?)?,
        Source::CifarFolder(set, path) => read(set, path)?,
        Source::Folder(path) => folder::load_folder(path, input, progress)?,
        Source::Archive(path) => match archive_kind(path)? {
            ArchiveKind::Cifar(set) => archive::read_cifar(set, path)?,
            ArchiveKind::Images => folder::load_archive(path, input, progress)?,
        },
        Source::Auto => match obtain(&CIFAR10, options, progress) {
            Ok(folder) => read(&CIFAR10, &folder)?,
            Err(reason) => {
                note = Some(format!(
                    "CIFAR-10 is neither in {}/ nor downloadable ({reason}): using the procedural synthetic set",
                    options.data_dir.display()
                ));
                drawn()
            }
        },
    };
    if let Some(limit) = options.limit {
        dataset.limit(limit, options.seed);
    }
    Ok(Loaded { dataset, note })
}

impl Dataset {
    /// Opens what lies at a path: a folder with `train/<class>/*.jpg` (and maybe `test/<class>/*.jpg`), the binary files
    /// of CIFAR-10 or CIFAR-100, or a `.tar.gz` of one of these. Pictures are brought to `image_size` pixels a side.
    /// What could not be read is in [`report`](Self::report).
    ///
    /// # Errors
    ///
    /// Any [`DataError`].
    pub fn open(path: impl AsRef<Path>, image_size: usize) -> Result<Self, DataError> {
        let source = Source::from_path(path.as_ref())?;
        let options = LoadOptions { source, image_size: Some(image_size), ..LoadOptions::default() };
        Ok(load(&options, &mut |_| {})?.dataset)
    }
}

/// What an archive contains.
enum ArchiveKind {
    /// The binary files of one of these.
    Cifar(&'static Cifar),
    /// Images in folders named after their classes.
    Images,
}

/// Detects what an archive contains by the first member that shows it.
fn archive_kind(path: &Path) -> Result<ArchiveKind, DataError> {
    let mut kind = None;
    archive::visit(path, |member, _| {
        let cifar = [&CIFAR10, &CIFAR100].into_iter().find(|cifar| archive::expected_name(cifar, &member).is_some());
        kind = match cifar {
            Some(cifar) => Some(ArchiveKind::Cifar(cifar)),
            None => folder::is_archived_image(&member).then_some(ArchiveKind::Images),
        };
        Ok(if kind.is_some() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
    })?;
    kind.ok_or_else(|| DataError::NoImages { path: path.into() })
}

/// The folder of a set's binary files. Unpacks the archive if needed, and downloads the archive if needed.
fn obtain(set: &Cifar, options: &LoadOptions, progress: &mut dyn FnMut(LoadProgress)) -> Result<PathBuf, DataError> {
    let folder = options.data_dir.join(set.folder);
    if folder.is_dir() {
        return Ok(folder);
    }
    let official = || Mirror { url: set.url.into(), digest: Digest::Md5(set.md5.into()) };
    let Mirror { url, digest } = options.mirror.clone().unwrap_or_else(official);
    let archive = options.data_dir.join(set.archive);
    if archive.is_file() {
        // Placed there by hand, or left by a run that stopped before it unpacked the archive.
        digest.check(&archive)?;
    } else if options.offline {
        return Err(DataError::Offline { path: options.data_dir.clone(), set: set.title, archive: set.archive });
    } else {
        download(&url, &digest, &archive, progress)?;
    }
    progress(LoadProgress::Unpacking);
    archive::unpack_cifar(set, &archive, &options.data_dir)
}

/// Reads a set's binary files in `folder`.
fn read(set: &Cifar, folder: &Path) -> Result<Dataset, DataError> {
    let contents = |name: &'static str| {
        let path = folder.join(name);
        if !path.is_file() {
            return Err(DataError::MissingFile { path: folder.into(), file: name });
        }
        // One byte more than the largest valid file is enough to refuse a larger one.
        let most = (set.most_records * set.record_bytes()) as u64 + 1;
        let mut bytes = vec![];
        let read = std::fs::File::open(&path).and_then(|file| file.take(most).read_to_end(&mut bytes));
        read.map(|_| bytes).map_err(DataError::io("read", &path))
    };
    set.dataset(contents, folder)
}
