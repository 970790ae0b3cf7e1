//! Global average pooling of burn's tensors.

use burn::backend::tensor::FloatTensor;
use burn::backend::{Dispatch, TensorMetadata};
use burn::tensor::{Shape, Tensor};

use crate::backend::{KernelBackend, dims4};

/// Mean over each map: `[N, C, H, W]` -> `[N, C]`.
pub fn global_average_pool(x: Tensor<4>) -> Tensor<2> {
    Tensor::from_dispatch(Dispatch::kiln_global_average_pool(x.into_dispatch()))
}

/// By burn's operators.
pub(crate) fn forward<B: KernelBackend>(x: FloatTensor<B>) -> FloatTensor<B> {
    let [n, c, height, width] = dims4(&x);
    let maps = B::float_reshape(x, Shape::from([n * c, height * width]));
    B::float_reshape(B::float_mean_dim(maps, 1), Shape::from([n, c]))
}

/// By burn's operators, for maps of `height` by `width`.
pub(crate) fn backward<B: KernelBackend>(grad: FloatTensor<B>, height: usize, width: usize) -> FloatTensor<B> {
    let [n, c] = grad.shape().dims();
    let area = height * width;
    let share = B::float_div_scalar(B::float_reshape(grad, Shape::from([n * c, 1])), (area as f64).into());
    B::float_reshape(B::float_expand(share, Shape::from([n * c, area])), Shape::from([n, c, height, width]))
}
