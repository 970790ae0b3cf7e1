//! Augmentation of training images on the device: the change of each image, its definition and its shader.

pub mod reference;
pub mod wgsl;

/// What becomes of one image: a crop out of a black border, then mirrored, normalised, and last a
/// rectangle cut out. The default takes an image as it is, if the border has no width.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Change {
    /// Of the image within its set.
    pub index: u32,
    /// Top edge of the crop within the padded image, at most twice the padding.
    pub row: u32,
    /// Left edge of the crop within the padded image, at most twice the padding.
    pub column: u32,
    /// Whether the crop is mirrored left to right.
    pub flip: bool,
    /// Top, left, height and width, in pixels of the crop. It becomes zero after normalisation, that is
    /// the mean colour (DeVries and Taylor, <https://arxiv.org/abs/1708.04552>).
    pub cutout: [u32; 4],
}

impl Change {
    /// As the shader reads it.
    pub fn words(&self) -> [u32; 8] {
        let [top, left, height, width] = self.cutout;
        [self.index, self.row, self.column, self.flip.into(), top, left, height, width]
    }
}

/// Each of the 256 levels of each channel, normalised: `(level / 255 - mean) / std`, `[3, 256]`.
pub fn levels(mean: [f32; 3], std: [f32; 3]) -> [[f32; 256]; 3] {
    std::array::from_fn(|channel| std::array::from_fn(|level| (level as f32 / 255.0 - mean[channel]) / std[channel]))
}
