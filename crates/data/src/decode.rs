//! One image file, whatever its format and size, into planar RGB of the size asked for.

#[cfg(not(target_family = "wasm"))]
mod budget;
mod cost;
mod resize;

use std::{
    error::Error,
    io::{self, Cursor},
};

use image::{
    DynamicImage, ImageDecoder, ImageError, ImageFormat, ImageReader, Limits, RgbImage, metadata::Orientation,
};

/// Endings of image files that are read, in lower case; upper case is read as well.
pub const EXTENSIONS: [&str; 6] = ["jpg", "jpeg", "png", "bmp", "webp", "gif"];

/// Most pixels a side of an image that is decoded.
pub const MAX_SIDE: u32 = 16_384;

/// Most pixels of an image that is decoded: 64 megapixels.
pub const MAX_PIXELS: u64 = 64 << 20;

/// Most memory that decoding takes, the file itself and all threads together: 176 MiB. A JPEG of 48
/// megapixels and 15 MB, as phones write it, takes just that; a progressive one may have half as many pixels.
pub const MAX_MEMORY: u64 = 176 << 20;

/// Largest image file that is read: 64 MiB.
pub(crate) const MAX_FILE_BYTES: u64 = 64 << 20;

/// Largest size, in pixels a side, to which images are brought.
pub(crate) const MAX_IMAGE_SIZE: usize = 1024;

/// Why a file could not be decoded.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The contents are those of no image format.
    #[error("not an image of a known format")]
    NotAnImage,
    /// An image format that is not read.
    #[error("{0} images are not read: convert it to PNG or JPEG")]
    Unsupported(String),
    /// The file ends in the middle of the image.
    #[error("the file ends before the image does")]
    Truncated,
    /// The header announces more pixels than are decoded.
    #[error(
        "{width} x {height} pixels are more than the limit of {MAX_SIDE} a side and {} megapixels",
        MAX_PIXELS >> 20
    )]
    TooManyPixels {
        /// Width in pixels.
        width: u32,
        /// Height in pixels.
        height: u32,
    },
    /// Decoding the file would take more memory than is given to it.
    #[error(
        "{width} x {height} pixels of this kind may take {} MiB to decode, and the limit is {} MiB: make the picture \
         smaller, or save it as JPEG",
        bytes.div_ceil(1 << 20), MAX_MEMORY >> 20
    )]
    TooMuchMemory {
        /// Width in pixels.
        width: u32,
        /// Height in pixels.
        height: u32,
        /// What it may take.
        bytes: u64,
    },
    /// A frame or a profile within the file would take more memory than is given to it.
    #[error("something in it would take more memory than a picture is given: save it anew, without its metadata")]
    OverLimit,
    /// A progressive JPEG made to take long.
    #[error("damaged: it has more scans than any program writes")]
    TooManyScans,
    /// The file is larger than what is read.
    #[error("{bytes} bytes are more than the limit of {} MiB a file", MAX_FILE_BYTES >> 20)]
    TooManyBytes {
        /// Size of the file.
        bytes: u64,
    },
    /// The contents contradict themselves.
    #[error("damaged: {0}")]
    Corrupt(String),
    /// The file could not be opened or read.
    #[error("cannot be read: {0}")]
    Unreadable(String),
}

impl DecodeError {
    /// What a file of this error is, to count by: `2 not images`, `1 truncated`.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::NotAnImage => "not images",
            Self::Unsupported(_) => "of a format that is not read",
            Self::Truncated => "truncated",
            Self::TooManyPixels { .. } | Self::TooMuchMemory { .. } | Self::OverLimit | Self::TooManyBytes { .. } => {
                "too large"
            }
            Self::Corrupt(_) | Self::TooManyScans => "damaged",
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

/// Whether an error, or one that led to it, is that of a file that is too short.
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

/// Decodes a JPEG, PNG, BMP, WebP or GIF file (its first frame) into planar RGB
/// `[3, size, size]`, 0 to 255.
///
/// The EXIF orientation is applied; grey becomes RGB, 16 bits become 8, and an alpha channel is
/// dropped, as PIL's `convert("RGB")` does. An image of another size has its middle square cut out,
/// which is then resized with a triangle filter. An image of `size` x `size` pixels is not touched.
///
/// # Errors
///
/// [`DecodeError`], for files that are no images, are cut off or damaged, and for those over
/// [`MAX_SIDE`], [`MAX_PIXELS`] or [`MAX_MEMORY`]: these are refused by their header, before memory is
/// taken. Threads whose pictures together take more than that wait for each other.
pub fn decode_image(bytes: &[u8], size: usize) -> Result<Vec<u8>, DecodeError> {
    let reader = reader(bytes)?;
    let format = reader.format().ok_or(DecodeError::NotAnImage)?;
    match format {
        // The decoder pads what is missing with grey instead of failing.
        ImageFormat::Jpeg if !cost::jpeg_is_complete(bytes) => return Err(DecodeError::Truncated),
        ImageFormat::Jpeg if cost::jpeg_has_too_many_scans(bytes) => return Err(DecodeError::TooManyScans),
        ImageFormat::WebP if !cost::webp_is_complete(bytes) => return Err(DecodeError::Truncated),
        _ => {}
    }

    let mut decoder = reader.into_decoder()?;
    let (width, height) = decoder.dimensions();
    check_size(width, height)?;
    let output = decoder.total_bytes();
    let needed = bytes.len() as u64 + cost::of(bytes, format, [width, height], output);
    let left = MAX_MEMORY.checked_sub(needed).ok_or(DecodeError::TooMuchMemory { width, height, bytes: needed })?;
    // A GIF's frame is not announced yet, and may be larger than its screen: colours, and a quarter as much for indices.
    let frame = if format == ImageFormat::Gif { left.min(4 * output + (1 << 20)) } else { 0 };
    #[cfg(not(target_family = "wasm"))]
    let _share = budget::Share::take(needed + frame);
    decoder.set_limits(limits(frame / 5 * 4))?;
    // An unreadable EXIF block is no reason to lose the image.
    let orientation = decoder.orientation().unwrap_or(Orientation::NoTransforms);
    Ok(planar(&square(&DynamicImage::from_decoder(decoder)?, orientation, size)))
}

/// Width and height of an image file in pixels after its orientation, by its headers.
///
/// # Errors
///
/// [`DecodeError`], if these cannot be read.
pub fn dimensions(bytes: &[u8]) -> Result<[u32; 2], DecodeError> {
    use Orientation::{Rotate90, Rotate90FlipH, Rotate270, Rotate270FlipH};

    let mut decoder = reader(bytes)?.into_decoder()?;
    let (width, height) = decoder.dimensions();
    match decoder.orientation() {
        Ok(Rotate90 | Rotate90FlipH | Rotate270 | Rotate270FlipH) => Ok([height, width]),
        _ => Ok([width, height]),
    }
}

/// Knows the format by the contents.
fn reader(bytes: &[u8]) -> Result<ImageReader<Cursor<&[u8]>>, DecodeError> {
    let reader = ImageReader::new(Cursor::new(bytes));
    let mut reader = reader.with_guessed_format().map_err(|error| DecodeError::Unreadable(error.to_string()))?;
    reader.limits(limits(cost::PNG_CHUNKS));
    Ok(reader)
}

/// What a decoder may take beside the decoded pixels.
fn limits(bytes: u64) -> Limits {
    let mut limits = Limits::no_limits();
    limits.max_alloc = Some(bytes);
    limits
}

/// Brings RGBA pixels `[H, W, 4]` of `[width, height]` to planar RGB `[3, size, size]`, as
/// [`decode_image`] does with a file's: alpha is dropped, the middle square cut out and resized.
///
/// # Errors
///
/// [`DecodeError`], if there are no pixels, too many, or not as many as the sizes say.
pub fn crop_rgba(pixels: &[u8], [width, height]: [u32; 2], size: usize) -> Result<Vec<u8>, DecodeError> {
    check_size(width, height)?;
    let (row_len, rows) = (4 * width as usize, height as usize);
    if pixels.len() < row_len * rows {
        return Err(DecodeError::Truncated);
    }
    let side = width.min(height);
    let [left, top] = [width - side, height - side].map(|rest| (rest / 2) as usize);
    let square = resize::resize(side, size as u32, |y, out| {
        let row = &pixels[(top + y as usize) * row_len + 4 * left..][..4 * side as usize];
        out.extend(row.as_chunks::<4>().0.iter().flat_map(|[r, g, b, _]| [r, g, b]));
    });
    Ok(planar(&square))
}

/// Refuses images of no pixels and of too many.
fn check_size(width: u32, height: u32) -> Result<(), DecodeError> {
    if width.max(height) > MAX_SIDE || u64::from(width) * u64::from(height) > MAX_PIXELS {
        return Err(DecodeError::TooManyPixels { width, height });
    }
    if width == 0 || height == 0 {
        return Err(DecodeError::Corrupt("it has no pixels".into()));
    }
    Ok(())
}

/// [`decode_image`] of a file.
///
/// # Errors
///
/// As [`decode_image`], and if the path is no file, can't be read or is larger than 64 MiB.
#[cfg(not(target_family = "wasm"))]
pub fn decode_image_file(path: &std::path::Path, size: usize) -> Result<Vec<u8>, DecodeError> {
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
    // A pipe may never end, and opening one may already wait.
    if !metadata.is_file() {
        return Err(DecodeError::Unreadable("it is no regular file".into()));
    }
    let length = metadata.len();
    if length > MAX_FILE_BYTES {
        return Err(DecodeError::TooManyBytes { bytes: length });
    }
    let _turn = (length > LARGE).then(|| LARGE_FILE.lock().unwrap_or_else(std::sync::PoisonError::into_inner));
    let mut bytes = Vec::with_capacity(length as usize);
    // Not trusting the length: a growing file has more than it said.
    File::open(path).and_then(|file| file.take(length.max(LARGE) + 1).read_to_end(&mut bytes)).map_err(unreadable)?;
    decode_image(&bytes, size)
}

/// The middle square of an image after its orientation, `size` pixels a side.
///
/// Cut and resized first and turned afterwards: a whole picture of another orientation would be a second one.
fn square(image: &DynamicImage, orientation: Orientation, size: usize) -> RgbImage {
    use Orientation::{FlipHorizontal, FlipVertical, Rotate90, Rotate180, Rotate270, Rotate270FlipH};

    let side = image.width().min(image.height());
    // Of an odd rest, the smaller half stays in front of the square as it will be seen.
    let front = |rest: u32, is_reversed: bool| if is_reversed { rest.div_ceil(2) } else { rest / 2 };
    let turns_x = matches!(orientation, Rotate180 | FlipHorizontal | Rotate270 | Rotate270FlipH);
    let turns_y = matches!(orientation, Rotate180 | FlipVertical | Rotate90 | Rotate270FlipH);
    let (left, top) = (front(image.width() - side, turns_x), front(image.height() - side, turns_y));
    let square = resize::resize(side, size as u32, |y, out| match image {
        DynamicImage::ImageRgb8(image) => {
            let start = 3 * ((top + y) as usize * image.width() as usize + left as usize);
            out.extend(&image.as_raw()[start..][..3 * side as usize]);
        }
        image => out.append(&mut image.crop_imm(left, top + y, side, 1).into_rgb8().into_raw()),
    });
    let mut square = DynamicImage::from(square);
    square.apply_orientation(orientation);
    square.into_rgb8()
}

/// `[H, W, 3]` to `[3, H, W]`.
fn planar(image: &RgbImage) -> Vec<u8> {
    let pixels = image.as_raw();
    (0..3).flat_map(|channel| pixels.iter().skip(channel).step_by(3).copied()).collect()
}

#[cfg(test)]
mod tests;
