// Convolution for inference, as conv2d_fused.wgsl, for GPUs: one small image is too little work for
// them unless the sum over input channels is cut too.
//
// A workgroup makes 8 tiles of 4 pixels by 4 channels. The sum of each tile is cut into 8 parts of
// kernel positions and channels, an invocation each, that are added through workgroup memory. The
// host replaces the `const` lines down to the empty one; lengths and offsets count vec4.

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

const GROUPS = (PIXELS + 3u) / 4u;
const RUN = KERNEL * IN_CHANNELS;
const STEPS = KERNEL * RUN;
const TILES = 8u;
const PARTS = 8u;
const PART = (STEPS + PARTS - 1u) / PARTS;

// Columns are pixels.
var<workgroup> sums: array<mat4x4f, 64>;

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
fn main(@builtin(workgroup_id) workgroup: vec3u, @builtin(local_invocation_index) thread: u32) {
    let tile = workgroup.x * TILES + thread % TILES;
    let part = thread / TILES;
    let pixel = tile % GROUPS * 4u;
    let channel = tile / GROUPS;
    // Tiles over the end make the last one again: everyone has to reach the barrier.
    let block = min(channel, OUT_CHANNELS - 1u);
    let weights = (block / 2u * STEPS) * 2u + block % 2u;
    let i0 = start_of(pixel);
    let i1 = start_of(pixel + 1u);
    let i2 = start_of(pixel + 2u);
    let i3 = start_of(pixel + 3u);
    var a0 = vec4f();
    var a1 = vec4f();
    var a2 = vec4f();
    var a3 = vec4f();
    for (var step = part * PART; step < min(STEPS, part * PART + PART); step++) {
        let k = step / RUN * IN_ROW + step % RUN;
        let w = wide(weight[weights + step * 2u]);
        a0 += w * vec4f(input[i0 + k]);
        a1 += w * vec4f(input[i1 + k]);
        a2 += w * vec4f(input[i2 + k]);
        a3 += w * vec4f(input[i3 + k]);
    }
    sums[thread] = mat4x4f(a0, a1, a2, a3);
    workgroupBarrier();
    // The first half of a tile's invocations store a pixel each.
    if part >= 4u || channel >= OUT_CHANNELS {
        return;
    }
    var sum = vec4f(bias[channel]);
    for (var other = 0u; other < PARTS; other++) {
        sum += sums[other * TILES + thread % TILES][part];
    }
    finish(pixel + part, channel, sum);
}
