//! Augmentation on burn's wgpu runtime by Kiln's shader.

use burn_cubecl::kernel::into_contiguous;
use burn_cubecl::tensor::CubeTensor;

use crate::launch::{empty, launch};
use kiln_infer::augment::wgsl;

/// `[count, 3, height, width]` by bytes, changes and levels.
pub fn augment(inputs: [CubeTensor; 3], [count, height, width]: [usize; 3], padding: usize) -> CubeTensor {
    let [pixels, changes, levels] = inputs.map(into_contiguous);
    let output = empty(&levels, [count, 3, height, width]);
    launch(wgsl::launch(count, height, width, padding), &[&pixels, &changes, &levels, &output]);
    output
}
