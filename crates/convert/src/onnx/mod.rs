//! ONNX models of residual networks in, and of all networks out.

mod export;
mod file;
mod graph;
mod network;

use std::path::Path;

pub use export::{OnnxOptions, to_onnx};
pub use file::is_onnx;

use crate::ConvertError;
use crate::import::{Format, Imported};

/// Reads a model and matches its graph with a residual network.
pub fn import(path: &Path) -> Result<Imported, ConvertError> {
    let model = file::read(path)?;
    let known = file::known(&model);
    let graph = model.graph.ok_or(ConvertError::Onnx("it has no graph"))?;
    let (config, state, notes) = network::of(&graph)?;
    Ok(Imported { format: Format::Onnx, architecture: config.into(), state, known, notes })
}
