//! What numbers are multiplied in, or stored in.

use std::fmt;
use std::str::FromStr;

use crate::cpu_conv::{are_tiled, bf16};

/// What convolutions multiply. Sums are f32 in every case.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Precision {
    #[default]
    F32,
    /// Numbers rounded to 8 bits of mantissa, two to a word. Only on CPUs with AVX512-BF16, and by AMX where there is
    /// that too.
    Bf16,
    /// Numbers rounded to 11 bits of mantissa. Only on wgpu adapters: in training on those with matrix
    /// units, in inference on those with `shader-f16`.
    F16,
}

impl Precision {
    /// Whether this processor multiplies it.
    pub fn is_on_cpu(self) -> bool {
        match self {
            Self::F32 => true,
            Self::Bf16 => bf16::is_available(),
            Self::F16 => false,
        }
    }

    /// What of this processor multiplies it, by Intel's and AMD's name.
    pub fn unit_of_cpu(self) -> Option<&'static str> {
        match self {
            Self::Bf16 if are_tiled(self) => Some("AMX"),
            Self::Bf16 if self.is_on_cpu() => Some("AVX512-BF16"),
            _ => None,
        }
    }

    /// Numbers in a word of 32 bits.
    pub fn per_word(self) -> usize {
        match self {
            Self::F32 => 1,
            Self::Bf16 | Self::F16 => 2,
        }
    }
}

impl FromStr for Precision {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let all = [Self::F32, Self::Bf16, Self::F16];
        let found = all.into_iter().find(|precision| precision.to_string() == name);
        found.ok_or_else(|| format!("no precision is called '{name}': choose f32, bf16 or f16"))
    }
}

impl fmt::Display for Precision {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(match self {
            Self::F32 => "f32",
            Self::Bf16 => "bf16",
            Self::F16 => "f16",
        })
    }
}
