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
pub fn crop_rgba(pixels: &[u8], size_of: [u32; 2], size: usize) -> Result<Vec<u8>, DecodeError> {
    crop::<4>(pixels, size_of, size)
}

/// The same of RGB pixels `[H, W, 3]`.
///
/// # Errors
///
/// As [`crop_rgba`].
pub fn crop_rgb(pixels: &[u8], size_of: [u32; 2], size: usize) -> Result<Vec<u8>, DecodeError> {
    crop::<3>(pixels, size_of, size)
}

/// Of pixels of `C` channels, of which the first three are red, green and blue.
fn crop<const C: usize>(pixels: &[u8], [width, height]: [u32; 2], size: usize) -> Result<Vec<u8>, DecodeError> {
    check_size(width, height)?;
    let (row_len, rows) = (C * width as usize, height as usize);
    if pixels.len() < row_len * rows {
        return Err(DecodeError::Truncated);
    }
    let side = width.min(height);
    let [left, top] = [width - side, height - side].map(|rest| (rest / 2) as usize);
    let square = resize::resize(side, size as u32, |y, out| {
        let row = &pixels[(top + y as usize) * row_len + C * left..][..C * side as usize];
        out.extend(row.as_chunks::<C>().0.iter().flat_map(|pixel| [pixel[0], pixel[1], pixel[2]]));
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
mod tests {
    use image::{GrayImage, ImageEncoder, Rgb, RgbImage, RgbaImage};

    use super::*;

    /// Red left half, blue right half.
    fn halves(width: u32, height: u32) -> RgbImage {
        RgbImage::from_fn(width, height, |x, _| if x < width / 2 { Rgb([255, 0, 0]) } else { Rgb([0, 0, 255]) })
    }

    fn encode(image: impl Into<DynamicImage>, format: ImageFormat) -> Vec<u8> {
        let mut bytes = Cursor::new(Vec::new());
        image.into().write_to(&mut bytes, format).unwrap();
        bytes.into_inner()
    }

    const FORMATS: [ImageFormat; 5] =
        [ImageFormat::Jpeg, ImageFormat::Png, ImageFormat::Bmp, ImageFormat::WebP, ImageFormat::Gif];

    #[test]
    fn pixels_are_treated_as_a_files() {
        let photo = RgbImage::from_fn(40, 24, |x, y| Rgb([x as u8 * 6, y as u8 * 10, (x * y) as u8]));
        let rgba = DynamicImage::from(photo.clone()).into_rgba8();
        let file = encode(photo, ImageFormat::Png);
        assert_eq!(crop_rgba(rgba.as_raw(), [40, 24], 16).unwrap(), decode_image(&file, 16).unwrap());
        assert_eq!(crop_rgba(&[0; 7], [1, 2], 16), Err(DecodeError::Truncated));
        assert!(matches!(crop_rgba(&[], [0, 2], 16), Err(DecodeError::Corrupt(_))));
    }

    #[test]
    fn every_format_gives_planar_rgb() {
        for format in FORMATS {
            let pixels = decode_image(&encode(halves(32, 32), format), 32).unwrap();
            assert_eq!(pixels.len(), 3 * 32 * 32);
            // Top left is red, top right blue; JPEG is not exact.
            let (red, blue) = (&pixels[..1024], &pixels[2048..]);
            assert!(red[0] > 200 && red[31] < 50, "{format:?}");
            assert!(blue[0] < 50 && blue[31] > 200, "{format:?}");
        }
    }

    #[test]
    fn a_file_that_ends_early_is_refused_in_every_format() {
        let noisy = RgbImage::from_fn(32, 32, |x, y| Rgb([x, y, x * y].map(|v| (v * 41) as u8)));
        for format in FORMATS {
            let bytes = encode(noisy.clone(), format);
            for keep in [24, bytes.len() / 2, bytes.len() * 9 / 10] {
                match decode_image(&bytes[..keep], 32) {
                    Err(DecodeError::Truncated) => {}
                    // These decoders don't always tell an early end from damage.
                    Err(DecodeError::Corrupt(_)) if matches!(format, ImageFormat::WebP | ImageFormat::Gif) => {}
                    other => panic!("{format:?} cut at {keep}: {other:?}"),
                }
            }
        }
    }

    #[test]
    fn a_jpeg_with_a_complete_thumbnail_and_half_a_picture_is_truncated() {
        let bytes = encode(halves(32, 32), ImageFormat::Jpeg);
        // An APP1 segment with an end-of-image marker in it.
        let segment = [&[0xFF, 0xE1, 0, 6][..], &[0xFF, 0xD8, 0xFF, 0xD9]].concat();
        let mut whole = [&bytes[..2], &segment, &bytes[2..]].concat();
        assert!(decode_image(&whole, 32).is_ok());
        whole.truncate(whole.len() - 10);
        assert_eq!(decode_image(&whole, 32), Err(DecodeError::Truncated));
    }

    #[test]
    fn what_is_no_image_is_said_to_be_none() {
        for bytes in [&b""[..], b"hello, I am a text file", &[0; 100]] {
            assert_eq!(decode_image(bytes, 32), Err(DecodeError::NotAnImage));
        }
        let tiff = b"II*\0\x08\0\0\0\0\0\0\0\0\0\0\0";
        assert!(matches!(decode_image(tiff, 32), Err(DecodeError::Unsupported(_))));
    }

    #[test]
    fn a_header_that_announces_too_many_pixels_is_refused() {
        // Only a header: the pixels would take 10 GB.
        for (width, height) in [(60_000u32, 60_000u32), (16_385, 1), (16_000, 16_000)] {
            let mut header = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR".to_vec();
            header.extend(width.to_be_bytes());
            header.extend(height.to_be_bytes());
            header.extend([8, 2, 0, 0, 0]);
            let checksum = crc32(&header[12..]);
            header.extend(checksum.to_be_bytes());
            header.extend(b"\0\0\0\0IDAT\x35\xaf\x06\x1e\0\0\0\0IEND\xae\x42\x60\x82");
            let error = decode_image(&header, 32).unwrap_err();
            assert_eq!(error, DecodeError::TooManyPixels { width, height });
        }
    }

    /// The checksum of a PNG chunk.
    fn crc32(bytes: &[u8]) -> u32 {
        !bytes
            .iter()
            .fold(!0, |crc, &byte| (0..8).fold(crc ^ u32::from(byte), |crc, _| (crc >> 1) ^ (0xEDB8_8320 * (crc & 1))))
    }

    #[test]
    fn an_image_of_another_size_is_cut_to_its_middle_and_resized() {
        // 96 x 32: the outer thirds are red and blue, the middle one is what stays.
        let wide = RgbImage::from_fn(96, 32, |x, _| match x {
            0..32 => Rgb([255, 0, 0]),
            32..64 => Rgb([0, 255, 0]),
            _ => Rgb([0, 0, 255]),
        });
        let green = [vec![0; 256], vec![255; 256], vec![0; 256]].concat();
        assert_eq!(decode_image(&encode(wide, ImageFormat::Png), 16).unwrap(), green);
        // From one pixel up, and from a strip as thin as is allowed.
        for format in FORMATS {
            let one = encode(halves(1, 1), format);
            assert_eq!(decode_image(&one, 8).unwrap().len(), 3 * 64, "{format:?}");
        }
        let strip = encode(halves(MAX_SIDE, 1), ImageFormat::Png);
        assert_eq!(decode_image(&strip, MAX_IMAGE_SIZE).unwrap().len(), 3 << 20);
    }

    #[test]
    fn an_image_of_the_right_size_is_not_touched() {
        let image = RgbImage::from_fn(32, 32, |x, y| Rgb([x as u8, y as u8, (x ^ y) as u8]));
        let pixels = decode_image(&encode(image.clone(), ImageFormat::Png), 32).unwrap();
        for (x, y, pixel) in image.enumerate_pixels() {
            let at = (y * 32 + x) as usize;
            assert_eq!([pixels[at], pixels[1024 + at], pixels[2048 + at]], pixel.0);
        }
    }

    #[test]
    fn grey_alpha_and_sixteen_bits_become_rgb8() {
        let grey = DynamicImage::from(GrayImage::from_pixel(4, 4, image::Luma([77])));
        let pixels = decode_image(&encode(grey.clone(), ImageFormat::Png), 4).unwrap();
        assert_eq!(pixels, vec![77; 48]);
        let deep = DynamicImage::from(grey.to_luma16());
        assert_eq!(decode_image(&encode(deep, ImageFormat::Png), 4).unwrap(), vec![77; 48]);
        let clear = RgbaImage::from_pixel(4, 4, image::Rgba([9, 9, 9, 0]));
        assert_eq!(decode_image(&encode(clear, ImageFormat::Png), 4).unwrap(), vec![9; 48]);
    }

    #[test]
    fn the_exif_orientation_is_applied() {
        // 6: turn by 90 degrees.
        let pixels = decode_image(&oriented(&halves(32, 32), 6), 32).unwrap();
        // Red was left, and is on top after a turn clockwise.
        let (top, bottom) = (pixels[16], pixels[31 * 32 + 16]);
        assert!(top > 200 && bottom < 50, "red is {top} on top, {bottom} below");
    }
    /// A JPEG with an EXIF block of that orientation. TIFF header, one entry: orientation (0x0112), short, 1 value.
    fn oriented(image: &RgbImage, orientation: u8) -> Vec<u8> {
        let mut exif = b"II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x00\0\0\0\0\0\0\0".to_vec();
        exif[18] = orientation;
        let mut bytes = Vec::new();
        let mut encoder = image::codecs::jpeg::JpegEncoder::new_with_quality(&mut bytes, 100);
        encoder.set_exif_metadata(exif).unwrap();
        encoder.write_image(image.as_raw(), image.width(), image.height(), image::ExtendedColorType::Rgb8).unwrap();
        bytes
    }

    #[test]
    fn every_orientation_is_that_of_the_whole_image_turned() {
        for (width, height) in [(41, 24), (24, 41)] {
            let photo = RgbImage::from_fn(width, height, |x, y| Rgb([x as u8 * 6, y as u8 * 6, (x ^ y) as u8 * 4]));
            for orientation in 1..=8 {
                let file = oriented(&photo, orientation);
                let mut whole = image::load_from_memory(&file).unwrap();
                whole.apply_orientation(Orientation::from_exif(orientation).unwrap());
                let (left, top) = ((whole.width() - 24) / 2, (whole.height() - 24) / 2);
                let cut = whole.crop_imm(left, top, 24, 24).into_rgb8();
                assert_eq!(decode_image(&file, 24).unwrap(), planar(&cut), "orientation {orientation}");
                let small = planar(&image::imageops::resize(&cut, 9, 9, image::imageops::FilterType::Triangle));
                let found = decode_image(&file, 9).unwrap();
                assert_eq!(dimensions(&file).unwrap(), [whole.width(), whole.height()]);
                // Rows are summed up before columns, whichever they become.
                assert!(found.iter().zip(&small).all(|(found, small)| found.abs_diff(*small) <= 1), "{orientation}");
            }
        }
    }

    #[test]
    fn pictures_that_would_take_too_much_memory_are_refused_by_their_kind() {
        // Grey takes a byte a pixel, and 16 bits of RGBA take eight.
        let png = |colour: u8, bits: u8| {
            let mut header = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\x1f\x40\0\0\x17\x70".to_vec();
            header.extend([bits, colour, 0, 0, 0]);
            let checksum = crc32(&header[12..]);
            header.extend(checksum.to_be_bytes());
            header.extend(b"\0\0\0\0IDAT\x35\xaf\x06\x1e\0\0\0\0IEND\xae\x42\x60\x82");
            decode_image(&header, 32).unwrap_err()
        };
        assert!(!matches!(png(0, 8), DecodeError::TooMuchMemory { .. }));
        assert!(!matches!(png(2, 8), DecodeError::TooMuchMemory { .. }), "48 megapixels of RGB");
        for kind in [(6, 8), (6, 16), (2, 16)] {
            let error = png(kind.0, kind.1);
            assert!(matches!(error, DecodeError::TooMuchMemory { width: 8000, height: 6000, .. }), "{error:?}");
            assert!(error.to_string().contains("the limit is 176 MiB"), "{error}");
        }
    }

    #[test]
    fn a_webp_whose_chunks_are_cut_off_is_truncated() {
        let whole = encode(halves(16, 16), ImageFormat::WebP);
        assert!(decode_image(&whole, 16).is_ok());
        // The last byte is one of padding.
        for len in 12..whole.len() - 1 {
            assert_eq!(decode_image(&whole[..len], 16), Err(DecodeError::Truncated), "{len} of {}", whole.len());
        }
    }

    #[test]
    fn a_jpeg_with_thousands_of_scans_is_refused() {
        let mut bytes = encode(halves(16, 16), ImageFormat::Jpeg);
        bytes.truncate(bytes.len() - 2);
        bytes.extend([0xFF, 0xDA].repeat(501));
        bytes.extend([0xFF, 0xD9]);
        assert_eq!(decode_image(&bytes, 16), Err(DecodeError::TooManyScans));
    }

    #[cfg(unix)]
    #[test]
    fn what_is_no_regular_file_is_not_opened() {
        use std::path::Path;

        for path in ["/dev/zero", "/"] {
            let error = decode_image_file(Path::new(path), 8).unwrap_err();
            assert_eq!(error, DecodeError::Unreadable("it is no regular file".into()));
        }
    }

    #[test]
    fn threads_that_decode_large_pictures_wait_for_each_other_and_get_done() {
        let picture = encode(halves(4000, 2600), ImageFormat::Jpeg);
        std::thread::scope(|scope| {
            let decode = || decode_image(&picture, 16).unwrap();
            let threads: Vec<_> = (0..12).map(|_| scope.spawn(decode)).collect();
            let results: Vec<_> = threads.into_iter().map(|thread| thread.join().unwrap()).collect();
            assert!(results.iter().all(|pixels| *pixels == results[0]));
        });
    }
}
