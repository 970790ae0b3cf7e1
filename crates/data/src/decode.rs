//! Decodes an image file of any supported format and size to planar RGB of a given size.

#[cfg(not(target_family = "wasm"))]
mod budget;
mod cost;
mod format;
mod ico;
mod input;
mod jpeg;
mod pillow;
mod png;
mod resize;

use std::{
    borrow::Cow,
    error::Error,
    io::{self, Cursor},
};

pub use format::EXTENSIONS;
#[cfg(not(target_family = "wasm"))]
pub(crate) use format::{OTHER_EXTENSIONS, SIGNATURE_BYTES, is_image};
use image::{
    DynamicImage, ImageDecoder, ImageError, ImageFormat, ImageReader, Limits, RgbImage, metadata::Orientation,
};

pub use input::{Input, Interpolation, Preprocessing};

/// Maximum width and height of an image that is decoded, in pixels.
pub const MAX_SIDE: u32 = 16_384;

/// Maximum number of pixels of an image that is decoded: 64 megapixels.
pub const MAX_PIXELS: u64 = 64 << 20;

/// Maximum memory for decoding, including the files, over all threads: 176 MiB. That is just enough for a JPEG
/// of 48 megapixels and 15 MB, as phones write it, or for a progressive JPEG of half as many pixels.
pub const MAX_MEMORY: u64 = 176 << 20;

/// Maximum size of an image file: 64 MiB.
pub(crate) const MAX_FILE_BYTES: u64 = 64 << 20;

/// Maximum size, in pixels per side, that images are resized to.
pub(crate) const MAX_IMAGE_SIZE: usize = 1024;

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

/// An image, and what is wrong with its file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decoded {
    /// Planar RGB `[3, size, size]`, 0 to 255.
    pub pixels: Vec<u8>,
    /// Why not all of them can be trusted: part of the image's data is missing.
    pub damage: Option<DecodeError>,
}

/// Decodes an image file (of an animation its first frame) into planar RGB `[3, size, size]`, 0 to 255: JPEG, PNG, BMP,
/// WebP and GIF, and natively also TIFF, PPM, PGM, PBM, TGA, ICO and QOI.
///
/// The EXIF orientation is applied; gray becomes RGB, 16 bits become 8, and what is transparent is composed over white.
/// Without a [`Preprocessing`] an image of another size is cropped to its center square, which is then resized with a
/// triangle filter. An opaque image of `size` x `size` pixels is not changed.
///
/// # Errors
///
/// [`DecodeError`] for files that are not images, truncated or damaged, and for those over [`MAX_SIDE`],
/// [`MAX_PIXELS`] or [`MAX_MEMORY`], which are refused by their header before memory is allocated. Threads whose
/// pictures together need more than [`MAX_MEMORY`] wait for each other.
pub fn decode_image(bytes: &[u8], input: impl Into<Input>) -> Result<Vec<u8>, DecodeError> {
    let Decoded { pixels, damage } = decode_damaged(bytes, input)?;
    damage.map_or(Ok(pixels), Err)
}

/// As [`decode_image`], but also decodes a file in which part of the image is missing, and says so.
///
/// # Errors
///
/// As [`decode_image`].
pub fn decode_damaged(bytes: &[u8], input: impl Into<Input>) -> Result<Decoded, DecodeError> {
    let Prepared { format, file, damage } = prepare(bytes)?;
    let mut decoder = reader(&file, format).into_decoder()?;
    let (width, height) = decoder.dimensions();
    check_size(width, height)?;
    let output = decoder.total_bytes();
    // The caller's file, and the mended one.
    let files = bytes.len() + if let Cow::Owned(mended) = &file { mended.len() } else { 0 };
    let needed = files as u64 + cost::of(&file, format, [width, height], output);
    let left = MAX_MEMORY.checked_sub(needed).ok_or(DecodeError::TooMuchMemory { width, height, bytes: needed })?;
    // The size of a GIF's frame is not known yet and can exceed the screen's. It takes its colors, and a quarter as
    // much for palette indices.
    let frame = if format == ImageFormat::Gif { left.min(4 * output + (1 << 20)) } else { 0 };
    #[cfg(not(target_family = "wasm"))]
    let _share = budget::Share::take(needed + frame);
    decoder.set_limits(limits(match format {
        ImageFormat::Tiff => cost::tiff_buffers(output),
        _ => frame / 5 * 4,
    }))?;
    // An unreadable EXIF block is not a reason to reject the image.
    let orientation = decoder.orientation().unwrap_or(Orientation::NoTransforms);
    let pixels = planar(&upright(&DynamicImage::from_decoder(decoder)?, orientation, input.into()));
    Ok(Decoded { pixels, damage })
}

/// A file that the decoder gets right.
struct Prepared<'a> {
    format: ImageFormat,
    file: Cow<'a, [u8]>,
    damage: Option<DecodeError>,
}

/// Finds out the format, mends what can be mended, and checks what the decoder would not.
fn prepare(bytes: &[u8]) -> Result<Prepared<'_>, DecodeError> {
    let format = format::of(bytes)?;
    if bytes.len() as u64 > MAX_FILE_BYTES {
        return Err(DecodeError::TooManyBytes { bytes: bytes.len() as u64 });
    }
    let whole = |file| Ok(Prepared { format, file, damage: None });
    match format {
        ImageFormat::Jpeg => prepare_jpeg(bytes),
        ImageFormat::WebP if !cost::webp_is_complete(bytes) => Err(DecodeError::Truncated),
        ImageFormat::Png => whole(png::with_end(bytes)),
        ImageFormat::Ico => {
            let file = ico::largest(bytes).ok_or(DecodeError::Truncated)?;
            let is_png = file.starts_with(b"\x89PNG");
            Ok(Prepared { format: if is_png { ImageFormat::Png } else { format }, file, damage: None })
        }
        _ => whole(Cow::Borrowed(bytes)),
    }
}

fn prepare_jpeg(bytes: &[u8]) -> Result<Prepared<'_>, DecodeError> {
    if cost::jpeg_has_too_many_scans(bytes) {
        return Err(DecodeError::TooManyScans);
    }
    let extent = jpeg::extent(bytes);
    let is_whole = extent.is_some_and(|extent| extent.share >= 1.0);
    let has_end = cost::jpeg_is_complete(bytes);
    // The decoder fills missing parts with gray instead of failing.
    if !has_end && !is_whole {
        return Err(DecodeError::Truncated);
    }
    let mut file = jpeg::without_contradiction(bytes);
    if let Some(extent) = extent.filter(|_| !has_end) {
        // A camera's own data may follow where the end should be.
        let shorter = bytes.len() - file.len();
        file = Cow::Owned([&file[..extent.end - shorter], &[0xFF, 0xD9]].concat());
    }
    let part = extent.filter(|_| !is_whole).map(|extent| (100.0 * extent.share) as u8);
    Ok(Prepared { format: ImageFormat::Jpeg, file, damage: part.map(|percent| DecodeError::Incomplete { percent }) })
}

/// Width and height in pixels of an image file after its EXIF orientation, read from its headers.
///
/// # Errors
///
/// [`DecodeError`] if the headers cannot be read.
pub fn dimensions(bytes: &[u8]) -> Result<[u32; 2], DecodeError> {
    use Orientation::{Rotate90, Rotate90FlipH, Rotate270, Rotate270FlipH};

    let format = format::of(bytes)?;
    let file = if format == ImageFormat::Ico { ico::largest(bytes).unwrap_or_default() } else { Cow::Borrowed(bytes) };
    let format = if file.starts_with(b"\x89PNG") { ImageFormat::Png } else { format };
    let mut decoder = reader(&file, format).into_decoder()?;
    let (width, height) = decoder.dimensions();
    match decoder.orientation() {
        Ok(Rotate90 | Rotate90FlipH | Rotate270 | Rotate270FlipH) => Ok([height, width]),
        _ => Ok([width, height]),
    }
}

fn reader(bytes: &[u8], format: ImageFormat) -> ImageReader<Cursor<&[u8]>> {
    let mut reader = ImageReader::with_format(Cursor::new(bytes), format);
    reader.limits(limits(cost::PNG_CHUNKS));
    reader
}

/// The memory that a decoder may take in addition to the decoded pixels.
fn limits(bytes: u64) -> Limits {
    let mut limits = Limits::no_limits();
    limits.max_alloc = Some(bytes);
    limits
}

/// Converts RGBA pixels `[H, W, 4]` of `[width, height]` to planar RGB `[3, size, size]`, like [`decode_image`]:
/// they are composed over white, then cropped and resized. Alpha is not premultiplied.
///
/// # Errors
///
/// [`DecodeError`], if there are no pixels, too many, or not as many as the sizes say.
pub fn crop_rgba(pixels: &[u8], size_of: [u32; 2], input: impl Into<Input>) -> Result<Vec<u8>, DecodeError> {
    crop::<4>(pixels, size_of, input.into())
}

/// The same of RGB pixels `[H, W, 3]`.
///
/// # Errors
///
/// As [`crop_rgba`].
pub fn crop_rgb(pixels: &[u8], size_of: [u32; 2], input: impl Into<Input>) -> Result<Vec<u8>, DecodeError> {
    crop::<3>(pixels, size_of, input.into())
}

/// Of pixels of `C` channels: red, green, blue, and alpha if there is a fourth.
fn crop<const C: usize>(pixels: &[u8], [width, height]: [u32; 2], input: Input) -> Result<Vec<u8>, DecodeError> {
    check_size(width, height)?;
    let (row_len, rows) = (C * width as usize, height as usize);
    if pixels.len() < row_len * rows {
        return Err(DecodeError::Truncated);
    }
    let fitted = fit([width, height], input, [false, false], |y, left, len, out| {
        let row = &pixels[y as usize * row_len + C * left as usize..][..C * len as usize];
        let alpha = |pixel: &[u8; C]| pixel.get(3).copied().unwrap_or(255);
        let opaque = |pixel: &[u8; C]| over_white([pixel[0], pixel[1], pixel[2]], alpha(pixel));
        out.extend(row.as_chunks::<C>().0.iter().flat_map(opaque));
    });
    Ok(planar(&fitted))
}

/// A pixel in front of white.
fn over_white(pixel: [u8; 3], alpha: u8) -> [u8; 3] {
    let mix = |value: u8| (u32::from(value) * u32::from(alpha) + 255 * u32::from(255 - alpha) + 127) / 255;
    if alpha == 255 { pixel } else { pixel.map(|value| mix(value) as u8) }
}

/// Refuses images with no pixels or with too many.
fn check_size(width: u32, height: u32) -> Result<(), DecodeError> {
    if width.max(height) > MAX_SIDE || u64::from(width) * u64::from(height) > MAX_PIXELS {
        return Err(DecodeError::TooManyPixels { width, height });
    }
    if width == 0 || height == 0 {
        return Err(DecodeError::Corrupt("it has no pixels".into()));
    }
    Ok(())
}

/// Reads a file and decodes it with [`decode_image`].
///
/// # Errors
///
/// As [`decode_image`], and if the path is not a file, cannot be read or is larger than 64 MiB.
#[cfg(not(target_family = "wasm"))]
pub fn decode_image_file(path: &std::path::Path, input: impl Into<Input>) -> Result<Vec<u8>, DecodeError> {
    let Decoded { pixels, damage } = decode_damaged_file(path, input)?;
    damage.map_or(Ok(pixels), Err)
}

/// Reads a file and decodes it with [`decode_damaged`].
///
/// # Errors
///
/// As [`decode_image_file`].
#[cfg(not(target_family = "wasm"))]
pub fn decode_damaged_file(path: &std::path::Path, input: impl Into<Input>) -> Result<Decoded, DecodeError> {
    use std::{
        fs::{self, File},
        io::Read,
        sync::Mutex,
    };

    /// Files over this size are read and decoded one at a time.
    const LARGE: u64 = 4 << 20;
    static LARGE_FILE: Mutex<()> = Mutex::new(());

    let unreadable = |error: io::Error| DecodeError::Unreadable(error.to_string());
    let metadata = fs::metadata(path).map_err(unreadable)?;
    // A pipe may never end, and even opening one may block.
    if !metadata.is_file() {
        return Err(DecodeError::Unreadable("it is not a regular file".into()));
    }
    let length = metadata.len();
    if length > MAX_FILE_BYTES {
        return Err(DecodeError::TooManyBytes { bytes: length });
    }
    let _turn = (length > LARGE).then(|| LARGE_FILE.lock().unwrap_or_else(std::sync::PoisonError::into_inner));
    let mut bytes = Vec::with_capacity(length as usize);
    // The length is not trusted: the file may be growing.
    File::open(path).and_then(|file| file.take(length.max(LARGE) + 1).read_to_end(&mut bytes)).map_err(unreadable)?;
    decode_damaged(&bytes, input)
}

/// An image after its orientation, brought to a network's size.
///
/// It is cropped and resized first and rotated afterwards, because rotating the whole picture would need a copy.
fn upright(image: &DynamicImage, orientation: Orientation, input: Input) -> RgbImage {
    use Orientation::{FlipHorizontal, FlipVertical, Rotate90, Rotate180, Rotate270, Rotate270FlipH};

    let is_reversed = [
        matches!(orientation, Rotate180 | FlipHorizontal | Rotate270 | Rotate270FlipH),
        matches!(orientation, Rotate180 | FlipVertical | Rotate90 | Rotate270FlipH),
    ];
    let fitted = fit([image.width(), image.height()], input, is_reversed, |y, left, len, out| match image {
        DynamicImage::ImageRgb8(image) => {
            let start = 3 * (y as usize * image.width() as usize + left as usize);
            out.extend(&image.as_raw()[start..][..3 * len as usize]);
        }
        image if image.color().has_alpha() => {
            let row = image.crop_imm(left, y, len, 1).into_rgba8();
            out.extend(row.pixels().flat_map(|pixel| over_white([pixel[0], pixel[1], pixel[2]], pixel[3])));
        }
        image => out.append(&mut image.crop_imm(left, y, len, 1).into_rgb8().into_raw()),
    });
    let mut fitted = DynamicImage::from(fitted);
    fitted.apply_orientation(orientation);
    fitted.into_rgb8()
}

/// Crops and resizes pixels of `[width, height]`. `row` appends so many RGB pixels of a row, from a column on, to its
/// buffer: `row(y, left, len, buffer)`. `is_reversed` says which axes (x, y) an orientation turns around afterwards.
fn fit(
    [width, height]: [u32; 2],
    Input { size, preprocessing }: Input,
    is_reversed: [bool; 2],
    mut row: impl FnMut(u32, u32, u32, &mut Vec<u8>),
) -> RgbImage {
    if let Some(preprocessing) = preprocessing {
        return pillow::resize_and_crop([width, height], preprocessing, size as u32, is_reversed, row);
    }
    let side = width.min(height);
    // If the margin is odd, its smaller half comes first in the final orientation.
    let front = |rest: u32, is_reversed: bool| if is_reversed { rest.div_ceil(2) } else { rest / 2 };
    let (left, top) = (front(width - side, is_reversed[0]), front(height - side, is_reversed[1]));
    resize::resize(side, size as u32, |y, out| row(top + y, left, side, out))
}

/// `[H, W, 3]` to `[3, H, W]`.
fn planar(image: &RgbImage) -> Vec<u8> {
    let pixels = image.as_raw();
    (0..3).flat_map(|channel| pixels.iter().skip(channel).step_by(3).copied()).collect()
}

#[cfg(test)]
mod tests;
