//! Batch and group normalization: their definition, and the shaders of training batch norm.

pub mod reference;
pub mod wgsl;
