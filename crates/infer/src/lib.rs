//! Networks as plain lists of fused steps, run straight on a CPU or on wgpu: no training framework, no autodiff.
//!
//! A trained network's shapes are fixed. A [`Plan`] lists its convolutions, each with everything that follows it folded
//! in, and an [`Executor`] makes its buffers and pipelines once: on the CPU or, with the feature `wgpu`, on a GPU.
//! A page loads a few hundred kilobytes of code instead of a framework's megabytes.
//!
//! Below the executors are parts that `kiln-kernels` builds its training operators from: the direct convolution of
//! CPUs ([`cpu_conv`]), threads ([`parallel`]), shaders with their constants ([`shader`]), and, for each operator that
//! has shaders, which ones compute it (`wgsl`) and its definition in double precision (`reference`).

pub mod batch_norm;
pub mod check;
pub mod conv2d;
pub mod cpu_conv;
mod cpu_executor;
mod executor;
#[cfg_attr(not(feature = "wgpu"), path = "no_gpu.rs")]
pub mod gpu;
mod layout;
pub mod parallel;
pub mod peak;
mod plan;
pub mod pool;
mod precision;
pub mod reference;
#[cfg(feature = "wgpu")]
pub mod runner;
#[cfg(feature = "wgpu")]
pub mod tune;
pub mod variants;

pub use cpu_executor::CpuExecutor;
pub use executor::{Executor, GpuError, Timings};
pub use gpu::GpuExecutor;
pub use kiln_shaders as shader;
pub use layout::{Layout, ValueStorage};
pub use plan::{Conv2d, MAX_TOKENS, Norm, Operator, Plan, PlanError, Step, Value};
pub use precision::Precision;
