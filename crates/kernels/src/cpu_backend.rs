//! The operators on burn's CPU backend: tensors in, slices to the `cpu` modules, tensors out.
//!
//! Pixels lie channel by channel, from the first convolution to the pooling at the end: burn keeps
//! the shape `[N, C, H, W]`, with strides, and its own operators follow those.

use burn::backend::{DType, TensorMetadata};
use burn::tensor::Shape;
use burn_flex::{Flex, FlexTensor, Layout};

use crate::backend::{KernelBackend, dims4};
use crate::conv2d::{Geometry, Precision};
use crate::sgd::SgdStep;
use crate::{add_relu, batch_norm, conv2d, pool, sgd};

fn contiguous(tensor: FlexTensor) -> FlexTensor {
    if tensor.is_contiguous() && tensor.layout().start_offset() == 0 { tensor } else { tensor.to_contiguous() }
}

/// `[N, C, H, W]` as `[N, H, W, C]` without gaps: no copy where the tensor lies so already, as all do
/// that these operators make; images do not.
fn channels_last(tensor: FlexTensor) -> FlexTensor {
    contiguous(tensor.permute(&[0, 2, 3, 1]))
}

/// The way back of [`channels_last`] for a new tensor: of the shape that burn knows, with strides.
fn channels_first(values: Vec<f32>, [n, c, h, w]: [usize; 4]) -> FlexTensor {
    tensor(values, [n, h, w, c]).permute(&[0, 3, 1, 2])
}

/// # Panics
/// If the tensor is not f32, which no network of this project is on a CPU.
fn slice(tensor: &FlexTensor) -> &[f32] {
    &tensor.storage::<f32>()[..tensor.layout().num_elements()]
}

fn tensor(values: Vec<f32>, shape: impl Into<Shape>) -> FlexTensor {
    let bytes = burn::tensor::Bytes::from_elems(values);
    FlexTensor::new(bytes, Layout::contiguous(shape.into()), DType::F32)
}

impl KernelBackend for Flex {
    fn kiln_conv2d(
        x: FlexTensor,
        weight: FlexTensor,
        stride: usize,
        padding: usize,
        precision: Precision,
    ) -> FlexTensor {
        let geometry = Geometry::new(dims4(&x), dims4(&weight), stride, padding);
        let (x, weight) = (channels_last(x), contiguous(weight));
        channels_first(conv2d::cpu::forward(&geometry, slice(&x), slice(&weight), precision), geometry.output())
    }

    fn kiln_conv2d_backward_data(
        x: FlexTensor,
        weight: FlexTensor,
        grad: FlexTensor,
        stride: usize,
        padding: usize,
        precision: Precision,
    ) -> FlexTensor {
        let shape = dims4(&x);
        let geometry = Geometry::new(shape, dims4(&weight), stride, padding);
        let (weight, grad) = (contiguous(weight), channels_last(grad));
        channels_first(conv2d::cpu::backward_data(&geometry, slice(&weight), slice(&grad), precision), shape)
    }

    fn kiln_conv2d_backward_weight(
        x: FlexTensor,
        weight: FlexTensor,
        grad: FlexTensor,
        stride: usize,
        padding: usize,
        precision: Precision,
    ) -> FlexTensor {
        let geometry = Geometry::new(dims4(&x), dims4(&weight), stride, padding);
        let (x, grad) = (channels_last(x), channels_last(grad));
        tensor(conv2d::cpu::backward_weight(&geometry, slice(&x), slice(&grad), precision), weight.shape())
    }

    fn kiln_batch_norm_train(
        x: FlexTensor,
        gamma: FlexTensor,
        beta: FlexTensor,
        epsilon: f64,
        relu: bool,
    ) -> (FlexTensor, FlexTensor, FlexTensor) {
        let shape = dims4(&x);
        let (x, gamma, beta) = (channels_last(x), contiguous(gamma), contiguous(beta));
        let (output, mean, variance) = batch_norm::cpu::forward(slice(&x), slice(&gamma), slice(&beta), epsilon, relu);
        (channels_first(output, shape), tensor(mean, [shape[1]]), tensor(variance, [shape[1]]))
    }

    fn kiln_batch_norm_train_backward(
        x: FlexTensor,
        gamma: FlexTensor,
        output: FlexTensor,
        mean: FlexTensor,
        variance: FlexTensor,
        grad: FlexTensor,
        epsilon: f64,
        relu: bool,
    ) -> (FlexTensor, FlexTensor, FlexTensor) {
        let shape = dims4(&x);
        let [x, output, grad] = [x, output, grad].map(channels_last);
        let [gamma, mean, variance] = [gamma, mean, variance].map(contiguous);
        let output = relu.then(|| slice(&output));
        let statistics = batch_norm::cpu::Statistics {
            gamma: slice(&gamma),
            mean: slice(&mean),
            variance: slice(&variance),
            epsilon,
        };
        let (x_grad, gamma_grad, beta_grad) = batch_norm::cpu::backward(slice(&x), &statistics, output, slice(&grad));
        (channels_first(x_grad, shape), tensor(gamma_grad, [shape[1]]), tensor(beta_grad, [shape[1]]))
    }

    fn kiln_normalize(x: FlexTensor, mean: FlexTensor, scale: FlexTensor, shift: FlexTensor, relu: bool) -> FlexTensor {
        let shape = dims4(&x);
        let x = channels_last(x);
        let [mean, scale, shift] = [mean, scale, shift].map(contiguous);
        let output = batch_norm::cpu::normalize(slice(&x), slice(&mean), slice(&scale), slice(&shift), relu);
        channels_first(output, shape)
    }

    fn kiln_global_average_pool(x: FlexTensor) -> FlexTensor {
        let [n, c, h, w] = dims4(&x);
        tensor(pool::cpu::forward(c, h * w, slice(&channels_last(x))), [n, c])
    }

    fn kiln_global_average_pool_backward(grad: FlexTensor, height: usize, width: usize) -> FlexTensor {
        let [n, c] = grad.shape().dims();
        channels_first(pool::cpu::backward(c, height * width, slice(&contiguous(grad))), [n, c, height, width])
    }

    fn kiln_sgd(
        weights: FlexTensor,
        grad: FlexTensor,
        momentum: FlexTensor,
        step: SgdStep,
    ) -> (FlexTensor, FlexTensor) {
        let [weights, grad, momentum] = [weights, grad, momentum].map(contiguous);
        let (new_weights, momentum) = sgd::cpu::step(slice(&weights), slice(&grad), slice(&momentum), step);
        (tensor(new_weights, weights.shape()), tensor(momentum, weights.shape()))
    }

    fn kiln_add(x: FlexTensor, y: FlexTensor) -> FlexTensor {
        let shape = dims4(&x);
        let (x, y) = (channels_last(x), channels_last(y));
        channels_first(add_relu::cpu::add(slice(&x), slice(&y)), shape)
    }

    fn kiln_add_relu(x: FlexTensor, y: FlexTensor) -> FlexTensor {
        let shape = dims4(&x);
        let (x, y) = (channels_last(x), channels_last(y));
        channels_first(add_relu::cpu::forward(slice(&x), slice(&y)), shape)
    }

    fn kiln_add_relu_backward(output: FlexTensor, grad: FlexTensor) -> FlexTensor {
        let shape = dims4(&output);
        let (output, grad) = (channels_last(output), channels_last(grad));
        channels_first(add_relu::cpu::backward(slice(&output), slice(&grad)), shape)
    }
}
