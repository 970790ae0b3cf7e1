//! Multinomial logistic regression with an L2 penalty on features that are centered and brought to one scale.

use super::{Examples, Head, lbfgs};

/// The largest component of the gradient at the end.
const TOLERANCE: f64 = 1e-5;
/// Partial sums of a product: as many as two vectors of AVX2 or four of WebAssembly hold.
const LANES: usize = 16;

/// The features to fit to. Parameters are the weights `[classes, F]`, then the biases `[classes]`.
pub struct Problem<'a> {
    labels: &'a [usize],
    classes: usize,
    width: usize,
    /// Centered and scaled, `[N, F]`.
    features: Vec<f32>,
    mean: Vec<f64>,
    /// What the centered features were multiplied by.
    scale: f64,
}

impl<'a> Problem<'a> {
    /// `None` if all pictures have the same features.
    pub fn new(examples: &'a Examples) -> Option<Self> {
        let (width, count) = (examples.width(), examples.labels.len());
        let mut mean = vec![0.0; width];
        for row in examples.features.chunks_exact(width) {
            mean.iter_mut().zip(row).for_each(|(mean, value)| *mean += f64::from(*value));
        }
        mean.iter_mut().for_each(|mean| *mean /= count as f64);
        let centered = || examples.features.chunks_exact(width).flat_map(|row| row.iter().zip(&mean));
        let square: f64 = centered().map(|(value, mean)| (f64::from(*value) - mean).powi(2)).sum();
        if square <= 0.0 {
            return None;
        }
        // A picture's features have a mean square sum of 1, so that a strength means the same for all networks.
        let scale = (count as f64 / square).sqrt();
        let features = centered().map(|(value, mean)| ((f64::from(*value) - mean) * scale) as f32).collect();
        Some(Self { labels: &examples.labels, classes: examples.classes.len(), width, features, mean, scale })
    }

    /// Nothing known.
    pub fn start(&self) -> Vec<f64> {
        vec![0.0; self.classes * (self.width + 1)]
    }

    /// The parameters of the least loss with a penalty of that strength.
    pub fn solve(&self, start: Vec<f64>, strength: f64) -> Vec<f64> {
        let mut work = Work::new(self);
        lbfgs::minimize(start, TOLERANCE, |parameters, gradient| work.evaluate(self, strength, parameters, gradient))
    }

    /// The head for features as they come: centering and scale are within.
    pub fn head(&self, parameters: &[f64]) -> Head {
        let (weights, biases) = parameters.split_at(self.classes * self.width);
        let rows = weights.chunks_exact(self.width);
        let bias = rows.zip(biases).map(|(row, bias)| {
            let offset: f64 = row.iter().zip(&self.mean).map(|(weight, mean)| weight * mean).sum();
            (bias - self.scale * offset) as f32
        });
        Head { bias: bias.collect(), weight: weights.iter().map(|weight| (weight * self.scale) as f32).collect() }
    }
}

/// Numbers that every evaluation needs room for.
struct Work {
    weights: Vec<f32>,
    gradient: Vec<f32>,
    scores: Vec<f64>,
}

impl Work {
    fn new(problem: &Problem) -> Self {
        let weights = vec![0.0; problem.classes * problem.width];
        Self { gradient: weights.clone(), weights, scores: vec![0.0; problem.classes] }
    }

    /// Mean cross-entropy in nats plus half the strength times the sum of the weights' squares, and the gradient of that.
    fn evaluate(&mut self, problem: &Problem, strength: f64, parameters: &[f64], gradient: &mut [f64]) -> f64 {
        let Problem { labels, classes, width, ref features, .. } = *problem;
        let (weights, biases) = parameters.split_at(classes * width);
        self.weights.iter_mut().zip(weights).for_each(|(to, weight)| *to = *weight as f32);
        self.gradient.fill(0.0);
        let (to_weights, to_biases) = gradient.split_at_mut(classes * width);
        to_biases.fill(0.0);
        let mut loss = 0.0;
        for (row, &label) in features.chunks_exact(width).zip(labels) {
            for ((score, weights), bias) in self.scores.iter_mut().zip(self.weights.chunks_exact(width)).zip(biases) {
                *score = f64::from(dot(weights, row)) + bias;
            }
            loss += cross_entropy(&mut self.scores, label);
            for (class, probability) in self.scores.iter().enumerate() {
                let error = probability - if class == label { 1.0 } else { 0.0 };
                to_biases[class] += error;
                add(&mut self.gradient[class * width..][..width], error as f32, row);
            }
        }
        let count = labels.len() as f64;
        to_biases.iter_mut().for_each(|gradient| *gradient /= count);
        let mut squares = 0.0;
        for ((to, gradient), weight) in to_weights.iter_mut().zip(&self.gradient).zip(weights) {
            *to = f64::from(*gradient) / count + strength * weight;
            squares += weight * weight;
        }
        loss / count + 0.5 * strength * squares
    }
}

/// What a picture of class `label` costs in nats; turns the scores into probabilities.
pub fn cross_entropy(scores: &mut [f64], label: usize) -> f64 {
    let largest = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let own = scores[label] - largest;
    let mut sum = 0.0;
    for score in scores.iter_mut() {
        *score = libm::exp(*score - largest);
        sum += *score;
    }
    scores.iter_mut().for_each(|score| *score /= sum);
    libm::log(sum) - own
}

/// The product of two rows, summed in [`LANES`] parts: an order that vectors of any width can follow.
pub fn dot(a: &[f32], b: &[f32]) -> f32 {
    let mut sums = [0.0_f32; LANES];
    let (a, b) = (a.chunks_exact(LANES), b.chunks_exact(LANES));
    let rest: f32 = a.remainder().iter().zip(b.remainder()).map(|(a, b)| a * b).sum();
    for (a, b) in a.zip(b) {
        for lane in 0..LANES {
            sums[lane] += a[lane] * b[lane];
        }
    }
    sums.iter().sum::<f32>() + rest
}

fn add(to: &mut [f32], factor: f32, row: &[f32]) {
    to.iter_mut().zip(row).for_each(|(to, value)| *to += factor * value);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn examples() -> Examples {
        let features = (0..14 * 5).map(|at| (at as f32 * 0.37).sin() + (at % 5) as f32).collect();
        Examples {
            classes: vec!["a".into(), "b".into(), "c".into()],
            labels: (0..14).map(|at| at % 3).collect(),
            features,
        }
    }

    #[test]
    fn the_gradient_is_that_of_the_loss() {
        let examples = examples();
        let problem = Problem::new(&examples).unwrap();
        let parameters: Vec<f64> = (0..18).map(|at| (f64::from(at) * 0.7).cos()).collect();
        let mut work = Work::new(&problem);
        let mut at = |parameters: &[f64]| {
            let mut gradient = vec![0.0; 18];
            (work.evaluate(&problem, 0.1, parameters, &mut gradient), gradient)
        };
        let (_, gradient) = at(&parameters);
        for index in 0..18 {
            let moved = |by: f64| {
                let mut parameters = parameters.clone();
                parameters[index] += by;
                parameters
            };
            let numeric = (at(&moved(1e-2)).0 - at(&moved(-1e-2)).0) / 2e-2;
            assert!((gradient[index] - numeric).abs() < 1e-4, "{index}: {} {numeric}", gradient[index]);
        }
    }

    #[test]
    fn the_solution_is_where_nothing_is_left_to_gain() {
        let examples = examples();
        let problem = Problem::new(&examples).unwrap();
        let parameters = problem.solve(problem.start(), 0.05);
        let mut gradient = vec![0.0; 18];
        Work::new(&problem).evaluate(&problem, 0.05, &parameters, &mut gradient);
        assert!(gradient.iter().all(|component| component.abs() < 2e-5), "{gradient:?}");
        // The head gives the same scores for features as they came.
        let head = problem.head(&parameters);
        let row = &problem.features[..5];
        let scores: Vec<f64> = (0..3)
            .map(|class| {
                let weights = &parameters[5 * class..][..5];
                weights.iter().zip(row).map(|(weight, value)| weight * f64::from(*value)).sum::<f64>()
                    + parameters[15 + class]
            })
            .collect();
        let logits = head.logits(&examples.features[..5]);
        assert!(logits.iter().zip(&scores).all(|(a, b)| (f64::from(*a) - b).abs() < 1e-5), "{logits:?} {scores:?}");
    }
}
