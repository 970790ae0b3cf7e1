//! Asking a network about images.

use burn::tensor::{Device, Tensor, TensorData};
use kiln_data::{DataError, ImageSet, fill_batch, prefetch};
use kiln_kernels::device::awake;
use kiln_model::Network;

use crate::Predictions;

/// A network and what it takes to ask it about sets of images.
#[derive(Clone)]
pub struct BatchClassifier {
    /// On `device`, without autodiff.
    pub network: Network,
    pub device: Device,
    /// Names in the order of the logits.
    pub classes: Vec<String>,
    /// Mean of each channel, with which images are normalized.
    pub mean: [f32; 3],
    /// Standard deviation of each channel.
    pub std: [f32; 3],
    /// Images a batch.
    pub batch_size: usize,
}

impl BatchClassifier {
    /// Predicts the images at `indices`; with `features` also what the head saw.
    ///
    /// # Errors
    ///
    /// If an image cannot be read any more.
    ///
    /// # Panics
    ///
    /// If an index is not below `set.len()`, or the device is lost.
    pub async fn predict(&self, set: &ImageSet, indices: &[u32], features: bool) -> Result<Predictions, DataError> {
        self.clone().pass(indices.to_vec(), features).finish(set).await
    }

    /// As [`predict`](Self::predict), with logits averaged over each image and its mirror image (test-time
    /// augmentation). `plain` is what `predict` gave for these images, so that only the mirror images are run.
    ///
    /// # Errors
    ///
    /// If an image cannot be read any more.
    ///
    /// # Panics
    ///
    /// If an index is not below `set.len()`, `plain` is of other images or was made without its features, or the
    /// device is lost.
    pub async fn predict_flipped(
        &self,
        set: &ImageSet,
        indices: &[u32],
        plain: &Predictions,
    ) -> Result<Predictions, DataError> {
        self.clone().flipped_pass(indices.to_vec(), plain.clone()).finish(set).await
    }

    /// [`predict`](Self::predict), to be done batch by batch.
    pub fn pass(self, indices: Vec<u32>, features: bool) -> Pass {
        let predictions =
            Predictions { classes: self.classes.clone(), labels: vec![], logits: vec![], features: vec![] };
        Pass { classifier: self, indices, plain: None, with_features: features, predictions }
    }

    /// [`predict_flipped`](Self::predict_flipped), to be done batch by batch.
    ///
    /// # Panics
    ///
    /// If `plain` is of other images or was made without its features.
    pub fn flipped_pass(self, indices: Vec<u32>, plain: Predictions) -> Pass {
        assert_eq!(plain.len(), indices.len(), "answers to the same images");
        assert!(!plain.features.is_empty() || plain.is_empty(), "answers with their features");
        Pass { plain: Some(plain), ..self.pass(indices, false) }
    }
}

/// Predictions of a set of images under way, a batch at a time: between two batches a caller may do something else, or
/// stop.
pub struct Pass {
    classifier: BatchClassifier,
    indices: Vec<u32>,
    /// What the images themselves gave, if mirror images are added to them.
    plain: Option<Predictions>,
    with_features: bool,
    predictions: Predictions,
}

impl Pass {
    /// Images done, and images in all.
    pub fn progress(&self) -> [usize; 2] {
        [self.predictions.labels.len(), self.indices.len()]
    }

    /// Runs the next batch of images out of `set`. Whether it was the last.
    ///
    /// # Errors
    ///
    /// If an image cannot be read any more; the batch can be tried again.
    pub async fn advance(&mut self, set: &ImageSet) -> Result<bool, DataError> {
        let Self { classifier, indices, plain, with_features, predictions } = self;
        let start = predictions.labels.len();
        let (batch, rest) = indices[start..].split_at(classifier.batch_size.min(indices.len() - start));
        if !batch.is_empty() {
            let _awake = awake(&classifier.device);
            let mut pixels = vec![];
            fill_batch(set, batch, None, classifier.mean, classifier.std, &mut pixels)?;
            prefetch(set, &rest[..classifier.batch_size.min(rest.len())], None);
            let shape = [batch.len(), 3, set.height, set.width];
            let images = Tensor::<4>::from_data(TensorData::new(pixels, shape), &classifier.device);
            let features = match plain {
                None => classifier.network.features(images), // [n, F]
                Some(plain) => {
                    let width = plain.features.len() / plain.len();
                    let seen = plain.features[start * width..][..batch.len() * width].to_vec();
                    let seen = Tensor::<2>::from_data(TensorData::new(seen, [batch.len(), width]), &classifier.device);
                    // The head is linear: averaging what it sees averages the logits.
                    (seen + classifier.network.features(images.flip([3]))) * 0.5
                }
            };
            predictions.logits.extend(values(classifier.network.classify(features.clone())).await); // [n, classes]
            if *with_features {
                predictions.features.extend(values(features).await);
            }
            predictions.labels.extend(batch.iter().map(|&index| set.labels[index as usize] as usize));
        }
        Ok(predictions.labels.len() == indices.len())
    }

    /// Runs what is left, and gives the predictions.
    ///
    /// # Errors
    ///
    /// If an image cannot be read any more.
    pub async fn finish(mut self, set: &ImageSet) -> Result<Predictions, DataError> {
        while !self.advance(set).await? {}
        Ok(self.predictions)
    }
}

async fn values(tensor: Tensor<2>) -> Vec<f32> {
    let data = tensor.into_data_async().await.unwrap_or_else(|error| panic!("{error}"));
    data.convert::<f32>().try_into_vec().expect("converted to f32")
}

#[cfg(test)]
mod tests {
    use kiln_data::{Dataset, synthetic};
    use kiln_model::ResNetConfig;
    use pollster::block_on;

    use super::*;

    fn classifier(data: &Dataset) -> BatchClassifier {
        let device = Device::flex();
        let network = ResNetConfig { width: 4, ..ResNetConfig::new(18, 10) }.init(0, &device).unwrap().into();
        let classes = data.classes.clone();
        BatchClassifier { network, device, classes, mean: [0.5; 3], std: [0.25; 3], batch_size: 8 }
    }

    #[test]
    fn averaged_over_mirror_images_a_set_and_its_mirror_image_score_the_same() {
        let data = synthetic(20, 0, 0);
        let classifier = classifier(&data);
        let mut mirrored = data.train.clone();
        let width = mirrored.width;
        mirrored.pixels_mut().chunks_exact_mut(width).for_each(<[u8]>::reverse);
        let indices: Vec<u32> = (0..20).collect();
        let plain = |set: &ImageSet| block_on(classifier.predict(set, &indices, true)).unwrap();
        let flipped = |set: &ImageSet| block_on(classifier.predict_flipped(set, &indices, &plain(set))).unwrap();
        assert!((flipped(&data.train).loss() - flipped(&mirrored).loss()).abs() < 1e-5);
        assert!((plain(&data.train).loss() - plain(&mirrored).loss()).abs() > 1e-4);
    }

    #[test]
    fn the_plain_pass_is_used_again_to_the_last_bit() {
        let data = synthetic(20, 0, 0);
        let classifier = classifier(&data);
        let indices: Vec<u32> = (0..20).rev().collect();
        let plain = block_on(classifier.predict(&data.train, &indices, true)).unwrap();
        let flipped = block_on(classifier.predict_flipped(&data.train, &indices, &plain)).unwrap();
        let network = &classifier.network;
        let mut logits = vec![];
        for batch in indices.chunks(8) {
            let mut pixels = vec![];
            fill_batch(&data.train, batch, None, [0.5; 3], [0.25; 3], &mut pixels).unwrap();
            let data = TensorData::new(pixels, [batch.len(), 3, 32, 32]);
            let images = Tensor::<4>::from_data(data, &classifier.device);
            let both = (network.features(images.clone()) + network.features(images.flip([3]))) * 0.5;
            logits.extend(block_on(values(network.classify(both))));
        }
        assert_eq!(flipped.logits, logits);
        assert_eq!((flipped.labels, flipped.features), (plain.labels, vec![]));
    }

    #[test]
    fn features_are_kept_when_asked_for_and_change_no_logit() {
        let data = synthetic(20, 0, 0);
        let classifier = classifier(&data);
        let of = |features| block_on(classifier.predict(&data.train, &[3, 1, 19], features)).unwrap();
        let (without, with) = (of(false), of(true));
        assert_eq!((with.features.len(), without.features.len()), (3 * 32, 0));
        assert_eq!(with.logits, without.logits);
        assert_eq!(with.labels, [3, 1, 19].map(|index| data.train.labels[index] as usize));
        assert_eq!(with.logits.len(), 30);
    }
}
