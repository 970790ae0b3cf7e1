//! A plan on the device that was chosen for it.

use web_time::{Duration, Instant};

use crate::{CpuExecutor, GpuExecutor, PlanError, Precision};

/// Runs one plan, on a CPU or on a GPU.
pub enum Executor {
    Cpu(Box<CpuExecutor>),
    Gpu(Box<GpuExecutor>),
}

/// Where the time of one image went. On a CPU nothing is uploaded or read back.
#[derive(Clone, Copy, Debug, Default)]
pub struct Timings {
    pub upload: Duration,
    pub compute: Duration,
    pub read_back: Duration,
}

/// Why a GPU cannot run a plan, or did not.
#[derive(Debug, thiserror::Error)]
pub enum GpuError {
    #[error("no GPU adapter was found: {0}")]
    NoAdapter(String),
    #[error("the adapter gives no device: {0}")]
    NoDevice(String),
    #[error("the adapter {0} does not store {1:?}")]
    Precision(String, Precision),
    #[error(transparent)]
    Plan(#[from] PlanError),
    #[error("the device was lost")]
    Lost,
    #[error("the device refused the work: {0}")]
    Refused(String),
}

impl Executor {
    /// The last value, `[C, H, W]`, for an image `[C, H, W]`. Runs must not overlap.
    ///
    /// # Errors
    /// If a GPU is lost or refuses the work.
    ///
    /// # Panics
    /// If `image` does not have the size of the plan's input.
    pub async fn run(&mut self, image: &[f32]) -> Result<(Vec<f32>, Timings), GpuError> {
        match self {
            Self::Cpu(executor) => {
                let start = Instant::now();
                let output = executor.run(image);
                Ok((output, Timings { compute: start.elapsed(), ..Timings::default() }))
            }
            Self::Gpu(executor) => executor.run(image).await,
        }
    }
}
