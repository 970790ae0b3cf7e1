//! Bytes as a file of weights; and as the pickle of a PyTorch checkpoint, since hardly a changed archive is whole.

#![no_main]

use kiln_fuzz::import;
use libfuzzer_sys::fuzz_target;

#[path = "../../tests/weights/mod.rs"]
#[allow(dead_code, reason = "the tests make more of them")]
mod weights;

fuzz_target!(|data: &[u8]| {
    import(data);
    import(&weights::checkpoint(data, &[vec![1; 64], vec![2; 256]]));
});
