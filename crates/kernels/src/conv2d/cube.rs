//! Convolution on burn's wgpu runtime by Kiln's shaders.

use burn_cubecl::kernel::into_contiguous;
use burn_cubecl::tensor::CubeTensor;

use super::Geometry;
use super::wgsl::{self, Convolution};
use crate::cube::{empty, launch};

/// `[N, O, H', W']`
pub fn forward(geometry: &Geometry, x: CubeTensor, weight: CubeTensor) -> CubeTensor {
    convolve(wgsl::forward(geometry), x, weight, geometry.output())
}

/// Gradient of the input, `[N, C, H, W]`.
pub fn backward_data(geometry: &Geometry, weight: CubeTensor, grad: CubeTensor) -> CubeTensor {
    let [channels, height, width] = geometry.input;
    convolve(wgsl::backward_data(geometry), grad, weight, [geometry.batch, channels, height, width])
}

/// Gradient of the weight, `[O, C, K, K]`.
pub fn backward_weight(geometry: &Geometry, x: CubeTensor, grad: CubeTensor) -> CubeTensor {
    let steps = wgsl::backward_weight(geometry);
    let (x, grad) = (into_contiguous(x), into_contiguous(grad));
    let parts = empty(&x, steps.parts);
    launch(steps.partial, &[&x, &grad, &parts]);
    let sum = empty(&x, [geometry.outputs[0], geometry.input[0], geometry.kernel, geometry.kernel]);
    launch(steps.sum, &[&parts, &sum]);
    sum
}

fn convolve(steps: Convolution, x: CubeTensor, weight: CubeTensor, shape: [usize; 4]) -> CubeTensor {
    let (x, weight) = (into_contiguous(x), into_contiguous(weight));
    let packed = empty(&weight, steps.packed);
    launch(steps.pack, &[&weight, &packed]);
    let y = empty(&x, shape);
    launch(steps.convolve, &[&x, &packed, &y]);
    y
}
