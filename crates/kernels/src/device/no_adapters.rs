//! The module `adapters` of a build without wgpu: there is no adapter, so that what handles one needs no `cfg`.

use burn::tensor::Device;
use kiln_infer::conv2d::matrix::MatrixUnits;
use kiln_infer::gpu;

use super::{DeviceError, GraphicsAdapter};

/// None can be made. A private field says so, so that the compiler does not warn callers of code that is never reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Handle(Never);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Never {}

impl Handle {
    pub fn device(&self) -> Device {
        match self.0 {}
    }

    pub fn with_webgpu_limits(&self) -> Result<Device, DeviceError> {
        match self.0 {}
    }

    pub fn for_inference(&self) -> gpu::Adapter {
        match self.0 {}
    }

    pub fn matrix_units(&self) -> Option<MatrixUnits> {
        match self.0 {}
    }
}

/// None.
pub fn adapters() -> Vec<GraphicsAdapter> {
    vec![]
}
