//! The module `gpu` of a build without wgpu: the same names, of which no value can exist. Callers need no `cfg`.

use crate::variants::Variants;
use crate::{GpuError, Plan, Precision, Timings};

/// What the types below hold, so that none can be made. Private, so that the compiler does not warn callers of code that
/// is never reached.
enum Never {}

/// An adapter that a plan could run on.
pub struct Adapter(Never);

impl Adapter {
    /// What of [`crate::variants`] runs on it.
    pub fn variants(&self) -> &'static Variants {
        match self.0 {}
    }

    /// Whether plans can keep their numbers in that precision on it.
    pub fn stores(&self, _: Precision) -> bool {
        match self.0 {}
    }
}

/// A plan's pipelines and buffers on one device.
pub struct GpuExecutor(Never);

impl GpuExecutor {
    /// Makes everything that a run needs.
    ///
    /// # Errors
    /// None, since there is no adapter.
    pub async fn new(adapter: &Adapter, _: &Plan, _: Precision) -> Result<Self, GpuError> {
        match adapter.0 {}
    }

    /// The last value, `[C, H, W]`, for an image `[C, H, W]`.
    ///
    /// # Errors
    /// None, since there is no executor.
    pub async fn run(&self, _: &[f32]) -> Result<(Vec<f32>, Timings), GpuError> {
        match self.0 {}
    }
}

/// Floating-point operations a second of an adapter's device.
///
/// # Errors
/// None, since there is no adapter.
pub async fn peak(adapter: &Adapter) -> Result<f64, GpuError> {
    match adapter.0 {}
}
