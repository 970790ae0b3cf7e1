//! Images of one size with labels: in memory as bytes, or made whenever they are asked for.

use std::{borrow::Cow, fmt, sync::Arc};

#[cfg(not(target_family = "wasm"))]
use crate::ahead::Ahead;
use crate::{decode::crop_planar, error::DataError, resized_crop::CropDraw};

/// RGB images of one size with their labels.
#[derive(Clone, Debug)]
pub struct ImageSet {
    /// Height of each image in pixels.
    pub height: usize,
    /// Width of each image in pixels.
    pub width: usize,
    /// The images, as many as labels.
    pub images: Images,
    /// Class of each image `[N]`, an index into [`Dataset::classes`](crate::Dataset::classes).
    pub labels: Vec<u32>,
}

/// Where the pixels of a set are.
#[derive(Clone, Debug)]
pub enum Images {
    /// In memory: `[N, 3, H, W]`, 0 to 255, channels in the order red, green, blue.
    InMemory(Vec<u8>),
    /// Made by a source whenever they are asked for.
    Streamed(Stream),
}

impl Images {
    /// Pixels `[N, 3, H, W]`, if they are in memory.
    pub fn in_memory(&self) -> Option<&[u8]> {
        match self {
            Self::InMemory(pixels) => Some(pixels),
            Self::Streamed(_) => None,
        }
    }
}

impl From<Vec<u8>> for Images {
    fn from(pixels: Vec<u8>) -> Self {
        Self::InMemory(pixels)
    }
}

/// Images that are made when they are asked for, such as files that are decoded anew in every epoch.
///
/// What it gives for an index must always be the same, and it is asked by several threads at once.
pub trait ImageSource: fmt::Debug + Send + Sync {
    /// Pixels `[3, H, W]` of an image, 0 to 255: the image as it is evaluated or, with `crop`, that part of the original
    /// brought to the same size.
    ///
    /// # Errors
    ///
    /// [`DataError`] if it cannot be read any more.
    fn image(&self, index: u32, crop: Option<&CropDraw>) -> Result<Vec<u8>, DataError>;

    /// The first 16 bytes of the SHA-256 of an image's pixels `[3, H, W]`, as it is evaluated.
    fn digest(&self, index: u32) -> u128;
}

/// Some images of a source, in some order.
#[derive(Clone, Debug)]
pub struct Stream {
    source: Arc<dyn ImageSource>,
    /// The index in the source of each image.
    indices: Vec<u32>,
    #[cfg(not(target_family = "wasm"))]
    ahead: Arc<Ahead>,
}

impl Stream {
    /// The images of `source` at `indices`.
    pub fn new(source: Arc<dyn ImageSource>, indices: Vec<u32>) -> Self {
        Self {
            source,
            indices,
            #[cfg(not(target_family = "wasm"))]
            ahead: Arc::default(),
        }
    }

    fn image(&self, index: usize, crop: Option<&CropDraw>) -> Result<Vec<u8>, DataError> {
        let index = self.indices[index];
        #[cfg(not(target_family = "wasm"))]
        if let Some(image) = self.ahead.take(index, crop) {
            return image;
        }
        self.source.image(index, crop)
    }

    /// Starts to make images in the background that will be asked for next, and forgets others that were made so.
    /// Without threads it does nothing.
    pub(crate) fn prefetch(&self, wanted: impl Iterator<Item = (u32, Option<CropDraw>)>) {
        #[cfg(not(target_family = "wasm"))]
        Ahead::start(&self.ahead, &self.source, wanted.map(|(index, crop)| (self.indices[index as usize], crop)));
        #[cfg(target_family = "wasm")]
        drop(wanted);
    }

    fn select(&self, indices: &[u32]) -> Self {
        let indices = indices.iter().map(|index| self.indices[*index as usize]).collect();
        Self { indices, ..self.clone() }
    }
}

impl ImageSet {
    /// A set without images, to [`push`](Self::push) some.
    pub fn empty(height: usize, width: usize) -> Self {
        Self { height, width, images: Images::InMemory(vec![]), labels: vec![] }
    }

    /// Adds an image `[3, H, W]`.
    ///
    /// # Panics
    ///
    /// If the image is of another size, or the set is not in memory.
    pub fn push(&mut self, image: &[u8], label: u32) {
        assert_eq!(image.len(), self.image_len(), "an image of {} x {} pixels", self.width, self.height);
        self.pixels_mut().extend_from_slice(image);
        self.labels.push(label);
    }

    /// Number of images.
    pub fn len(&self) -> usize {
        self.labels.len()
    }

    /// Whether the set has no images.
    pub fn is_empty(&self) -> bool {
        self.labels.is_empty()
    }

    /// Bytes of one image, `3 * height * width`.
    pub fn image_len(&self) -> usize {
        3 * self.height * self.width
    }

    /// Pixels of one image `[3, H, W]`, as it is evaluated.
    ///
    /// # Errors
    ///
    /// [`DataError`] if a source cannot read it any more.
    ///
    /// # Panics
    ///
    /// If `index` is not below [`len`](Self::len).
    pub fn image(&self, index: usize) -> Result<Cow<'_, [u8]>, DataError> {
        self.view(index, None)
    }

    /// [`image`](Self::image) or, with `crop`, that part of the original brought to the same size.
    pub(crate) fn view(&self, index: usize, crop: Option<&CropDraw>) -> Result<Cow<'_, [u8]>, DataError> {
        match &self.images {
            Images::Streamed(stream) => stream.image(index, crop).map(Cow::Owned),
            Images::InMemory(pixels) => {
                let image = &pixels[index * self.image_len()..][..self.image_len()];
                let size = [self.width as u32, self.height as u32];
                Ok(crop.map_or(Cow::Borrowed(image), |crop| Cow::Owned(crop_planar(image, size, crop))))
            }
        }
    }

    /// Pixels `[N, 3, H, W]` of a set in memory, to be changed.
    ///
    /// # Panics
    ///
    /// If the set is not in memory.
    pub fn pixels_mut(&mut self) -> &mut Vec<u8> {
        match &mut self.images {
            Images::InMemory(pixels) => pixels,
            Images::Streamed(_) => panic!("the images of a stream cannot be changed"),
        }
    }

    /// The images at `indices`, in that order.
    ///
    /// # Panics
    ///
    /// If an index is not below [`len`](Self::len).
    pub fn select(&self, indices: &[u32]) -> Self {
        let images = match &self.images {
            Images::Streamed(stream) => Images::Streamed(stream.select(indices)),
            Images::InMemory(pixels) => {
                let mut images = Vec::with_capacity(indices.len() * self.image_len());
                for &index in indices {
                    images.extend_from_slice(&pixels[index as usize * self.image_len()..][..self.image_len()]);
                }
                Images::InMemory(images)
            }
        };
        let labels = indices.iter().map(|&index| self.labels[index as usize]).collect();
        Self { height: self.height, width: self.width, images, labels }
    }

    /// The first 16 bytes of the SHA-256 of each image's pixels.
    pub(crate) fn digests(&self) -> Box<dyn Iterator<Item = u128> + '_> {
        match &self.images {
            Images::Streamed(Stream { source, indices, .. }) => {
                Box::new(indices.iter().map(|index| source.digest(*index)))
            }
            Images::InMemory(pixels) => {
                Box::new(pixels.chunks_exact(self.image_len().max(1)).map(crate::digest::short))
            }
        }
    }
}
