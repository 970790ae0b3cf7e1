//! Global average pooling of burn's tensors.

use burn::backend::Dispatch;
use burn::tensor::Tensor;

use crate::backend::KernelBackend;

/// Mean over each map: `[N, C, H, W]` -> `[N, C]`.
pub fn global_average_pool(x: Tensor<4>) -> Tensor<2> {
    Tensor::from_dispatch(Dispatch::kiln_global_average_pool(x.into_dispatch()))
}
