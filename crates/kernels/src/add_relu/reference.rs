//! The definition and its derivative, in double precision.

/// `max(x + y, 0)`
pub fn forward(x: &[f32], y: &[f32]) -> Vec<f64> {
    x.iter().zip(y).map(|(x, y)| (f64::from(*x) + f64::from(*y)).max(0.0)).collect()
}

/// Gradient of either input.
pub fn backward(x: &[f32], y: &[f32], grad: &[f32]) -> Vec<f64> {
    let passes = forward(x, y).into_iter().map(|sum| sum > 0.0);
    passes.zip(grad).map(|(passes, grad)| if passes { f64::from(*grad) } else { 0.0 }).collect()
}
