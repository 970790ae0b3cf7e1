//! Training batch norm on burn's wgpu runtime by Kiln's shaders.

use burn_cubecl::kernel::into_contiguous;
use burn_cubecl::tensor::CubeTensor;

use crate::cube::{self, launch_grid};
use crate::shader::{BATCH_NORM, BATCH_NORM_BACKWARD, Shader, Specialised};

/// Output `[N, C, H, W]`, mean `[C]` and biased variance `[C]`.
pub fn forward(
    shape: [usize; 4],
    inputs: [CubeTensor; 3],
    epsilon: f64,
    relu: bool,
) -> (CubeTensor, CubeTensor, CubeTensor) {
    let [x, gamma, beta] = inputs.map(into_contiguous);
    let channels = shape[1];
    let [output, mean, variance] = [cube::empty(&x, shape), cube::empty(&x, [channels]), cube::empty(&x, [channels])];
    let shader = specialise(BATCH_NORM, shape, epsilon, relu);
    launch_grid(shader, [channels, 1], &[&x, &gamma, &beta, &output, &mean, &variance]);
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
    let [x_grad, gamma_grad, beta_grad] =
        [cube::empty(&x, shape), cube::empty(&x, [channels]), cube::empty(&x, [channels])];
    let shader = specialise(BATCH_NORM_BACKWARD, shape, epsilon, relu);
    let tensors = [&x, &gamma, &output, &mean, &variance, &grad, &x_grad, &gamma_grad, &beta_grad];
    launch_grid(shader, [channels, 1], &tensors);
    (x_grad, gamma_grad, beta_grad)
}

fn specialise(shader: Shader, [batch, channels, height, width]: [usize; 4], epsilon: f64, relu: bool) -> Specialised {
    shader.with([
        ("BATCH", batch.into()),
        ("CHANNELS", channels.into()),
        ("AREA", (height * width).into()),
        ("EPSILON", (epsilon as f32).into()),
        ("RELU", relu.into()),
    ])
}
