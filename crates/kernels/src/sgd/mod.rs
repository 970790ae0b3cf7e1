//! Stochastic gradient descent with momentum, one parameter at a time.

pub mod cpu;
pub mod reference;
mod step;
mod tensors;

pub use step::SgdStep;
pub use tensors::sgd;

#[cfg(test)]
mod tests {
    use burn::tensor::{Device, Tensor};

    use super::*;
    use kiln_infer::check::{noise, relative_error};

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
