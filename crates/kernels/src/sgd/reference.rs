//! The definition, in double precision.

use super::SgdStep;

/// Weights and momentum.
pub fn step(weights: &[f32], grad: &[f32], momentum: &[f32], step: SgdStep) -> (Vec<f64>, Vec<f64>) {
    let one = |((weight, grad), momentum): ((&f32, &f32), &f32)| {
        let [weight, grad, momentum] = [*weight, *grad, *momentum].map(f64::from);
        let grad = grad + step.weight_decay * weight;
        let momentum = step.momentum * momentum + grad;
        let direction = if step.nesterov { grad + step.momentum * momentum } else { momentum };
        (weight - step.lr * direction, momentum)
    };
    weights.iter().zip(grad).zip(momentum).map(one).unzip()
}
