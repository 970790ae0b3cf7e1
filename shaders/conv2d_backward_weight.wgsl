// Gradient of a convolution's weights [O, C, K, K] from its input [N, C, H, W] and its output's
// gradient [N, O, H', W'].
//
// One invocation sums 8 output by 8 input channels at one kernel position over the pixels of some
// images. The parts that the images are cut into are added by sum.wgsl, in an order that does not
// depend on the device. The host replaces the `const` lines down to the empty one.

const BATCH = 8u;
const PART = 2u;            // images of a part
const IN_CHANNELS = 3u;
const IN_HEIGHT = 32u;
const IN_WIDTH = 32u;
const OUT_CHANNELS = 16u;
const OUT_HEIGHT = 32u;
const OUT_WIDTH = 32u;
const KERNEL = 3u;
const STRIDE = 1u;
const PADDING = 1u;

@group(0) @binding(0) var<storage, read_write> input: array<f32>;
@group(0) @binding(1) var<storage, read_write> gradient: array<f32>;
// [parts, O, C, K, K]
@group(0) @binding(2) var<storage, read_write> output: array<f32>;

const WORKGROUP = 64u;
const WORKGROUPS = 65535u;
const IN_AREA = IN_HEIGHT * IN_WIDTH;
const OUT_AREA = OUT_HEIGHT * OUT_WIDTH;
const POSITIONS = KERNEL * KERNEL;
const IN_BLOCKS = (IN_CHANNELS + 7u) / 8u;
const OUT_BLOCKS = (OUT_CHANNELS + 7u) / 8u;
const PARTS = (BATCH + PART - 1u) / PART;

// A channel after the last reads the last, and its sums are not stored.
fn load_input(first: u32, channel: u32) -> vec4f {
    let last = IN_CHANNELS - 1u;
    return vec4f(
        input[first + min(channel, last) * IN_AREA],
        input[first + min(channel + 1u, last) * IN_AREA],
        input[first + min(channel + 2u, last) * IN_AREA],
        input[first + min(channel + 3u, last) * IN_AREA],
    );
}

fn load_gradient(first: u32, channel: u32) -> f32 {
    return gradient[first + min(channel, OUT_CHANNELS - 1u) * OUT_AREA];
}

fn store(part: u32, out: u32, channel: u32, position: u32, low: vec4f, high: vec4f) {
    if out >= OUT_CHANNELS {
        return;
    }
    let first = ((part * OUT_CHANNELS + out) * IN_CHANNELS + channel) * POSITIONS + position;
    let count = min(8u, IN_CHANNELS - channel);
    for (var c = 0u; c < count; c++) {
        output[first + c * POSITIONS] = select(low[c % 4u], high[c % 4u], c >= 4u);
    }
}

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3u) {
    let index = id.z * WORKGROUPS * WORKGROUP + id.x;
    let position = index % POSITIONS;
    let channel = index / POSITIONS % IN_BLOCKS * 8u;
    let out = index / POSITIONS / IN_BLOCKS % OUT_BLOCKS * 8u;
    let part = index / POSITIONS / IN_BLOCKS / OUT_BLOCKS;
    if part >= PARTS {
        return;
    }
    var a0 = vec4f();
    var a1 = vec4f();
    var a2 = vec4f();
    var a3 = vec4f();
    var a4 = vec4f();
    var a5 = vec4f();
    var a6 = vec4f();
    var a7 = vec4f();
    var b0 = vec4f();
    var b1 = vec4f();
    var b2 = vec4f();
    var b3 = vec4f();
    var b4 = vec4f();
    var b5 = vec4f();
    var b6 = vec4f();
    var b7 = vec4f();
    for (var image = part * PART; image < min(BATCH, part * PART + PART); image++) {
        for (var i = 0u; i < OUT_HEIGHT; i++) {
            // Above the first row wraps around to far below the last.
            let row = i * STRIDE + position / KERNEL - PADDING;
            if row >= IN_HEIGHT {
                continue;
            }
            for (var j = 0u; j < OUT_WIDTH; j++) {
                let column = j * STRIDE + position % KERNEL - PADDING;
                if column >= IN_WIDTH {
                    continue;
                }
                let x = image * IN_CHANNELS * IN_AREA + row * IN_WIDTH + column;
                let xa = load_input(x, channel);
                let xb = load_input(x, channel + 4u);
                let g = image * OUT_CHANNELS * OUT_AREA + i * OUT_WIDTH + j;
                let g0 = load_gradient(g, out);
                a0 += xa * g0;
                b0 += xb * g0;
                let g1 = load_gradient(g, out + 1u);
                a1 += xa * g1;
                b1 += xb * g1;
                let g2 = load_gradient(g, out + 2u);
                a2 += xa * g2;
                b2 += xb * g2;
                let g3 = load_gradient(g, out + 3u);
                a3 += xa * g3;
                b3 += xb * g3;
                let g4 = load_gradient(g, out + 4u);
                a4 += xa * g4;
                b4 += xb * g4;
                let g5 = load_gradient(g, out + 5u);
                a5 += xa * g5;
                b5 += xb * g5;
                let g6 = load_gradient(g, out + 6u);
                a6 += xa * g6;
                b6 += xb * g6;
                let g7 = load_gradient(g, out + 7u);
                a7 += xa * g7;
                b7 += xb * g7;
            }
        }
    }
    store(part, out, channel, position, a0, b0);
    store(part, out + 1u, channel, position, a1, b1);
    store(part, out + 2u, channel, position, a2, b2);
    store(part, out + 3u, channel, position, a3, b3);
    store(part, out + 4u, channel, position, a4, b4);
    store(part, out + 5u, channel, position, a5, b5);
    store(part, out + 6u, channel, position, a6, b6);
    store(part, out + 7u, channel, position, a7, b7);
}
