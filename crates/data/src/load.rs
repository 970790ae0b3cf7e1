//! From what the user asked for to a dataset.

use std::path::{Path, PathBuf};

use crate::{
    archive::{self, ArchiveKind},
    cifar10,
    dataset::Dataset,
    download::{Digest, download},
    error::DataError,
    folder,
    progress::Progress,
    synthetic::synthetic,
};

/// Pictures in the synthetic set, to train on and to test on.
const SYNTHETIC_SIZES: (usize, usize) = (4000, 1000);

/// Name of the official archive, kept where it was downloaded to.
const ARCHIVE: &str = "cifar-10-binary.tar.gz";

/// Where images come from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Source {
    /// CIFAR-10 if it is on disk or can be downloaded, else the synthetic set.
    #[default]
    Auto,
    /// CIFAR-10 from [`LoadOptions::data_dir`], downloaded first where it is missing.
    Cifar10,
    /// CIFAR-10's binary files in this folder.
    Cifar10Folder(PathBuf),
    /// Images in folders named after their classes.
    Folder(PathBuf),
    /// A `.tar.gz` of either.
    Archive(PathBuf),
    /// The ten classes drawn in code.
    Synthetic,
}

impl Source {
    /// What a path given by the user is: a folder with CIFAR-10's binary files (or with
    /// `cifar-10-batches-bin/` in it), any other folder, or a `.tar.gz` archive.
    ///
    /// # Errors
    ///
    /// [`DataError::Io`] if there is nothing at the path, [`DataError::UnknownKind`] if it is another
    /// kind of file.
    pub fn from_path(path: &Path) -> Result<Self, DataError> {
        let metadata = path.metadata().map_err(DataError::io("open", path))?;
        if metadata.is_dir() {
            let inner = path.join(cifar10::FOLDER);
            let has_batches = |folder: &Path| folder.join(cifar10::BATCHES[0]).is_file();
            return Ok(match () {
                () if has_batches(path) => Self::Cifar10Folder(path.into()),
                () if inner.is_dir() => Self::Cifar10Folder(inner),
                () => Self::Folder(path.into()),
            });
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
    /// Pixels a side to which the images of a folder are brought, 1 to 1024; 32 if not given.
    pub image_size: Option<usize>,
    /// Whether to leave the network alone.
    pub offline: bool,
    /// Use only so many training images and a fifth as many test images, see [`Dataset::limit`].
    pub limit: Option<usize>,
    /// Seed of the synthetic set and of the choice that `limit` makes.
    pub seed: u64,
    /// Where to download CIFAR-10 from.
    pub cifar10_url: String,
    /// What the downloaded archive has to be.
    pub cifar10_digest: Digest,
}

impl Default for LoadOptions {
    fn default() -> Self {
        Self {
            source: Source::Auto,
            data_dir: "data".into(),
            image_size: None,
            offline: false,
            limit: None,
            seed: 0,
            cifar10_url: cifar10::URL.into(),
            cifar10_digest: Digest::Md5(cifar10::MD5.into()),
        }
    }
}

/// A dataset, with what the user should be told about it.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The dataset.
    pub dataset: Dataset,
    /// One line for the user if another dataset was taken than CIFAR-10.
    pub note: Option<String>,
}

/// Loads a dataset.
///
/// Only [`Source::Auto`] falls back on the synthetic set, and only if CIFAR-10 is neither there nor
/// to be had; files that are there but damaged are an error.
///
/// # Errors
///
/// Any [`DataError`].
pub fn load(options: &LoadOptions, progress: &mut dyn FnMut(Progress)) -> Result<Loaded, DataError> {
    if options.limit == Some(0) {
        return Err(DataError::ZeroLimit);
    }
    let size = options.image_size.unwrap_or(cifar10::SIDE);
    let drawn = || synthetic(SYNTHETIC_SIZES.0, SYNTHETIC_SIZES.1, options.seed);
    let mut note = None;
    let mut dataset = match &options.source {
        Source::Synthetic => drawn(),
        Source::Cifar10 => read_cifar10(&obtain_cifar10(options, progress)?)?,
        Source::Cifar10Folder(path) => read_cifar10(path)?,
        Source::Folder(path) => folder::load_folder(path, size, progress)?,
        Source::Archive(path) => match archive::kind(path)? {
            ArchiveKind::Cifar10 => archive::read_cifar10(path)?,
            ArchiveKind::Images => folder::load_archive(path, size, progress)?,
        },
        Source::Auto => match obtain_cifar10(options, progress) {
            Ok(folder) => read_cifar10(&folder)?,
            Err(reason) => {
                note = Some(format!(
                    "CIFAR-10 is neither in {}/ nor downloadable ({reason}): training on the \
                     procedural synthetic set; pass --data DIR to use your own images",
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

/// The folder of CIFAR-10's binary files, made from the archive if need be, and the archive from the
/// network.
fn obtain_cifar10(options: &LoadOptions, progress: &mut dyn FnMut(Progress)) -> Result<PathBuf, DataError> {
    let folder = options.data_dir.join(cifar10::FOLDER);
    if folder.is_dir() {
        return Ok(folder);
    }
    let archive = options.data_dir.join(ARCHIVE);
    if archive.is_file() {
        // Put there by hand, or left by a run that was stopped before it could unpack it.
        options.cifar10_digest.check(&archive)?;
    } else if options.offline {
        return Err(DataError::Offline { path: options.data_dir.clone() });
    } else {
        download(&options.cifar10_url, &options.cifar10_digest, &archive, progress)?;
    }
    progress(Progress::Unpacking);
    archive::unpack_cifar10(&archive, &options.data_dir)
}

/// Reads CIFAR-10's binary files in `folder`.
fn read_cifar10(folder: &Path) -> Result<Dataset, DataError> {
    let read = |name: &'static str| {
        let path = folder.join(name);
        if !path.is_file() {
            return Err(DataError::MissingFile { path: folder.into(), file: name });
        }
        std::fs::read(&path).map_err(DataError::io("read", &path))
    };
    cifar10::from_batches(read, folder)
}
