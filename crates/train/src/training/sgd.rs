//! Stochastic gradient descent with momentum, as `torch.optim.SGD` does it.
//!
//! burn's own SGD computes the same, but keys its state by identifiers that change with every
//! start; this one keys it by torchvision name, as a checkpoint needs it.

use std::collections::BTreeMap;

use burn::module::{Module, ModuleMapper, Param};
use burn::tensor::{Gradients, Tensor, TensorData};
use kiln_kernels::SgdStep;
use kiln_model::{Network, ParameterPath, StateDict, StateTensor};

use crate::recipe::Optimizer;
use crate::training::gradients::ParameterGradients;

/// The optimizer and its momentum buffers.
#[derive(Clone)]
pub struct Sgd {
    config: Optimizer,
    /// Flattened, by parameter name; empty before the first step.
    momentum: BTreeMap<String, Tensor<1>>,
}

impl Sgd {
    pub fn new(config: Optimizer) -> Self {
        Self { config, momentum: BTreeMap::new() }
    }

    /// One update at rate `lr` of every parameter that `grads` reaches.
    pub fn step(&mut self, model: Network, grads: &Gradients, lr: f64) -> Network {
        let gradients = ParameterGradients::of(&model, grads);
        self.update(model, gradients, lr)
    }

    /// One update at rate `lr` of every parameter that has a gradient.
    pub fn update(&mut self, model: Network, gradients: ParameterGradients, lr: f64) -> Network {
        model.map(&mut Step { sgd: self, gradients, lr, path: ParameterPath::default() })
    }

    /// The momentum buffers on the host, by parameter name. Waits for the device.
    pub async fn state(&self) -> StateDict {
        let mut state = StateDict::new();
        for (name, tensor) in &self.momentum {
            state.insert(name.clone(), StateTensor::read_async(tensor.clone()).await);
        }
        state
    }

    /// Continues with buffers that [`Sgd::state`] gave for a network like `model`.
    pub fn restore(&mut self, state: StateDict, model: &Network) {
        let Some(device) = model.devices().pop().map(|device| device.inner()) else { return };
        let tensor = |state: StateTensor| Tensor::from_data(TensorData::new(state.values, state.shape), &device);
        self.momentum = state.into_iter().map(|(name, state)| (name, tensor(state))).collect();
    }
}

struct Step<'a> {
    sgd: &'a mut Sgd,
    gradients: ParameterGradients,
    lr: f64,
    path: ParameterPath,
}

impl ModuleMapper for Step<'_> {
    fn enter_module(&mut self, name: &str, _: &str) {
        self.path.enter(name);
    }

    fn exit_module(&mut self, _: &str, _: &str) {
        self.path.exit();
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let name = self.path.name();
        let Some(grad) = self.gradients.take(&name) else {
            return param; // running statistics
        };
        let (config, lr) = (&self.sgd.config, self.lr);
        param.map(|tensor| {
            let value = tensor.inner();
            let shape = value.dims();
            let value = value.reshape([-1]);
            // Convolution and head weights have more than one axis; norms and biases have one.
            let decays = D > 1 || config.decay_norms_and_biases;
            let step = SgdStep {
                lr,
                momentum: config.momentum,
                weight_decay: if decays { config.weight_decay } else { 0.0 },
                nesterov: config.nesterov,
            };
            let momentum = self.sgd.momentum.remove(&name).unwrap_or_else(|| value.zeros_like());
            let (value, momentum) = kiln_kernels::sgd(value, grad, momentum, step);
            self.sgd.momentum.insert(name, momentum);
            Tensor::from_inner(value.reshape(shape)).require_grad()
        })
    }
}
