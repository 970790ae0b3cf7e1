//! Pooling over whole maps.

pub(crate) mod cpu;
#[cfg(feature = "wgpu")]
pub(crate) mod gpu;
mod tensors;

pub use tensors::global_average_pool;

#[cfg(test)]
mod tests {
    use burn::tensor::Tensor;

    use kiln_infer::pool::reference;

    use super::*;
    use kiln_infer::check::{noise, relative_error};

    #[test]
    fn the_operator_and_its_gradient_agree_with_the_reference_on_every_device() {
        let wgpu = crate::device::for_tests();
        for device in std::iter::once(burn::tensor::Device::flex()).chain(wgpu) {
            let device = device.autodiff();
            for shape in [[3, 5, 7, 9], [1, 64, 4, 4], [1, 1, 1, 1], [2, 3, 1, 33]] {
                // What is freed here is given out again: outputs start as NaN.
                Tensor::<1>::full([1 << 12], f32::NAN, &device).sum().into_data();
                let (maps, area) = (shape[0] * shape[1], shape[2] * shape[3]);
                let (x, grad) = (noise(maps * area, 1), noise(maps, 2));
                let tensor = |values: &[f32]| Tensor::<1>::from_data(values, &device);
                let input = tensor(&x).reshape(shape).require_grad();
                let output = global_average_pool(input.clone());
                assert_eq!(output.dims(), [shape[0], shape[1]]);
                let grads = (output.clone() * tensor(&grad).reshape([shape[0], shape[1]])).sum().backward();
                let found = output.inner().into_data().try_into_vec::<f32>().unwrap();
                let error = relative_error(&found, &reference::forward(area, &x));
                assert!(error < 1e-5, "{shape:?}: {error}");
                let found = input.grad(&grads).unwrap().into_data().try_into_vec::<f32>().unwrap();
                let error = relative_error(&found, &reference::backward(area, &grad));
                assert!(error < 1e-5, "gradient of {shape:?}: {error}");
            }
        }
    }
}
