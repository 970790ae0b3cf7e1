//! Cross-entropy towards soft targets.

use burn::tensor::{Device, Tensor, TensorData, activation::log_softmax};

/// Target distributions `[N, classes]`: one-hot labels, of whose mass `smoothing` is spread evenly
/// over all classes (Szegedy et al., <https://arxiv.org/abs/1512.00567>).
pub fn soft_targets(labels: &[u32], classes: usize, smoothing: f32, device: &Device) -> Tensor<2> {
    let mut targets = vec![smoothing / classes as f32; labels.len() * classes];
    for (row, label) in targets.chunks_exact_mut(classes).zip(labels) {
        row[*label as usize] += 1.0 - smoothing;
    }
    Tensor::from_data(TensorData::new(targets, [labels.len(), classes]), device)
}

/// Mean cross-entropy of `logits` `[N, classes]` against `targets` `[N, classes]`, in nats: `[1]`.
pub fn cross_entropy(logits: Tensor<2>, targets: Tensor<2>) -> Tensor<1> {
    let n = logits.dims()[0];
    (log_softmax(logits, 1) * targets).sum() * (-1.0 / n as f64)
}
