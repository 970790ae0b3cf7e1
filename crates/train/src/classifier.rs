//! Asking a network about images.

use burn::tensor::{Device, Tensor, TensorData};
use kiln_data::{ImageSet, fill_batch};
use kiln_kernels::device::awake;
use kiln_model::Network;

use crate::Predictions;

/// A network and what it takes to ask it about sets of images.
pub struct Classifier {
    /// On `device`, without autodiff.
    pub network: Network,
    pub device: Device,
    /// Names in the order of the logits.
    pub classes: Vec<String>,
    /// Of the channels, with which images are normalised.
    pub mean: [f32; 3],
    pub std: [f32; 3],
    /// Images a batch.
    pub batch_size: usize,
}

impl Classifier {
    /// What the network says of the images at `indices`; with `features` also what its head saw. `stop` is asked before
    /// every batch; `None` when it said so.
    ///
    /// # Panics
    ///
    /// If an index is not below `set.len()`.
    pub fn predict(
        &self,
        set: &ImageSet,
        indices: &[u32],
        features: bool,
        stop: &mut dyn FnMut() -> bool,
    ) -> Option<Predictions> {
        self.in_batches(set, indices, features, stop, &mut |_, images| self.network.features(images))
    }

    /// The same with logits that are averaged over each image and its mirror image (test-time augmentation). `plain` is
    /// what [`predict`](Self::predict) said of these images, so that only the mirror images are run.
    ///
    /// # Panics
    ///
    /// If an index is not below `set.len()`, or `plain` is of other images or was made without its features.
    pub fn predict_flipped(
        &self,
        set: &ImageSet,
        indices: &[u32],
        plain: &Predictions,
        stop: &mut dyn FnMut() -> bool,
    ) -> Option<Predictions> {
        assert_eq!(plain.len(), indices.len(), "answers to the same images");
        let width = plain.features.len() / plain.len().max(1);
        assert!(width > 0 || plain.is_empty(), "answers with their features");
        // The head is linear: averaging what it sees averages the logits.
        self.in_batches(set, indices, false, stop, &mut |start, images| {
            let shape = [images.dims()[0], width];
            let seen = plain.features[start * width..][..shape[0] * width].to_vec();
            let seen = Tensor::<2>::from_data(TensorData::new(seen, shape), &self.device); // [n, F]
            (seen + self.network.features(images.flip([3]))) * 0.5
        })
    }

    /// Classifies what `see` makes of each batch `[n, 3, H, W]`, the first of whose images has that place in `indices`:
    /// its features `[n, F]`.
    fn in_batches(
        &self,
        set: &ImageSet,
        indices: &[u32],
        with_features: bool,
        stop: &mut dyn FnMut() -> bool,
        see: &mut dyn FnMut(usize, Tensor<4>) -> Tensor<2>,
    ) -> Option<Predictions> {
        let labels = indices.iter().map(|&index| set.labels[index as usize] as usize).collect();
        let mut predictions = Predictions { classes: self.classes.clone(), labels, logits: vec![], features: vec![] };
        let mut pixels = vec![];
        for (number, batch) in indices.chunks(self.batch_size).enumerate() {
            if stop() {
                return None;
            }
            let _awake = awake(&self.device);
            fill_batch(set, batch, None, self.mean, self.std, &mut pixels);
            let shape = [batch.len(), 3, set.height, set.width];
            let images = Tensor::<4>::from_data(TensorData::new(std::mem::take(&mut pixels), shape), &self.device);
            let features = see(number * self.batch_size, images); // [n, F]
            predictions.logits.extend(values(self.network.classify(features.clone()))); // [n, classes]
            if with_features {
                predictions.features.extend(values(features));
            }
        }
        Some(predictions)
    }
}

fn values(tensor: Tensor<2>) -> Vec<f32> {
    tensor.into_data().convert::<f32>().try_into_vec().expect("converted to f32")
}

#[cfg(test)]
mod tests {
    use kiln_data::{Dataset, synthetic};
    use kiln_model::ResNetConfig;

    use super::*;

    fn classifier(data: &Dataset) -> Classifier {
        let device = Device::flex();
        let network = ResNetConfig { width: 4, ..ResNetConfig::new(18, 10) }.init(0, &device).unwrap().into();
        let classes = data.classes.clone();
        Classifier { network, device, classes, mean: [0.5; 3], std: [0.25; 3], batch_size: 8 }
    }

    #[test]
    fn averaged_over_mirror_images_a_set_and_its_mirror_image_score_the_same() {
        let data = synthetic(20, 0, 0);
        let classifier = classifier(&data);
        let mut mirrored = data.train.clone();
        mirrored.images.chunks_exact_mut(mirrored.width).for_each(<[u8]>::reverse);
        let indices: Vec<u32> = (0..20).collect();
        let stop = || false;
        let plain = |set: &ImageSet| classifier.predict(set, &indices, true, &mut { stop }).unwrap();
        let flipped = |set: &ImageSet| classifier.predict_flipped(set, &indices, &plain(set), &mut { stop }).unwrap();
        assert!((flipped(&data.train).loss() - flipped(&mirrored).loss()).abs() < 1e-5);
        assert!((plain(&data.train).loss() - plain(&mirrored).loss()).abs() > 1e-4);
    }

    #[test]
    fn the_plain_pass_is_used_again_to_the_last_bit() {
        let data = synthetic(20, 0, 0);
        let classifier = classifier(&data);
        let indices: Vec<u32> = (0..20).rev().collect();
        let stop = &mut || false;
        let plain = classifier.predict(&data.train, &indices, true, stop).unwrap();
        let flipped = classifier.predict_flipped(&data.train, &indices, &plain, stop).unwrap();
        let network = &classifier.network;
        let mut logits = vec![];
        for batch in indices.chunks(8) {
            let mut pixels = vec![];
            fill_batch(&data.train, batch, None, [0.5; 3], [0.25; 3], &mut pixels);
            let data = TensorData::new(pixels, [batch.len(), 3, 32, 32]);
            let images = Tensor::<4>::from_data(data, &classifier.device);
            let both = (network.features(images.clone()) + network.features(images.flip([3]))) * 0.5;
            logits.extend(values(network.classify(both)));
        }
        assert_eq!(flipped.logits, logits);
        assert_eq!((flipped.labels, flipped.features), (plain.labels, vec![]));
    }

    #[test]
    fn features_are_kept_when_asked_for_and_change_no_logit() {
        let data = synthetic(20, 0, 0);
        let classifier = classifier(&data);
        let of = |features| classifier.predict(&data.train, &[3, 1, 19], features, &mut || false).unwrap();
        let (without, with) = (of(false), of(true));
        assert_eq!((with.features.len(), without.features.len()), (3 * 32, 0));
        assert_eq!(with.logits, without.logits);
        assert_eq!(with.labels, [3, 1, 19].map(|index| data.train.labels[index] as usize));
        assert_eq!(with.logits.len(), 30);
    }
}
