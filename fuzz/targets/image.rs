//! A file as an image, whatever its format, brought to 1 to 64 pixels a side.

#![no_main]

use kiln_data::{decode_damaged, decode_image, dimensions};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let size = 1 + data.len() % 64;
    let _ = dimensions(data);
    match decode_damaged(data, size) {
        Ok(decoded) => {
            assert_eq!(decoded.pixels.len(), 3 * size * size);
            assert_eq!(decode_image(data, size).err(), decoded.damage);
        }
        Err(error) => assert_eq!(decode_image(data, size), Err(error)),
    }
});
