//! The operators of a residual network. Every device goes through the functions of this crate; what
//! runs underneath depends on the device: on a CPU the `cpu` module of each operator, on wgpu its
//! shaders, elsewhere burn's own operators.
//!
//! An operator is a folder with the same rooms in each: `mod.rs` (the public function, shapes),
//! `cpu.rs` (the fast form), `wgsl.rs` (the launch of its files in `shaders/`) and `reference.rs`
//! (the readable twin that tests and `kiln doctor` compare with).
//!
//! [`inference`] runs whole trained networks without burn; it is all that is left of this crate
//! without the feature `burn`, as the browser has it.

#[cfg(feature = "burn")]
pub mod add_relu;
#[cfg(feature = "burn")]
mod autodiff;
#[cfg(feature = "burn")]
mod backend;
#[cfg(feature = "burn")]
pub mod batch_norm;
#[cfg(feature = "burn")]
pub mod conv2d;
#[cfg(feature = "burn")]
mod cube;
#[cfg(feature = "burn")]
pub mod device;
mod direct;
#[cfg(feature = "burn")]
mod flex;
pub mod inference;
mod parallel;
#[cfg(feature = "burn")]
pub mod pool;
mod shader;

#[cfg(feature = "burn")]
pub use add_relu::add_relu;
#[cfg(feature = "burn")]
pub use batch_norm::{BatchNormTrain, batch_norm, batch_norm_train, group_norm};
#[cfg(feature = "burn")]
pub use conv2d::{Precision, conv2d};
#[cfg(feature = "burn")]
pub use pool::global_average_pool;
