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
                // These decoders cannot always tell truncation from damage.
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
    // 96 x 32: the outer thirds are red and blue; only the middle one remains.
    let wide = RgbImage::from_fn(96, 32, |x, _| match x {
        0..32 => Rgb([255, 0, 0]),
        32..64 => Rgb([0, 255, 0]),
        _ => Rgb([0, 0, 255]),
    });
    let green = [vec![0; 256], vec![255; 256], vec![0; 256]].concat();
    assert_eq!(decode_image(&encode(wide, ImageFormat::Png), 16).unwrap(), green);
    // Enlarged from one pixel, and cropped from the longest strip that is allowed.
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
    // 6: rotate by 90 degrees.
    let pixels = decode_image(&oriented(&halves(32, 32), 6), 32).unwrap();
    // Red was on the left, and is on top after a clockwise rotation.
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
            // Rows are summed before columns, also if the orientation swaps them.
            assert!(found.iter().zip(&small).all(|(found, small)| found.abs_diff(*small) <= 1), "{orientation}");
        }
    }
}

#[test]
fn pictures_that_would_take_too_much_memory_are_refused_by_their_kind() {
    // Gray takes one byte per pixel, and RGBA with 16 bits takes eight.
    let png = |color: u8, bits: u8| {
        let mut header = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\x1f\x40\0\0\x17\x70".to_vec();
        header.extend([bits, color, 0, 0, 0]);
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
    // The last byte is padding.
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
        assert_eq!(error, DecodeError::Unreadable("it is not a regular file".into()));
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

#[test]
fn resize_and_center_crop_follow_the_orientation() {
    let preprocessing = Preprocessing { resize: 20, interpolation: Interpolation::Bilinear };
    let input = Input { size: 16, preprocessing: Some(preprocessing) };
    let photo = RgbImage::from_fn(61, 40, |x, y| Rgb([x as u8 * 4, y as u8 * 6, (x + y) as u8]));
    for orientation in 1..=8 {
        let file = oriented(&photo, orientation);
        let mut whole = image::load_from_memory(&file).unwrap();
        whole.apply_orientation(Orientation::from_exif(orientation).unwrap());
        let expected = decode_image(&encode(whole, ImageFormat::Png), input).unwrap();
        let found = decode_image(&file, input).unwrap();
        // Columns are summed before rows, also if the orientation swaps them.
        let most = found.iter().zip(&expected).map(|(a, b)| a.abs_diff(*b)).max();
        assert!(found.len() == expected.len() && most <= Some(1), "orientation {orientation}: off by {most:?}");
    }
    let file = encode(photo.clone(), ImageFormat::Png);
    assert_eq!(crop_rgb(photo.as_raw(), [61, 40], input).unwrap(), decode_image(&file, input).unwrap());
    assert_ne!(decode_image(&file, input).unwrap(), decode_image(&file, 16).unwrap(), "the center square shows more");
}
