//! Which format a file has, by its contents.

use image::ImageFormat;

use super::{DecodeError, MAX_SIDE};

/// Supported file extensions in lowercase; uppercase is accepted too. In a browser, those from `tif` on are left to it.
pub const EXTENSIONS: [&str; 17] = [
    "jpg", "jpeg", "jpe", "jfif", "png", "bmp", "dib", "webp", "gif", "tif", "tiff", "ppm", "pgm", "pbm", "tga", "ico",
    "qoi",
];

/// Extensions of images that are known and not read.
#[cfg(not(target_family = "wasm"))]
pub(crate) const OTHER_EXTENSIONS: [&str; 5] = ["heic", "heif", "avif", "jxl", "jp2"];

/// How many bytes of a file's start [`is_image`] looks at.
pub(crate) const SIGNATURE_BYTES: usize = 32;

/// The first bytes of formats that are not read.
const NOT_READ: [(&[u8], &str); 6] = [
    (b"\x00\x00\x00\x0cJXL \r\n\x87\n", "JPEG XL"),
    (b"\xff\x0a", "JPEG XL"),
    (b"\x00\x00\x00\x0cjP  \r\n\x87\n", "JPEG 2000"),
    (b"\xff\x4f\xff\x51", "JPEG 2000"),
    (b"8BPS", "Photoshop"),
    (b"%PDF", "PDF"),
];

/// The name of a format that is known and not read.
fn not_read(file: &[u8]) -> Option<&'static str> {
    if file.get(4..8) == Some(b"ftyp") {
        // The main brand, a version, and brands that the file is compatible with.
        let brands = file.get(8..SIGNATURE_BYTES.min(file.len()))?.chunks_exact(4);
        for brand in brands {
            match brand {
                b"avif" | b"avis" => return Some("AVIF"),
                b"heic" | b"heix" | b"heim" | b"heis" | b"hevc" | b"hevx" => return Some("HEIC"),
                _ => {}
            }
        }
        return matches!(&file[8..12], b"mif1" | b"msf1").then_some("HEIF");
    }
    NOT_READ.iter().find(|(start, _)| file.starts_with(start)).map(|(_, name)| *name)
}

/// Whether a file's first bytes are those of an image, for files whose names do not say it. Formats with weak signatures,
/// and TIFF, in which cameras keep raw data, need the right ending.
#[cfg(not(target_family = "wasm"))]
pub(crate) fn is_image(start: &[u8]) -> bool {
    // A header of one of the sizes that there are.
    let is_bmp = || matches!(start.get(14..18), Some([12 | 40 | 52 | 56 | 64 | 108 | 124, 0, 0, 0]));
    match image::guess_format(start) {
        Ok(ImageFormat::Jpeg | ImageFormat::Png | ImageFormat::Gif | ImageFormat::WebP | ImageFormat::Qoi) => true,
        Ok(ImageFormat::Bmp) => is_bmp(),
        _ => matches!(not_read(start), Some("AVIF" | "HEIC" | "HEIF" | "JPEG 2000")),
    }
}

/// The format of a file.
pub(super) fn of(file: &[u8]) -> Result<ImageFormat, DecodeError> {
    if let Some(name) = not_read(file) {
        return Err(DecodeError::NotRead(name));
    }
    match image::guess_format(file) {
        Ok(format) => Ok(format),
        Err(_) if is_tga(file) => Ok(ImageFormat::Tga),
        Err(_) => Err(DecodeError::NotAnImage),
    }
}

/// Whether a header could be that of a Targa file, which has no signature.
fn is_tga(file: &[u8]) -> bool {
    let &[_, colors, kind, _, _, _, _, color_bits, _, _, _, _, w0, w1, h0, h1, bits, flags, ..] = file else {
        return false;
    };
    let is_size = |side: [u8; 2]| (1..=MAX_SIDE).contains(&u32::from(u16::from_le_bytes(side)));
    let has_palette = matches!(kind, 1 | 9);
    let is_kind = has_palette || matches!(kind, 2 | 3 | 10 | 11);
    let is_depth = matches!(bits, 8 | 15 | 16 | 24 | 32) && matches!(color_bits, 0 | 15 | 16 | 24 | 32);
    colors == u8::from(has_palette)
        && is_kind
        && is_depth
        && flags & 0xC0 == 0
        && is_size([w0, w1])
        && is_size([h0, h1])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_that_are_not_read_are_named() {
        for (file, name) in [
            (&b"\0\0\0\x24ftypheic\0\0\0\0mif1heic"[..], "HEIC"),
            (b"\0\0\0\x24ftypmif1\0\0\0\0heicmif1", "HEIC"),
            (b"\0\0\0\x24ftypavif\0\0\0\0avifmif1", "AVIF"),
            (b"\0\0\0\x24ftypmif1\0\0\0\0miafMiHB", "HEIF"),
            (b"\xff\x0a\x00\x00", "JPEG XL"),
        ] {
            let error = of(file).unwrap_err();
            assert_eq!(error, DecodeError::NotRead(name));
            assert!(error.to_string().starts_with(&format!("{name} images are not read")), "{error}");
            assert_eq!(error.kind(), "of a format that is not read");
        }
        assert_eq!(of(b"\0\0\0\x24ftypisom\0\0\0\0mp42"), Err(DecodeError::NotAnImage), "a film");
    }

    #[test]
    fn text_and_zeros_do_not_start_like_images() {
        for start in [&b"BMW and other cars in this folder"[..], &[0; 32], b"P5 is a title", b"", b"GIF"] {
            assert!(!is_image(start), "{start:?}");
        }
        assert!(is_image(b"\xff\xd8\xff\xe0\0\x10JFIF") && is_image(b"\0\0\0\x24ftypheic\0\0\0\0"));
    }
}
