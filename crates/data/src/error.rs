//! What can go wrong between a path and a [`Dataset`](crate::Dataset).

use std::{io, path::PathBuf};

/// Why a dataset could not be made. Each message says what was tried, what failed and what to do.
#[derive(Debug, thiserror::Error)]
pub enum DataError {
    /// A file or folder could not be read or written.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was tried, as a verb: `read`, `create`, ..
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },

    /// The path is neither a folder nor an archive.
    #[error(
        "{} is neither a folder nor a .tar.gz archive: give a folder with train/<class>/*.jpg or \
         <class>/*.jpg, a folder with the binary files of CIFAR-10 or CIFAR-100, or a .tar.gz of one of these",
        path.display()
    )]
    UnknownKind {
        /// The path given.
        path: PathBuf,
    },

    /// No image, and nothing of CIFAR-10 or CIFAR-100 either.
    #[error(
        "no images found in {}: expected train/<class>/*.jpg (and, if there is one, \
         test/<class>/*.jpg), or <class>/*.jpg, or CIFAR-10's data_batch_1.bin .. test_batch.bin, or CIFAR-100's train.bin and test.bin; \
         files may end in {}",
        path.display(),
        crate::EXTENSIONS.join(", ")
    )]
    NoImages {
        /// The folder or archive given.
        path: PathBuf,
    },

    /// A class without a single image that can be read.
    #[error(
        "class `{class}` in {} has no image that can be read: {reason}; repair its files or remove \
         the class",
        path.display()
    )]
    EmptyClass {
        /// The class.
        class: String,
        /// The folder of its part of the dataset, train or test.
        path: PathBuf,
        /// What happened to the first file of the class.
        reason: String,
    },

    /// A class whose name has control characters or is longer than 1024 bytes.
    #[error("class {class:?} in {} has a name with control characters, or too long a one: rename its folder", path.display())]
    ClassName {
        /// The folder or archive given.
        path: PathBuf,
        /// The name's start.
        class: String,
    },

    /// An archive of which most files cannot be used.
    #[error(
        "{useless} of the first {files} image files in {} cannot be decoded: it is damaged, or no archive of images",
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

    /// Nothing to tell apart.
    #[error(
        "{} has one class only, `{class}`: a classifier needs at least two folders of images",
        path.display()
    )]
    OneClass {
        /// The folder or archive given.
        path: PathBuf,
        /// The only class.
        class: String,
    },

    /// The classes of test/ and train/ differ.
    #[error(
        "the classes of test/ and train/ differ in {}: only in train/ [{}], only in test/ [{}]; \
         give both the same folders, or remove test/",
        path.display(),
        only_train.join(", "),
        only_test.join(", ")
    )]
    ClassMismatch {
        /// The folder or archive given.
        path: PathBuf,
        /// Classes that test lacks.
        only_train: Vec<String>,
        /// Classes that train lacks.
        only_test: Vec<String>,
    },

    /// A file of CIFAR-10 or CIFAR-100 whose size is not a whole number of records.
    #[error(
        "{} is cut off or is no {set} binary file: it has {bytes} bytes, not a positive multiple \
         of {record}; get it anew",
        path.display()
    )]
    PartialRecord {
        /// The file.
        path: PathBuf,
        /// Its size.
        bytes: usize,
        /// Bytes of a record.
        record: usize,
        /// What the file should be of.
        set: &'static str,
    },

    /// A record of CIFAR-10 or CIFAR-100 whose label is none of the classes'.
    #[error(
        "{}: record {record} has label {label}, and labels are 0 to {last}; the file is damaged or of \
         another dataset, get it anew",
        path.display()
    )]
    Label {
        /// The file.
        path: PathBuf,
        /// Number of the record in its file, from 0.
        record: usize,
        /// The label found.
        label: u8,
        /// The last label there is.
        last: usize,
    },

    /// An archive or folder of CIFAR-10 or CIFAR-100 that lacks one of its files.
    #[error("{} lacks {file}: remove it and get it anew", path.display())]
    MissingFile {
        /// The folder or archive.
        path: PathBuf,
        /// The file that should be in it.
        file: &'static str,
    },

    /// An archive with a member that an honest one doesn't have.
    #[error(
        "refused to unpack {}: its member `{member}` {problem}; nothing was written, get the archive \
         from its official address",
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

    /// An archive could not be downloaded, or what is there is not what was asked for.
    #[cfg(not(target_family = "wasm"))]
    #[error(transparent)]
    Download(#[from] crate::DownloadError),

    /// A set is not on disk and the network may not be used.
    #[error(
        "{set} is not in {} and downloads are switched off: allow them, or put {archive} there",
        path.display()
    )]
    Offline {
        /// The folder where datasets are kept.
        path: PathBuf,
        /// What was asked for.
        set: &'static str,
        /// Name of its archive.
        archive: &'static str,
    },

    /// A size to which images can't be brought.
    #[error("image size {size} is not in 1 to {max}", max = crate::decode::MAX_IMAGE_SIZE)]
    ImageSize {
        /// The size asked for, in pixels a side.
        size: usize,
    },

    /// A limit that leaves nothing to train on.
    #[error("a limit of 0 images leaves nothing to train on: give at least 1, or no limit")]
    ZeroLimit,

    /// A validation share that can't be taken out of the training images.
    #[error(
        "cannot take {asked} of {images} images for validation: give a fraction in 0 to 1 (1 \
         excluded), or fewer images than there are"
    )]
    Validation {
        /// What was asked for.
        asked: String,
        /// Number of images there are.
        images: usize,
    },
}

#[cfg(not(target_family = "wasm"))]
impl DataError {
    /// For `map_err` behind a file operation: `.map_err(DataError::io("read", path))`.
    pub(crate) fn io(action: &'static str, path: &std::path::Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { action, path: path.to_path_buf(), source }
    }
}
