//! The operators of a residual network on burn's tensors, with their gradients. What runs underneath depends on the
//! device: on a CPU the `cpu` module of an operator, on wgpu its shaders, elsewhere burn's own operators.
//!
//! An operator is a folder: `tensors.rs` has its public function, `cpu.rs` its fast form on slices, and `gpu.rs`, where it
//! has shaders, their launches on burn's runtime. [`kiln_infer`] below has what needs no burn: which shaders compute it
//! (`wgsl`) and its definition in double precision (`reference`), which tests and `kiln doctor` compare with.
//!
//! burn reaches the operators through one trait, `KernelBackend` in `backend.rs`, which `cpu_backend.rs` and
//! `gpu_backend.rs` implement, and `autodiff.rs` for derivatives.

pub mod add_relu;
mod autodiff;
mod backend;
pub mod batch_norm;
pub mod conv2d;
mod cpu_backend;
pub mod device;
pub mod examination;
mod fork;
#[cfg(feature = "wgpu")]
mod gpu_backend;
#[cfg(feature = "wgpu")]
mod launch;
pub mod pool;
pub mod self_test;
pub mod sgd;
pub mod tuning;

pub use add_relu::add_relu;
pub use batch_norm::{BatchNormTrain, batch_norm, batch_norm_train, group_norm};
pub use conv2d::{Precision, conv2d};
pub use fork::fork;
pub use pool::global_average_pool;
pub use sgd::{SgdStep, sgd};
