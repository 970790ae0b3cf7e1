//! Which shaders training batch norm takes, with which constants, and how many workgroups of them.

use crate::shader::{BATCH_NORM, BATCH_NORM_BACKWARD, BATCH_NORM_SCALES, Launch};

/// The gradients, and what comes before them.
pub struct BackwardLaunches {
    /// Buffers: gamma, the forward pass's mean and variance; the scales.
    pub scales: Launch,
    /// Numbers of the scales.
    pub scales_len: usize,
    /// Buffers: the forward pass's input and output, the output's gradient, the scales; gradients of input, gamma and beta.
    pub gradients: Launch,
}

/// Buffers: input, gamma, beta; output, mean, variance.
pub fn forward([batch, channels, height, width]: [usize; 4], epsilon: f64, relu: bool) -> Launch {
    let shader = BATCH_NORM.with([
        ("BATCH", batch.into()),
        ("CHANNELS", channels.into()),
        ("AREA", (height * width).into()),
        ("EPSILON", (epsilon as f32).into()),
        ("RELU", relu.into()),
    ]);
    // A workgroup a channel.
    shader.on([channels, 1])
}

pub fn backward([batch, channels, height, width]: [usize; 4], epsilon: f64, relu: bool) -> BackwardLaunches {
    let scales = BATCH_NORM_SCALES.with([("CHANNELS", channels.into()), ("EPSILON", (epsilon as f32).into())]);
    let gradients = BATCH_NORM_BACKWARD.with([
        ("BATCH", batch.into()),
        ("CHANNELS", channels.into()),
        ("AREA", (height * width).into()),
        ("RELU", relu.into()),
    ]);
    BackwardLaunches { scales: scales.over(channels), scales_len: 4 * channels, gradients: gradients.on([channels, 1]) }
}
