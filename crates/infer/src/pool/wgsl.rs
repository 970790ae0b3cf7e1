//! Which shaders global average pooling takes, with which constants, and how many workgroups of them.

use crate::shader::{GLOBAL_AVERAGE_POOL, GLOBAL_AVERAGE_POOL_BACKWARD, Launch};

/// Means of `maps` maps of `area` pixels. Buffers: input, output.
pub fn forward(maps: usize, area: usize) -> Launch {
    GLOBAL_AVERAGE_POOL.with([("MAPS", maps.into()), ("AREA", area.into())]).over(maps)
}

/// Buffers: gradient of the output, gradient of the input.
pub fn backward(maps: usize, area: usize) -> Launch {
    GLOBAL_AVERAGE_POOL_BACKWARD.with([("MAPS", maps.into()), ("AREA", area.into())]).over(maps * area)
}
