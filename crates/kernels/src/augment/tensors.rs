//! Augmentation into burn's tensors.

use burn::backend::Dispatch;
use burn::tensor::{DType, Device, Int, Tensor, TensorData};

use crate::backend::KernelBackend;
use crate::device::OperatorPath;
use kiln_infer::augment::{Change, levels, reference};

/// A set of images that batches are made of.
///
/// Made once for a training set; then, each step, [`augment`](Self::augment) with that step's draws
/// (`Augment::draw` of `kiln-data`, which are made on the host so that no device changes them) in the
/// place of `fill_batch`, whose bits it gives.
pub struct Images {
    store: Store,
    count: usize,
    size: [usize; 2],
    device: Device,
}

/// Where the bytes are.
#[allow(clippy::large_enum_variant, reason = "there is one of them")]
enum Store {
    /// Four bytes a word, and `[3, 256]` levels.
    Device { pixels: Tensor<1, Int>, levels: Tensor<2> },
    /// On the host: the device does not take Kiln's shaders, and is handed whole batches.
    Host { pixels: Vec<u8>, levels: Box<[[f32; 256]; 3]> },
}

impl Images {
    /// For bytes `[M, 3, H, W]` of images of `size` `[H, W]`, normalised by each channel's `mean` and `std`.
    ///
    /// # Panics
    /// If the bytes are no whole images.
    pub fn new(pixels: Vec<u8>, size: [usize; 2], mean: [f32; 3], std: [f32; 3], device: &Device) -> Self {
        let image = 3 * size[0] * size[1];
        assert!(image > 0 && pixels.len().is_multiple_of(image), "{} bytes are no images of {size:?}", pixels.len());
        let (count, levels) = (pixels.len() / image, levels(mean, std));
        let store = if OperatorPath::of(device) == OperatorPath::Wgsl {
            Store::Device {
                pixels: integers(words(&pixels), device),
                levels: Tensor::<1>::from_data(levels.as_flattened(), device).reshape([3, 256]),
            }
        } else {
            Store::Host { pixels, levels: Box::new(levels) }
        };
        Self { store, count, size, device: device.clone() }
    }

    /// A batch `[N, 3, H, W]` of changed images, whose crops have a border of `padding` pixels.
    ///
    /// # Panics
    /// If the set has no such image.
    pub fn augment(&self, changes: &[Change], padding: u32) -> Tensor<4> {
        for Change { index, .. } in changes {
            assert!((*index as usize) < self.count, "image {index} of a set of {}", self.count);
        }
        let [height, width] = self.size;
        match &self.store {
            Store::Device { pixels, levels } => {
                let changes = changes.iter().flat_map(Change::words).map(|word| word as i32).collect();
                Tensor::from_dispatch(Dispatch::kiln_augment(
                    pixels.clone().into_dispatch(),
                    integers(changes, &self.device).into_dispatch(),
                    levels.clone().into_dispatch(),
                    height,
                    width,
                    padding as usize,
                ))
            }
            Store::Host { pixels, levels } => {
                let values = reference::augment(pixels, self.size, changes, padding, levels);
                Tensor::from_data(TensorData::new(values, [changes.len(), 3, height, width]), &self.device)
            }
        }
    }
}

/// Four bytes each, the first lowest; the last word may be longer than the bytes.
fn words(bytes: &[u8]) -> Vec<i32> {
    let word = |bytes: &[u8]| {
        let mut word = [0; 4];
        word[..bytes.len()].copy_from_slice(bytes);
        i32::from_le_bytes(word)
    };
    bytes.chunks(4).map(word).collect()
}

fn integers(values: Vec<i32>, device: &Device) -> Tensor<1, Int> {
    let len = values.len();
    Tensor::from_data(TensorData::new(values, [len]), (device, DType::I32))
}
