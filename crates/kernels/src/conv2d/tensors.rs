//! Convolution of burn's tensors.

use burn::backend::Dispatch;
use burn::tensor::Tensor;

use super::{Geometry, Precision};
use crate::backend::KernelBackend;

/// Cross-correlates `x` `[N, C, H, W]` with `weight` `[O, C, K, K]`, as PyTorch's `conv2d`:
/// `[N, O, (H + 2 padding - K) / stride + 1, ..]`. `precision` holds for the
/// gradients too.
///
/// # Panics
/// If the shapes do not fit each other, or the device lacks the precision ([`crate::device::multiplies`]).
pub fn conv2d(x: Tensor<4>, weight: Tensor<4>, stride: usize, padding: usize, precision: Precision) -> Tensor<4> {
    Geometry::new(x.dims(), weight.dims(), stride, padding);
    let (x, weight) = (x.into_dispatch(), weight.into_dispatch());
    Tensor::from_dispatch(Dispatch::kiln_conv2d(x, weight, stride, padding, precision))
}
