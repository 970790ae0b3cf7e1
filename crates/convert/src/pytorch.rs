//! PyTorch's checkpoints in; torchvision's names out.

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufReader, Read};
use std::path::Path;

use kiln_model::Bundle;
use kiln_model::container::f32_bytes;
use pytorch_reader::{DType, PickleValue, PytorchError, PytorchReader};
use safetensors::tensor::{Dtype, TensorView};
use zip::ZipArchive;

use crate::ConvertError;
use crate::tensor::{Numbers, Tensor, Tensors};

/// Keys of a checkpoint under which its weights are, in order of preference.
const WRAPPERS: [&str; 6] = ["state_dict", "model_state_dict", "model", "net", "network", "module"];

/// How a zip archive starts.
const ZIP: &[u8; 4] = b"PK\x03\x04";

/// Whether a file starts like one of `torch.save`'s: a zip archive, a tar archive, or pickles.
pub fn is_pytorch(start: &[u8]) -> bool {
    const TAR_MAGIC: usize = 257;
    start.starts_with(ZIP) || start.first() == Some(&0x80) || start.get(TAR_MAGIC..).is_some_and(is_tar)
}

fn is_tar(magic: &[u8]) -> bool {
    magic.starts_with(b"ustar")
}

/// The tensors of a checkpoint, or of the state dict within it, and that one's key.
///
/// The file's pickle is read by a machine that knows no function: nothing in it is executed.
pub fn tensors(path: &Path) -> Result<(Tensors<'static>, Option<&'static str>), ConvertError> {
    check_entries(path)?;
    let top = PytorchReader::read_pickle_data(path, None)?;
    let wrapper = match &top {
        PickleValue::Dict(entries) => WRAPPERS.into_iter().find(|key| is_state_dict(entries.get(*key))),
        _ => None,
    };
    drop(top);
    let reader = match wrapper {
        Some(key) => PytorchReader::with_top_level_key(path, key)?,
        None => PytorchReader::new(path)?,
    };
    let tensor = |(name, tensor): (String, pytorch_reader::Tensor)| {
        let (shape, numbers) = (tensor.shape().to_vec(), numbers(tensor.dtype()));
        (name, Tensor::new(shape, numbers, move || tensor.read()))
    };
    Ok((reader.into_tensors().into_iter().map(tensor).collect(), wrapper))
}

/// Refuses a zip archive whose entries share bytes: each could claim all of the file.
fn check_entries(path: &Path) -> Result<(), ConvertError> {
    let unreadable = |source| ConvertError::Io { path: path.to_owned(), source };
    let mut file = BufReader::new(File::open(path).map_err(unreadable)?);
    let mut start = [0; 4];
    if file.read_exact(&mut start).is_err() || start != *ZIP {
        return Ok(());
    }
    match ZipArchive::new(file).and_then(|mut archive| archive.has_overlapping_files()) {
        Ok(false) => Ok(()),
        Ok(true) => Err(ConvertError::Overlap),
        Err(error) => Err(PytorchError::Zip(error).into()),
    }
}

/// Whether a value is a dictionary with a tensor in it, which it may nest.
fn is_state_dict(value: Option<&PickleValue>) -> bool {
    match value {
        Some(PickleValue::Dict(entries)) => {
            entries.values().any(|value| is_tensor(value) || is_state_dict(Some(value)))
        }
        _ => false,
    }
}

fn is_tensor(value: &PickleValue) -> bool {
    matches!(value, PickleValue::Unsupported(name) if name == "torch.Tensor")
}

fn numbers(dtype: DType) -> Numbers {
    match dtype {
        DType::F64 => Numbers::F64,
        DType::F32 => Numbers::F32,
        DType::F16 => Numbers::F16,
        DType::BF16 => Numbers::Bf16,
        other => Numbers::Other(format!("{other:?}")),
    }
}

/// A bundle's weights as a safetensors file for PyTorch: torchvision's names (timm's for a transformer), f32, and nothing
/// of Kiln's.
pub fn to_pytorch(bundle: &Bundle) -> Result<Vec<u8>, ConvertError> {
    let bytes: Vec<_> = bundle.state.iter().map(|(name, tensor)| (name, tensor, f32_bytes(&tensor.values))).collect();
    let views = bytes
        .iter()
        .map(|(name, tensor, bytes)| Ok((*name, TensorView::new(Dtype::F32, tensor.shape.clone(), bytes)?)))
        .collect::<Result<Vec<_>, ConvertError>>()?;
    // What PyTorch's own writers note, and some loaders ask for.
    Ok(safetensors::serialize(views, Some(HashMap::from([("format".to_owned(), "pt".to_owned())])))?)
}
