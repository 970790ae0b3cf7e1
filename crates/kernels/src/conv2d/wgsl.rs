//! Convolution on burn's wgpu runtime by Kiln's shaders.

use burn_cubecl::kernel::into_contiguous;
use burn_cubecl::tensor::CubeTensor;

use super::Geometry;
use crate::cube::{self, launch};
use crate::shader::{CONV2D, CONV2D_BACKWARD_WEIGHT, CONV2D_PACK, SUM};

/// Channels that one invocation makes.
const BLOCK: usize = 8;
/// Pixels that one invocation of `conv2d.wgsl` makes.
const PIXELS: usize = 16;
/// Invocations that keep a large GPU busy; fewer than these cut the batch into parts.
const INVOCATIONS: usize = 4096;

/// `[N, O, H', W']`
pub fn forward(geometry: &Geometry, x: CubeTensor, weight: CubeTensor) -> CubeTensor {
    let (input, outputs) = (geometry.input, geometry.outputs);
    let weight = pack(weight, outputs[0], input[0], geometry.kernel, false);
    let place = Place { stride: geometry.stride, spread: 1, padding: geometry.padding as i32 };
    convolve(geometry.batch, input, outputs, geometry.kernel, place, x, weight)
}

/// Gradient of the input, `[N, C, H, W]`.
pub fn backward_data(geometry: &Geometry, weight: CubeTensor, grad: CubeTensor) -> CubeTensor {
    let (input, outputs) = (geometry.input, geometry.outputs);
    let weight = pack(weight, input[0], outputs[0], geometry.kernel, true);
    let padding = geometry.kernel as i32 - 1 - geometry.padding as i32;
    let place = Place { stride: 1, spread: geometry.stride, padding };
    convolve(geometry.batch, outputs, input, geometry.kernel, place, grad, weight)
}

/// Gradient of the weight, `[O, C, K, K]`.
pub fn backward_weight(geometry: &Geometry, x: CubeTensor, grad: CubeTensor) -> CubeTensor {
    let ([channels, height, width], [out, rows, columns]) = (geometry.input, geometry.outputs);
    let kernel = geometry.kernel;
    let (x, grad) = (into_contiguous(x), into_contiguous(grad));
    let blocks = out.div_ceil(BLOCK) * channels.div_ceil(BLOCK) * kernel * kernel;
    let wanted = INVOCATIONS.div_ceil(blocks).clamp(1, geometry.batch.max(1));
    let part = geometry.batch.div_ceil(wanted).max(1);
    let parts = geometry.batch.div_ceil(part);
    let shape = [out, channels, kernel, kernel];
    let partial = cube::empty(&x, [parts, out, channels, kernel * kernel]);
    let shader = CONV2D_BACKWARD_WEIGHT.with([
        ("BATCH", geometry.batch.into()),
        ("PART", part.into()),
        ("IN_CHANNELS", channels.into()),
        ("IN_HEIGHT", height.into()),
        ("IN_WIDTH", width.into()),
        ("OUT_CHANNELS", out.into()),
        ("OUT_HEIGHT", rows.into()),
        ("OUT_WIDTH", columns.into()),
        ("KERNEL", kernel.into()),
        ("STRIDE", geometry.stride.into()),
        ("PADDING", geometry.padding.into()),
    ]);
    launch(shader, blocks * parts, &[&x, &grad, &partial]);
    let sum = cube::empty(&x, shape);
    let len = shape.iter().product::<usize>();
    launch(SUM.with([("PARTS", parts.into()), ("LEN", len.into())]), len, &[&partial, &sum]);
    sum
}

/// Where a convolution reads: its stride, the distance of the input's pixels, and the padding around.
struct Place {
    stride: usize,
    spread: usize,
    padding: i32,
}

/// `input` and `outputs` are `[C, H, W]`.
fn convolve(
    batch: usize,
    input: [usize; 3],
    outputs: [usize; 3],
    kernel: usize,
    place: Place,
    x: CubeTensor,
    packed: CubeTensor,
) -> CubeTensor {
    let x = into_contiguous(x);
    let pixels = batch * outputs[1] * outputs[2];
    let y = cube::empty(&x, [batch, outputs[0], outputs[1], outputs[2]]);
    let shader = CONV2D.with([
        ("IN_CHANNELS", input[0].into()),
        ("IN_HEIGHT", input[1].into()),
        ("IN_WIDTH", input[2].into()),
        ("OUT_CHANNELS", outputs[0].into()),
        ("OUT_HEIGHT", outputs[1].into()),
        ("OUT_WIDTH", outputs[2].into()),
        ("PIXELS", pixels.into()),
        ("KERNEL", kernel.into()),
        ("STRIDE", place.stride.into()),
        ("SPREAD", place.spread.into()),
        ("PADDING", place.padding.into()),
    ]);
    cube::launch_grid(
        shader,
        [pixels.div_ceil(PIXELS).div_ceil(cube::WORKGROUP), outputs[0].div_ceil(BLOCK)],
        &[&x, &packed, &y],
    );
    y
}

/// Weights in the order in which `conv2d.wgsl` reads them.
fn pack(weight: CubeTensor, outputs: usize, inputs: usize, kernel: usize, turned: bool) -> CubeTensor {
    let weight = into_contiguous(weight);
    let shape = [outputs.div_ceil(BLOCK), kernel * kernel, inputs, BLOCK];
    let packed = cube::empty(&weight, shape);
    let constants =
        [("OUTPUTS", outputs.into()), ("INPUTS", inputs.into()), ("KERNEL", kernel.into()), ("TURNED", turned.into())];
    launch(CONV2D_PACK.with(constants), shape.iter().product(), &[&weight, &packed]);
    packed
}
