//! Decodes an image file of any supported format and size to planar RGB of a given size.

#[cfg(not(target_family = "wasm"))]
mod budget;
mod cost;
mod error;
mod fit;
mod format;
mod ico;
mod input;
mod jpeg;
mod pillow;
mod png;
mod resize;

use std::{borrow::Cow, io::Cursor};

pub use format::EXTENSIONS;
#[cfg(not(target_family = "wasm"))]
pub(crate) use format::{OTHER_EXTENSIONS, SIGNATURE_BYTES, is_image};
use image::{DynamicImage, ImageDecoder, ImageFormat, ImageReader, Limits, metadata::Orientation};

pub use error::DecodeError;
use fit::{Turn, fit, over_white, planar, upright};
pub(crate) use fit::{View, crop_planar};
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
    decode_view(bytes, View { input: input.into(), crop: None }, false)
}

/// Decodes an image file. One that `is_known` to have all of its pixels is not searched for damage again.
pub(crate) fn decode_view(bytes: &[u8], view: View, is_known: bool) -> Result<Decoded, DecodeError> {
    let Prepared { format, file, damage } = prepare(bytes, is_known)?;
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
    let pixels = planar(&upright(&DynamicImage::from_decoder(decoder)?, orientation, view));
    Ok(Decoded { pixels, damage })
}

/// A file that the decoder gets right.
struct Prepared<'a> {
    format: ImageFormat,
    file: Cow<'a, [u8]>,
    damage: Option<DecodeError>,
}

/// Finds out the format, mends what can be mended, and checks what the decoder would not.
fn prepare(bytes: &[u8], is_known: bool) -> Result<Prepared<'_>, DecodeError> {
    let format = format::of(bytes)?;
    if bytes.len() as u64 > MAX_FILE_BYTES {
        return Err(DecodeError::TooManyBytes { bytes: bytes.len() as u64 });
    }
    let whole = |file| Ok(Prepared { format, file, damage: None });
    match format {
        ImageFormat::Jpeg => prepare_jpeg(bytes, is_known),
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

fn prepare_jpeg(bytes: &[u8], is_known: bool) -> Result<Prepared<'_>, DecodeError> {
    if cost::jpeg_has_too_many_scans(bytes) {
        return Err(DecodeError::TooManyScans);
    }
    let has_end = cost::jpeg_is_complete(bytes);
    if is_known && has_end {
        let file = jpeg::without_contradiction(bytes);
        return Ok(Prepared { format: ImageFormat::Jpeg, file, damage: None });
    }
    let extent = jpeg::extent(bytes);
    let is_whole = extent.is_some_and(|extent| extent.share >= 1.0);
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
    let view = View { input, crop: None };
    let fitted = fit([width, height], view, Turn::default(), |y, left, len, out| {
        let row = &pixels[y as usize * row_len + C * left as usize..][..C * len as usize];
        let alpha = |pixel: &[u8; C]| pixel.get(3).copied().unwrap_or(255);
        let opaque = |pixel: &[u8; C]| over_white([pixel[0], pixel[1], pixel[2]], alpha(pixel));
        out.extend(row.as_chunks::<C>().0.iter().flat_map(opaque));
    });
    Ok(planar(&fitted))
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
    let input = input.into();
    with_file(path, |bytes| decode_damaged(bytes, input))
}

/// Reads a file and does something with its contents, of large files one at a time.
///
/// # Errors
///
/// [`DecodeError`] if the path is not a file, cannot be read or is larger than 64 MiB.
#[cfg(not(target_family = "wasm"))]
pub(crate) fn with_file<T>(
    path: &std::path::Path,
    work: impl FnOnce(&[u8]) -> Result<T, DecodeError>,
) -> Result<T, DecodeError> {
    use std::{
        fs::{self, File},
        io::{self, Read},
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
    work(&bytes)
}

#[cfg(test)]
mod tests;
