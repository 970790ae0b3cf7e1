// Group or layer normalization, then the residual sum and ReLU. One workgroup makes one group of
// channels of a span of pixels: the whole image for group normalization, one pixel for layer
// normalization. Mean and variance take a pass each, as the sum of squares alone would lose digits.
// The host replaces the `const` lines down to the empty one; lengths and offsets count numbers.

alias Number = f32;         // what is stored; sums are f32
const GROUPS = 2u;
const GROUP = 4u;           // channels of a group
const SPAN = 1024u;         // pixels normalized together
const EPSILON = 1e-5;
const IN_CHANNELS = 8u;     // per pixel, padding included
const IN_ROW = 272u;
const IN_START = 0u;        // the first pixel
const PIXELS = 1024u;
const OUT_WIDTH = 32u;
const OUT_CHANNELS = 8u;
const OUT_ROW = 272u;
const OUT_START = 0u;
const RESIDUAL = false;
const RESIDUAL_ROW = 272u;
const RESIDUAL_START = 0u;
const RELU = true;

@group(0) @binding(0) var<storage, read> weight: array<Number>;
@group(0) @binding(1) var<storage, read> bias: array<Number>;
@group(0) @binding(2) var<storage, read> input: array<Number>;
@group(0) @binding(3) var<storage, read> residual: array<Number>;
@group(0) @binding(4) var<storage, read_write> output: array<Number>;

const THREADS = 64u;
const COUNT = GROUP * SPAN;
var<workgroup> partial: array<f32, THREADS>;

fn load(index: u32, start: u32, first: u32) -> f32 {
    let pixel = start + index / GROUP;
    let at = pixel / OUT_WIDTH * IN_ROW + pixel % OUT_WIDTH * IN_CHANNELS;
    return f32(input[IN_START + at + first + index % GROUP]);
}

// The sum of every invocation's value.
fn total(value: f32, thread: u32) -> f32 {
    partial[thread] = value;
    for (var half = THREADS / 2u; half > 0u; half /= 2u) {
        workgroupBarrier();
        if thread < half {
            partial[thread] += partial[thread + half];
        }
    }
    let sum = workgroupUniformLoad(&partial[0]);
    return sum;
}

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) id: vec3u, @builtin(local_invocation_index) thread: u32) {
    let first = id.x % GROUPS * GROUP;
    let start = id.x / GROUPS * SPAN;
    var sum = 0.0;
    for (var index = thread; index < COUNT; index += THREADS) {
        sum += load(index, start, first);
    }
    let mean = total(sum, thread) / f32(COUNT);
    var squares = 0.0;
    for (var index = thread; index < COUNT; index += THREADS) {
        let centered = load(index, start, first) - mean;
        squares += centered * centered;
    }
    let scale = inverseSqrt(total(squares, thread) / f32(COUNT) + EPSILON);
    for (var index = thread; index < COUNT; index += THREADS) {
        let channel = first + index % GROUP;
        let pixel = start + index / GROUP;
        let row = pixel / OUT_WIDTH;
        let column = pixel % OUT_WIDTH;
        var value = (load(index, start, first) - mean) * scale * f32(weight[channel]) + f32(bias[channel]);
        if RESIDUAL {
            value += f32(residual[RESIDUAL_START + row * RESIDUAL_ROW + column * OUT_CHANNELS + channel]);
        }
        if RELU {
            value = select(value, 0.0, value < 0.0);
        }
        output[OUT_START + row * OUT_ROW + column * OUT_CHANNELS + channel] = Number(value);
    }
}
