//! The operators' derivatives. Second derivatives are not defined.

use std::sync::{Arc, Mutex};

use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, AutodiffBackend};
use burn_autodiff::checkpoint::base::Checkpointer;
use burn_autodiff::checkpoint::strategy::CheckpointStrategy;
use burn_autodiff::grads::Gradients;
use burn_autodiff::ops::{Backward, Ops, OpsKind};

use crate::backend::{KernelBackend, dims4};
use crate::conv2d::Precision;

impl<B: KernelBackend, C: CheckpointStrategy> KernelBackend for Autodiff<B, C> {
    fn kiln_conv2d(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        stride: usize,
        padding: usize,
        precision: Precision,
    ) -> FloatTensor<Self> {
        let nodes = [x.node(), weight.node()];
        let (x, weight) = (x.into_primitive(), weight.into_primitive());
        let output = B::kiln_conv2d(x.clone(), weight.clone(), stride, padding, precision);
        match Conv2d.prepare::<C>(nodes).compute_bound().stateful() {
            OpsKind::Tracked(prep) => prep.finish((x, weight, stride, padding, precision), output),
            OpsKind::UnTracked(prep) => prep.finish(output),
        }
    }

    fn kiln_conv2d_backward_data(
        _: FloatTensor<Self>,
        _: FloatTensor<Self>,
        _: FloatTensor<Self>,
        _: usize,
        _: usize,
        _: Precision,
    ) -> FloatTensor<Self> {
        unimplemented_derivative()
    }

    fn kiln_conv2d_backward_weight(
        _: FloatTensor<Self>,
        _: FloatTensor<Self>,
        _: FloatTensor<Self>,
        _: usize,
        _: usize,
        _: Precision,
    ) -> FloatTensor<Self> {
        unimplemented_derivative()
    }

    fn kiln_batch_norm_train(
        x: FloatTensor<Self>,
        gamma: FloatTensor<Self>,
        beta: FloatTensor<Self>,
        epsilon: f64,
        relu: bool,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
        let nodes = [x.node(), gamma.node(), beta.node()];
        let (x, gamma, beta) = (x.into_primitive(), gamma.into_primitive(), beta.into_primitive());
        let (output, mean, variance) = B::kiln_batch_norm_train(x.clone(), gamma.clone(), beta, epsilon, relu);
        let statistics = (mean.clone(), variance.clone());
        let output = match BatchNormTrain.prepare::<C>(nodes).compute_bound().stateful() {
            OpsKind::Tracked(prep) => prep.finish((x, gamma, output.clone(), mean, variance, epsilon, relu), output),
            OpsKind::UnTracked(prep) => prep.finish(output),
        };
        (output, Self::from_inner(statistics.0), Self::from_inner(statistics.1))
    }

    fn kiln_batch_norm_train_backward(
        _: FloatTensor<Self>,
        _: FloatTensor<Self>,
        _: FloatTensor<Self>,
        _: FloatTensor<Self>,
        _: FloatTensor<Self>,
        _: FloatTensor<Self>,
        _: f64,
        _: bool,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
        unimplemented_derivative()
    }

    fn kiln_fork(x: FloatTensor<Self>) -> (FloatTensor<Self>, FloatTensor<Self>) {
        let nodes = [x.node()];
        let x = x.into_primitive();
        let from_shortcut = Mailbox::<B>::default();
        let branch = match Fork.prepare::<C>(nodes).compute_bound().stateful() {
            OpsKind::Tracked(prep) => prep.finish(from_shortcut.clone(), x.clone()),
            OpsKind::UnTracked(prep) => prep.finish(x.clone()),
        };
        // A child of the branch, so that its gradient comes before the branch's.
        let shortcut = match Shortcut.prepare::<C>([branch.node()]).compute_bound().stateful() {
            OpsKind::Tracked(prep) => prep.finish(from_shortcut, x),
            OpsKind::UnTracked(prep) => prep.finish(x),
        };
        (branch, shortcut)
    }

    fn kiln_add_relu(x: FloatTensor<Self>, y: FloatTensor<Self>) -> FloatTensor<Self> {
        let nodes = [x.node(), y.node()];
        let output = B::kiln_add_relu(x.into_primitive(), y.into_primitive());
        match AddRelu.prepare::<C>(nodes).compute_bound().stateful() {
            OpsKind::Tracked(prep) => prep.finish(output.clone(), output),
            OpsKind::UnTracked(prep) => prep.finish(output),
        }
    }

    fn kiln_add_relu_backward(_: FloatTensor<Self>, _: FloatTensor<Self>) -> FloatTensor<Self> {
        unimplemented_derivative()
    }

    fn kiln_global_average_pool(x: FloatTensor<Self>) -> FloatTensor<Self> {
        let node = x.node();
        let [_, _, height, width] = dims4(&x);
        let output = B::kiln_global_average_pool(x.into_primitive());
        match GlobalAveragePool.prepare::<C>([node]).compute_bound().stateful() {
            OpsKind::Tracked(prep) => prep.finish([height, width], output),
            OpsKind::UnTracked(prep) => prep.finish(output),
        }
    }

    fn kiln_global_average_pool_backward(_: FloatTensor<Self>, _: usize, _: usize) -> FloatTensor<Self> {
        unimplemented_derivative()
    }
}

/// No public function of this crate leads here.
fn unimplemented_derivative() -> ! {
    unreachable!("Kiln's operators can be differentiated once")
}

#[derive(Debug)]
struct Conv2d;

impl<B: KernelBackend> Backward<B, 2> for Conv2d {
    type State = (FloatTensor<B>, FloatTensor<B>, usize, usize, Precision);

    fn backward(self, ops: Ops<Self::State, 2>, grads: &mut Gradients, _: &mut Checkpointer) {
        let [x_node, weight_node] = ops.parents;
        let grad = grads.consume::<B>(&ops.node);
        let (x, weight, stride, padding, precision) = ops.state;
        if let Some(node) = x_node {
            let x_grad =
                B::kiln_conv2d_backward_data(x.clone(), weight.clone(), grad.clone(), stride, padding, precision);
            grads.register::<B>(node.id, x_grad);
        }
        if let Some(node) = weight_node {
            grads.register::<B>(node.id, B::kiln_conv2d_backward_weight(x, weight, grad, stride, padding, precision));
        }
    }
}

#[derive(Debug)]
struct BatchNormTrain;

impl<B: KernelBackend> Backward<B, 3> for BatchNormTrain {
    type State = (FloatTensor<B>, FloatTensor<B>, FloatTensor<B>, FloatTensor<B>, FloatTensor<B>, f64, bool);

    fn backward(self, ops: Ops<Self::State, 3>, grads: &mut Gradients, _: &mut Checkpointer) {
        let grad = grads.consume::<B>(&ops.node);
        let (x, gamma, output, mean, variance, epsilon, relu) = ops.state;
        let (x, gamma, beta) = B::kiln_batch_norm_train_backward(x, gamma, output, mean, variance, grad, epsilon, relu);
        for (node, grad) in ops.parents.into_iter().zip([x, gamma, beta]) {
            if let Some(node) = node {
                grads.register::<B>(node.id, grad);
            }
        }
    }
}

#[derive(Debug)]
struct AddRelu;

impl<B: KernelBackend> Backward<B, 2> for AddRelu {
    type State = FloatTensor<B>;

    fn backward(self, ops: Ops<Self::State, 2>, grads: &mut Gradients, _: &mut Checkpointer) {
        let grad = grads.consume::<B>(&ops.node);
        let grad = B::kiln_add_relu_backward(ops.state, grad);
        for node in ops.parents.into_iter().flatten() {
            grads.register::<B>(node.id, grad.clone());
        }
    }
}

#[derive(Debug)]
struct GlobalAveragePool;

impl<B: KernelBackend> Backward<B, 1> for GlobalAveragePool {
    /// Height and width of the maps.
    type State = [usize; 2];

    fn backward(self, ops: Ops<Self::State, 1>, grads: &mut Gradients, _: &mut Checkpointer) {
        let ([node], [height, width]) = (ops.parents, ops.state);
        let grad = grads.consume::<B>(&ops.node);
        if let Some(node) = node {
            grads.register::<B>(node.id, B::kiln_global_average_pool_backward(grad, height, width));
        }
    }
}

/// Where a shortcut leaves its gradient for the fork.
type Mailbox<B> = Arc<Mutex<Option<FloatTensor<B>>>>;

#[derive(Debug)]
struct Fork;

impl<B: KernelBackend> Backward<B, 1> for Fork {
    type State = Mailbox<B>;

    fn backward(self, ops: Ops<Self::State, 1>, grads: &mut Gradients, _: &mut Checkpointer) {
        let grad = grads.consume::<B>(&ops.node);
        let shortcut = ops.state.lock().expect("nothing panics with the lock").take();
        let sum = match shortcut {
            Some(shortcut) => B::kiln_add(grad, shortcut),
            None => grad,
        };
        for node in ops.parents.into_iter().flatten() {
            grads.register::<B>(node.id, sum.clone());
        }
    }
}

#[derive(Debug)]
struct Shortcut;

impl<B: KernelBackend> Backward<B, 1> for Shortcut {
    type State = Mailbox<B>;

    fn backward(self, ops: Ops<Self::State, 1>, grads: &mut Gradients, _: &mut Checkpointer) {
        let grad = grads.consume::<B>(&ops.node);
        *ops.state.lock().expect("nothing panics with the lock") = Some(grad);
    }
}
