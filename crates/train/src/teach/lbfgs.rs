//! L-BFGS for a smooth convex function (Nocedal and Wright, Numerical Optimization, algorithm 7.4 and 7.5).
//!
//! A library's would come with random numbers that do not compile for a browser as they are, and with logarithms of the
//! platform; this is the part that is needed.

/// Pairs of steps and changes of the gradient that are remembered.
const MEMORY: usize = 10;
const MAX_STEPS: usize = 300;
/// Share of the promised decrease that a step has to bring.
const DECREASE: f64 = 1e-4;

/// A step, the change of the gradient along it, and one over their product.
struct Pair {
    step: Vec<f64>,
    change: Vec<f64>,
    inverse: f64,
}

/// Goes from `x` to where the gradient's largest component is at most `tolerance`, or as near as numbers allow. `evaluate` gives the
/// function and writes its gradient.
pub fn minimize(mut x: Vec<f64>, tolerance: f64, mut evaluate: impl FnMut(&[f64], &mut [f64]) -> f64) -> Vec<f64> {
    let mut gradient = vec![0.0; x.len()];
    let mut value = evaluate(&x, &mut gradient);
    let mut pairs: Vec<Pair> = vec![];
    for _ in 0..MAX_STEPS {
        if gradient.iter().all(|component| component.abs() <= tolerance) {
            break;
        }
        let direction = direction(&gradient, &pairs);
        let slope = dot(&direction, &gradient);
        // The first direction is a gradient of any length.
        let mut length = if pairs.is_empty() { (1.0 / dot(&gradient, &gradient).sqrt()).min(1.0) } else { 1.0 };
        let mut next_gradient = vec![0.0; x.len()];
        let found = loop {
            let next: Vec<f64> = x.iter().zip(&direction).map(|(x, d)| x + length * d).collect();
            let next_value = evaluate(&next, &mut next_gradient);
            if next_value <= value + DECREASE * length * slope {
                break Some((next, next_value));
            }
            length /= 2.0;
            if length < 1e-10 {
                break None;
            }
        };
        // Rounding hides what is left to gain.
        let Some((next, next_value)) = found else { break };
        let step: Vec<f64> = next.iter().zip(&x).map(|(a, b)| a - b).collect();
        let change: Vec<f64> = next_gradient.iter().zip(&gradient).map(|(a, b)| a - b).collect();
        let product = dot(&step, &change);
        if product > 1e-12 * dot(&change, &change).sqrt() * dot(&step, &step).sqrt() {
            if pairs.len() == MEMORY {
                pairs.remove(0);
            }
            pairs.push(Pair { step, change, inverse: 1.0 / product });
        }
        (x, value, gradient) = (next, next_value, next_gradient);
    }
    x
}

/// Minus the gradient times an estimate of the inverse second derivative.
fn direction(gradient: &[f64], pairs: &[Pair]) -> Vec<f64> {
    let mut q: Vec<f64> = gradient.iter().map(|component| -component).collect();
    let mut weights = vec![0.0; pairs.len()];
    for (pair, weight) in pairs.iter().zip(&mut weights).rev() {
        *weight = pair.inverse * dot(&pair.step, &q);
        add(&mut q, -*weight, &pair.change);
    }
    if let Some(Pair { change, inverse, .. }) = pairs.last() {
        let scale = 1.0 / (inverse * dot(change, change));
        q.iter_mut().for_each(|component| *component *= scale);
    }
    for (pair, weight) in pairs.iter().zip(&weights) {
        let correction = weight - pair.inverse * dot(&pair.change, &q);
        add(&mut q, correction, &pair.step);
    }
    q
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

fn add(to: &mut [f64], factor: f64, values: &[f64]) {
    to.iter_mut().zip(values).for_each(|(to, value)| *to += factor * value);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bottom_of_a_narrow_valley_is_found() {
        // Curvatures from 1 to 1,000.
        let n = 20;
        let curvature = |at: usize| 10_f64.powf(3.0 * at as f64 / (n - 1) as f64);
        let mut calls = 0;
        let x = minimize(vec![0.0; n], 1e-8, |x, gradient| {
            calls += 1;
            let mut value = 0.0;
            for at in 0..n {
                let away = x[at] - at as f64;
                value += 0.5 * curvature(at) * away * away;
                gradient[at] = curvature(at) * away;
            }
            value
        });
        assert!(x.iter().enumerate().all(|(at, x)| (x - at as f64).abs() < 1e-6), "{x:?}");
        assert!(calls < 300, "{calls}");
    }

    #[test]
    fn a_start_at_the_bottom_stays_there() {
        let x = minimize(vec![1.0], 1e-9, |x, gradient| {
            gradient[0] = 2.0 * (x[0] - 1.0);
            (x[0] - 1.0) * (x[0] - 1.0)
        });
        assert_eq!(x, [1.0]);
    }
}
