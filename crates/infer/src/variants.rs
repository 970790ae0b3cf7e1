//! What depends on the kind of adapter, all of it in one table.
//!
//! The software column was measured: SwiftShader in Chromium, and Mesa's lavapipe. The GPU column awaits
//! one: its forms are tested for their results on software adapters, and chosen by what is known of GPUs
//! (inference at batch 1 gives them too little work without a cut sum; reads are shared through workgroup
//! memory). Everything that is not here is the same on both.

use crate::Precision;
use crate::shader::{CONV2D_FUSED, CONV2D_FUSED_SPLIT, Shader};

/// What runs on one kind of adapter.
pub struct Variants {
    /// Convolution in inference.
    pub conv2d_fused: Tiles,
    /// What numbers of plans are stored in.
    pub precision: Precision,
    /// Whether it is chosen unasked, before the CPU.
    pub before_cpu: bool,
}

/// A shader of convolution, and what it makes.
pub struct Tiles {
    pub shader: Shader,
    /// Pixels of a tile.
    pub pixels: usize,
    /// Channels of a tile.
    pub channels: usize,
    /// Tiles of a workgroup.
    pub tiles: usize,
}

const SOFTWARE: Variants = Variants {
    // From registers alone: a barrier stops all that a core does.
    conv2d_fused: Tiles { shader: CONV2D_FUSED, pixels: 8, channels: 8, tiles: 64 },
    precision: Precision::F32,
    before_cpu: false,
};

const GPU: Variants = Variants {
    conv2d_fused: Tiles { shader: CONV2D_FUSED_SPLIT, pixels: 4, channels: 4, tiles: 8 },
    // F16 is half as many bytes; whether that is faster a GPU has to say.
    precision: Precision::F32,
    before_cpu: true,
};

impl Variants {
    pub const fn of(is_software: bool) -> &'static Self {
        if is_software { &SOFTWARE } else { &GPU }
    }
}
