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
    let see = &mut |_, images| model.features(images);
    in_batches(model, classes, set, indices, scoring, device, stop, see)
}

/// The same with logits that are averaged over each image and its mirror image (test-time augmentation). `plain` is
/// what [`predict`] said of these images, so that only the mirror images are run.
///
/// # Panics
///
/// If an index is not below `set.len()`, or `plain` is of other images or was made without its features.
pub fn predict_flipped(
    model: &ResNet,
    plain: &Predictions,
    set: &ImageSet,
    indices: &[u32],
    scoring: &Scoring,
    device: &Device,
    stop: &mut dyn FnMut() -> bool,
) -> Option<Predictions> {
    assert_eq!(plain.len(), indices.len(), "answers to the same images");
    let width = plain.features.len() / plain.len().max(1);
    assert!(width > 0 || plain.is_empty(), "answers with their features");
    // The head is linear: averaging what it sees averages the logits.
    let see = &mut |start: usize, images: Tensor<4>| {
        let shape = [images.dims()[0], width];
        let seen = plain.features[start * width..][..shape[0] * width].to_vec();
        let seen = Tensor::<2>::from_data(TensorData::new(seen, shape), device); // [n, F]
        (seen + model.features(images.flip([3]))) * 0.5
    };
    in_batches(model, &plain.classes, set, indices, scoring, device, stop, see)
}

/// Classifies what `see` makes of each batch `[n, 3, H, W]`, the first of whose images has that place in `indices`:
/// its features `[n, F]`.
#[allow(clippy::too_many_arguments, reason = "those of the functions above")]
fn in_batches(
    model: &ResNet,
    classes: &[String],
    set: &ImageSet,
    indices: &[u32],
    scoring: &Scoring,
    device: &Device,
    stop: &mut dyn FnMut() -> bool,
    see: &mut dyn FnMut(usize, Tensor<4>) -> Tensor<2>,
) -> Option<Predictions> {
    let labels = indices.iter().map(|&index| set.labels[index as usize] as usize).collect();
    let mut predictions = Predictions { classes: classes.to_vec(), labels, logits: vec![], features: vec![] };
    let mut pixels = vec![];
    for (number, batch) in indices.chunks(scoring.batch_size).enumerate() {
        if stop() {
            return None;
        }
        fill_batch(set, batch, None, scoring.mean, scoring.std, &mut pixels);
        let shape = [batch.len(), 3, set.height, set.width];
        let images = Tensor::<4>::from_data(TensorData::new(std::mem::take(&mut pixels), shape), device);
        let features = see(number * scoring.batch_size, images); // [n, F]
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

    fn scoring(features: bool) -> Scoring {
        Scoring { mean: [0.5; 3], std: [0.25; 3], batch_size: 8, features }
    }

    #[test]
    fn averaged_over_mirror_images_a_set_and_its_mirror_image_score_the_same() {
        let device = Device::flex();
        let config = ResNetConfig { width: 4, ..ResNetConfig::preset(Preset::ResNet(18), 10) };
        let model = config.init(0, &device).unwrap();
        let data = synthetic(20, 0, 0);
        let mut mirrored = data.train.clone();
        mirrored.images.chunks_exact_mut(mirrored.width).for_each(<[u8]>::reverse);
        let indices: Vec<u32> = (0..20).collect();
        let plain = |set: &ImageSet| {
            predict(&model, &data.classes, set, &indices, &scoring(true), &device, &mut || false).unwrap()
        };
        let flipped = |set: &ImageSet| {
            let scoring = scoring(false);
            predict_flipped(&model, &plain(set), set, &indices, &scoring, &device, &mut || false).unwrap()
        };
        assert!((flipped(&data.train).loss() - flipped(&mirrored).loss()).abs() < 1e-5);
        assert!((plain(&data.train).loss() - plain(&mirrored).loss()).abs() > 1e-4);
    }

    #[test]
    fn the_plain_pass_is_used_again_to_the_last_bit() {
        let device = Device::flex();
        let config = ResNetConfig { width: 4, ..ResNetConfig::preset(Preset::ResNet(18), 10) };
        let model = config.init(0, &device).unwrap();
        let data = synthetic(20, 0, 0);
        let indices: Vec<u32> = (0..20).rev().collect();
        let stop = &mut || false;
        let plain = predict(&model, &data.classes, &data.train, &indices, &scoring(true), &device, stop).unwrap();
        let flipped = predict_flipped(&model, &plain, &data.train, &indices, &scoring(false), &device, stop).unwrap();
        let mut logits = vec![];
        for batch in indices.chunks(8) {
            let mut pixels = vec![];
            fill_batch(&data.train, batch, None, [0.5; 3], [0.25; 3], &mut pixels);
            let images = Tensor::<4>::from_data(TensorData::new(pixels, [batch.len(), 3, 32, 32]), &device);
            let both = (model.features(images.clone()) + model.features(images.flip([3]))) * 0.5;
            logits.extend(values(model.classify(both)));
        }
        assert_eq!(flipped.logits, logits);
        assert_eq!((flipped.labels, flipped.features), (plain.labels, vec![]));
    }

    #[test]
    fn features_are_kept_when_asked_for_and_change_no_logit() {
        let device = Device::flex();
        let config = ResNetConfig { width: 2, ..ResNetConfig::preset(Preset::ResNet(18), 10) };
        let model = config.init(0, &device).unwrap();
        let data = synthetic(20, 0, 0);
        let of = |features| {
            let stop = &mut || false;
            predict(&model, &data.classes, &data.train, &[3, 1, 19], &scoring(features), &device, stop).unwrap()
        };
        let (without, with) = (of(false), of(true));
        assert_eq!((with.features.len(), without.features.len()), (3 * config.feature_channels(), 0));
        assert_eq!(with.logits, without.logits);
        assert_eq!(with.labels, [3, 1, 19].map(|index| data.train.labels[index] as usize));
        assert_eq!(with.logits.len(), 30);
    }
}
