//! Loads the dataset that the user asked for.

use std::io::Read;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use crate::{
    archive,
    cifar::{self, CIFAR10, CIFAR100, Cifar, Form},
    dataset::Dataset,
    decode::Preprocessing,
    download::{Digest, download},
    error::DataError,
    folder::{self, Wish},
    labels::{LabelTable, Labels},
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
    /// The set's files in this folder, in binary form or in that for Python.
    CifarFolder(&'static Cifar, PathBuf),
    /// Images in folders named after their classes.
    Folder(PathBuf),
    /// A `.zip`, `.tar` or `.tar.gz` of one of these, CIFAR-100 with its fine labels.
    Archive(PathBuf),
    /// Ten classes of images drawn in code.
    Synthetic,
}

impl Source {
    /// Detects the kind of a path: a folder with the files of CIFAR-10 or CIFAR-100 (or a folder that
    /// contains their folder), any other folder, or an archive (`.zip`, `.tar`, `.tar.gz`).
    ///
    /// # Errors
    ///
    /// [`DataError::Io`] if the path does not exist, [`DataError::UnknownKind`] for any other file.
    pub fn from_path(path: &Path) -> Result<Self, DataError> {
        let metadata = path.metadata().map_err(DataError::io("open", path))?;
        if metadata.is_dir() {
            for set in [&CIFAR10, &CIFAR100] {
                for form in [Form::Binary, Form::Python] {
                    let inner = path.join(set.folder(form));
                    if form_in(set, path) == Some(form) {
                        return Ok(Self::CifarFolder(set, path.into()));
                    }
                    if inner.is_dir() {
                        return Ok(Self::CifarFolder(set, inner));
                    }
                }
            }
            return Ok(Self::Folder(path.into()));
        }
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        match archive::stem(&name) {
            Some(_) => Ok(Self::Archive(path.into())),
            None => Err(DataError::UnknownKind { path: path.into() }),
        }
    }
}

/// What to load, and how.
#[derive(Clone, Debug)]
pub struct LoadOptions {
    /// Where images come from.
    pub source: Source,
    /// Folder that downloads are kept in.
    pub data_dir: PathBuf,
    /// A table with the labels of a folder's or an archive's images, instead of folders named after classes.
    pub labels: Option<LabelTable>,
    /// Classes of a network that the images are to be scored with. Images to validate and test on are then also used if their class is
    /// one of these and not trained on, and one class is enough.
    pub known_classes: Vec<String>,
    /// Size in pixels per side that a folder's images are resized to, 1 to 1024; 32 by default.
    pub image_size: Option<usize>,
    /// How a folder's images are brought to that size; `None` for the center square.
    pub preprocessing: Option<Preprocessing>,
    /// Random crops of the originals are wanted: a folder's pictures are then not brought to that size once, but decoded
    /// anew whenever an image is asked for, as large sets are.
    pub originals: bool,
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
            labels: None,
            known_classes: vec![],
            image_size: None,
            preprocessing: None,
            originals: false,
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
    let drawn = || synthetic(SYNTHETIC_SIZES.0, SYNTHETIC_SIZES.1, options.seed);
    let labels = options.labels.as_ref().map(Labels::read).transpose()?;
    let wish = Wish {
        size,
        preprocessing: options.preprocessing,
        labels: labels.as_ref(),
        known_classes: &options.known_classes,
        originals: options.originals,
    };
    let mut note = None;
    let mut dataset = match &options.source {
        Source::Synthetic => drawn(),
        Source::Cifar(set) => read(set, &obtain(set, options, progress)?)?,
        Source::CifarFolder(set, path) => read(set, path)?,
        Source::Folder(path) => folder::load_folder(path, &wish, progress)?,
        Source::Archive(path) => match archive_kind(path)? {
            ArchiveKind::Cifar(set, form) => archive::read_cifar(set, form, path)?,
            ArchiveKind::Images => folder::load_archive(path, &wish, progress)?,
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
    if labels.is_some() && dataset.report.arrangement.is_empty() {
        return Err(DataError::NoUseForLabels { name: dataset.name });
    }
    if let Some(limit) = options.limit {
        dataset.limit(limit, options.seed);
    }
    Ok(Loaded { dataset, note })
}

/// The image size that suits a dataset: 32 for CIFAR and the synthetic set; for pictures in folders 224, 128, 64 or 32, the
/// largest that is not above the median of the shorter sides of some of them.
///
/// # Errors
///
/// [`DataError::Io`] and the like if the folder or archive cannot be read.
pub fn usual_image_size(source: &Source) -> Result<usize, DataError> {
    match source {
        Source::Folder(path) => folder::usual_size(path),
        Source::Archive(path) => match archive_kind(path)? {
            ArchiveKind::Cifar(..) => Ok(cifar::SIDE),
            ArchiveKind::Images => folder::usual_size_in(path),
        },
        _ => Ok(cifar::SIDE),
    }
}

impl Dataset {
    /// Opens what lies at a path: a folder with `train/<class>/*.jpg` (and maybe `val/` and `test/`) or `<class>/*.jpg`, the
    /// files of CIFAR-10 or CIFAR-100, or an archive (`.zip`, `.tar`, `.tar.gz`) of one of these. Pictures are brought to
    /// `image_size` pixels a side. What was found, and what could not be read, is in [`report`](Self::report). For a table of
    /// labels and other options there is [`load`].
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
    /// The files of one of these.
    Cifar(&'static Cifar, Form),
    /// Images in folders named after their classes.
    Images,
}

/// Detects what an archive contains by the first member that shows it.
fn archive_kind(path: &Path) -> Result<ArchiveKind, DataError> {
    let mut kind = ArchiveKind::Images;
    archive::visit(path, |member| {
        let name = archive::inner_name(&member.name).unwrap_or_default();
        let sets = [&CIFAR10, &CIFAR100].into_iter().flat_map(|set| [(set, Form::Binary), (set, Form::Python)]);
        let mut named = sets.filter(|(set, form)| archive::expected_name(set, *form, &name).is_some());
        Ok(match named.next() {
            Some((set, form)) => {
                kind = ArchiveKind::Cifar(set, form);
                ControlFlow::Break(())
            }
            None if folder::is_image(&name) => ControlFlow::Break(()),
            None => ControlFlow::Continue(()),
        })
    })?;
    Ok(kind)
}

/// The folder of a set's binary files. Unpacks the archive if needed, and downloads the archive if needed.
fn obtain(set: &Cifar, options: &LoadOptions, progress: &mut dyn FnMut(LoadProgress)) -> Result<PathBuf, DataError> {
    let folder = options.data_dir.join(set.folder);
    if folder.is_dir() {
        return Ok(folder);
    }
    // As torchvision leaves it.
    let python = options.data_dir.join(set.python.folder);
    if python.join(set.python.test).is_file() {
        return Ok(python);
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

/// The form of a set's files in a folder, by the first of them; `None` if it is not there.
fn form_in(set: &Cifar, folder: &Path) -> Option<Form> {
    let is_pickle = |path: &Path| {
        let mut start = [0];
        path.is_file()
            && std::fs::File::open(path).and_then(|mut file| file.read_exact(&mut start)).is_ok()
            && start == [0x80]
    };
    if folder.join(set.train[0]).is_file() {
        return Some(Form::Binary);
    }
    is_pickle(&folder.join(set.python.train[0])).then_some(Form::Python)
}

/// Reads a set's files in `folder`.
fn read(set: &Cifar, folder: &Path) -> Result<Dataset, DataError> {
    let is_python = form_in(set, folder) == Some(Form::Python) || folder.ends_with(set.python.folder);
    let form = if is_python { Form::Python } else { Form::Binary };
    let contents = |name: &'static str| {
        let path = folder.join(name);
        if !path.is_file() {
            return Err(DataError::MissingFile { path: folder.into(), file: name });
        }
        // One byte more than the largest valid file is enough to refuse a larger one.
        let most = set.most_bytes(form) as u64 + 1;
        let mut bytes = vec![];
        let read = std::fs::File::open(&path).and_then(|file| file.take(most).read_to_end(&mut bytes));
        read.map(|_| bytes).map_err(DataError::io("read", &path))
    };
    set.dataset(form, contents, folder)
}
