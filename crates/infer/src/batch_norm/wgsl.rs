//! Which shaders training batch norm takes, with which constants, and how many workgroups of them.

use crate::shader::{BATCH_NORM, BATCH_NORM_BACKWARD, Launch, Shader};

/// Buffers: input, gamma, beta; output, mean, variance.
pub fn forward(shape: [usize; 4], epsilon: f64, relu: bool) -> Launch {
    launch(BATCH_NORM, shape, epsilon, relu)
}

/// Buffers: the forward pass's input, gamma, output, mean and variance, the output's gradient; gradients
/// of input, gamma and beta.
pub fn backward(shape: [usize; 4], epsilon: f64, relu: bool) -> Launch {
    launch(BATCH_NORM_BACKWARD, shape, epsilon, relu)
}

/// A workgroup a channel.
fn launch(shader: Shader, [batch, channels, height, width]: [usize; 4], epsilon: f64, relu: bool) -> Launch {
    let shader = shader.with([
        ("BATCH", batch.into()),
        ("CHANNELS", channels.into()),
        ("AREA", (height * width).into()),
        ("EPSILON", (epsilon as f32).into()),
        ("RELU", relu.into()),
    ]);
    shader.on([channels, 1])
}
