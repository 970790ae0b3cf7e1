//! Bytes as a checkpoint; and its header in a file with a right digest.

#![no_main]

use std::sync::LazyLock;

use kiln_fuzz::checkpoint;
use kiln_model::StateDict;
use kiln_model::container::{self, Storage};
use kiln_train::Checkpoint;
use libfuzzer_sys::fuzz_target;
use serde_json::value::RawValue;

static TENSORS: LazyLock<StateDict> = LazyLock::new(|| {
    let bytes = checkpoint().to_bytes().expect("a valid checkpoint");
    container::read::<Box<RawValue>>(&bytes).expect("written just now").1
});

fuzz_target!(|data: &[u8]| {
    read(data);
    if let Ok(json) = serde_json::from_slice::<&RawValue>(data) {
        read(&container::write(&json, &TENSORS, Storage::F32).expect("plain weights"));
    }
});

fn read(file: &[u8]) {
    let Ok(checkpoint) = Checkpoint::from_bytes(file) else { return };
    let written = checkpoint.to_bytes().expect("what was read can be written");
    Checkpoint::from_bytes(&written).expect("what was written can be read");
    checkpoint.header.best();
    let _ = checkpoint.header.matches(&checkpoint.header, &[]);
}
