//! The definition and its derivative, in double precision.

/// `[N, C]`, for maps of `area` pixels.
pub fn forward(area: usize, x: &[f32]) -> Vec<f64> {
    let sum = |map: &[f32]| map.iter().map(|x| f64::from(*x)).sum::<f64>();
    x.chunks(area).map(|map| sum(map) / area as f64).collect()
}

/// Gradient of the input, `[N, C, H, W]`.
pub fn backward(area: usize, grad: &[f32]) -> Vec<f64> {
    grad.iter().flat_map(|grad| vec![f64::from(*grad) / area as f64; area]).collect()
}
