//! What a network says of a set of images: everything that metrics and pictures are made of.

use burn::tensor::{Device, Tensor, TensorData};
use kiln_data::{ImageSet, fill_batch};
use kiln_model::ResNet;

/// A network's answers on N images, in their order.
#[derive(Clone, Debug, PartialEq)]
pub struct Predictions {
    /// Names in the order of the logits.
    pub classes: Vec<String>,
    /// Class of each image `[N]`, an index into `classes`.
    pub labels: Vec<usize>,
    /// Scores before softmax `[N, classes]`.
    pub logits: Vec<f32>,
    /// What the classifier saw `[N, F]`; empty unless [`Scoring::features`] asked for it.
    pub features: Vec<f32>,
}

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

impl Predictions {
    /// Number of images.
    pub fn len(&self) -> usize {
        self.labels.len()
    }

    /// Whether there is no image.
    pub fn is_empty(&self) -> bool {
        self.labels.is_empty()
    }

    /// Logits of one image `[classes]`.
    ///
    /// # Panics
    ///
    /// If `index` is not below [`len`](Self::len).
    pub fn row(&self, index: usize) -> &[f32] {
        &self.logits[index * self.classes.len()..][..self.classes.len()]
    }

    /// Label and logits of each image.
    pub fn rows(&self) -> impl Iterator<Item = (usize, &[f32])> {
        self.labels.iter().copied().zip(self.logits.chunks_exact(self.classes.len().max(1)))
    }

    /// The class that scored highest for one image, the first of equals.
    ///
    /// # Panics
    ///
    /// If `index` is not below [`len`](Self::len).
    pub fn predicted(&self, index: usize) -> usize {
        argmax(self.row(index))
    }

    /// Softmax of one image's logits `[classes]`.
    ///
    /// # Panics
    ///
    /// If `index` is not below [`len`](Self::len).
    pub fn probabilities(&self, index: usize) -> Vec<f64> {
        softmax(self.row(index), 1.0)
    }

    /// Mean cross-entropy, the negative log-likelihood of the labels, in nats; 0 of no images.
    pub fn loss(&self) -> f64 {
        self.scaled_loss(1.0)
    }

    /// [`loss`](Self::loss) of the logits divided by a temperature.
    pub(crate) fn scaled_loss(&self, temperature: f64) -> f64 {
        mean(self.rows().map(|(label, logits)| cross_entropy(logits, label, temperature)))
    }

    /// Share of images whose class is among the `k` that scored highest, 0..1; 0 of no images.
    pub fn top_k_accuracy(&self, k: usize) -> f64 {
        mean(self.rows().map(|(label, logits)| f64::from(u8::from(rank(logits, label) < k))))
    }

    /// Share of images whose class scored highest, 0..1; 0 of no images.
    pub fn accuracy(&self) -> f64 {
        self.top_k_accuracy(1)
    }
}

/// Index of the largest value, the first of equals.
pub(crate) fn argmax(logits: &[f32]) -> usize {
    (0..logits.len()).rev().max_by(|a, b| logits[*a].total_cmp(&logits[*b])).unwrap_or(0)
}

/// How many classes scored better than `label`; of equals, the first is the best, as for [`argmax`].
pub(crate) fn rank(logits: &[f32], label: usize) -> usize {
    let better = |(class, logit): &(usize, &f32)| logit.total_cmp(&logits[label]).then(label.cmp(class)).is_gt();
    logits.iter().enumerate().filter(better).count()
}

/// `softmax(logits / temperature)` in double precision.
pub(crate) fn softmax(logits: &[f32], temperature: f64) -> Vec<f64> {
    let mut values = exponentials(logits, temperature);
    let sum: f64 = values.iter().sum();
    values.iter_mut().for_each(|value| *value /= sum);
    values
}

/// `-log softmax(logits / temperature)[label]`, in nats; without a detour by the probability, which may round to 0.
pub(crate) fn cross_entropy(logits: &[f32], label: usize, temperature: f64) -> f64 {
    let sum: f64 = exponentials(logits, temperature).iter().sum();
    sum.ln() - (f64::from(logits[label]) - greatest(logits)) / temperature
}

/// `exp((logit - greatest) / temperature)`, which cannot overflow.
fn exponentials(logits: &[f32], temperature: f64) -> Vec<f64> {
    let greatest = greatest(logits);
    logits.iter().map(|logit| ((f64::from(*logit) - greatest) / temperature).exp()).collect()
}

fn greatest(logits: &[f32]) -> f64 {
    logits.iter().copied().fold(f32::NEG_INFINITY, f32::max).into()
}

/// 0 of no values.
pub(crate) fn mean(values: impl Iterator<Item = f64>) -> f64 {
    let (sum, count) = values.fold((0.0, 0_usize), |(sum, count), value| (sum + value, count + 1));
    sum / count.max(1) as f64
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

    #[test]
    fn of_equal_logits_the_first_class_is_the_answer_and_ranks_best() {
        let logits = [1.0, 3.0, 3.0, 2.0];
        assert_eq!(argmax(&logits), 1);
        assert_eq!([0, 1, 2, 3].map(|label| rank(&logits, label)), [3, 0, 1, 2]);
    }

    #[test]
    fn large_logits_overflow_nowhere() {
        let predictions = Predictions {
            classes: vec!["a".into(), "b".into()],
            labels: vec![1],
            logits: vec![2e4, -2e4],
            features: vec![],
        };
        assert_eq!((predictions.probabilities(0), predictions.loss()), (vec![1.0, 0.0], 4e4));
    }
}
