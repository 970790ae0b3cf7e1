//! What can go wrong between a path and a [`Dataset`](crate::Dataset).

use std::{io, path::PathBuf};

use crate::decode::DecodeError;

/// Why a dataset could not be loaded. Each message says what failed and what to do.
#[derive(Debug, thiserror::Error)]
pub enum DataError {
    /// A file or folder could not be read or written.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// The operation, as a verb: `read`, `create`, ..
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },

    /// An image that could be read at the start can no longer be.
    #[error("{} could be read when the data was loaded, and now it cannot: {error}; put it back", path.display())]
    Gone {
        /// The file.
        path: PathBuf,
        /// Why not.
        error: DecodeError,
    },

    /// An image is another one than at the start.
    #[error("{} has changed since the data was loaded: put it back as it was", path.display())]
    Changed {
        /// The file.
        path: PathBuf,
    },

    /// The path is neither a folder nor an archive.
    #[error(
        "{} is neither a folder nor an archive (.zip, .tar, .tar.gz): these have images in folders named after their \
         classes, or the files of CIFAR-10 or CIFAR-100",
        path.display()
    )]
    UnknownKind {
        /// The path.
        path: PathBuf,
    },

    /// There are no images, and no files of CIFAR-10 or CIFAR-100.
    #[error(
        "no images found in {}: expected train/<class>/*.jpg (and maybe val/ and test/), or <class>/*.jpg, or the files \
         of CIFAR-10 or CIFAR-100; images are files named .{}, and others that start like one",
        path.display(),
        crate::EXTENSIONS.join(", .")
    )]
    NoImages {
        /// The folder or archive.
        path: PathBuf,
    },

    /// There are images, and no folders named after classes.
    #[error(
        "the images in {} are in no class folders{}: put those of each class in a folder of its own, such as \
         train/cat/1.jpg, or give a table of labels",
        path.display(),
        if folders.is_empty() { String::new() } else { format!(", but directly in {folders}") }
    )]
    NoClassFolders {
        /// The folder or archive.
        path: PathBuf,
        /// The folders that have images, if there are any.
        folders: String,
    },

    /// A table of labels that cannot be used.
    #[error("{} is not a table of labels: {problem}", path.display())]
    Labels {
        /// The table.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },

    /// A table of labels that names none of the images.
    #[error("no image in {} has a name of the table of labels, whose first is {row:?}", path.display())]
    NoImageInTable {
        /// The folder or archive.
        path: PathBuf,
        /// The first name in the table.
        row: String,
    },

    /// A table of labels for data that has no files.
    #[error("a table of labels is for a folder or an archive of images, not for {name}")]
    NoUseForLabels {
        /// The dataset.
        name: String,
    },

    /// There are images to validate or test on, and none to train on.
    #[error("{name} has no images to train on, only some to validate or test on")]
    NoTrainingImages {
        /// Name of the dataset.
        name: String,
    },

    /// A class without a readable image.
    #[error(
        "class `{class}` in {} has no readable image: {reason}; repair its files or remove the class",
        path.display()
    )]
    EmptyClass {
        /// The class.
        class: String,
        /// The folder or archive.
        path: PathBuf,
        /// Why the first file of the class failed.
        reason: String,
    },

    /// A class whose name has control characters or is longer than 1024 bytes.
    #[error(
        "the name of class {class:?} in {} has control characters or is longer than 1024 bytes: rename its folder",
        path.display()
    )]
    ClassName {
        /// The folder or archive.
        path: PathBuf,
        /// The start of the name.
        class: String,
    },

    /// Most files of an archive cannot be used.
    #[error(
        "{useless} of the first {files} image files in {} cannot be decoded: the archive is damaged or is not one \
         of images",
        path.display()
    )]
    Useless {
        /// The archive.
        path: PathBuf,
        /// Files that could not be decoded.
        useless: usize,
        /// Files read.
        files: usize,
    },

    /// There is only one class.
    #[error(
        "{} has only one class, `{class}`: a classifier needs at least two folders of images",
        path.display()
    )]
    OneClass {
        /// The folder or archive.
        path: PathBuf,
        /// The only class.
        class: String,
    },

    /// A file of CIFAR-10 or CIFAR-100 whose size is not a whole number of records.
    #[error(
        "{} is cut off or not a {set} binary file: its size of {bytes} bytes is not a positive multiple of \
         {record}; download it again",
        path.display()
    )]
    PartialRecord {
        /// The file.
        path: PathBuf,
        /// Its size.
        bytes: usize,
        /// Bytes of a record.
        record: usize,
        /// The dataset that the file should be part of.
        set: &'static str,
    },

    /// A file of CIFAR-10 or CIFAR-100 for Python that is not one.
    #[error("{} is not a file of {set} for Python: {problem}; download it again", path.display())]
    Pickle {
        /// The file.
        path: PathBuf,
        /// The dataset that the file should be part of.
        set: &'static str,
        /// What is wrong with it.
        problem: String,
    },

    /// A record of CIFAR-10 or CIFAR-100 with a label that is not a class.
    #[error(
        "{}: record {record} has label {label}, but labels are 0 to {last}; the file is damaged or from \
         another dataset: download it again",
        path.display()
    )]
    Label {
        /// The file.
        path: PathBuf,
        /// Index of the record in its file, from 0.
        record: usize,
        /// The label found.
        label: u8,
        /// The highest valid label.
        last: usize,
    },

    /// An archive or folder of CIFAR-10 or CIFAR-100 with a file missing.
    #[error("{} is incomplete, {file} is missing: delete it and download it again", path.display())]
    MissingFile {
        /// The folder or archive.
        path: PathBuf,
        /// The missing file.
        file: &'static str,
    },

    /// An archive with a member that a genuine archive does not have.
    #[error(
        "refused to unpack {}: its member `{member}` {problem}; nothing was written. Get the archive from \
         its official address",
        path.display()
    )]
    UnsafeArchive {
        /// The archive.
        path: PathBuf,
        /// The member's name.
        member: String,
        /// What is wrong with it.
        problem: String,
    },

    /// An archive could not be downloaded, or the file on disk has the wrong digest.
    #[cfg(not(target_family = "wasm"))]
    #[error(transparent)]
    Download(#[from] crate::DownloadError),

    /// A dataset is not on disk, and downloads are disabled.
    #[error(
        "{set} is not in {}, and downloads are disabled: allow downloads, or put {archive} there",
        path.display()
    )]
    Offline {
        /// The folder that datasets are kept in.
        path: PathBuf,
        /// The dataset.
        set: &'static str,
        /// Name of its archive.
        archive: &'static str,
    },

    /// An image size outside the supported range.
    #[error("image size is {size}; it must be 1 to {max}", max = crate::decode::MAX_IMAGE_SIZE)]
    ImageSize {
        /// The requested size, in pixels per side.
        size: usize,
    },

    /// A limit that leaves nothing to train on.
    #[error("a limit of 0 images leaves nothing to train on: use at least 1, or no limit")]
    ZeroLimit,

    /// A validation split that cannot be taken from the training images.
    #[error(
        "cannot use {asked} of {images} images for validation: choose a fraction of at least 0 and below 1, \
         or fewer images than there are"
    )]
    Validation {
        /// The request.
        asked: String,
        /// Number of images there are.
        images: usize,
    },
}

#[cfg(not(target_family = "wasm"))]
impl DataError {
    /// For `map_err` after a file operation: `.map_err(DataError::io("read", path))`.
    pub(crate) fn io(action: &'static str, path: &std::path::Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { action, path: path.to_path_buf(), source }
    }
}
