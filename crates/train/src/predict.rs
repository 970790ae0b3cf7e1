//! Asking a network about images.

use burn::tensor::{Device, Tensor, TensorData};
use kiln_data::{ImageSet, fill_batch};
use kiln_model::ResNet;

use crate::Predictions;

/// How images are scored.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Scoring {
    /// Of the channels, with which images are normalised.
    pub mean: [f32; 3],
    pub std: [f32; 3],
    /// Images a batch.
    pub batch_size: usize,
    /// Whether the logits of an image and its mirror image are averaged (test-time augmentation).
    pub flip_tta: bool,
    /// Whether [`Predictions::features`] are kept.
    pub features: bool,
}

/// Runs `model`, which has to be on `device` without autodiff, on the images at `indices`.
///
/// `classes` names the network's classes in order. `stop` is asked before every batch; `None` when it said so.
///
/// # Panics
///
/// If an index is not below `set.len()`.
pub fn predict(
    model: &ResNet,
    classes: &[String],
    set: &ImageSet,
    indices: &[u32],
    scoring: &Scoring,
    device: &Device,
    stop: &mut dyn FnMut() -> bool,
) -> Option<Predictions> {
    let labels = indices.iter().map(|&index| set.labels[index as usize] as usize).collect();
    let mut predictions = Predictions { classes: classes.to_vec(), labels, logits: vec![], features: vec![] };
    let mut pixels = vec![];
    for batch in indices.chunks(scoring.batch_size) {
        if stop() {
            return None;
        }
        fill_batch(set, batch, None, scoring.mean, scoring.std, &mut pixels);
        let shape = [batch.len(), 3, set.height, set.width];
        let images = Tensor::<4>::from_data(TensorData::new(std::mem::take(&mut pixels), shape), device);
        // The head is linear: averaging what it sees averages the logits.
        let features = match scoring.flip_tta {
            true => (model.features(images.clone()) + model.features(images.flip([3]))) * 0.5,
            false => model.features(images),
        }; // [n, F]
        predictions.logits.extend(values(model.classify(features.clone()))); // [n, classes]
        if scoring.features {
            predictions.features.extend(values(features));
        }
    }
    Some(predictions)
}

fn values(tensor: Tensor<2>) -> Vec<f32> {
    tensor.into_data().convert::<f32>().try_into_vec().expect("converted to f32")
}

#[cfg(test)]
mod tests {
    use kiln_data::synthetic;
    use kiln_model::{Preset, ResNetConfig};

    use super::*;

    fn scoring(flip_tta: bool, features: bool) -> Scoring {
        Scoring { mean: [0.5; 3], std: [0.25; 3], batch_size: 8, flip_tta, features }
    }

    #[test]
    fn with_flip_tta_a_set_and_its_mirror_image_score_the_same() {
        let device = Device::flex();
        let config = ResNetConfig { width: 4, ..ResNetConfig::preset(Preset::ResNet(18), 10) };
        let model = config.init(0, &device).unwrap();
        let data = synthetic(20, 0, 0);
        let mut mirrored = data.train.clone();
        mirrored.images.chunks_exact_mut(mirrored.width).for_each(<[u8]>::reverse);
        let indices: Vec<u32> = (0..20).collect();
        let loss = |set: &ImageSet, flip_tta| {
            let scoring = scoring(flip_tta, false);
            predict(&model, &data.classes, set, &indices, &scoring, &device, &mut || false).unwrap().loss()
        };
        assert!((loss(&data.train, true) - loss(&mirrored, true)).abs() < 1e-5);
        assert!((loss(&data.train, false) - loss(&mirrored, false)).abs() > 1e-4);
    }

    #[test]
    fn features_are_kept_when_asked_for_and_change_no_logit() {
        let device = Device::flex();
        let config = ResNetConfig { width: 2, ..ResNetConfig::preset(Preset::ResNet(18), 10) };
        let model = config.init(0, &device).unwrap();
        let data = synthetic(20, 0, 0);
        let of = |features| {
            let stop = &mut || false;
            predict(&model, &data.classes, &data.train, &[3, 1, 19], &scoring(false, features), &device, stop).unwrap()
        };
        let (without, with) = (of(false), of(true));
        assert_eq!((with.features.len(), without.features.len()), (3 * config.feature_channels(), 0));
        assert_eq!(with.logits, without.logits);
        assert_eq!(with.labels, [3, 1, 19].map(|index| data.train.labels[index] as usize));
        assert_eq!(with.logits.len(), 30);
    }
}
