//! Batch and group normalisation, with the ReLU that mostly follows.

pub mod cpu;
pub mod reference;
pub(crate) mod wgsl;

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

/// Normalises each channel of `x` `[N, C, H, W]` by its mean and biased variance over the batch,
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
    Tensor::from_dispatch(Dispatch::kiln_normalise(x.into_dispatch(), mean, scale, beta, relu))
}

/// Normalises each of `groups` groups of channels of each sample of `x` `[N, C, H, W]`, then scales by
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
    let centred = grouped.clone() - grouped.mean_dim(2);
    let variance = centred.clone().square().mean_dim(2);
    let normalised = (centred / (variance + epsilon).sqrt()).reshape([n, c, h, w]);
    let output = normalised * gamma.reshape([1, c, 1, 1]) + beta.reshape([1, c, 1, 1]);
    if relu { activation::relu(output) } else { output }
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;

    use super::*;

    #[test]
    fn the_operator_agrees_with_the_reference_on_the_cpu() {
        // A mean far from zero is where a one-pass variance would lose its digits; the gradient of gamma
        // sees its rounding to f32.
        for shape in [[2, 3, 4, 5], [33, 5, 1, 1], [1, 1, 9, 70], [20, 70, 5, 5], [64, 16, 32, 32]] {
            agree_with_the_reference(shape, 100.0, 5e-5, &Device::flex().autodiff());
        }
    }

    /// A single channel is where burn's fused reduction went wrong.
    #[test]
    fn the_operator_agrees_with_the_reference_on_wgpu() {
        let Some(device) = crate::device::for_tests() else { return };
        for shape in [[8, 1, 6, 6], [3, 2, 5, 4], [2, 7, 1, 3]] {
            agree_with_the_reference(shape, 0.0, 1e-5, &device.clone().autodiff());
        }
    }

    fn agree_with_the_reference(shape: [usize; 4], mean: f32, tolerance: f64, device: &Device) {
        for relu in [false, true] {
            let len: usize = shape.iter().product();
            let wave =
                |step: f32, at: f32| (0..len).map(|index| (index as f32 * step).sin() * 3.0 + at).collect::<Vec<_>>();
            let (x, grad) = (wave(0.7, mean), wave(1.3, 0.0));
            let gamma: Vec<f32> = (0..shape[1]).map(|channel| 1.0 - 0.3 * channel as f32).collect();
            let beta: Vec<f32> = (0..shape[1]).map(|channel| 0.1 + 0.1 * channel as f32).collect();
            let expected = reference::train(shape, &x, &gamma, &beta, &grad, 1e-5, relu);
            let tensor = |values: &[f32]| Tensor::<1>::from_data(values, device);
            let x = tensor(&x).reshape(shape).require_grad();
            let (gamma, beta) = (tensor(&gamma).require_grad(), tensor(&beta).require_grad());
            let made = batch_norm_train(x.clone(), gamma.clone(), beta.clone(), 1e-5, relu);
            let grads = (made.output.clone() * tensor(&grad).reshape(shape)).sum().backward();
            let read = |tensor: Tensor<1>| tensor.into_data().try_into_vec::<f32>().unwrap();
            for (name, found, expected) in [
                ("output", read(made.output.inner().reshape([-1])), &expected.output),
                ("mean", read(made.mean.inner()), &expected.mean),
                ("variance", read(made.variance.inner()), &expected.variance),
                ("beta_grad", read(beta.grad(&grads).unwrap()), &expected.beta_grad),
                ("gamma_grad", read(gamma.grad(&grads).unwrap()), &expected.gamma_grad),
                ("x_grad", read(x.grad(&grads).unwrap().reshape([-1])), &expected.x_grad),
            ] {
                let scale = expected.iter().fold(1e-3_f64, |max, value| max.max(value.abs()));
                for (a, b) in found.iter().zip(expected) {
                    assert!((f64::from(*a) - b).abs() <= tolerance * scale, "{name} of {shape:?}: {a} is not {b}");
                }
            }
        }
    }
}
