//! The shader, its constants, and how many workgroups of it.

use crate::shader::{Launch, RESIZE_NORMALIZE};

/// Makes `[3, size, size]`. Buffers: RGBA bytes, [`square`], output.
pub fn launch(size: usize, mean: [f32; 3], std: [f32; 3]) -> Launch {
    let shader = RESIZE_NORMALIZE.with([
        ("SIZE", size.into()),
        ("MEAN_RED", mean[0].into()),
        ("MEAN_GREEN", mean[1].into()),
        ("MEAN_BLUE", mean[2].into()),
        ("STD_RED", std[0].into()),
        ("STD_GREEN", std[1].into()),
        ("STD_BLUE", std[2].into()),
    ]);
    shader.on([size, size])
}

/// Width of a picture; left, top and side of its middle square.
pub fn square([width, height]: [u32; 2]) -> [u32; 4] {
    let side = width.min(height);
    [width, (width - side) / 2, (height - side) / 2, side]
}
