//! A file as an image, whatever its format, brought to 1 to 64 pixels a side.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let size = 1 + data.len() % 64;
    if let Ok(pixels) = kiln_data::decode_image(data, size) {
        assert_eq!(pixels.len(), 3 * size * size);
    }
});
