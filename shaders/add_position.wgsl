// The same numbers added to every image, then the residual sum and ReLU. One invocation makes one
// number. The host replaces the `const` lines down to the empty one; lengths and offsets count
// numbers.

alias Number = f32;         // what is stored; sums are f32
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
const RELU = false;

@group(0) @binding(0) var<storage, read> embedding: array<Number>; // [pixel, channel]
@group(0) @binding(2) var<storage, read> input: array<Number>;
@group(0) @binding(3) var<storage, read> residual: array<Number>;
@group(0) @binding(4) var<storage, read_write> output: array<Number>;

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3u) {
    let pixel = id.x / OUT_CHANNELS;
    let channel = id.x % OUT_CHANNELS;
    if pixel >= PIXELS {
        return;
    }
    let row = pixel / OUT_WIDTH;
    let column = pixel % OUT_WIDTH;
    var value = f32(input[IN_START + row * IN_ROW + column * IN_CHANNELS + channel]);
    value = value + f32(embedding[id.x]);
    if RESIDUAL {
        value += f32(residual[RESIDUAL_START + row * RESIDUAL_ROW + column * OUT_CHANNELS + channel]);
    }
    if RELU {
        value = select(value, 0.0, value < 0.0);
    }
    output[OUT_START + row * OUT_ROW + column * OUT_CHANNELS + channel] = Number(value);
}
