//! Training batch norm on burn's wgpu runtime by Kiln's shaders.

use burn_cubecl::kernel::into_contiguous;
use burn_cubecl::tensor::CubeTensor;

use crate::launch::{empty, launch};
use kiln_infer::batch_norm::wgsl;

/// Output `[N, C, H, W]`, mean `[C]` and biased variance `[C]`.
pub fn forward(
    shape: [usize; 4],
    inputs: [CubeTensor; 3],
    epsilon: f64,
    relu: bool,
) -> (CubeTensor, CubeTensor, CubeTensor) {
    let [x, gamma, beta] = inputs.map(into_contiguous);
    let channels = shape[1];
    let [output, mean, variance] = [empty(&x, shape), empty(&x, [channels]), empty(&x, [channels])];
    launch(wgsl::forward(shape, epsilon, relu), &[&x, &gamma, &beta, &output, &mean, &variance]);
    (output, mean, variance)
}

/// Gradients of input `[N, C, H, W]`, gamma `[C]` and beta `[C]`. `inputs` are the forward pass's input,
/// gamma, output, mean and variance, and the output's gradient.
pub fn backward(
    shape: [usize; 4],
    inputs: [CubeTensor; 6],
    epsilon: f64,
    relu: bool,
) -> (CubeTensor, CubeTensor, CubeTensor) {
    let [x, gamma, output, mean, variance, grad] = inputs.map(into_contiguous);
    let channels = shape[1];
    let [x_grad, gamma_grad, beta_grad] = [empty(&x, shape), empty(&x, [channels]), empty(&x, [channels])];
    let steps = wgsl::backward(shape, epsilon, relu);
    let scales = empty(&x, [steps.scales_len]);
    launch(steps.scales, &[&gamma, &mean, &variance, &scales]);
    launch(steps.gradients, &[&x, &output, &grad, &scales, &x_grad, &gamma_grad, &beta_grad]);
    (x_grad, gamma_grad, beta_grad)
}
