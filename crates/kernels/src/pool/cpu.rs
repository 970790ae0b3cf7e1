//! Pooling over whole maps on a CPU. Maps are `[N, H, W, C]` here (channels last).

/// `[N, C]`, for maps of `area` pixels.
pub fn forward(channels: usize, area: usize, x: &[f32]) -> Vec<f32> {
    let mut means = vec![0.0; x.len() / area];
    for (means, pixels) in means.chunks_exact_mut(channels).zip(x.chunks_exact(area * channels)) {
        for pixel in pixels.chunks_exact(channels) {
            means.iter_mut().zip(pixel).for_each(|(mean, x)| *mean += x);
        }
        means.iter_mut().for_each(|mean| *mean /= area as f32);
    }
    means
}

/// Gradient of the input, `[N, H, W, C]`.
pub fn backward(channels: usize, area: usize, grad: &[f32]) -> Vec<f32> {
    let mut x_grad = Vec::with_capacity(grad.len() * area);
    for grad in grad.chunks_exact(channels) {
        let share: Vec<f32> = grad.iter().map(|grad| grad / area as f32).collect();
        (0..area).for_each(|_| x_grad.extend_from_slice(&share));
    }
    x_grad
}
