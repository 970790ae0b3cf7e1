//! The operators of a residual network. Every device goes through the functions of this crate; what
//! runs underneath depends on the device: on a CPU the `cpu` module of each operator, on wgpu its
//! shaders, elsewhere burn's own operators.
//!
//! An operator is a folder with the same rooms in each: `mod.rs` (shapes), `tensors.rs` (the public
//! function of burn's tensors), `cpu.rs` (the fast form), `wgsl.rs` (which of the files in `shaders/`
//! it takes, and how many workgroups), `cube.rs` (their launch on burn's runtime) and `reference.rs`
//! (the readable twin that tests and `kiln doctor` compare with).
//!
//! [`inference`] runs whole trained networks without burn. Without the feature `burn`, as the browser
//! has it, that is what is left, beside the shaders themselves and [`runner`], which runs one of them.

#[cfg(feature = "burn")]
pub mod add_relu;
pub mod augment;
#[cfg(feature = "burn")]
mod autodiff;
#[cfg(feature = "burn")]
mod backend;
pub mod batch_norm;
pub mod check;
pub mod conv2d;
#[cfg(feature = "burn")]
mod cube;
#[cfg(feature = "burn")]
pub mod device;
mod direct;
#[cfg(feature = "burn")]
mod flex;
#[cfg(feature = "burn")]
mod fork;
pub mod inference;
mod parallel;
#[cfg(feature = "wgpu")]
pub mod peak;
pub mod pool;
pub mod resize_normalize;
#[cfg(feature = "wgpu")]
pub mod runner;
#[cfg(feature = "burn")]
pub mod sgd;
pub mod shader;
pub mod variants;

#[cfg(feature = "burn")]
pub use add_relu::add_relu;
#[cfg(feature = "burn")]
pub use batch_norm::{BatchNormTrain, batch_norm, batch_norm_train, group_norm};
pub use conv2d::Precision;
#[cfg(feature = "burn")]
pub use conv2d::conv2d;
#[cfg(feature = "burn")]
pub use fork::fork;
#[cfg(feature = "burn")]
pub use pool::global_average_pool;
#[cfg(feature = "burn")]
pub use sgd::{SgdStep, sgd};
