//! Cross-entropy towards soft targets.

use burn::tensor::{Device, Tensor, TensorData, activation::log_softmax};
use kiln_data::Target;

/// Target distributions `[N, classes]` of images that are of one class each: one-hot labels, smoothed as
/// [`mixed_targets`] says.
pub fn soft_targets(labels: &[u32], classes: usize, smoothing: f32, device: &Device) -> Tensor<2> {
    let targets: Vec<_> = labels.iter().map(|&label| Target { label, other: label, share: 1.0 }).collect();
    mixed_targets(&targets, classes, smoothing, device)
}

/// Target distributions `[N, classes]`: each label its share, and of the mass `smoothing` is spread evenly
/// over all classes (Szegedy et al., <https://arxiv.org/abs/1512.00567>).
pub fn mixed_targets(targets: &[Target], classes: usize, smoothing: f32, device: &Device) -> Tensor<2> {
    let mut distributions = vec![smoothing / classes as f32; targets.len() * classes];
    for (row, target) in distributions.chunks_exact_mut(classes).zip(targets) {
        row[target.label as usize] += (1.0 - smoothing) * target.share;
        row[target.other as usize] += (1.0 - smoothing) * (1.0 - target.share);
    }
    Tensor::from_data(TensorData::new(distributions, [targets.len(), classes]), device)
}

/// Mean cross-entropy of `logits` `[N, classes]` against `targets` `[N, classes]`, in nats: `[1]`.
pub fn cross_entropy(logits: Tensor<2>, targets: Tensor<2>) -> Tensor<1> {
    let n = logits.dims()[0];
    (log_softmax(logits, 1) * targets).sum() * (-1.0 / n as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(tensor: Tensor<2>) -> Vec<f32> {
        tensor.into_data().try_into_vec().unwrap()
    }

    #[test]
    fn smoothing_and_mixing_share_out_all_of_the_mass() {
        let device = Device::flex();
        assert_eq!(rows(soft_targets(&[1, 0], 2, 0.0, &device)), [0.0, 1.0, 1.0, 0.0]);
        let smooth = rows(soft_targets(&[2], 4, 0.2, &device));
        let mixed = rows(mixed_targets(&[Target { label: 2, other: 0, share: 0.75 }], 4, 0.2, &device));
        for (row, expected) in [(smooth, [0.05, 0.05, 0.85, 0.05]), (mixed, [0.25, 0.05, 0.65, 0.05])] {
            for (value, expected) in row.iter().zip(expected) {
                assert!((value - expected).abs() < 1e-6, "{row:?}");
            }
        }
    }
}
