//! Stochastic gradient descent with momentum, as `torch.optim.SGD` does it.
//!
//! burn's own SGD computes the same, but keys its state by identifiers that change with every
//! start; this one keys it by torchvision name, as a checkpoint needs it.

use std::collections::BTreeMap;

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param};
use burn::tensor::{Gradients, Tensor, TensorData};
use kiln_model::{ParameterPath, ResNet, StateDict, StateTensor};

use crate::recipe::Optimizer;

/// The optimiser and its momentum buffers.
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
    pub fn step(&mut self, model: ResNet, grads: &Gradients, lr: f64) -> ResNet {
        model.map(&mut Step { sgd: self, grads, lr, path: ParameterPath::default() })
    }

    /// The momentum buffers on the host, by parameter name.
    pub fn state(&self) -> StateDict {
        self.momentum.iter().map(|(name, tensor)| (name.clone(), StateTensor::read(tensor.clone()))).collect()
    }

    /// Goes on with buffers that [`Sgd::state`] gave for a network like `model`.
    pub fn restore(&mut self, state: StateDict, model: &ResNet) {
        let Some(device) = model.devices().pop().map(|device| device.inner()) else { return };
        let tensor = |state: StateTensor| Tensor::from_data(TensorData::new(state.values, state.shape), &device);
        self.momentum = state.into_iter().map(|(name, state)| (name, tensor(state))).collect();
    }
}

/// The gradient of every parameter that `grads` reaches, on the host, by name.
pub fn gradients(model: &ResNet, grads: &Gradients) -> StateDict {
    let mut reader = GradientReader { grads, path: ParameterPath::default(), state: StateDict::new() };
    model.visit(&mut reader);
    reader.state
}

struct GradientReader<'a> {
    grads: &'a Gradients,
    path: ParameterPath,
    state: StateDict,
}

impl ModuleVisitor for GradientReader<'_> {
    fn enter_module(&mut self, name: &str, _: &str) {
        self.path.enter(name);
    }

    fn exit_module(&mut self, _: &str, _: &str) {
        self.path.exit();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if let Some(grad) = param.val().grad(self.grads) {
            self.state.insert(self.path.name(), StateTensor::read(grad));
        }
    }
}

struct Step<'a> {
    sgd: &'a mut Sgd,
    grads: &'a Gradients,
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
        let Some(mut grad) = param.val().grad(self.grads) else {
            return param; // running statistics
        };
        let config = &self.sgd.config;
        let (name, lr) = (self.path.name(), self.lr);
        param.map(|tensor| {
            let value = tensor.inner();
            // Convolution and head weights have more than one axis; norms and biases have one.
            if config.weight_decay > 0.0 && (D > 1 || config.decay_norms_and_biases) {
                grad = grad + value.clone() * config.weight_decay;
            }
            let shape = value.dims();
            let grad = grad.reshape([-1]);
            // PyTorch's buffer starts as the first gradient itself, without dampening.
            let momentum = match self.sgd.momentum.remove(&name) {
                Some(momentum) => momentum * config.momentum + grad.clone(),
                None => grad.clone(),
            };
            let direction = if config.nesterov { grad + momentum.clone() * config.momentum } else { momentum.clone() };
            self.sgd.momentum.insert(name, momentum);
            Tensor::from_inner(value - direction.reshape(shape) * lr).require_grad()
        })
    }
}
