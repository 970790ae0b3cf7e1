//! Pooling over whole maps: its definition and its shaders.

pub mod reference;
pub mod wgsl;
