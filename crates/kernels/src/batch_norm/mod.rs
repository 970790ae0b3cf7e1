//! Batch and group normalisation, with the ReLU that mostly follows.

#[cfg(feature = "burn")]
pub mod cpu;
#[cfg(feature = "burn")]
pub(crate) mod cube;
pub mod reference;
#[cfg(feature = "burn")]
mod tensors;
pub mod wgsl;

#[cfg(feature = "burn")]
pub use tensors::{BatchNormTrain, batch_norm, batch_norm_train, group_norm};

#[cfg(test)]
mod tests {
    use burn::tensor::Tensor;

    use super::*;

    #[test]
    fn the_cpu_form_agrees_with_the_reference_in_double_precision() {
        for (shape, relu) in [([2, 3, 4, 5], false), ([2, 3, 4, 5], true), ([33, 5, 1, 1], true), ([1, 1, 9, 70], true)]
        {
            let len: usize = shape.iter().product();
            let wave =
                |step: f32, at: f32| (0..len).map(|index| (index as f32 * step).sin() * 3.0 + at).collect::<Vec<_>>();
            // A mean far from zero is where a one-pass variance would lose its digits.
            let (x, grad) = (wave(0.7, 100.0), wave(1.3, 0.0));
            let gamma: Vec<f32> = (0..shape[1]).map(|channel| 1.0 - 0.3 * channel as f32).collect();
            let beta: Vec<f32> = (0..shape[1]).map(|channel| 0.1 * channel as f32).collect();
            let (output, mean, variance) = cpu::forward(shape, &x, &gamma, &beta, 1e-5, relu);
            let expected = reference::train(shape, &x, &gamma, &beta, &grad, 1e-5, relu);
            let statistics = cpu::Statistics { gamma: &gamma, mean: &mean, variance: &variance, epsilon: 1e-5 };
            let (x_grad, gamma_grad, beta_grad) = cpu::backward(shape, &x, &statistics, relu.then_some(&output), &grad);
            for (name, found, expected) in [
                ("output", &output, &expected.output),
                ("mean", &mean, &expected.mean),
                ("variance", &variance, &expected.variance),
                ("x_grad", &x_grad, &expected.x_grad),
                ("gamma_grad", &gamma_grad, &expected.gamma_grad),
                ("beta_grad", &beta_grad, &expected.beta_grad),
            ] {
                let scale = expected.iter().fold(1e-3_f64, |max, value| max.max(value.abs()));
                for (a, b) in found.iter().zip(expected) {
                    // The input's own rounding, 100 in f32, is 4e-6 of its deviation.
                    assert!((f64::from(*a) - b).abs() <= 2e-5 * scale, "{name} of {shape:?}: {a} is not {b}");
                }
            }
        }
    }

    /// On every backend the operator has; a single channel is where burn's fused reduction went wrong.
    #[test]
    fn the_operator_agrees_with_the_reference_on_wgpu() {
        let Some(device) = crate::device::for_tests() else { return };
        let device = device.autodiff();
        for shape in [[8, 1, 6, 6], [3, 2, 5, 4], [2, 7, 1, 3]] {
            let len: usize = shape.iter().product();
            let wave = |step: f32| (0..len).map(|index| (index as f32 * step).sin()).collect::<Vec<_>>();
            let (x, grad) = (wave(0.7), wave(1.3));
            let (gamma, beta) = (vec![1.5; shape[1]], vec![0.2; shape[1]]);
            let expected = reference::train(shape, &x, &gamma, &beta, &grad, 1e-5, true);
            let tensor = |values: &[f32]| Tensor::<1>::from_data(values, &device);
            let x = tensor(&x).reshape(shape).require_grad();
            let (gamma, beta) = (tensor(&gamma).require_grad(), tensor(&beta).require_grad());
            let out = batch_norm_train(x.clone(), gamma.clone(), beta.clone(), 1e-5, true);
            let grads = (out.output.clone() * tensor(&grad).reshape(shape)).sum().backward();
            let read = |tensor: Tensor<1>| tensor.into_data().try_into_vec::<f32>().unwrap();
            for (name, found, expected) in [
                ("output", read(out.output.inner().reshape([-1])), &expected.output),
                ("mean", read(out.mean.inner()), &expected.mean),
                ("variance", read(out.variance.inner()), &expected.variance),
                ("beta_grad", read(beta.grad(&grads).unwrap()), &expected.beta_grad),
                ("gamma_grad", read(gamma.grad(&grads).unwrap()), &expected.gamma_grad),
                ("x_grad", read(x.grad(&grads).unwrap().reshape([-1])), &expected.x_grad),
            ] {
                for (a, b) in found.iter().zip(expected) {
                    assert!((f64::from(*a) - b).abs() <= 1e-4, "{name} of {shape:?}: {found:?} is not {expected:?}");
                }
            }
        }
    }
}
