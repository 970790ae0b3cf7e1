//! How a picture of any size becomes a network's square input.

use serde::{Deserialize, Serialize};

/// A network's input: its size, and how pictures are brought to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Input {
    /// Height and width in pixels, at least 1.
    pub size: usize,
    /// `None` for Kiln's own way: cut out the center square, then resize it with a triangle filter.
    pub preprocessing: Option<Preprocessing>,
}

impl From<usize> for Input {
    fn from(size: usize) -> Self {
        Self { size, preprocessing: None }
    }
}

/// torchvision's `Resize(resize)` and `CenterCrop(size)` on PIL images: the picture's shorter side is resized, then the
/// middle is cut out. The numbers are Pillow 13's, to the last bit; of a picture that was
/// stored lying on its side, some may differ by one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Preprocessing {
    /// Pixels of the shorter side after the resize; the input's size if that is larger.
    pub resize: usize,
    /// The filter of the resize.
    pub interpolation: Interpolation,
}

/// Filters of a resize. Both are antialiased: a smaller picture averages over all of the larger one's pixels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Interpolation {
    /// A triangle, one output pixel to each side.
    Bilinear,
    /// Keys' cubic with a = -1/2, two output pixels to each side.
    Bicubic,
}

impl Interpolation {
    /// `bilinear` or `bicubic`, as in metadata.
    pub fn name(self) -> &'static str {
        match self {
            Self::Bilinear => "bilinear",
            Self::Bicubic => "bicubic",
        }
    }
}
