//! Mends PNG files that lack their last chunk.

use std::borrow::Cow;

/// The chunk at the end of every PNG.
const END: &[u8] = b"\0\0\0\0IEND\xae\x42\x60\x82";

/// The file with an end. It is missing from files that a program was cut off writing; the pixels may all be there.
pub(super) fn with_end(file: &[u8]) -> Cow<'_, [u8]> {
    let (mut at, mut has_pixels) = (8, false);
    while let Some(&[a, b, c, d, ref kind @ ..]) = file.get(at..at + 8) {
        if kind == b"IEND" {
            return Cow::Borrowed(file);
        }
        has_pixels |= kind == b"IDAT";
        at = at.saturating_add(12 + u32::from_be_bytes([a, b, c, d]) as usize);
    }
    if has_pixels && at <= file.len() { Cow::Owned([&file[..at], END].concat()) } else { Cow::Borrowed(file) }
}
