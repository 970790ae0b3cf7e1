//! The operators on burn's GPU runtimes: Kiln's shaders where the runtime takes WGSL, burn's own
//! operators elsewhere (CUDA, and wgpu built for SPIR-V or MSL).

use burn::backend::tensor::FloatTensor;
use burn::backend::{
    DType, TensorMetadata,
    ops::{ActivationOps, ModuleOps},
};
use burn::tensor::ops::ConvOptions;
use burn_cubecl::CubeBackend;
use burn_cubecl::tensor::CubeTensor;

use crate::backend::{KernelBackend, average_pool, average_pool_backward, dims4};
use crate::conv2d::{Geometry, Precision};
use crate::device::WGSL_RUNTIME;
use crate::{batch_norm, conv2d, pool};

/// Whether Kiln's shaders run on that tensor: its runtime takes WGSL, and it holds f32.
fn takes_wgsl(tensor: &CubeTensor) -> bool {
    tensor.dtype == DType::F32 && tensor.client.name() == WGSL_RUNTIME
}

impl KernelBackend for CubeBackend {
    fn kiln_conv2d(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        stride: usize,
        padding: usize,
        precision: Precision,
    ) -> FloatTensor<Self> {
        if !takes_wgsl(&x) {
            return Self::conv2d(x, weight, None, conv_options(stride, padding));
        }
        conv2d::gpu::forward(&Geometry::new(dims4(&x), dims4(&weight), stride, padding), x, weight, precision)
    }

    fn kiln_conv2d_backward_data(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        grad: FloatTensor<Self>,
        stride: usize,
        padding: usize,
        precision: Precision,
    ) -> FloatTensor<Self> {
        if !takes_wgsl(&x) {
            return Self::conv2d_x_backward(x, weight, grad, conv_options(stride, padding));
        }
        conv2d::gpu::backward_data(&Geometry::new(dims4(&x), dims4(&weight), stride, padding), weight, grad, precision)
    }

    fn kiln_conv2d_backward_weight(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        grad: FloatTensor<Self>,
        stride: usize,
        padding: usize,
        precision: Precision,
    ) -> FloatTensor<Self> {
        if !takes_wgsl(&x) {
            return Self::conv2d_weight_backward(x, weight, grad, conv_options(stride, padding));
        }
        conv2d::gpu::backward_weight(&Geometry::new(dims4(&x), dims4(&weight), stride, padding), x, grad, precision)
    }

    fn kiln_batch_norm_train(
        x: FloatTensor<Self>,
        gamma: FloatTensor<Self>,
        beta: FloatTensor<Self>,
        epsilon: f64,
        relu: bool,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
        if takes_wgsl(&x) {
            return batch_norm::gpu::forward(dims4(&x), [x, gamma, beta], epsilon, relu);
        }
        let result = Self::batch_norm_train(x, gamma, beta, epsilon);
        let output = if relu { Self::relu(result.output) } else { result.output };
        (output, result.mean, result.variance)
    }

    fn kiln_batch_norm_train_backward(
        x: FloatTensor<Self>,
        gamma: FloatTensor<Self>,
        output: FloatTensor<Self>,
        mean: FloatTensor<Self>,
        variance: FloatTensor<Self>,
        grad: FloatTensor<Self>,
        epsilon: f64,
        relu: bool,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
        if takes_wgsl(&x) {
            return batch_norm::gpu::backward(dims4(&x), [x, gamma, output, mean, variance, grad], epsilon, relu);
        }
        let grad = if relu { Self::relu_backward(output, grad) } else { grad };
        let grads = Self::batch_norm_train_backward(x, gamma, mean, variance, epsilon, grad);
        (grads.x_grad, grads.gamma_grad, grads.beta_grad)
    }

    fn kiln_global_average_pool(x: FloatTensor<Self>) -> FloatTensor<Self> {
        if !takes_wgsl(&x) {
            return average_pool::<Self>(x);
        }
        pool::gpu::forward(dims4(&x), x)
    }

    fn kiln_global_average_pool_backward(grad: FloatTensor<Self>, height: usize, width: usize) -> FloatTensor<Self> {
        if !takes_wgsl(&grad) {
            return average_pool_backward::<Self>(grad, height, width);
        }
        let [n, c] = grad.shape().dims();
        pool::gpu::backward([n, c, height, width], grad)
    }
}

fn conv_options(stride: usize, padding: usize) -> ConvOptions<2> {
    ConvOptions::new([stride; 2], [padding; 2], [1; 2], 1)
}
