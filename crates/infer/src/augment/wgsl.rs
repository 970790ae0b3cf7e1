//! The shader, its constants, and how many workgroups of it.

use crate::shader::{AUGMENT, Launch};

/// Makes `[count, 3, height, width]`. Buffers: bytes, changes, levels, output.
pub fn launch(count: usize, height: usize, width: usize, padding: usize) -> Launch {
    let constants =
        [("IMAGES", count.into()), ("HEIGHT", height.into()), ("WIDTH", width.into()), ("PADDING", padding.into())];
    AUGMENT.with(constants).over(count * 3 * height * width)
}
