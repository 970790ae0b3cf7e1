// Convolution for inference: bias, residual sum and ReLU follow in registers.
//
// The form for software adapters, where memory within a workgroup is no faster than any other and
// loads are what costs; conv2d_fused_split.wgsl is the one for GPUs.
//
// Values lie as [H, W, C] with a border of zeros that replaces bounds tests (crates/kernels,
// inference/layout.rs). One invocation makes 8 pixels by 8 channels: per 4 input channels it loads
// 8 pixels and 2 matrices for 256 multiply-adds. Nothing is shared within a workgroup.
//
// The host replaces the `const` lines down to the empty one; lengths and offsets count vec4.

alias Number = f32;         // what is stored; sums are f32
const KERNEL = 3u;
const STRIDE = 1u;
const IN_CHANNELS = 1u;     // per pixel
const IN_ROW = 34u;         // from a row to the next
const IN_START = 0u;        // under the first output's first kernel position
const PIXELS = 1024u;       // of the output
const OUT_WIDTH = 32u;
const OUT_CHANNELS = 2u;    // per pixel, even
const OUT_ROW = 68u;
const OUT_START = 70u;      // the first pixel
const RESIDUAL = false;
const RESIDUAL_ROW = 68u;
const RESIDUAL_START = 70u;
const RELU = true;

// [O / 8, K, K, C / 4, 2]: columns are input channels, rows output channels.
@group(0) @binding(0) var<storage, read> weight: array<mat4x4<Number>>;
@group(0) @binding(1) var<storage, read> bias: array<vec4<Number>>;
@group(0) @binding(2) var<storage, read> input: array<vec4<Number>>;
@group(0) @binding(3) var<storage, read> residual: array<vec4<Number>>;
@group(0) @binding(4) var<storage, read_write> output: array<vec4<Number>>;

const GROUPS = (PIXELS + 7u) / 8u;
const RUN = KERNEL * IN_CHANNELS;

fn wide(matrix: mat4x4<Number>) -> mat4x4f {
    return mat4x4f(vec4f(matrix[0]), vec4f(matrix[1]), vec4f(matrix[2]), vec4f(matrix[3]));
}

// Where the runs under a pixel start. A group over the end makes the last pixel several times.
fn start_of(pixel: u32) -> u32 {
    let at = min(pixel, PIXELS - 1u);
    return IN_START + (at / OUT_WIDTH * IN_ROW + at % OUT_WIDTH * IN_CHANNELS) * STRIDE;
}

fn finish(pixel: u32, channel: u32, sums: vec4f) {
    if pixel < PIXELS {
        let row = pixel / OUT_WIDTH;
        let column = pixel % OUT_WIDTH * OUT_CHANNELS + channel;
        var value = sums;
        if RESIDUAL {
            value += vec4f(residual[RESIDUAL_START + row * RESIDUAL_ROW + column]);
        }
        if RELU {
            // Not `max`, which may make a number of NaN.
            value = select(value, vec4f(), value < vec4f());
        }
        output[OUT_START + row * OUT_ROW + column] = vec4<Number>(value);
    }
}

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3u) {
    let pixel = id.x % GROUPS * 8u;
    let channel = id.x / GROUPS * 2u;
    if channel >= OUT_CHANNELS {
        return;
    }
    let i0 = start_of(pixel);
    let i1 = start_of(pixel + 1u);
    let i2 = start_of(pixel + 2u);
    let i3 = start_of(pixel + 3u);
    let i4 = start_of(pixel + 4u);
    let i5 = start_of(pixel + 5u);
    let i6 = start_of(pixel + 6u);
    let i7 = start_of(pixel + 7u);
    var a0 = vec4f(bias[channel]);
    var a1 = a0;
    var a2 = a0;
    var a3 = a0;
    var a4 = a0;
    var a5 = a0;
    var a6 = a0;
    var a7 = a0;
    var b0 = vec4f(bias[channel + 1u]);
    var b1 = b0;
    var b2 = b0;
    var b3 = b0;
    var b4 = b0;
    var b5 = b0;
    var b6 = b0;
    var b7 = b0;
    var w = channel * KERNEL * RUN;
    for (var row = 0u; row < KERNEL * IN_ROW; row += IN_ROW) {
        for (var k = row; k < row + RUN; k++) {
            let wa = wide(weight[w]);
            let wb = wide(weight[w + 1u]);
            w += 2u;
            let x0 = vec4f(input[i0 + k]);
            a0 += wa * x0;
            b0 += wb * x0;
            let x1 = vec4f(input[i1 + k]);
            a1 += wa * x1;
            b1 += wb * x1;
            let x2 = vec4f(input[i2 + k]);
            a2 += wa * x2;
            b2 += wb * x2;
            let x3 = vec4f(input[i3 + k]);
            a3 += wa * x3;
            b3 += wb * x3;
            let x4 = vec4f(input[i4 + k]);
            a4 += wa * x4;
            b4 += wb * x4;
            let x5 = vec4f(input[i5 + k]);
            a5 += wa * x5;
            b5 += wb * x5;
            let x6 = vec4f(input[i6 + k]);
            a6 += wa * x6;
            b6 += wb * x6;
            let x7 = vec4f(input[i7 + k]);
            a7 += wa * x7;
            b7 += wb * x7;
        }
    }
    finish(pixel, channel, a0);
    finish(pixel + 1u, channel, a1);
    finish(pixel + 2u, channel, a2);
    finish(pixel + 3u, channel, a3);
    finish(pixel + 4u, channel, a4);
    finish(pixel + 5u, channel, a5);
    finish(pixel + 6u, channel, a6);
    finish(pixel + 7u, channel, a7);
    finish(pixel, channel + 1u, b0);
    finish(pixel + 1u, channel + 1u, b1);
    finish(pixel + 2u, channel + 1u, b2);
    finish(pixel + 3u, channel + 1u, b3);
    finish(pixel + 4u, channel + 1u, b4);
    finish(pixel + 5u, channel + 1u, b5);
    finish(pixel + 6u, channel + 1u, b6);
    finish(pixel + 7u, channel + 1u, b7);
}
