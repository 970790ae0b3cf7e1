//! Batch and group normalization of burn's tensors.

use burn::backend::Dispatch;
use burn::tensor::{Tensor, activation};

use crate::backend::KernelBackend;

/// What [`batch_norm_train`] gives.
pub struct BatchNormTrain {
    /// `[N, C, H, W]`
    pub output: Tensor<4>,
    /// Of the batch, `[C]`, without gradient.
    pub mean: Tensor<1>,
    /// Biased, of the batch, `[C]`, without gradient.
    pub variance: Tensor<1>,
}

/// Normalizes each channel of `x` `[N, C, H, W]` by its mean and biased variance over the batch,
/// then scales by `gamma` `[C]`, shifts by `beta` `[C]`, and cuts at zero if `relu`
/// (Ioffe and Szegedy, <https://arxiv.org/abs/1502.03167>).
pub fn batch_norm_train(x: Tensor<4>, gamma: Tensor<1>, beta: Tensor<1>, epsilon: f64, relu: bool) -> BatchNormTrain {
    let (x, gamma, beta) = (x.into_dispatch(), gamma.into_dispatch(), beta.into_dispatch());
    let (output, mean, variance) = Dispatch::kiln_batch_norm_train(x, gamma, beta, epsilon, relu);
    BatchNormTrain {
        output: Tensor::from_dispatch(output),
        mean: Tensor::from_dispatch(mean),
        variance: Tensor::from_dispatch(variance),
    }
}

/// As [`batch_norm_train`], by the given `mean` and `variance` `[C]`.
pub fn batch_norm(
    x: Tensor<4>,
    gamma: Tensor<1>,
    beta: Tensor<1>,
    mean: Tensor<1>,
    variance: Tensor<1>,
    epsilon: f64,
    relu: bool,
) -> Tensor<4> {
    let scale = gamma / (variance + epsilon).sqrt();
    let [mean, scale, beta] = [mean, scale, beta].map(Tensor::into_dispatch);
    Tensor::from_dispatch(Dispatch::kiln_normalize(x.into_dispatch(), mean, scale, beta, relu))
}

/// Normalizes each of `groups` groups of channels of each sample of `x` `[N, C, H, W]`, then scales by
/// `gamma` `[C]`, shifts by `beta` `[C]`, and cuts at zero if `relu`
/// (Wu and He, <https://arxiv.org/abs/1803.08494>).
pub fn group_norm(
    x: Tensor<4>,
    gamma: Tensor<1>,
    beta: Tensor<1>,
    groups: usize,
    epsilon: f64,
    relu: bool,
) -> Tensor<4> {
    let [n, c, h, w] = x.dims();
    let grouped = x.reshape([n, groups, c / groups * h * w]);
    let centered = grouped.clone() - grouped.mean_dim(2);
    let variance = centered.clone().square().mean_dim(2);
    let normalized = (centered / (variance + epsilon).sqrt()).reshape([n, c, h, w]);
    let output = normalized * gamma.reshape([1, c, 1, 1]) + beta.reshape([1, c, 1, 1]);
    if relu { activation::relu(output) } else { output }
}
