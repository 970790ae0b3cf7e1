//! What fuzz targets and their seeds share: valid files to start from.

use kiln_model::{Architecture, Bundle, NormKind, ResNetConfig, StateTensor, VitConfig};
use kiln_train::{Checkpoint, EpochMetrics, Header, Recipe, Recovery, Running};

#[path = "../../tests/sample/mod.rs"]
mod sample;

/// Pixels a side of the images.
const SIZE: usize = 8;

/// None of them zero.
fn number(at: usize) -> f32 {
    (at as f32 * 0.7).sin() + 1.5
}

/// ResNet-18 of width 1 for two classes.
fn architecture() -> Architecture {
    recipe().architecture(2, SIZE).expect("width 1 is the least there is")
}

pub fn recipe() -> Recipe {
    Recipe::parse(kiln_train::recipe::BUILT_IN[0].1, &["model.width=1".into()]).expect("a built-in recipe")
}

pub fn bundle(norm: NormKind) -> Bundle {
    let config = ResNetConfig { norm, groups: 1, width: 1, ..ResNetConfig::new(18, 2) };
    let mut bundle = sample::bundle(config.into(), number);
    bundle.metadata.image_size = SIZE;
    bundle
}

/// A transformer of one block and one channel.
pub fn transformer() -> Bundle {
    let config = VitConfig { image_size: SIZE, patch: 4, width: 1, depth: 1, heads: 1, classes: 2 };
    let mut bundle = sample::bundle(config.into(), number);
    bundle.metadata.image_size = SIZE;
    bundle
}

/// What a file of another program's weights gives: an error, or a network that makes a whole bundle.
pub fn import(file: &[u8]) {
    use std::io::Write;
    let mut written = tempfile::NamedTempFile::new().expect("a folder for temporary files");
    written.write_all(file).expect("room for a small file");
    let hints = kiln_convert::Hints { groups: Some(1), heads: Some(1) };
    let Ok(imported) = kiln_convert::open(written.path(), hints) else { return };
    let normalization = Some(kiln_convert::Normalization::IMAGENET);
    let choices = kiln_convert::Choices { normalization, ..kiln_convert::Choices::default() };
    let Ok((bundle, _)) = imported.bundle(choices) else { return };
    let bytes = bundle.to_bytes().expect("an import checks its weights");
    assert_eq!(Bundle::from_bytes(&bytes).expect("what was written can be read"), bundle);
    kiln_convert::to_onnx(&bundle, kiln_convert::OnnxOptions::default()).ok();
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
        validation_balanced_accuracy: None,
        seconds: 3.0,
        images_per_second: 500.0,
    }
}

pub fn checkpoint() -> Checkpoint {
    let (recipe, architecture) = (recipe(), architecture());
    let model = sample::state(&architecture, number);
    let header = Header {
        recipe,
        architecture,
        classes: vec!["cat".into(), "dog".into()],
        image_size: SIZE,
        mean: [0.5; 3],
        std: [0.25; 3],
        preprocessing: None,
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
