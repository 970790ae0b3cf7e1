//! The operators on burn's CPU backend: tensors in, slices to the `cpu` modules, tensors out.

use burn::backend::{DType, TensorMetadata};
use burn::tensor::Shape;
use burn_flex::{Flex, FlexTensor, Layout};

use crate::backend::{KernelBackend, dims4};
use crate::conv2d::Geometry;
use crate::{add_relu, batch_norm, conv2d};

fn contiguous(tensor: FlexTensor) -> FlexTensor {
    if tensor.is_contiguous() && tensor.layout().start_offset() == 0 { tensor } else { tensor.to_contiguous() }
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
    fn kiln_conv2d(x: FlexTensor, weight: FlexTensor, stride: usize, padding: usize) -> FlexTensor {
        let geometry = Geometry::new(dims4(&x), dims4(&weight), stride, padding);
        let (x, weight) = (contiguous(x), contiguous(weight));
        tensor(conv2d::cpu::forward(&geometry, slice(&x), slice(&weight)), geometry.output())
    }

    fn kiln_conv2d_backward_data(
        x: FlexTensor,
        weight: FlexTensor,
        grad: FlexTensor,
        stride: usize,
        padding: usize,
    ) -> FlexTensor {
        let geometry = Geometry::new(dims4(&x), dims4(&weight), stride, padding);
        let (weight, grad) = (contiguous(weight), contiguous(grad));
        tensor(conv2d::cpu::backward_data(&geometry, slice(&weight), slice(&grad)), x.shape())
    }

    fn kiln_conv2d_backward_weight(
        x: FlexTensor,
        weight: FlexTensor,
        grad: FlexTensor,
        stride: usize,
        padding: usize,
    ) -> FlexTensor {
        let geometry = Geometry::new(dims4(&x), dims4(&weight), stride, padding);
        let (x, grad) = (contiguous(x), contiguous(grad));
        tensor(conv2d::cpu::backward_weight(&geometry, slice(&x), slice(&grad)), weight.shape())
    }

    fn kiln_batch_norm_train(
        x: FlexTensor,
        gamma: FlexTensor,
        beta: FlexTensor,
        epsilon: f64,
        relu: bool,
    ) -> (FlexTensor, FlexTensor, FlexTensor) {
        let shape = dims4(&x);
        let (x, gamma, beta) = (contiguous(x), contiguous(gamma), contiguous(beta));
        let (output, mean, variance) =
            batch_norm::cpu::forward(shape, slice(&x), slice(&gamma), slice(&beta), epsilon, relu);
        (tensor(output, shape), tensor(mean, [shape[1]]), tensor(variance, [shape[1]]))
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
        let [x, gamma, output, mean, variance, grad] = [x, gamma, output, mean, variance, grad].map(contiguous);
        let output = relu.then(|| slice(&output));
        let statistics = batch_norm::cpu::Statistics {
            gamma: slice(&gamma),
            mean: slice(&mean),
            variance: slice(&variance),
            epsilon,
        };
        let (x_grad, gamma_grad, beta_grad) =
            batch_norm::cpu::backward(shape, slice(&x), &statistics, output, slice(&grad));
        (tensor(x_grad, shape), tensor(gamma_grad, [shape[1]]), tensor(beta_grad, [shape[1]]))
    }

    fn kiln_add_relu(x: FlexTensor, y: FlexTensor) -> FlexTensor {
        let shape = x.shape();
        let (x, y) = (contiguous(x), contiguous(y));
        tensor(add_relu::cpu::forward(slice(&x), slice(&y)), shape)
    }

    fn kiln_add_relu_backward(output: FlexTensor, grad: FlexTensor) -> FlexTensor {
        let shape = output.shape();
        let (output, grad) = (contiguous(output), contiguous(grad));
        tensor(add_relu::cpu::backward(slice(&output), slice(&grad)), shape)
    }
}
