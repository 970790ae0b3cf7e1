//! One pass, where a composed form takes six.
#![allow(unsafe_code, reason = "vectors that start unwritten")]

use super::SgdStep;
use kiln_infer::parallel::{self, Shared, vectorized};

/// Numbers a task handles: enough to be worth a thread's while.
const CHUNK: usize = 1 << 14;

/// Weights and momentum.
pub fn step(weights: &[f32], grad: &[f32], momentum: &[f32], step: SgdStep) -> (Vec<f32>, Vec<f32>) {
    let len = weights.len();
    assert!(grad.len() == len && momentum.len() == len);
    let [lr, factor, decay] = [step.lr, step.momentum, step.weight_decay].map(|value| value as f32);
    let mut new_momentum = vec![];
    let write = |new_weights: Shared, new_momentum: Shared| {
        parallel::for_each(len.div_ceil(CHUNK), |chunk| {
            let range = chunk * CHUNK..len.min((chunk + 1) * CHUNK);
            // Safety: every chunk is one task's.
            let [new_weights, new_momentum] =
                [new_weights, new_momentum].map(|made| unsafe { made.unwritten(range.start, range.len()) });
            let (weights, grad, momentum) = (&weights[range.clone()], &grad[range.clone()], &momentum[range.clone()]);
            vectorized(
                #[inline(always)]
                || {
                    let made = new_weights.iter_mut().zip(new_momentum.iter_mut());
                    for ((new_weight, new_momentum), ((weight, grad), momentum)) in
                        made.zip(weights.iter().zip(grad).zip(momentum))
                    {
                        let grad = grad + decay * weight;
                        let momentum = factor * momentum + grad;
                        let direction = if step.nesterov { grad + factor * momentum } else { momentum };
                        new_weight.write(weight - lr * direction);
                        new_momentum.write(momentum);
                    }
                },
            );
        });
    };
    // Safety: the chunks are all there is.
    let new_weights = unsafe {
        parallel::make(len, |weights| new_momentum = parallel::make(len, |momentum| write(weights, momentum)))
    };
    (new_weights, new_momentum)
}
