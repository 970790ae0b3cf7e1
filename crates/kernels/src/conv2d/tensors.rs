//! Convolution of burn's tensors.

use burn::backend::Dispatch;
use burn::tensor::Tensor;

use super::Geometry;
use crate::backend::KernelBackend;

/// Cross-correlates `x` `[N, C, H, W]` with `weight` `[O, C, K, K]`, as PyTorch's `conv2d`:
/// `[N, O, (H + 2 padding - K) / stride + 1, ..]`.
///
/// # Panics
/// If the shapes do not fit each other.
pub fn conv2d(x: Tensor<4>, weight: Tensor<4>, stride: usize, padding: usize) -> Tensor<4> {
    Geometry::new(x.dims(), weight.dims(), stride, padding);
    Tensor::from_dispatch(Dispatch::kiln_conv2d(x.into_dispatch(), weight.into_dispatch(), stride, padding))
}
