//! Convolution on burn's wgpu runtime by Kiln's shaders; by those for matrix units where f16 is asked for
//! and channels fill them.

use burn_cubecl::kernel::into_contiguous;
use burn_cubecl::tensor::CubeTensor;
use kiln_infer::conv2d::Pass;
use kiln_infer::conv2d::matrix::{self, MatrixUnits};
use kiln_infer::conv2d::wgsl::{self, Buffer};

use super::{Geometry, Precision};
use crate::launch::{empty, launch};
use crate::tuning;

/// `[N, O, H', W']`
pub fn forward(geometry: &Geometry, x: CubeTensor, weight: CubeTensor, precision: Precision) -> CubeTensor {
    run(geometry, Pass::Forward, [x, weight], geometry.output(), precision)
}

/// Gradient of the input, `[N, C, H, W]`.
pub fn backward_data(geometry: &Geometry, weight: CubeTensor, grad: CubeTensor, precision: Precision) -> CubeTensor {
    let [channels, height, width] = geometry.input;
    run(geometry, Pass::BackwardData, [grad, weight], [geometry.batch, channels, height, width], precision)
}

/// Gradient of the weight, `[O, C, K, K]`.
pub fn backward_weight(geometry: &Geometry, x: CubeTensor, grad: CubeTensor, precision: Precision) -> CubeTensor {
    let shape = [geometry.outputs[0], geometry.input[0], geometry.kernel, geometry.kernel];
    run(geometry, Pass::BackwardWeight, [x, grad], shape, precision)
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

/// Runs a pass; its output has that shape.
fn run(
    geometry: &Geometry,
    pass: Pass,
    inputs: [CubeTensor; 2],
    shape: [usize; 4],
    precision: Precision,
) -> CubeTensor {
    let [first, second] = inputs.map(into_contiguous);
    let steps = match units(geometry, &first, precision) {
        Some(units) => matrix::steps(geometry, pass, units),
        None => wgsl::steps(geometry, pass, tuning::form(&first.device, geometry, pass)),
    };
    let output = empty(&first, shape);
    let between: Vec<_> = steps.between.iter().map(|len| empty(&first, [*len])).collect();
    for (step, buffers) in steps.launches {
        let tensors: Vec<_> = buffers
            .iter()
            .map(|buffer| match buffer {
                Buffer::First => &first,
                Buffer::Second => &second,
                Buffer::Between(index) => &between[*index],
                Buffer::Output => &output,
            })
            .collect();
        launch(step, &tensors);
    }
    output
}
