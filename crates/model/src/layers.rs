//! The layers a residual network is made of, with PyTorch's parameter names and semantics.

use burn::module::{Module, Param, RunningState};
use burn::tensor::Tensor;
use kiln_kernels::{self as kernels, Precision};

use crate::init::Initializer;
use crate::{NormKind, ResNetConfig};

/// Added to the variance before its root, as in PyTorch.
const EPSILON: f64 = 1e-5;
/// Weight of a new batch in the running statistics, as in PyTorch.
const MOMENTUM: f64 = 0.1;

/// Square convolution with symmetric padding of half its kernel.
#[derive(Module, Debug)]
pub(crate) struct Conv2d {
    /// `[out, in, k, k]`
    pub weight: Param<Tensor<4>>,
    pub bias: Option<Param<Tensor<1>>>,
    #[module(skip)]
    pub stride: usize,
    #[module(skip)]
    pub precision: Precision,
}

impl Conv2d {
    pub fn new(init: &mut Initializer, channels: [usize; 2], kernel: usize, stride: usize) -> Self {
        let weight = init.conv([channels[1], channels[0], kernel, kernel]);
        Self { weight: Param::from_tensor(weight), bias: None, stride, precision: Precision::F32 }
    }

    pub fn with_bias(mut self, init: &Initializer) -> Self {
        let [out, ..] = self.weight.dims();
        self.bias = Some(Param::from_tensor(init.zeros(out)));
        self
    }

    /// `[N, in, H, W]` -> `[N, out, H / stride, W / stride]`
    pub fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let weight = self.weight.val();
        let padding = weight.dims()[2] / 2;
        let y = kernels::conv2d(x, weight, self.stride, padding, self.precision);
        match &self.bias {
            Some(bias) => y + bias.val().reshape([1, -1, 1, 1]),
            None => y,
        }
    }
}

/// Batch or group normalization over the channels of `[N, C, H, W]`.
#[derive(Module, Debug)]
pub(crate) struct Norm {
    pub weight: Param<Tensor<1>>,
    pub bias: Param<Tensor<1>>,
    /// Batch statistics; a group normalization has none.
    pub running_mean: Option<RunningState<Tensor<1>>>,
    pub running_var: Option<RunningState<Tensor<1>>>,
    #[module(skip)]
    pub groups: usize,
}

impl Norm {
    pub fn new(init: &Initializer, config: &ResNetConfig, channels: usize) -> Self {
        let batch = config.norm == NormKind::Batch;
        Self {
            weight: Param::from_tensor(init.ones(channels)),
            bias: Param::from_tensor(init.zeros(channels)),
            running_mean: batch.then(|| RunningState::new(init.zeros(channels))),
            running_var: batch.then(|| RunningState::new(init.ones(channels))),
            groups: config.groups,
        }
    }

    /// Normalizes, scales and shifts; `relu` then cuts at zero. Keeps the shape.
    ///
    /// On an autodiff device a batch normalization uses the batch's statistics and updates the
    /// running ones; elsewhere it uses the running ones.
    pub fn forward(&self, x: Tensor<4>, relu: bool) -> Tensor<4> {
        let (weight, bias) = (self.weight.val(), self.bias.val());
        let (Some(mean), Some(var)) = (&self.running_mean, &self.running_var) else {
            return kernels::group_norm(x, weight, bias, self.groups, EPSILON, relu);
        };
        if !x.device().is_autodiff() {
            return kernels::batch_norm(x, weight, bias, mean.value_sync(), var.value_sync(), EPSILON, relu);
        }
        let [n, _, h, w] = x.dims();
        let out = kernels::batch_norm_train(x, weight, bias, EPSILON, relu);
        // PyTorch keeps the unbiased variance, although it normalizes with the biased one.
        let count = (n * h * w) as f64;
        let unbiased = out.variance * (count / (count - 1.0).max(1.0));
        update(mean, out.mean);
        update(var, unbiased);
        out.output
    }
}

impl Norm {
    /// The running mean and variance, `[C]` each, if it has them.
    pub fn statistics(&self) -> impl Iterator<Item = &RunningState<Tensor<1>>> {
        self.running_mean.iter().chain(&self.running_var)
    }
}

/// Moves a running statistic towards the batch's.
fn update(running: &RunningState<Tensor<1>>, batch: Tensor<1>) {
    running.update((running.value_sync() * (1.0 - MOMENTUM) + batch.detach() * MOMENTUM).detach());
}

/// Fully connected layer, `weight` stored `[out, in]` as in PyTorch.
#[derive(Module, Debug)]
pub(crate) struct Linear {
    pub weight: Param<Tensor<2>>,
    pub bias: Param<Tensor<1>>,
}

impl Linear {
    pub fn new(init: &mut Initializer, features: usize, classes: usize) -> Self {
        Self {
            weight: Param::from_tensor(init.linear([classes, features])),
            bias: Param::from_tensor(init.zeros(classes)),
        }
    }

    /// `[N, in]` -> `[N, out]`
    pub fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        x.matmul(self.weight.val().transpose()) + self.bias.val().unsqueeze()
    }
}
