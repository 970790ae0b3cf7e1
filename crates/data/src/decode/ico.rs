//! Takes the largest picture out of an icon file.

use std::borrow::Cow;

/// Bytes of the header, and of an entry in the directory behind it.
const HEADER: usize = 6;
const ENTRY: usize = 16;

/// The largest picture of an icon, of those the one with the most colors: a PNG's file, or an icon of it alone. Thus the decoder
/// is given PNG files only in the way in which memory is limited. `None` if there is no picture.
pub(super) fn largest(file: &[u8]) -> Option<Cow<'_, [u8]>> {
    let count = usize::from(u16::from_le_bytes([*file.get(4)?, *file.get(5)?]));
    let entries = file.get(HEADER..)?.chunks_exact(ENTRY).take(count);
    // A side of 256 pixels is written as 0.
    let side = |side: u8| if side == 0 { 256 } else { u32::from(side) };
    let best =
        entries.max_by_key(|entry| (side(entry[0]) * side(entry[1]), u16::from_le_bytes([entry[6], entry[7]])))?;
    let number = |at: usize| u32::from_le_bytes([best[at], best[at + 1], best[at + 2], best[at + 3]]) as usize;
    let (length, start) = (number(8), number(12));
    let picture = file.get(start..start.checked_add(length)?)?;
    if picture.starts_with(b"\x89PNG") {
        return Some(Cow::Borrowed(picture));
    }
    let mut alone = [&[0, 0, 1, 0, 1, 0], best, picture].concat();
    let offset = ((HEADER + ENTRY) as u32).to_le_bytes();
    alone[HEADER + 12..HEADER + ENTRY].copy_from_slice(&offset);
    Some(Cow::Owned(alone))
}
