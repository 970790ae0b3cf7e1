// Max-pooling whose border counts as nothing, then the residual sum and ReLU. One invocation makes
// 4 channels of a pixel. The host replaces the `const` lines down to the empty one; lengths and
// offsets count vec4 (see conv2d_fused.wgsl).

alias Number = f32;         // what is stored; sums are f32
const KERNEL = 3u;
const STRIDE = 2u;
const PADDING = 1u;
const IN_HEIGHT = 64u;
const IN_WIDTH = 64u;
const IN_ROW = 1024u;
const IN_START = 0u;        // the first pixel
const PIXELS = 1024u;       // of the output
const OUT_WIDTH = 32u;
const OUT_CHANNELS = 2u;    // per pixel, as many as the input's
const OUT_ROW = 68u;
const OUT_START = 70u;
const RESIDUAL = false;
const RESIDUAL_ROW = 68u;
const RESIDUAL_START = 70u;
const RELU = false;

@group(0) @binding(2) var<storage, read> input: array<vec4<Number>>;
@group(0) @binding(3) var<storage, read> residual: array<vec4<Number>>;
@group(0) @binding(4) var<storage, read_write> output: array<vec4<Number>>;

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3u) {
    let pixel = id.x / OUT_CHANNELS;
    let channel = id.x % OUT_CHANNELS;
    if pixel >= PIXELS {
        return;
    }
    let row = pixel / OUT_WIDTH;
    let column = pixel % OUT_WIDTH;
    var value = vec4f(-3.4e38);
    for (var di = 0u; di < KERNEL; di++) {
        for (var dj = 0u; dj < KERNEL; dj++) {
            // Below zero wraps around to far beyond the image.
            let i = row * STRIDE + di - PADDING;
            let j = column * STRIDE + dj - PADDING;
            if i < IN_HEIGHT && j < IN_WIDTH {
                value = max(value, vec4f(input[IN_START + i * IN_ROW + j * OUT_CHANNELS + channel]));
            }
        }
    }
    let at = column * OUT_CHANNELS + channel;
    if RESIDUAL {
        value += vec4f(residual[RESIDUAL_START + row * RESIDUAL_ROW + at]);
    }
    if RELU {
        value = select(value, vec4f(), value < vec4f());
    }
    output[OUT_START + row * OUT_ROW + at] = vec4<Number>(value);
}
