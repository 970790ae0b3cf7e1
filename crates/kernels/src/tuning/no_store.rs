//! In a build for CPUs alone there is nothing to tune.

use std::path::Path;

use burn::tensor::Device;
use kiln_infer::conv2d::{Choices, Geometry};

use super::{Patience, TunedPass, TuningError};
use crate::device::GraphicsAdapter;

#[derive(Debug, Default)]
pub struct Tuning(Choices);

impl Tuning {
    pub fn open(_: &GraphicsAdapter) -> Self {
        Self::default()
    }

    pub fn open_in(_: &GraphicsAdapter, _: Option<&Path>) -> Self {
        Self::default()
    }

    pub fn warning(&self) -> Option<&str> {
        None
    }

    pub fn file(&self) -> Option<&Path> {
        None
    }

    pub fn choices(&self) -> &Choices {
        &self.0
    }

    pub fn missing(&self, _: &[Geometry]) -> Vec<Geometry> {
        vec![]
    }

    pub fn tune(
        &mut self,
        _: &GraphicsAdapter,
        _: &[Geometry],
        _: Patience,
        _: impl FnMut(&TunedPass),
    ) -> Result<(), TuningError> {
        Ok(())
    }
}

pub fn use_on(_: &Device, _: Choices) {}
