//! Which forms of its shaders Kiln runs on a GPU: found out there, kept in a file, taken from it the next time.
//!
//! [`Tuning`] is the file of one adapter. [`kiln_infer::tune`] finds out what goes into it; a form that takes the process
//! along is known by what the file beside it says was being tried.

#[cfg_attr(not(feature = "wgpu"), path = "no_store.rs")]
mod store;

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use kiln_infer::GpuError;
use kiln_infer::conv2d::{Form, Geometry, Outcome, Pass, Trial};

#[cfg(feature = "wgpu")]
pub(crate) use self::store::form;
pub use self::store::{Tuning, use_on};

/// A pass that was tuned.
#[derive(Clone, Debug)]
pub struct TunedPass {
    pub geometry: Geometry,
    /// Images that were timed: fewer than the geometry's on a slow device.
    pub batch: usize,
    pub pass: Pass,
    pub trials: Vec<Trial>,
    /// Forms that were not tried, since two processes ended while they were tried.
    pub avoided: Vec<Form>,
}

impl TunedPass {
    /// Floating-point operations of what was timed.
    pub fn operations(&self) -> f64 {
        2.0 * Geometry { batch: self.batch, ..self.geometry }.multiply_adds() as f64
    }

    /// The forms that are right with their times, the fastest first.
    pub fn ranking(&self) -> Vec<(Form, Duration)> {
        let mut right: Vec<_> = self
            .trials
            .iter()
            .filter_map(|trial| match trial.outcome {
                Outcome::Right(time) => Some((trial.form, time)),
                _ => None,
            })
            .collect();
        right.sort_by_key(|(_, time)| *time);
        right
    }
}

/// How long tuning may take.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// After this no further convolution is begun.
    pub total: Duration,
    /// For a form to be compiled and run.
    pub form: Duration,
}

/// Another process is tuning the same adapter, or the file cannot be written.
#[derive(Debug, thiserror::Error)]
pub enum TuningError {
    #[error("another process is tuning this adapter now: try again when it is done")]
    Busy,
    #[error("cannot write {}: {source}", path.display())]
    Io { path: PathBuf, source: io::Error },
    #[error(transparent)]
    Gpu(#[from] GpuError),
}
