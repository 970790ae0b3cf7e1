//! How well a network does on a set of images.

use burn::tensor::{Device, Tensor, TensorData};
use kiln_data::{ImageSet, fill_batch};
use kiln_model::ResNet;
use serde::Serialize;

/// What a network scored.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Evaluation {
    /// Images evaluated.
    pub samples: usize,
    /// Mean cross-entropy in nats.
    pub loss: f64,
    /// Share of images whose class scored highest, 0..1.
    pub accuracy: f64,
    /// Share of images whose class was among the five that scored highest, 0..1.
    pub top5: f64,
    /// `confusion[label][predicted]`, in images.
    pub confusion: Vec<Vec<usize>>,
}

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
}

/// Scores `model`, which has to be on `device` without autodiff, on the images at `indices`.
///
/// `stop` is asked before every batch; `None` when it said so.
pub fn evaluate(
    model: &ResNet,
    set: &ImageSet,
    indices: &[u32],
    scoring: &Scoring,
    device: &Device,
    stop: &mut dyn FnMut() -> bool,
) -> Option<Evaluation> {
    let classes = model.config().classes;
    let mut confusion = vec![vec![0; classes]; classes];
    let (mut loss, mut top5) = (0.0, 0);
    let mut pixels = vec![];
    for batch in indices.chunks(scoring.batch_size) {
        if stop() {
            return None;
        }
        fill_batch(set, batch, None, scoring.mean, scoring.std, &mut pixels);
        let shape = [batch.len(), 3, set.height, set.width];
        let images = Tensor::<4>::from_data(TensorData::new(std::mem::take(&mut pixels), shape), device);
        let logits = match scoring.flip_tta {
            true => (model.forward(images.clone()) + model.forward(images.flip([3]))) * 0.5,
            false => model.forward(images),
        };
        let logits = logits.into_data();
        let logits: Vec<f32> = logits.convert::<f32>().try_into_vec().expect("converted to f32");
        for (row, &index) in logits.chunks_exact(classes).zip(batch) {
            let label = set.labels[index as usize] as usize;
            let rank = row.iter().filter(|logit| **logit > row[label]).count();
            let predicted = (0..classes).max_by(|a, b| row[*a].total_cmp(&row[*b])).unwrap_or(0);
            confusion[label][predicted] += 1;
            top5 += usize::from(rank < 5);
            loss += cross_entropy(row, label);
        }
    }
    let samples = indices.len().max(1) as f64;
    let correct: usize = (0..classes).map(|class| confusion[class][class]).sum();
    Some(Evaluation {
        samples: indices.len(),
        loss: loss / samples,
        accuracy: correct as f64 / samples,
        top5: top5 as f64 / samples,
        confusion,
    })
}

/// `-log softmax(logits)[label]`, in nats.
fn cross_entropy(logits: &[f32], label: usize) -> f64 {
    let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f64 = logits.iter().map(|logit| f64::from(logit - max).exp()).sum();
    sum.ln() - f64::from(logits[label] - max)
}

#[cfg(test)]
mod tests {
    use kiln_data::synthetic;
    use kiln_model::{Preset, ResNetConfig};

    use super::*;

    #[test]
    fn with_flip_tta_a_set_and_its_mirror_image_score_the_same() {
        let device = Device::flex();
        let config = ResNetConfig { width: 4, ..ResNetConfig::preset(Preset::ResNet(18), 10) };
        let model = config.init(0, &device).unwrap();
        let set = synthetic(20, 0, 0).train;
        let mut mirrored = set.clone();
        mirrored.images.chunks_exact_mut(set.width).for_each(<[u8]>::reverse);
        let indices: Vec<u32> = (0..20).collect();
        let loss = |set: &ImageSet, flip_tta| {
            let scoring = Scoring { mean: [0.5; 3], std: [0.25; 3], batch_size: 8, flip_tta };
            evaluate(&model, set, &indices, &scoring, &device, &mut || false).unwrap().loss
        };
        assert!((loss(&set, true) - loss(&mirrored, true)).abs() < 1e-5);
        assert!((loss(&set, false) - loss(&mirrored, false)).abs() > 1e-4);
    }
}
