//! Batch and group normalization, with the ReLU that mostly follows.

pub mod cpu;
#[cfg(feature = "wgpu")]
pub(crate) mod gpu;
mod tensors;

pub use tensors::{BatchNormTrain, batch_norm, batch_norm_train, group_norm};

#[cfg(test)]
mod tests {
    use burn::tensor::{Device, Tensor};

    use kiln_infer::batch_norm::reference;

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
