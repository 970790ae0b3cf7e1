//! Convolution by matrix units: which constants its shaders take, and how many workgroups of them.

use super::Geometry;
use super::form::Pass;
use super::wgsl::{Buffer, Place, Steps, summed};
use crate::shader::{CONV2D_MATRIX, CONV2D_MATRIX_BACKWARD_WEIGHT, CONV2D_MATRIX_PACK, Constant, Launch, Specialized};

/// Channels, and pixels or channels, that a workgroup makes.
const BLOCK: usize = 64;
/// Input channels that are packed together.
const STEP: usize = 32;
/// Workgroups that keep a large GPU busy; fewer than these cut the batch into parts.
const WORKGROUPS: usize = 512;
/// What gradients are multiplied by before they are rounded to f16, which has nothing below 6e-8: those of
/// a mean over a batch are about that small. Above 16 they overflow to infinity, which training reports.
const GRADIENT_SCALE: f32 = 4096.0;

/// Matrix units that multiply f16 and add f32, of an adapter whose subgroups fit Kiln's shaders: two
/// subgroups of 32 invocations share out matrices of 16 by 16, eight of 8 those of 8 by 8.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MatrixUnits {
    Side8,
    Side16,
}

impl MatrixUnits {
    /// Of an adapter that has matrices and subgroups of that many invocations.
    pub fn of_subgroups(invocations: u32) -> Option<Self> {
        match invocations {
            8 => Some(Self::Side8),
            32 => Some(Self::Side16),
            _ => None,
        }
    }

    /// Rows, and columns, of a matrix.
    pub fn side(self) -> usize {
        match self {
            Self::Side8 => 8,
            Self::Side16 => 16,
        }
    }

    /// What they set in a shader.
    pub fn constants(self) -> [(&'static str, Constant); 4] {
        let [left, right, sums] = match self {
            Self::Side8 => ["coop_mat8x8<f16, A>", "coop_mat8x8<f16, B>", "coop_mat8x8<f32, C>"],
            Self::Side16 => ["coop_mat16x16<f16, A>", "coop_mat16x16<f16, B>", "coop_mat16x16<f32, C>"],
        };
        [("Left", left.into()), ("Right", right.into()), ("Sums", sums.into()), ("SIDE", self.side().into())]
    }
}

/// Whether there are channels enough to fill matrices.
pub fn is_worthwhile(geometry: &Geometry) -> bool {
    geometry.input[0] >= 16 && geometry.outputs[0] >= 16
}

/// The launches of a pass.
pub fn steps(geometry: &Geometry, pass: Pass, units: MatrixUnits) -> Steps {
    match pass {
        Pass::Forward => {
            let (input, outputs) = (geometry.input, geometry.outputs);
            let place = Place { stride: geometry.stride, spread: 1, padding: geometry.padding as i32 };
            let shader = CONV2D_MATRIX.with(place.constants(geometry.batch, input, outputs, geometry.kernel));
            let convolve = convolve(shader, geometry.batch, outputs, units, 1.0);
            packed(pack(outputs[0], input[0], geometry.kernel, false), convolve)
        }
        Pass::BackwardData => {
            let (input, outputs) = (geometry.input, geometry.outputs);
            let padding = geometry.kernel as i32 - 1 - geometry.padding as i32;
            let place = Place { stride: 1, spread: geometry.stride, padding };
            let shader = CONV2D_MATRIX.with(place.constants(geometry.batch, outputs, input, geometry.kernel));
            let convolve = convolve(shader, geometry.batch, input, units, GRADIENT_SCALE);
            packed(pack(input[0], outputs[0], geometry.kernel, true), convolve)
        }
        Pass::BackwardWeight => backward_weight(geometry, units),
    }
}

fn packed((pack, packed): (Launch, usize), convolve: Launch) -> Steps {
    Steps {
        between: vec![packed],
        launches: vec![
            (pack, vec![Buffer::Second, Buffer::Between(0)]),
            (convolve, vec![Buffer::First, Buffer::Between(0), Buffer::Output]),
        ],
    }
}

fn backward_weight(geometry: &Geometry, units: MatrixUnits) -> Steps {
    let (channels, out, kernel) = (geometry.input[0], geometry.outputs[0], geometry.kernel);
    let (rows, columns) = (out.div_ceil(BLOCK), channels.div_ceil(BLOCK) * kernel * kernel);
    let wanted = WORKGROUPS.div_ceil(rows * columns).clamp(1, geometry.batch.max(1));
    let part = geometry.batch.div_ceil(wanted).max(1);
    let parts = geometry.batch.div_ceil(part);
    let shader = CONV2D_MATRIX_BACKWARD_WEIGHT.with(super::wgsl::sizes(geometry, part)).and(units.constants());
    let partial = shader.and([("SCALE", GRADIENT_SCALE.into())]).on([columns * parts, rows]);
    summed(partial, parts, out * geometry.patch())
}

fn convolve(shader: Specialized, batch: usize, outputs: [usize; 3], units: MatrixUnits, scale: f32) -> Launch {
    let pixels = batch * outputs[1] * outputs[2];
    let shader = shader.and(units.constants()).and([("SCALE", scale.into())]);
    shader.on([pixels.div_ceil(BLOCK), outputs[0].div_ceil(BLOCK)])
}

/// Weights in the order in which `conv2d_matrix.wgsl` reads them, and their length in words of two.
fn pack(outputs: usize, inputs: usize, kernel: usize, is_turned: bool) -> (Launch, usize) {
    let packed = outputs.div_ceil(BLOCK) * kernel * kernel * inputs.div_ceil(STEP) * BLOCK * STEP / 2;
    let constants = [
        ("OUTPUTS", outputs.into()),
        ("INPUTS", inputs.into()),
        ("KERNEL", kernel.into()),
        ("TURNED", is_turned.into()),
    ];
    (CONV2D_MATRIX_PACK.with(constants).over(2 * packed), packed)
}
