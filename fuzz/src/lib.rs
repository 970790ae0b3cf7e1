//! What fuzz targets and their seeds share: valid files to start from.

use kiln_model::{Bundle, Metadata, NormKind, ResNetConfig, StateDict, StateTensor};
use kiln_train::{Checkpoint, EpochMetrics, Header, Recipe, Recovery, Running};

/// Every parameter of a network, none of them zero.
pub fn state(architecture: &ResNetConfig) -> StateDict {
    let tensor = |(name, shape): (String, Vec<usize>)| {
        let values = (0..shape.iter().product::<usize>()).map(|at| (at as f32 * 0.7).sin() + 1.5).collect();
        (name, StateTensor { shape, values })
    };
    architecture.tensors().into_iter().map(tensor).collect()
}

/// ResNet-18 of width 1 for two classes.
pub fn architecture() -> ResNetConfig {
    recipe().architecture(2).expect("width 1 is the least there is")
}

pub fn recipe() -> Recipe {
    Recipe::parse(kiln_train::recipe::BUILT_IN[0].1, &["model.width=1".into()]).expect("a built-in recipe")
}

pub fn bundle(norm: NormKind) -> Bundle {
    let architecture = ResNetConfig { norm, groups: 1, ..architecture() };
    let state = state(&architecture);
    let metadata = Metadata {
        architecture,
        classes: vec!["cat".into(), "dog".into()],
        image_size: 8,
        mean: [0.5; 3],
        std: [0.25; 3],
        dataset: "synthetic".into(),
        dataset_digest: "0".into(),
        accuracy: 0.5,
        accuracy_split: "test".into(),
        accuracy_samples: 10,
        recipe: "quick".into(),
        seed: 0,
        kiln_version: "0".into(),
        quantisation: None,
    };
    Bundle { metadata, state }
}

pub fn epoch() -> EpochMetrics {
    EpochMetrics {
        epoch: 1,
        step: 4,
        learning_rate: 0.1,
        train_loss: 2.0,
        train_accuracy: 0.2,
        validation_loss: Some(1.9),
        validation_accuracy: Some(0.3),
        seconds: 3.0,
        images_per_second: 500.0,
    }
}

pub fn checkpoint() -> Checkpoint {
    let (recipe, architecture) = (recipe(), architecture());
    let model = state(&architecture);
    let header = Header {
        recipe,
        architecture,
        classes: vec!["cat".into(), "dog".into()],
        image_size: 8,
        mean: [0.5; 3],
        std: [0.25; 3],
        dataset: "synthetic".into(),
        dataset_digest: "0".into(),
        step: 4,
        total_steps: 8,
        seconds: 3.0,
        running: Running::default(),
        recovery: Recovery::default(),
        history: vec![epoch()],
    };
    let flat = |tensor: &StateTensor| StateTensor { shape: vec![tensor.values.len()], values: tensor.values.clone() };
    let momentum = model.iter().map(|(name, tensor)| (name.clone(), flat(tensor))).collect();
    Checkpoint { header, momentum, ema: model.clone(), model }
}
