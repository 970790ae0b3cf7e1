//! The operators of a residual network. Every device goes through the functions of this crate; what
//! runs underneath depends on the device: on a CPU the `cpu` module of each operator, elsewhere
//! burn's own operators.
//!
//! An operator is a folder with the same rooms in each: `mod.rs` (the public function, shapes),
//! `cpu.rs` (the fast form) and `reference.rs` (the readable twin that tests compare with).

pub mod add_relu;
mod autodiff;
mod backend;
pub mod batch_norm;
pub mod conv2d;
pub mod device;
mod flex;
mod pool;

pub use add_relu::add_relu;
pub use batch_norm::{BatchNormTrain, batch_norm, batch_norm_train, group_norm};
pub use conv2d::conv2d;
pub use pool::global_average_pool;
