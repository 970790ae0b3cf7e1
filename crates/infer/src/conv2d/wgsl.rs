//! Which shaders a convolution takes, with which constants, and how many workgroups of them.

use super::Geometry;
use crate::shader::{CONV2D, CONV2D_BACKWARD_WEIGHT, CONV2D_PACK, Constant, Launch, SUM, WORKGROUP};

/// Channels that one invocation makes.
const BLOCK: usize = 8;
/// Pixels that one invocation of `conv2d.wgsl` makes.
const PIXELS: usize = 16;
/// Invocations that keep a large GPU busy; fewer than these cut the batch into parts.
const INVOCATIONS: usize = 4096;

/// A convolution and the packing of its weights, which comes before.
pub struct ConvolutionLaunches {
    /// Buffers: weights, packed weights.
    pub pack: Launch,
    /// Shape of the packed weights, in words of 32 bits.
    pub packed: [usize; 4],
    /// Buffers: input, packed weights, output.
    pub convolve: Launch,
}

/// The sums over parts of the batch, which are then added.
pub struct BackwardWeight {
    /// Buffers: input, gradient of the output, the parts.
    pub partial: Launch,
    /// Shape of the parts.
    pub parts: [usize; 4],
    /// Buffers: the parts, gradient of the weights.
    pub sum: Launch,
}

/// `[N, C, H, W]` to `[N, O, H', W']`.
pub fn forward(geometry: &Geometry) -> ConvolutionLaunches {
    let (input, outputs) = (geometry.input, geometry.outputs);
    let place = Place { stride: geometry.stride, spread: 1, padding: geometry.padding as i32 };
    let (pack, packed) = pack(outputs[0], input[0], geometry.kernel, false);
    ConvolutionLaunches { pack, packed, convolve: convolve(geometry.batch, input, outputs, geometry.kernel, place) }
}

/// Gradient of the output to gradient of the input.
pub fn backward_data(geometry: &Geometry) -> ConvolutionLaunches {
    let (input, outputs) = (geometry.input, geometry.outputs);
    let padding = geometry.kernel as i32 - 1 - geometry.padding as i32;
    let place = Place { stride: 1, spread: geometry.stride, padding };
    let (pack, packed) = pack(input[0], outputs[0], geometry.kernel, true);
    ConvolutionLaunches { pack, packed, convolve: convolve(geometry.batch, outputs, input, geometry.kernel, place) }
}

/// Input and gradient of the output to gradient of the weights.
pub fn backward_weight(geometry: &Geometry) -> BackwardWeight {
    let (channels, out, kernel) = (geometry.input[0], geometry.outputs[0], geometry.kernel);
    let blocks = out.div_ceil(BLOCK) * channels.div_ceil(BLOCK) * kernel * kernel;
    let wanted = INVOCATIONS.div_ceil(blocks).clamp(1, geometry.batch.max(1));
    let part = geometry.batch.div_ceil(wanted).max(1);
    let parts = geometry.batch.div_ceil(part);
    let len = out * channels * kernel * kernel;
    BackwardWeight {
        partial: CONV2D_BACKWARD_WEIGHT.with(sizes(geometry, part)).over(blocks * parts),
        parts: [parts, out, channels, kernel * kernel],
        sum: SUM.with([("PARTS", parts.into()), ("LEN", len.into())]).over(len),
    }
}

/// Sizes of a convolution whose batch is summed in parts of `part` images.
pub(super) fn sizes(geometry: &Geometry, part: usize) -> [(&'static str, Constant); 11] {
    let ([channels, height, width], [out, rows, columns]) = (geometry.input, geometry.outputs);
    [
        ("BATCH", geometry.batch.into()),
        ("PART", part.into()),
        ("IN_CHANNELS", channels.into()),
        ("IN_HEIGHT", height.into()),
        ("IN_WIDTH", width.into()),
        ("OUT_CHANNELS", out.into()),
        ("OUT_HEIGHT", rows.into()),
        ("OUT_WIDTH", columns.into()),
        ("KERNEL", geometry.kernel.into()),
        ("STRIDE", geometry.stride.into()),
        ("PADDING", geometry.padding.into()),
    ]
}

/// Where a convolution reads: its stride, the distance of the input's pixels, and the padding around.
pub(super) struct Place {
    pub stride: usize,
    pub spread: usize,
    pub padding: i32,
}

impl Place {
    /// `input` and `outputs` are `[C, H, W]`.
    pub fn constants(
        &self,
        batch: usize,
        input: [usize; 3],
        outputs: [usize; 3],
        kernel: usize,
    ) -> [(&'static str, Constant); 11] {
        [
            ("IN_CHANNELS", input[0].into()),
            ("IN_HEIGHT", input[1].into()),
            ("IN_WIDTH", input[2].into()),
            ("OUT_CHANNELS", outputs[0].into()),
            ("OUT_HEIGHT", outputs[1].into()),
            ("OUT_WIDTH", outputs[2].into()),
            ("PIXELS", (batch * outputs[1] * outputs[2]).into()),
            ("KERNEL", kernel.into()),
            ("STRIDE", self.stride.into()),
            ("SPREAD", self.spread.into()),
            ("PADDING", self.padding.into()),
        ]
    }
}

/// `input` and `outputs` are `[C, H, W]`.
fn convolve(batch: usize, input: [usize; 3], outputs: [usize; 3], kernel: usize, place: Place) -> Launch {
    let pixels = batch * outputs[1] * outputs[2];
    let shader = CONV2D.with(place.constants(batch, input, outputs, kernel));
    shader.on([pixels.div_ceil(PIXELS).div_ceil(WORKGROUP), outputs[0].div_ceil(BLOCK)])
}

/// Weights in the order in which `conv2d.wgsl` reads them, and their shape.
fn pack(outputs: usize, inputs: usize, kernel: usize, turned: bool) -> (Launch, [usize; 4]) {
    let packed = [outputs.div_ceil(BLOCK), kernel * kernel, inputs, BLOCK];
    let constants =
        [("OUTPUTS", outputs.into()), ("INPUTS", inputs.into()), ("KERNEL", kernel.into()), ("TURNED", turned.into())];
    (CONV2D_PACK.with(constants).over(packed.iter().product()), packed)
}
