//! Steps on burn's tensors.

use burn::backend::Dispatch;
use burn::tensor::Tensor;

use super::SgdStep;
use crate::backend::KernelBackend;

/// Weights and momentum after a step, all `[L]`, as `torch.optim.SGD` makes it, without dampening: with
/// `g = gradient + weight_decay weights`, the momentum becomes `m = momentum m + g`, and the weights lose
/// `lr m`, or with Nesterov's `lr (g + momentum m)`. A momentum of zeros is how it starts.
///
/// # Panics
/// If the lengths differ.
pub fn sgd(weights: Tensor<1>, grad: Tensor<1>, momentum: Tensor<1>, step: SgdStep) -> (Tensor<1>, Tensor<1>) {
    assert!(weights.dims() == grad.dims() && weights.dims() == momentum.dims(), "sgd of different lengths");
    let [weights, grad, momentum] = [weights, grad, momentum].map(Tensor::into_dispatch);
    let (weights, momentum) = Dispatch::kiln_sgd(weights, grad, momentum, step);
    (Tensor::from_dispatch(weights), Tensor::from_dispatch(momentum))
}
