//! What a user names as a model: a bundle, a run's folder, or a file of another program's weights.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use kiln::open_bundle;
use kiln_convert::{Choices, Format, Hints, Normalization};
use kiln_model::container::ContainerError;
use kiln_model::{Bundle, BundleError};

use crate::printable::message;

/// Opens a model. Weights of another program are imported on the way, and what is assumed of them is said.
pub fn open(path: &Path) -> Result<(PathBuf, Bundle)> {
    find(path, Choices::default(), true)
}

/// Opens a model of which only the weights matter.
pub fn open_weights(path: &Path) -> Result<(PathBuf, Bundle)> {
    let unused = Choices { normalization: Some(Normalization::IMAGENET), ..Choices::default() };
    find(path, unused, false)
}

fn find(path: &Path, choices: Choices, says: bool) -> Result<(PathBuf, Bundle)> {
    let error = match open_bundle(path) {
        Ok(found) => return Ok(found),
        Err(error) if is_foreign(&error, path) => error,
        Err(error) => {
            return Err(error).context("name a bundle, or the folder of a finished run (`kiln train` makes one)");
        }
    };
    drop(error);
    let context = || format!("cannot import {}", path.display());
    let (bundle, notes) = kiln_convert::open(path, Hints::default())
        .and_then(|imported| imported.bundle(choices))
        .with_context(context)?;
    for note in notes.iter().filter(|_| says) {
        eprintln!("note: {}", message(note));
    }
    Ok((path.to_owned(), bundle))
}

/// Whether a file that is not a bundle holds weights of another program.
fn is_foreign(error: &kiln::Error, path: &Path) -> bool {
    let kiln::Error::NoBundle { source: BundleError::Container(error), .. } = error else { return false };
    match error {
        ContainerError::Foreign => true,
        ContainerError::Safetensors(_) => {
            matches!(kiln_convert::format(path), Ok(Format::Pytorch | Format::Onnx))
        }
        _ => false,
    }
}
