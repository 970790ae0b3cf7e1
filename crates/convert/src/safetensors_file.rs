//! Tensors of a safetensors file, each read when it is needed.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

use safetensors::tensor::{Dtype, Metadata};

use crate::ConvertError;
use crate::tensor::{Numbers, Tensor, Tensors};

/// Largest header, as in the safetensors format: 100 MB.
const MAX_HEADER: u64 = 100_000_000;

/// Whether a file starts like safetensors: the length of a JSON object, then the object.
pub fn is_safetensors(start: &[u8]) -> bool {
    start.first_chunk().is_some_and(|len| u64::from_le_bytes(*len) <= MAX_HEADER) && start.get(8) == Some(&b'{')
}

/// The tensors of a safetensors file of `len` bytes.
pub fn tensors(path: &Path, len: u64) -> Result<Tensors<'static>, ConvertError> {
    let unreadable = |source| ConvertError::Io { path: path.to_owned(), source };
    let mut file = File::open(path).map_err(unreadable)?;
    let mut header_len = [0; 8];
    file.read_exact(&mut header_len).map_err(ConvertError::Data)?;
    let header_len = u64::from_le_bytes(header_len);
    let start = 8 + header_len.min(len);
    if header_len > MAX_HEADER || start > len {
        return Err(ConvertError::SafetensorsHeader(format!("{header_len} bytes long, in a file of {len}")));
    }
    let mut header = vec![0; header_len as usize];
    file.read_exact(&mut header).map_err(ConvertError::Data)?;
    let metadata: Metadata =
        serde_json::from_slice(&header).map_err(|error| ConvertError::SafetensorsHeader(error.to_string()))?;
    if metadata.metadata().as_ref().is_some_and(|entries| entries.contains_key("kiln")) {
        return Err(ConvertError::OwnBundle);
    }
    let claimed = metadata.data_len() as u64;
    if claimed != len - start {
        return Err(ConvertError::Claim { claimed, bytes: len - start });
    }
    let file = std::rc::Rc::new(file);
    let tensor = |(name, info): (String, &safetensors::tensor::TensorInfo)| {
        let (from, to) = info.data_offsets;
        let file = file.clone();
        let read = move || {
            let mut bytes = vec![0; to - from];
            let mut file = &*file;
            file.seek(SeekFrom::Start(start + from as u64))?;
            file.read_exact(&mut bytes)?;
            Ok(bytes)
        };
        (name, Tensor::new(info.shape.clone(), numbers(info.dtype), read))
    };
    Ok(metadata.tensors().into_iter().map(tensor).collect())
}

fn numbers(dtype: Dtype) -> Numbers {
    match dtype {
        Dtype::F64 => Numbers::F64,
        Dtype::F32 => Numbers::F32,
        Dtype::F16 => Numbers::F16,
        Dtype::BF16 => Numbers::Bf16,
        other => Numbers::Other(other.to_string()),
    }
}
