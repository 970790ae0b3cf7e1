//! The file format under bundles and checkpoints: safetensors whose metadata is one JSON object
//! under the key `kiln`, so that a file's bytes are a function of its contents, with a digest over
//! every tensor and the object itself.

use std::collections::HashMap;

use half::f16;
use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::{StateDict, StateTensor};

/// Version of the format that this crate writes; it reads this one alone.
const FORMAT: u32 = 1;
/// Where the JSON object lies in the file's `__metadata__`.
const KEY: &str = "kiln";

/// The object under [`KEY`]. The contents are a JSON text within it, so that the digest is over
/// the very bytes that are read.
#[derive(Serialize, Deserialize)]
struct Envelope {
    format: u32,
    digest: String,
    contents: Box<serde_json::value::RawValue>,
}

/// A file that was not written by Kiln, or was damaged since.
#[derive(Debug, thiserror::Error)]
pub enum ContainerError {
    #[error("not a whole safetensors file: {0}")]
    Safetensors(#[from] safetensors::SafeTensorError),
    #[error("the file's metadata has no '{KEY}' entry: it was not written by Kiln")]
    Foreign,
    #[error("the metadata cannot be read: {0}")]
    Metadata(#[from] serde_json::Error),
    #[error("format {0} is not the one this Kiln reads ({FORMAT}): use the Kiln that wrote the file, or a newer one")]
    Format(u64),
    #[error("tensor '{name}' holds {dtype}: Kiln reads F32 and F16")]
    Dtype { name: String, dtype: String },
    #[error("tensor '{0}' holds a value that is not finite")]
    NotFinite(String),
    #[error("the digest does not match: the file was changed after it was written")]
    Digest,
}

/// The bytes of a file with that header and those tensors in f32.
pub fn write<H: Serialize>(header: &H, state: &StateDict) -> Result<Vec<u8>, ContainerError> {
    let contents = serde_json::value::to_raw_value(header)?;
    let mut buffers = Vec::with_capacity(state.len());
    for (name, tensor) in state {
        if !tensor.values.iter().all(|value| value.is_finite()) {
            return Err(ContainerError::NotFinite(name.clone()));
        }
        let bytes: Vec<u8> = tensor.values.iter().flat_map(|value| value.to_le_bytes()).collect();
        buffers.push((name.as_str(), tensor.shape.as_slice(), bytes));
    }
    let tensors = buffers.iter().map(|(name, shape, bytes)| (*name, *shape, bytes.as_slice()));
    let digest = digest(contents.get(), tensors);
    let envelope = serde_json::to_string(&Envelope { format: FORMAT, digest, contents })?;
    let views = buffers
        .iter()
        .map(|(name, shape, bytes)| Ok((*name, TensorView::new(Dtype::F32, shape.to_vec(), bytes)?)))
        .collect::<Result<Vec<_>, ContainerError>>()?;
    Ok(safetensors::serialize(views, Some(HashMap::from([(KEY.to_owned(), envelope)])))?)
}

/// Header and tensors of a file, checked against its digest.
pub fn read<H: DeserializeOwned>(bytes: &[u8]) -> Result<(H, StateDict), ContainerError> {
    let (_, metadata) = SafeTensors::read_metadata(bytes)?;
    let json = metadata.metadata().as_ref().and_then(|entries| entries.get(KEY)).ok_or(ContainerError::Foreign)?;
    let format = serde_json::from_str::<serde_json::Value>(json)?["format"].as_u64().unwrap_or(0);
    if format != u64::from(FORMAT) {
        return Err(ContainerError::Format(format));
    }
    let envelope: Envelope = serde_json::from_str(json)?;
    let file = SafeTensors::deserialize(bytes)?;
    let mut tensors: Vec<_> = file.iter().collect();
    tensors.sort_by_key(|(name, _)| *name);
    let parts = tensors.iter().map(|(name, view)| (*name, view.shape(), view.data()));
    if envelope.digest != digest(envelope.contents.get(), parts) {
        return Err(ContainerError::Digest);
    }
    let state = tensors
        .into_iter()
        .map(|(name, view)| {
            let tensor = StateTensor { shape: view.shape().to_vec(), values: values(name, &view)? };
            Ok((name.to_owned(), tensor))
        })
        .collect::<Result<_, ContainerError>>()?;
    Ok((serde_json::from_str(envelope.contents.get())?, state))
}

/// SHA-256 over the header and the tensors, which come in the order of their names.
fn digest<'a>(header: &str, tensors: impl Iterator<Item = (&'a str, &'a [usize], &'a [u8])>) -> String {
    let mut hash = Sha256::new();
    hash.update(header);
    for (name, shape, bytes) in tensors {
        hash.update(format!("\n{name}{shape:?}{}\n", bytes.len()));
        hash.update(bytes);
    }
    hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

fn values(name: &str, view: &TensorView) -> Result<Vec<f32>, ContainerError> {
    let bytes = view.data();
    let values: Vec<f32> = match view.dtype() {
        Dtype::F32 => bytes.as_chunks().0.iter().map(|chunk| f32::from_le_bytes(*chunk)).collect(),
        Dtype::F16 => bytes.as_chunks().0.iter().map(|chunk| f16::from_le_bytes(*chunk).to_f32()).collect(),
        other => return Err(ContainerError::Dtype { name: name.to_owned(), dtype: format!("{other:?}") }),
    };
    if values.iter().all(|value| value.is_finite()) {
        Ok(values)
    } else {
        Err(ContainerError::NotFinite(name.to_owned()))
    }
}
