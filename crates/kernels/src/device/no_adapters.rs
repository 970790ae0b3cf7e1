//! The module `adapters` of a build without wgpu: there is no adapter, so that what handles one needs no `cfg`.

use burn::tensor::Device;
use kiln_infer::conv2d::matrix::MatrixUnits;
use kiln_infer::gpu;

use super::GraphicsAdapter;

/// No adapter has one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Handle {}

impl Handle {
    pub fn device(&self) -> Device {
        match *self {}
    }

    pub fn for_inference(&self) -> gpu::Adapter {
        match *self {}
    }

    pub fn matrix_units(&self) -> Option<MatrixUnits> {
        match *self {}
    }
}

/// None.
pub fn adapters() -> Vec<GraphicsAdapter> {
    vec![]
}
