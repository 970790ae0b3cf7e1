//! The end of a residual block on burn's tensors.

use burn::backend::Dispatch;
use burn::tensor::Tensor;

use crate::backend::KernelBackend;

/// `max(x + y, 0)` of two tensors of the same shape.
///
/// # Panics
/// If the shapes differ.
pub fn add_relu(x: Tensor<4>, y: Tensor<4>) -> Tensor<4> {
    assert_eq!(x.dims(), y.dims(), "add_relu of tensors of different shapes");
    Tensor::from_dispatch(Dispatch::kiln_add_relu(x.into_dispatch(), y.into_dispatch()))
}
