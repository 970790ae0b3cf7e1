//! Why a file cannot be decoded.

use std::{error::Error, io};

use image::ImageError;

use super::{MAX_FILE_BYTES, MAX_MEMORY, MAX_PIXELS, MAX_SIDE};

/// Why a file could not be decoded.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The contents are not a known image format.
    #[error("not an image of a known format")]
    NotAnImage,
    /// An image format that is not supported.
    #[error("{0} images are not supported: convert it to PNG or JPEG")]
    Unsupported(String),
    /// An image format that is known and not read.
    #[error("{0} images are not read: save the picture as JPEG or PNG")]
    NotRead(&'static str),
    /// The file ends in the middle of the image.
    #[error("the file ends before the image does")]
    Truncated,
    /// Part of the image's data is missing, although the file has an end.
    #[error("damaged: only {percent} % of the picture is in the file")]
    Incomplete {
        /// Share of the picture that is there, rounded down.
        percent: u8,
    },
    /// The header claims more pixels than the limits allow.
    #[error(
        "{width} x {height} pixels exceed the limit of {MAX_SIDE} per side and {} megapixels",
        MAX_PIXELS >> 20
    )]
    TooManyPixels {
        /// Width in pixels.
        width: u32,
        /// Height in pixels.
        height: u32,
    },
    /// Decoding the file could need more memory than the limit.
    #[error(
        "{width} x {height} pixels of this kind can take {} MiB to decode, and the limit is {} MiB: make the picture \
         smaller or save it as JPEG",
        bytes.div_ceil(1 << 20), MAX_MEMORY >> 20
    )]
    TooMuchMemory {
        /// Width in pixels.
        width: u32,
        /// Height in pixels.
        height: u32,
        /// Memory that it can take.
        bytes: u64,
    },
    /// A frame or a profile in the file would need more memory than the limit.
    #[error("a part of the file needs more memory than the limit: save the picture again without its metadata")]
    OverLimit,
    /// A progressive JPEG that was made to decode slowly.
    #[error("damaged: it has more scans than any program writes")]
    TooManyScans,
    /// The file is larger than the limit.
    #[error("{bytes} bytes exceed the limit of {} MiB per file", MAX_FILE_BYTES >> 20)]
    TooManyBytes {
        /// Size of the file.
        bytes: u64,
    },
    /// The contents are inconsistent.
    #[error("damaged: {0}")]
    Corrupt(String),
    /// The file could not be opened or read.
    #[error("cannot be read: {0}")]
    Unreadable(String),
}

impl DecodeError {
    /// The kind of error, for counts such as `2 not images`, `1 truncated`.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::NotAnImage => "not images",
            Self::Unsupported(_) => "of an unsupported kind",
            Self::NotRead(_) => "of a format that is not read",
            Self::Truncated => "truncated",
            Self::TooManyPixels { .. } | Self::TooMuchMemory { .. } | Self::OverLimit | Self::TooManyBytes { .. } => {
                "too large"
            }
            Self::Corrupt(_) | Self::TooManyScans | Self::Incomplete { .. } => "damaged",
            Self::Unreadable(_) => "unreadable",
        }
    }
}

impl From<ImageError> for DecodeError {
    fn from(error: ImageError) -> Self {
        if ends_early(&error) {
            return Self::Truncated;
        }
        match error {
            ImageError::Limits(_) => Self::OverLimit,
            ImageError::Unsupported(error) => Self::Unsupported(error.format_hint().to_string()),
            error => Self::Corrupt(error.to_string()),
        }
    }
}

/// Whether an error or one of its sources says that the file ends too early.
fn ends_early(error: &ImageError) -> bool {
    let early = |error: &io::Error| error.kind() == io::ErrorKind::UnexpectedEof;
    if let ImageError::IoError(error) = error {
        return early(error);
    }
    let mut cause = error.source();
    while let Some(error) = cause {
        if error.downcast_ref::<io::Error>().is_some_and(early) {
            return true;
        }
        cause = error.source();
    }
    false
}
