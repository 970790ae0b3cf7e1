//! Which shaders a convolution takes, with which constants, and how many workgroups of them.

use super::Geometry;
use super::form::{Form, Pass, TILE_AREA, Tile};
use crate::shader::{
    CONV2D, CONV2D_BACKWARD_WEIGHT, CONV2D_BACKWARD_WEIGHT_TILED, CONV2D_PACK, CONV2D_TILED, Constant, Launch, SUM,
    WORKGROUP,
};

/// Channels that one invocation makes.
const BLOCK: usize = 8;
/// Pixels that one invocation of `conv2d.wgsl` makes.
const PIXELS: usize = 16;
/// Invocations that keep a large GPU busy; fewer than these cut the batch into parts.
const INVOCATIONS: usize = 4096;

/// A buffer that a launch binds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Buffer {
    /// The first input: `x` forward and for the gradient of the weights, the output's gradient for that of the input.
    First,
    /// The second: the weights forward and for the gradient of the input, else the output's gradient.
    Second,
    /// One of [`Steps::between`].
    Between(usize),
    Output,
}

/// Launches one after the other, and what lies between them.
#[derive(Clone, Debug)]
pub struct Steps {
    /// Lengths in words of 32 bits of the buffers that one launch fills for another.
    pub between: Vec<usize>,
    /// Each with its buffers, in the order of its bindings.
    pub launches: Vec<(Launch, Vec<Buffer>)>,
}

/// The launches of a pass.
pub fn steps(geometry: &Geometry, pass: Pass, form: Form) -> Steps {
    match (pass, form) {
        (Pass::BackwardWeight, Form::Registers) => backward_weight(geometry),
        (Pass::BackwardWeight, Form::Tiled(tile)) => backward_weight_tiled(geometry, tile),
        _ => convolution(geometry, pass, form),
    }
}

/// A convolution of `input` `[C, H, W]` to `outputs`: forward, or from the gradient of the output to that of the input.
struct Convolution {
    batch: usize,
    input: [usize; 3],
    outputs: [usize; 3],
    kernel: usize,
    place: Place,
    /// Whether the kernel is turned around, and inputs and outputs of the weights change places.
    is_turned: bool,
}

impl Convolution {
    fn new(geometry: &Geometry, pass: Pass) -> Self {
        let Geometry { batch, input, outputs, kernel, stride, padding } = *geometry;
        let is_turned = pass == Pass::BackwardData;
        if is_turned {
            let place = Place { stride: 1, spread: stride, padding: kernel as i32 - 1 - padding as i32 };
            Self { batch, input: outputs, outputs: input, kernel, place, is_turned }
        } else {
            let place = Place { stride, spread: 1, padding: padding as i32 };
            Self { batch, input, outputs, kernel, place, is_turned }
        }
    }

    fn pixels(&self) -> usize {
        self.batch * self.outputs[1] * self.outputs[2]
    }

    /// Terms of each output's sum.
    fn terms(&self) -> usize {
        self.kernel * self.kernel * self.input[0]
    }

    /// Tiles of pixels and of channels.
    fn tiles(&self, tile: Tile) -> [usize; 2] {
        [self.pixels().div_ceil(TILE_AREA / tile.channels), self.outputs[0].div_ceil(tile.channels)]
    }
}

/// Parts of a convolution's sums in that form.
pub(super) fn parts(geometry: &Geometry, pass: Pass, tile: Tile) -> usize {
    let convolution = Convolution::new(geometry, pass);
    tile.parts(convolution.tiles(tile).iter().product(), convolution.terms())
}

fn convolution(geometry: &Geometry, pass: Pass, form: Form) -> Steps {
    let convolution = Convolution::new(geometry, pass);
    let Convolution { batch, input, outputs, kernel, ref place, is_turned } = convolution;
    let (pack, packed) = pack(outputs[0], input[0], kernel, is_turned);
    let constants = place.constants(batch, input, outputs, kernel);
    let (convolve, parts) = match form {
        Form::Registers => {
            let grid = [convolution.pixels().div_ceil(PIXELS).div_ceil(WORKGROUP), outputs[0].div_ceil(BLOCK)];
            (CONV2D.with(constants).on(grid), 1)
        }
        Form::Tiled(tile) => {
            let (parts, [x, y]) = (parts(geometry, pass, tile), convolution.tiles(tile));
            let shader = CONV2D_TILED.with(constants).and(tile.constants()).and([("PARTS", parts.into())]);
            (shader.on([x, y * parts]), parts)
        }
    };
    let len = convolution.pixels() * outputs[0];
    let mut between = vec![packed];
    let mut launches = vec![(pack, vec![Buffer::Second, Buffer::Between(0)])];
    let output = if parts > 1 { Buffer::Between(1) } else { Buffer::Output };
    launches.push((convolve, vec![Buffer::First, Buffer::Between(0), output]));
    if parts > 1 {
        between.push(parts * len);
        launches.push((sum(parts, len), vec![Buffer::Between(1), Buffer::Output]));
    }
    Steps { between, launches }
}

fn backward_weight(geometry: &Geometry) -> Steps {
    let (channels, out, kernel) = (geometry.input[0], geometry.outputs[0], geometry.kernel);
    let blocks = out.div_ceil(BLOCK) * channels.div_ceil(BLOCK) * kernel * kernel;
    let wanted = INVOCATIONS.div_ceil(blocks).clamp(1, geometry.batch.max(1));
    let part = geometry.batch.div_ceil(wanted).max(1);
    let parts = geometry.batch.div_ceil(part);
    summed(CONV2D_BACKWARD_WEIGHT.with(sizes(geometry, part)).over(blocks * parts), parts, out * geometry.patch())
}

fn backward_weight_tiled(geometry: &Geometry, tile: Tile) -> Steps {
    let out = geometry.outputs[0];
    let pixels = geometry.batch * geometry.outputs[1] * geometry.outputs[2];
    let columns = geometry.patch().div_ceil(TILE_AREA / tile.channels);
    let rows = out.div_ceil(tile.channels);
    let parts = Tile { is_split: true, ..tile }.parts(rows * columns, pixels);
    let part = pixels.div_ceil(parts).next_multiple_of(tile.chunk).max(tile.chunk);
    let parts = pixels.div_ceil(part);
    let shader = CONV2D_BACKWARD_WEIGHT_TILED.with(sizes(geometry, part)).and(tile.constants());
    summed(shader.on([columns * parts, rows]), parts, out * geometry.patch())
}

/// A launch that makes `parts` gradients of the weights, each `len` long, and their sum.
pub(super) fn summed(partial: Launch, parts: usize, len: usize) -> Steps {
    Steps {
        between: vec![parts * len],
        launches: vec![
            (partial, vec![Buffer::First, Buffer::Second, Buffer::Between(0)]),
            (sum(parts, len), vec![Buffer::Between(0), Buffer::Output]),
        ],
    }
}

fn sum(parts: usize, len: usize) -> Launch {
    SUM.with([("PARTS", parts.into()), ("LEN", len.into())]).over(len)
}

impl Tile {
    fn constants(self) -> [(&'static str, Constant); 2] {
        [("TILE", self.channels.into()), ("CHUNK", self.chunk.into())]
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

/// Weights in the order in which the shaders read them, and how many numbers they are.
fn pack(outputs: usize, inputs: usize, kernel: usize, is_turned: bool) -> (Launch, usize) {
    let packed = outputs.div_ceil(BLOCK) * kernel * kernel * inputs * BLOCK;
    let constants = [
        ("OUTPUTS", outputs.into()),
        ("INPUTS", inputs.into()),
        ("KERNEL", kernel.into()),
        ("TURNED", is_turned.into()),
    ];
    (CONV2D_PACK.with(constants).over(packed), packed)
}
