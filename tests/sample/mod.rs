//! A bundle that nobody has trained, for tests and fuzz targets of what reads one.

use kiln_model::{Architecture, Bundle, Metadata, StateDict, StateTensor};

/// Every tensor of a network, each number made of its place in it.
pub fn state(architecture: &Architecture, number: fn(usize) -> f32) -> StateDict {
    let tensor = |(name, shape): (String, Vec<usize>)| {
        let values = (0..shape.iter().product()).map(number).collect();
        (name, StateTensor { shape, values })
    };
    architecture.tensors().into_iter().map(tensor).collect()
}

pub fn bundle(architecture: Architecture, number: fn(usize) -> f32) -> Bundle {
    let state = state(&architecture, number);
    let metadata = Metadata {
        classes: (0..architecture.classes()).map(|class| format!("class {class}")).collect(),
        architecture,
        image_size: 32,
        mean: [0.5; 3],
        std: [0.25; 3],
        dataset: "synthetic".into(),
        dataset_digest: "0".into(),
        accuracy: Some(0.5),
        accuracy_split: Some("test".into()),
        accuracy_samples: Some(10),
        recipe: "quick".into(),
        seed: 0,
        kiln_version: "0".into(),
        preprocessing: None,
        quantisation: None,
    };
    Bundle { metadata, state }
}
