//! Weights of other programs as Kiln's bundles, and bundles as weights for other programs.
//!
//! [`open`] reads safetensors, PyTorch (`.pt`, `.pth`, zip and legacy) and ONNX files of residual networks under
//! torchvision's, timm's and the well-known CIFAR repositories' names. What the network is (depth, width, stem, classes)
//! is found from the shapes; [`Imported::bundle`] adds what a file of weights cannot say. [`to_onnx`] and [`to_pytorch`]
//! go the other way.
//!
//! A file is not trusted: nothing in it is executed, its claims are checked before memory is taken, and a tensor or a node
//! that the network lacks is an error that names it.

mod architecture;
mod error;
mod import;
mod names;
mod onnx;
mod preprocess;
mod pytorch;
mod safetensors_file;
mod tensor;

pub use architecture::Hints;
pub use error::ConvertError;
pub use import::{Choices, Format, Imported, Known, MAX_FILE_BYTES, RECIPE, format, open, parse_classes};
pub use onnx::{OnnxOptions, to_onnx};
pub use preprocess::{Normalization, Preset};
pub use pytorch::to_pytorch;
