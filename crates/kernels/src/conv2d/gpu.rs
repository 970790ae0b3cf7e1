//! Convolution on burn's wgpu runtime by Kiln's shaders; by those for matrix units where f16 is asked for
//! and channels fill them.

use burn_cubecl::kernel::into_contiguous;
use burn_cubecl::tensor::CubeTensor;

use super::{Geometry, Precision};
use crate::launch::{empty, launch};
use kiln_infer::conv2d::matrix::{self, MatrixUnits};
use kiln_infer::conv2d::wgsl::{self, ConvolutionLaunches};

/// `[N, O, H', W']`
pub fn forward(geometry: &Geometry, x: CubeTensor, weight: CubeTensor, precision: Precision) -> CubeTensor {
    let steps = match units(geometry, &x, precision) {
        Some(units) => matrix::forward(geometry, units),
        None => wgsl::forward(geometry),
    };
    convolve(steps, x, weight, geometry.output())
}

/// Gradient of the input, `[N, C, H, W]`.
pub fn backward_data(geometry: &Geometry, weight: CubeTensor, grad: CubeTensor, precision: Precision) -> CubeTensor {
    let [channels, height, width] = geometry.input;
    let steps = match units(geometry, &grad, precision) {
        Some(units) => matrix::backward_data(geometry, units),
        None => wgsl::backward_data(geometry),
    };
    convolve(steps, grad, weight, [geometry.batch, channels, height, width])
}

/// Gradient of the weight, `[O, C, K, K]`.
pub fn backward_weight(geometry: &Geometry, x: CubeTensor, grad: CubeTensor, precision: Precision) -> CubeTensor {
    let steps = match units(geometry, &x, precision) {
        Some(units) => matrix::backward_weight(geometry, units),
        None => wgsl::backward_weight(geometry),
    };
    let (x, grad) = (into_contiguous(x), into_contiguous(grad));
    let parts = empty(&x, steps.parts);
    launch(steps.partial, &[&x, &grad, &parts]);
    let sum = empty(&x, [geometry.outputs[0], geometry.input[0], geometry.kernel, geometry.kernel]);
    launch(steps.sum, &[&parts, &sum]);
    sum
}

/// The matrix units that a convolution takes, if any.
///
/// # Panics
/// If the device has none for a precision that takes them ([`crate::device::multiplies`]).
fn units(geometry: &Geometry, tensor: &CubeTensor, precision: Precision) -> Option<MatrixUnits> {
    if precision != Precision::F16 || !matrix::is_worthwhile(geometry) {
        return None;
    }
    let units = MatrixUnits::of_subgroups(tensor.client.properties().hardware.plane_size_max);
    Some(units.expect("the device has matrix units"))
}

fn convolve(steps: ConvolutionLaunches, x: CubeTensor, weight: CubeTensor, shape: [usize; 4]) -> CubeTensor {
    let (x, weight) = (into_contiguous(x), into_contiguous(weight));
    let packed = empty(&weight, steps.packed);
    launch(steps.pack, &[&weight, &packed]);
    let y = empty(&x, shape);
    launch(steps.convolve, &[&x, &packed, &y]);
    y
}
