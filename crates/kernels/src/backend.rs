//! How burn finds the operators: one backend extension, on CPUs in [`crate::cpu_backend`], on GPUs in
//! [`crate::gpu_backend`], and their derivatives in [`crate::autodiff`].
//!
//! Fusion takes most of them as they are, lazily; a default body is left to it, to be fused.

use burn::backend::tensor::FloatTensor;
use burn::backend::{Backend, TensorMetadata, backend_extension};
use burn::tensor::Shape;
use kiln_infer::Precision;
#[cfg(feature = "wgpu")]
use kiln_infer::conv2d::Geometry;

use crate::sgd::SgdStep;

/// The operators that Kiln has its own form of. Tensors are `[N, C, H, W]` and `[C]`.
#[backend_extension(Cube: cfg(feature = "wgpu"), Flex, Autodiff, Fusion: cfg(feature = "wgpu"))]
pub trait KernelBackend: Backend {
    /// See [`conv2d`](crate::conv2d()).
    #[fusion(dtype = x, shape = {
        Shape::from(Geometry::new(x.dims(), weight.dims(), *stride, *padding).output())
    })]
    fn kiln_conv2d(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        stride: usize,
        padding: usize,
        precision: Precision,
    ) -> FloatTensor<Self>;

    /// Gradient of the input `x`, of which only the shape matters, from the output's.
    #[fusion(dtype = x, shape = x)]
    fn kiln_conv2d_backward_data(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        grad: FloatTensor<Self>,
        stride: usize,
        padding: usize,
        precision: Precision,
    ) -> FloatTensor<Self>;

    /// Gradient of `weight`, of which only the shape matters, from the output's.
    #[fusion(dtype = weight, shape = weight)]
    fn kiln_conv2d_backward_weight(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        grad: FloatTensor<Self>,
        stride: usize,
        padding: usize,
        precision: Precision,
    ) -> FloatTensor<Self>;

    /// See [`batch_norm_train`](crate::batch_norm_train): output, mean, biased variance.
    #[fusion(meta = |x, gamma, _, _, _| (x.clone(), gamma.clone(), gamma.clone()))]
    fn kiln_batch_norm_train(
        x: FloatTensor<Self>,
        gamma: FloatTensor<Self>,
        beta: FloatTensor<Self>,
        epsilon: f64,
        relu: bool,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>);

    /// Gradients of input, gamma and beta. `output` is the forward pass's, for its ReLU.
    #[fusion(meta = |x, gamma, _, _, _, _, _, _| (x.clone(), gamma.clone(), gamma.clone()))]
    #[allow(clippy::too_many_arguments, reason = "a derivative needs all that the function saw")]
    fn kiln_batch_norm_train_backward(
        x: FloatTensor<Self>,
        gamma: FloatTensor<Self>,
        output: FloatTensor<Self>,
        mean: FloatTensor<Self>,
        variance: FloatTensor<Self>,
        grad: FloatTensor<Self>,
        epsilon: f64,
        relu: bool,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>);

    /// `(x - mean) scale + shift`, and the ReLU; `[C]` are `mean`, `scale` and `shift`.
    #[fusion(default)]
    fn kiln_normalize(
        x: FloatTensor<Self>,
        mean: FloatTensor<Self>,
        scale: FloatTensor<Self>,
        shift: FloatTensor<Self>,
        relu: bool,
    ) -> FloatTensor<Self> {
        let by_channel = |values: FloatTensor<Self>| {
            let channels = values.shape().num_elements();
            Self::float_reshape(values, Shape::from([1, channels, 1, 1]))
        };
        let centered = Self::float_sub(x, by_channel(mean));
        let output = Self::float_add(Self::float_mul(centered, by_channel(scale)), by_channel(shift));
        if relu { Self::relu(output) } else { output }
    }

    /// See [`sgd`](crate::sgd()).
    #[fusion(default)]
    fn kiln_sgd(
        weights: FloatTensor<Self>,
        grad: FloatTensor<Self>,
        momentum: FloatTensor<Self>,
        step: SgdStep,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        let times = |tensor: &FloatTensor<Self>, factor: f64| Self::float_mul_scalar(tensor.clone(), factor.into());
        let grad =
            if step.weight_decay > 0.0 { Self::float_add(grad, times(&weights, step.weight_decay)) } else { grad };
        let momentum = Self::float_add(times(&momentum, step.momentum), grad.clone());
        let direction = match step.nesterov {
            true => Self::float_add(grad, times(&momentum, step.momentum)),
            false => momentum.clone(),
        };
        (Self::float_sub(weights, times(&direction, step.lr)), momentum)
    }

    /// See [`fork`](crate::fork()).
    #[fusion(default)]
    fn kiln_fork(x: FloatTensor<Self>) -> (FloatTensor<Self>, FloatTensor<Self>) {
        (x.clone(), x)
    }

    /// The sum of two gradients `[N, C, H, W]`.
    #[fusion(default)]
    fn kiln_add(x: FloatTensor<Self>, y: FloatTensor<Self>) -> FloatTensor<Self> {
        Self::float_add(x, y)
    }

    /// See [`add_relu`](crate::add_relu()).
    #[fusion(default)]
    fn kiln_add_relu(x: FloatTensor<Self>, y: FloatTensor<Self>) -> FloatTensor<Self> {
        Self::relu(Self::float_add(x, y))
    }

    /// Gradient of both inputs from the output and its gradient.
    #[fusion(default)]
    fn kiln_add_relu_backward(output: FloatTensor<Self>, grad: FloatTensor<Self>) -> FloatTensor<Self> {
        Self::relu_backward(output, grad)
    }

    /// See [`global_average_pool`](crate::global_average_pool).
    #[fusion(dtype = x, shape = { let [n, c, _, _] = x.dims(); Shape::from([n, c]) })]
    fn kiln_global_average_pool(x: FloatTensor<Self>) -> FloatTensor<Self> {
        average_pool::<Self>(x)
    }

    /// Gradient of the input, whose maps are `height` by `width`.
    #[fusion(dtype = grad, shape = { let [n, c] = grad.dims(); Shape::from([n, c, *height, *width]) })]
    fn kiln_global_average_pool_backward(grad: FloatTensor<Self>, height: usize, width: usize) -> FloatTensor<Self> {
        average_pool_backward::<Self>(grad, height, width)
    }
}

/// The four axes of a tensor.
pub(crate) fn dims4<T: TensorMetadata>(tensor: &T) -> [usize; 4] {
    tensor.shape().dims()
}

/// Global average pooling by burn's operators.
pub(crate) fn average_pool<B: KernelBackend>(x: FloatTensor<B>) -> FloatTensor<B> {
    let [n, c, height, width] = dims4(&x);
    let maps = B::float_reshape(x, Shape::from([n * c, height * width]));
    B::float_reshape(B::float_mean_dim(maps, 1), Shape::from([n, c]))
}

/// Its gradient by burn's operators, for maps of `height` by `width`.
pub(crate) fn average_pool_backward<B: KernelBackend>(
    grad: FloatTensor<B>,
    height: usize,
    width: usize,
) -> FloatTensor<B> {
    let [n, c] = grad.shape().dims();
    let area = height * width;
    let share = B::float_div_scalar(B::float_reshape(grad, Shape::from([n * c, 1])), (area as f64).into());
    B::float_reshape(B::float_expand(share, Shape::from([n * c, area])), Shape::from([n, c, height, width]))
}
