//! The definition and its derivative, in double precision.

/// Everything that a training step makes of one batch normalization.
pub struct Train {
    pub output: Vec<f64>,
    pub mean: Vec<f64>,
    pub variance: Vec<f64>,
    pub x_grad: Vec<f64>,
    pub gamma_grad: Vec<f64>,
    pub beta_grad: Vec<f64>,
}

/// Training batch norm: forward and, for the output's gradient `grad`, backward. `x` and `grad` are `[N, C, H, W]`,
/// `gamma` and `beta` `[C]`.
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
            let centered = passed(index) - beta_grad / count - normal(index) * gamma_grad / count;
            made.x_grad[index] = gamma / deviation * centered;
        }
        made.mean.push(mean);
        made.variance.push(variance);
        made.gamma_grad.push(gamma_grad);
        made.beta_grad.push(beta_grad);
    }
    made
}

/// Batch norm with fixed statistics: `x` `[N, C, H, W]`, and gamma, beta, mean and variance `[C]`.
pub fn fixed(shape: [usize; 4], x: &[f32], parameters: [&[f32]; 4], epsilon: f64, relu: bool) -> Vec<f64> {
    let [gamma, beta, mean, variance] = parameters;
    let output = |(index, x): (usize, &f32)| {
        let channel = index / (shape[2] * shape[3]) % shape[1];
        let of = |values: &[f32]| f64::from(values[channel]);
        let output = of(gamma) * (f64::from(*x) - of(mean)) / (of(variance) + epsilon).sqrt() + of(beta);
        if relu { output.max(0.0) } else { output }
    };
    x.iter().enumerate().map(output).collect()
}

/// Everything that a training step makes of one group normalization: `x` and `grad` `[N, C, H, W]`, gamma and beta `[C]`.
/// Mean and variance are those of the groups, `[N, groups]`.
pub fn group(
    shape: [usize; 4],
    groups: usize,
    x: &[f32],
    [gamma, beta]: [&[f32]; 2],
    grad: &[f32],
    epsilon: f64,
    relu: bool,
) -> Train {
    let [n, channels, height, width] = shape;
    let (area, size) = (height * width, channels / groups * height * width);
    let channel = |index: usize| index / area % channels;
    let mut made = Train {
        output: vec![0.0; x.len()],
        mean: vec![],
        variance: vec![],
        x_grad: vec![0.0; x.len()],
        gamma_grad: vec![0.0; channels],
        beta_grad: vec![0.0; channels],
    };
    for group in 0..n * groups {
        let indices = || group * size..(group + 1) * size;
        let average = |values: &dyn Fn(usize) -> f64| indices().map(values).sum::<f64>() / size as f64;
        let mean = average(&|index| f64::from(x[index]));
        let variance = average(&|index| (f64::from(x[index]) - mean).powi(2));
        let deviation = (variance + epsilon).sqrt();
        let normal = |index: usize| (f64::from(x[index]) - mean) / deviation;
        let output = |index: usize| f64::from(gamma[channel(index)]) * normal(index) + f64::from(beta[channel(index)]);
        let passed = |index: usize| if relu && output(index) <= 0.0 { 0.0 } else { f64::from(grad[index]) };
        let scaled = |index: usize| passed(index) * f64::from(gamma[channel(index)]);
        let (level, slope) = (average(&scaled), average(&|index| scaled(index) * normal(index)));
        for index in indices() {
            made.output[index] = if relu { output(index).max(0.0) } else { output(index) };
            made.x_grad[index] = (scaled(index) - level - normal(index) * slope) / deviation;
            made.gamma_grad[channel(index)] += passed(index) * normal(index);
            made.beta_grad[channel(index)] += passed(index);
        }
        made.mean.push(mean);
        made.variance.push(variance);
    }
    made
}
