//! What can go wrong between a path and a [`Dataset`](crate::Dataset).

use std::{io, path::PathBuf};

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

    /// The path is neither a folder nor an archive.
    #[error(
        "{} is neither a folder nor a .tar.gz archive; supported are a folder with train/<class>/*.jpg or \
         <class>/*.jpg, a folder with the binary files of CIFAR-10 or CIFAR-100, and a .tar.gz of one of these",
        path.display()
    )]
    UnknownKind {
        /// The path.
        path: PathBuf,
    },

    /// There are no images, and no files of CIFAR-10 or CIFAR-100.
    #[error(
        "no images found in {}: expected train/<class>/*.jpg (optionally with test/<class>/*.jpg), or \
         <class>/*.jpg, or CIFAR-10's data_batch_1.bin .. test_batch.bin, or CIFAR-100's train.bin and test.bin; \
         supported file extensions: {}",
        path.display(),
        crate::EXTENSIONS.join(", ")
    )]
    NoImages {
        /// The folder or archive.
        path: PathBuf,
    },

    /// A class without a readable image.
    #[error(
        "class `{class}` in {} has no readable image: {reason}; repair its files or remove the class",
        path.display()
    )]
    EmptyClass {
        /// The class.
        class: String,
        /// The folder of its part of the dataset: train or test.
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

    /// The classes of test/ and train/ differ.
    #[error(
        "the classes of test/ and train/ differ in {}: only in train/ [{}], only in test/ [{}]; \
         use the same folders in both, or remove test/",
        path.display(),
        only_train.join(", "),
        only_test.join(", ")
    )]
    ClassMismatch {
        /// The folder or archive.
        path: PathBuf,
        /// Classes that test does not have.
        only_train: Vec<String>,
        /// Classes that train does not have.
        only_test: Vec<String>,
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
