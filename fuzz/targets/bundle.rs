//! Bytes as a bundle; and, since hardly a changed one has a right digest, its metadata in a file that has.

#![no_main]

use std::sync::LazyLock;

use kiln_fuzz::{bundle, transformer};
use kiln_model::container::{self, Storage};
use kiln_model::{Bundle, NormKind, StateDict};
use libfuzzer_sys::fuzz_target;
use serde_json::value::RawValue;

static STATES: LazyLock<[StateDict; 3]> =
    LazyLock::new(|| [bundle(NormKind::Batch), bundle(NormKind::Group), transformer()].map(|bundle| bundle.state));

fuzz_target!(|data: &[u8]| {
    read(data);
    let Some((&choice, json)) = data.split_first() else { return };
    let Ok(json) = serde_json::from_slice::<&RawValue>(json) else { return };
    let storage = [Storage::F32, Storage::F16, Storage::Int8][usize::from(choice) / 3 % 3];
    let file = container::write(&json, &STATES[usize::from(choice) % 3], storage).expect("plain weights");
    read(&file);
});

fn read(file: &[u8]) {
    let Ok(bundle) = Bundle::from_bytes(file) else { return };
    let written = bundle.to_bytes().expect("what was read can be written");
    // Weights of less than f32 are rounded to what they are.
    let again = Bundle::from_bytes(&written).expect("what was written can be read");
    assert_eq!(again.metadata, bundle.metadata);
    if let Ok(network) = bundle.inference() {
        let [channels, height, width] = network.feature_map();
        let prediction = network.predict(vec![0.0; channels * height * width]);
        assert_eq!(prediction.logits.len(), bundle.metadata.classes.len());
    }
}
