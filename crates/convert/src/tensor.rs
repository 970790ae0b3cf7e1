//! A file's tensors before they are read.

use std::collections::BTreeMap;
use std::io;

use half::{bf16, f16};
use kiln_model::StateTensor;

use crate::ConvertError;

/// What a tensor's numbers are stored in.
#[derive(Clone, Debug, PartialEq)]
pub enum Numbers {
    F64,
    F32,
    F16,
    Bf16,
    /// By the name that the file's format has for it.
    Other(String),
}

/// A tensor whose bytes are still in the file.
pub struct Tensor<'a> {
    pub shape: Vec<usize>,
    pub numbers: Numbers,
    /// Gives little-endian numbers in row-major order.
    read: Box<dyn Fn() -> io::Result<Vec<u8>> + 'a>,
}

/// A file's tensors by name.
pub type Tensors<'a> = BTreeMap<String, Tensor<'a>>;

impl Numbers {
    /// Bytes of a number; `None` for those that no network is read from.
    pub fn bytes(&self) -> Option<usize> {
        match self {
            Self::F64 => Some(8),
            Self::F32 => Some(4),
            Self::F16 | Self::Bf16 => Some(2),
            Self::Other(_) => None,
        }
    }

    /// Numbers from their bytes.
    fn decode(&self, bytes: &[u8]) -> Vec<f32> {
        match self {
            Self::F64 => bytes.as_chunks().0.iter().map(|chunk| f64::from_le_bytes(*chunk) as f32).collect(),
            Self::F32 => bytes.as_chunks().0.iter().map(|chunk| f32::from_le_bytes(*chunk)).collect(),
            Self::F16 => bytes.as_chunks().0.iter().map(|chunk| f16::from_le_bytes(*chunk).to_f32()).collect(),
            Self::Bf16 => bytes.as_chunks().0.iter().map(|chunk| bf16::from_le_bytes(*chunk).to_f32()).collect(),
            Self::Other(_) => vec![],
        }
    }
}

impl<'a> Tensor<'a> {
    pub fn new(shape: Vec<usize>, numbers: Numbers, read: impl Fn() -> io::Result<Vec<u8>> + 'a) -> Self {
        Self { shape, numbers, read: Box::new(read) }
    }

    /// Bytes that its shape and type claim; `None` beyond what can be counted.
    pub fn claimed(&self) -> Option<u64> {
        let numbers = self.shape.iter().try_fold(1_u64, |product, side| product.checked_mul(*side as u64))?;
        numbers.checked_mul(self.numbers.bytes().unwrap_or(1) as u64)
    }

    /// Reads the numbers as f32.
    ///
    /// # Errors
    /// If they are of another type, not finite, or not as many as the shape says.
    pub fn load(&self, name: &str) -> Result<StateTensor, ConvertError> {
        if let Numbers::Other(dtype) = &self.numbers {
            return Err(ConvertError::Dtype { name: name.to_owned(), dtype: dtype.clone() });
        }
        let bytes = (self.read)().map_err(ConvertError::Data)?;
        if self.claimed() != Some(bytes.len() as u64) {
            let message = format!("tensor '{name}' has {} bytes for shape {:?}", bytes.len(), self.shape);
            return Err(ConvertError::Data(io::Error::new(io::ErrorKind::UnexpectedEof, message)));
        }
        let values = self.numbers.decode(&bytes);
        match values.iter().all(|value| value.is_finite()) {
            true => Ok(StateTensor { shape: self.shape.clone(), values }),
            false => Err(ConvertError::NotFinite(name.to_owned())),
        }
    }
}
