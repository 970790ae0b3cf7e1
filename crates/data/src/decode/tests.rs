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

const FORMATS: [ImageFormat; 9] = [
    ImageFormat::Jpeg,
    ImageFormat::Png,
    ImageFormat::Bmp,
    ImageFormat::WebP,
    ImageFormat::Gif,
    ImageFormat::Tiff,
    ImageFormat::Pnm,
    ImageFormat::Tga,
    ImageFormat::Qoi,
];

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
                Err(DecodeError::Corrupt(_))
                    if matches!(format, ImageFormat::WebP | ImageFormat::Gif | ImageFormat::Pnm | ImageFormat::Qoi) => {
                }
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
    assert!(matches!(decode_image(b"DDS \x7c\0\0\0\0\0\0\0\0\0\0\0", 32), Err(DecodeError::Unsupported(_))));
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
}

#[test]
fn what_is_transparent_is_white() {
    // Hidden colors, half transparent, opaque.
    for (pixel, expected) in
        [([9, 9, 9, 0], [255; 3]), ([0, 101, 255, 128], [127, 178, 255]), ([1, 2, 3, 255], [1, 2, 3])]
    {
        let image = RgbaImage::from_pixel(4, 4, image::Rgba(pixel));
        let expected = expected.map(|value| [value; 16]).concat();
        for format in [ImageFormat::Png, ImageFormat::WebP, ImageFormat::Tiff] {
            assert_eq!(decode_image(&encode(image.clone(), format), 4).unwrap(), expected, "{format:?}");
        }
        let deep = DynamicImage::from(image.clone()).into_rgba16();
        assert_eq!(decode_image(&encode(deep, ImageFormat::Png), 4).unwrap(), expected);
        assert_eq!(crop_rgba(image.as_raw(), [4, 4], 4).unwrap(), expected);
    }
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

/// The position of a JPEG's first segment of this marker.
fn segment(file: &[u8], marker: u8) -> usize {
    file.windows(2).position(|pair| pair == [0xFF, marker]).unwrap()
}

#[test]
fn jfif_wins_over_an_adobe_segment_that_says_rgb() {
    let photo = RgbImage::from_fn(24, 24, |x, y| Rgb([x as u8 * 10, y as u8 * 10, 200]));
    let plain = encode(photo, ImageFormat::Jpeg);
    assert_eq!(&plain[6..11], b"JFIF\0");
    let adobe = b"\xff\xee\0\x0eAdobe\0\x64\0\0\0\0\0";
    // Behind the marker of the start and the JFIF segment.
    let at = 20;
    let both = [&plain[..at], adobe, &plain[at..]].concat();
    assert_eq!(decode_image(&both, 24).unwrap(), decode_image(&plain, 24).unwrap());
    // Without JFIF it is believed.
    let adobe_alone = [&plain[..2], adobe, &plain[at..]].concat();
    assert_ne!(decode_image(&adobe_alone, 24).unwrap(), decode_image(&plain, 24).unwrap());
}

/// JPEGs of 64 x 48 noisy pixels: in color with and without subsampling, gray, with restart markers and progressive.
fn jpegs() -> Vec<Vec<u8>> {
    use jpeg_encoder::{ColorType, Encoder, SamplingFactor};

    let photo: Vec<u8> = (0..64 * 48 * 3_u32).map(|at| (at.wrapping_mul(2_654_435_761) >> 24) as u8 / 2 + 60).collect();
    let kinds = [
        (ColorType::Rgb, SamplingFactor::F_1_1, false, None),
        (ColorType::Rgb, SamplingFactor::F_2_2, false, None),
        (ColorType::Rgb, SamplingFactor::F_2_1, false, Some(3)),
        (ColorType::Luma, SamplingFactor::F_1_1, false, None),
        (ColorType::Rgb, SamplingFactor::F_2_2, true, None),
        (ColorType::Rgb, SamplingFactor::F_1_1, true, Some(3)),
    ];
    let encode = |(color, sampling, progressive, interval): (_, _, _, Option<u16>)| {
        let mut bytes = vec![];
        let mut encoder = Encoder::new(&mut bytes, 90);
        encoder.set_sampling_factor(sampling);
        encoder.set_progressive(progressive);
        encoder.set_optimized_huffman_tables(interval.is_none());
        if let Some(interval) = interval {
            encoder.set_restart_interval(interval);
        }
        let bytes_a_pixel = if let ColorType::Luma = color { 1 } else { 3 };
        encoder.encode(&photo[..64 * 48 * bytes_a_pixel], 64, 48, color).unwrap();
        bytes
    };
    kinds.into_iter().map(encode).collect()
}

#[test]
fn a_jpeg_with_an_end_marker_behind_half_a_picture_is_damaged() {
    for (kind, whole) in jpegs().into_iter().enumerate() {
        assert_eq!(jpeg::extent(&whole).map(|extent| extent.share), Some(1.0), "kind {kind}");
        let pixels = decode_image(&whole, 16).unwrap();
        assert_eq!(decode_damaged(&whole, 16).unwrap(), Decoded { pixels, damage: None });
        let scan = segment(&whole, 0xDA);
        for share in [0.3, 0.6, 0.9] {
            let cut = scan + ((whole.len() - scan) as f64 * share) as usize;
            // The last scan of a progressive picture may be cut off unnoticed: it has only details.
            if kind >= 4 && share > 0.8 {
                continue;
            }
            let ended = [&whole[..cut], &[0xFF, 0xD9]].concat();
            let Err(DecodeError::Incomplete { percent }) = decode_image(&ended, 16) else {
                panic!("kind {kind}, {share}")
            };
            assert!(
                percent < 100 && (kind >= 4 || f64::from(percent) > 100.0 * share - 20.0),
                "kind {kind}, {share}: {percent} %"
            );
            let found = decode_damaged(&ended, 16).unwrap();
            assert_eq!(found.damage, Some(DecodeError::Incomplete { percent }));
            assert_eq!(decode_image(&whole[..cut], 16), Err(DecodeError::Truncated), "without an end");
        }
    }
}

#[test]
fn a_jpeg_without_an_end_marker_is_read_if_the_whole_picture_is_there() {
    for whole in &jpegs()[..4] {
        let open = &whole[..whole.len() - 2];
        let trailer = [open, b"mp4 and other things of a phone SEFT"].concat();
        for file in [open, &trailer] {
            assert_eq!(decode_image(file, 16).unwrap(), decode_image(whole, 16).unwrap());
        }
    }
}

#[test]
fn a_png_without_its_last_chunk_is_read() {
    let photo = RgbImage::from_fn(24, 24, |x, y| Rgb([x as u8 * 10, y as u8 * 10, 200]));
    let whole = encode(photo, ImageFormat::Png);
    assert_eq!(decode_image(&whole[..whole.len() - 12], 24).unwrap(), decode_image(&whole, 24).unwrap());
    assert_eq!(
        decode_image(&whole[..whole.len() - 13], 24),
        Err(DecodeError::Truncated),
        "the pixels' checksum is cut"
    );
}

#[test]
fn the_largest_picture_of_an_icon_is_read() {
    // Two pictures, one of them a PNG without alpha, which icons should not have.
    let small = encode(DynamicImage::from(halves(16, 16)).into_rgba8(), ImageFormat::Ico);
    assert_eq!(decode_image(&small, 16).unwrap()[0], 255);
    let large = encode(halves(64, 64), ImageFormat::Png);
    let mut icon = b"\0\0\x01\0\x02\0".to_vec();
    let entry = |side: u8, length: usize, at: usize| {
        [&[side, side, 0, 0, 1, 0, 32, 0][..], &(length as u32).to_le_bytes(), &(at as u32).to_le_bytes()].concat()
    };
    let inner = &small[22..];
    icon.extend(entry(16, inner.len(), 38));
    icon.extend(entry(64, large.len(), 38 + inner.len()));
    icon.extend([inner, &large].concat());
    assert_eq!(decode_image(&icon, 64).unwrap(), decode_image(&large, 64).unwrap());
    assert_eq!(dimensions(&icon).unwrap(), [64, 64]);
    assert_eq!(decode_image(&icon[..icon.len() - 1], 64), Err(DecodeError::Truncated));
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
