//! Datasets for Kiln: loading images, splitting them, and making batches.
//!
//! The path of an image through this crate:
//!
//! ```text
//! download -> archive -> cifar ─┐
//!             folder -> decode ─┼-> Dataset (u8, [N, 3, H, W]) -> split -> epoch_order -> fill_batch -> f32
//!                    synthetic ─┘
//! ```
//!
//! Where a folder has more images than memory should hold, or random crops of the originals are wanted, the set keeps the
//! files' names instead of pixels, and decodes whenever an image is asked for ([`ImageSource`]).
//!
//! Two promises hold everywhere:
//!
//! * **Every random draw is a function of (seed, epoch, sample index)**, see [`random`]. The order of
//!   the samples, the number of threads, a resume in the middle of an epoch and the platform do not
//!   change what a sample looks like.
//! * **Input is not trusted**: archives, image headers and downloads have size limits, and an error
//!   names the file and what to do.
//!
//! The crate has no models and no tensors, and it never prints. Modules that need files, threads or
//! the network are not compiled for wasm.

#[cfg(not(target_family = "wasm"))]
mod ahead;
mod augment;
mod batch;
pub mod cifar;
mod dataset;
mod decode;
mod digest;
mod error;
mod found;
mod images;
mod pixels;
pub mod random;
mod resized_crop;
mod sampling;
mod split;
mod synthetic;

#[cfg(not(target_family = "wasm"))]
mod archive;
#[cfg(not(target_family = "wasm"))]
pub mod bounded_read;
#[cfg(not(target_family = "wasm"))]
mod corrupt;
#[cfg(not(target_family = "wasm"))]
pub mod download;
#[cfg(not(target_family = "wasm"))]
mod folder;
#[cfg(not(target_family = "wasm"))]
mod labels;
#[cfg(not(target_family = "wasm"))]
mod load;
#[cfg(not(target_family = "wasm"))]
mod pickle;
#[cfg(not(target_family = "wasm"))]
mod progress;
#[cfg(not(target_family = "wasm"))]
mod zip;

pub use augment::{Affine, AffineDraw, Augment, Color, FinalKeeps, Flip, Mix, MixDraw, Patch, Transform};
pub use batch::{Augmentation, Target, epoch_order, fill_batch, normalize, prefetch, targets};
pub use dataset::{Dataset, Matched, channel_statistics};
pub use decode::{
    DecodeError, Decoded, EXTENSIONS, Input, Interpolation, MAX_MEMORY, MAX_PIXELS, MAX_SIDE, Preprocessing, crop_rgb,
    crop_rgba, decode_damaged, decode_image, dimensions,
};
pub use error::DataError;
pub use found::{Aside, LeftAside, LoadReport, SkippedFile, listed};
pub use images::{ImageSet, ImageSource, Images, Stream};
pub use resized_crop::{CropDraw, ResizedCrop};
pub use sampling::{balanced_order, balanced_weights};
pub use split::{Split, Validation, balanced_subset, split};
pub use synthetic::{SYNTHETIC_CLASSES, synthetic, synthetic_image};

#[cfg(not(target_family = "wasm"))]
pub use {
    archive::unpack_cifar,
    corrupt::{Corruption, SEVERITIES, corrupt},
    decode::{decode_damaged_file, decode_image_file},
    download::{Digest, DownloadError, download},
    folder::image_files,
    labels::LabelTable,
    load::{LoadOptions, Loaded, Mirror, Source, load, usual_image_size},
    progress::LoadProgress,
};
