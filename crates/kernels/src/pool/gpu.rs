//! Global average pooling on burn's wgpu runtime by Kiln's shaders.

use burn_cubecl::kernel::into_contiguous;
use burn_cubecl::tensor::CubeTensor;

use crate::launch::{empty, launch};
use kiln_infer::pool::wgsl;

/// `[N, C]`
pub fn forward([n, c, height, width]: [usize; 4], x: CubeTensor) -> CubeTensor {
    let x = into_contiguous(x);
    let y = empty(&x, [n, c]);
    launch(wgsl::forward(n * c, height * width), &[&x, &y]);
    y
}

/// Gradient of the input, `[N, C, H, W]`.
pub fn backward([n, c, height, width]: [usize; 4], grad: CubeTensor) -> CubeTensor {
    let grad = into_contiguous(grad);
    let x_grad = empty(&grad, [n, c, height, width]);
    launch(wgsl::backward(n * c, height * width), &[&grad, &x_grad]);
    x_grad
}
