//! Bytes as an ONNX model.

#![no_main]

use kiln_fuzz::import;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| import(data));
