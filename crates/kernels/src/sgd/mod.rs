//! Stochastic gradient descent with momentum, one parameter at a time.

pub mod cpu;
pub mod reference;

use burn::backend::Dispatch;
use burn::tensor::Tensor;

use crate::backend::KernelBackend;

/// How a step goes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SgdStep {
    /// Learning rate.
    pub lr: f64,
    pub momentum: f64,
    /// Coupled: added to the gradient times the weights.
    pub weight_decay: f64,
    pub nesterov: bool,
}

/// Weights and momentum after a step, all `[L]`, as `torch.optim.SGD` makes it, without dampening: with
/// `g = gradient + weight_decay weights`, the momentum becomes `m = momentum m + g`, and the weights lose
/// `lr m`, or with Nesterov's `lr (g + momentum m)`. A momentum of zeros is how it starts.
///
/// # Panics
/// If the lengths differ.
pub fn sgd(weights: Tensor<1>, grad: Tensor<1>, momentum: Tensor<1>, step: SgdStep) -> (Tensor<1>, Tensor<1>) {
    assert!(weights.dims() == grad.dims() && weights.dims() == momentum.dims(), "sgd of different lengths");
    let [weights, grad, momentum] = [weights, grad, momentum].map(Tensor::into_dispatch);
    let (weights, momentum) = Dispatch::kiln_sgd(weights, grad, momentum, step);
    (Tensor::from_dispatch(weights), Tensor::from_dispatch(momentum))
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;

    use super::*;
    use crate::check::{noise, relative_error};

    fn agree_with_the_reference(device: &Device) {
        for (len, nesterov) in [(1, true), (7, false), (100_003, true)] {
            let step = SgdStep { lr: 0.1, momentum: 0.9, weight_decay: 5e-4, nesterov };
            let [weights, grad, momentum] = [1, 2, 3].map(|seed| noise(len, seed));
            let expected = reference::step(&weights, &grad, &momentum, step);
            let [weights, grad, momentum] =
                [weights, grad, momentum].map(|values| Tensor::<1>::from_data(values.as_slice(), device));
            let made = sgd(weights, grad, momentum, step);
            for (made, expected) in [(made.0, expected.0), (made.1, expected.1)] {
                let error = relative_error(&made.into_data().try_into_vec::<f32>().unwrap(), &expected);
                assert!(error < 1e-6, "{error} for {len} weights");
            }
        }
    }

    #[test]
    fn a_step_agrees_with_the_reference_on_the_cpu() {
        agree_with_the_reference(&Device::flex());
    }

    #[test]
    fn a_step_agrees_with_the_reference_on_wgpu() {
        if let Some(device) = crate::device::for_tests() {
            agree_with_the_reference(&device);
        }
    }
}
