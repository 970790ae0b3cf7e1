//! The definition and its derivative, in double precision.

/// Everything that a training step makes of one batch normalisation.
pub struct Train {
    pub output: Vec<f64>,
    pub mean: Vec<f64>,
    pub variance: Vec<f64>,
    pub x_grad: Vec<f64>,
    pub gamma_grad: Vec<f64>,
    pub beta_grad: Vec<f64>,
}

/// Forward and, for the output's gradient `grad`, backward. Shapes as in [`super::batch_norm_train`].
pub fn train(
    shape: [usize; 4],
    x: &[f32],
    gamma: &[f32],
    beta: &[f32],
    grad: &[f32],
    epsilon: f64,
    relu: bool,
) -> Train {
    let [n, channels, height, width] = shape;
    let area = height * width;
    let zeros = vec![0.0; x.len()];
    let mut made = Train {
        output: zeros.clone(),
        mean: vec![],
        variance: vec![],
        x_grad: zeros,
        gamma_grad: vec![],
        beta_grad: vec![],
    };
    for channel in 0..channels {
        let indices =
            || (0..n).flat_map(move |image| (0..area).map(move |pixel| (image * channels + channel) * area + pixel));
        let count = (n * area) as f64;
        let mean = indices().map(|index| f64::from(x[index])).sum::<f64>() / count;
        let variance = indices().map(|index| (f64::from(x[index]) - mean).powi(2)).sum::<f64>() / count;
        let deviation = (variance + epsilon).sqrt();
        let (gamma, beta) = (f64::from(gamma[channel]), f64::from(beta[channel]));
        let normal = |index: usize| (f64::from(x[index]) - mean) / deviation;
        let output = |index: usize| gamma * normal(index) + beta;
        let passed = |index: usize| if relu && output(index) <= 0.0 { 0.0 } else { f64::from(grad[index]) };
        let beta_grad: f64 = indices().map(passed).sum();
        let gamma_grad: f64 = indices().map(|index| passed(index) * normal(index)).sum();
        for index in indices() {
            made.output[index] = if relu { output(index).max(0.0) } else { output(index) };
            let centred = passed(index) - beta_grad / count - normal(index) * gamma_grad / count;
            made.x_grad[index] = gamma / deviation * centred;
        }
        made.mean.push(mean);
        made.variance.push(variance);
        made.gamma_grad.push(gamma_grad);
        made.beta_grad.push(beta_grad);
    }
    made
}
