// Convolution of [N, C, H, W] for training. Also the gradient of its input: that is a convolution of
// the output's gradient, spread out by the stride, with the weights turned around.
//
// One invocation makes 16 pixels by 8 channels from registers; per input channel and kernel position
// it loads 16 numbers and 2 vectors for 128 multiply-adds. Neighbouring invocations make neighbouring
// pixels, so that a GPU loads them together. The host replaces the `const` lines down to the empty one.

const IN_CHANNELS = 3u;
const IN_HEIGHT = 32u;
const IN_WIDTH = 32u;
const OUT_CHANNELS = 16u;
const OUT_HEIGHT = 32u;
const OUT_WIDTH = 32u;
const PIXELS = 1024u;       // of the output, all images
const KERNEL = 3u;
const STRIDE = 1u;
const SPREAD = 1u;          // distance of the input's pixels
const PADDING = 1i;         // around the spread input

@group(0) @binding(0) var<storage, read_write> input: array<f32>;
// [O / 8, K, K, C, 8], by conv2d_pack.wgsl
@group(0) @binding(1) var<storage, read_write> weight: array<vec4f>;
@group(0) @binding(2) var<storage, read_write> output: array<f32>;

const WORKGROUP = 64u;
const WORKGROUPS = 65535u;  // along x, the most that WebGPU allows
const IN_AREA = IN_HEIGHT * IN_WIDTH;
const OUT_AREA = OUT_HEIGHT * OUT_WIDTH;
const GROUPS = (PIXELS + 15u) / 16u;

// Image, row and column of the spread input under a pixel's first kernel position.
fn place(pixel: u32) -> vec3i {
    let at = min(pixel, PIXELS - 1u);
    let row = at % OUT_AREA / OUT_WIDTH * STRIDE;
    let column = at % OUT_WIDTH * STRIDE;
    return vec3i(i32(at / OUT_AREA), i32(row) - PADDING, i32(column) - PADDING);
}

// Index of the number under a kernel position in the first channel, or -1 where there is none. Without
// a branch: sixteen early returns in a loop take SwiftShader minutes to compile.
fn under(place: vec3i, row: u32, column: u32) -> i32 {
    let at = place.yz + vec2i(vec2u(row, column));
    let size = vec2i(vec2u(IN_HEIGHT, IN_WIDTH));
    let spread = i32(SPREAD);
    let inside = at / spread;
    let outside = (at < vec2i()) | (at % spread != vec2i()) | (inside >= size);
    return select(place.x * i32(IN_CHANNELS * IN_AREA) + inside.x * size.y + inside.y, -1, any(outside));
}

fn load(first: i32, channel: u32) -> f32 {
    return select(0.0, input[u32(max(first, 0)) + channel * IN_AREA], first >= 0);
}

fn store(pixel: u32, channel: u32, low: vec4f, high: vec4f) {
    if pixel >= PIXELS {
        return;
    }
    let first = (pixel / OUT_AREA * OUT_CHANNELS + channel) * OUT_AREA + pixel % OUT_AREA;
    let count = min(8u, OUT_CHANNELS - channel);
    for (var c = 0u; c < count; c++) {
        output[first + c * OUT_AREA] = select(low[c % 4u], high[c % 4u], c >= 4u);
    }
}

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3u, @builtin(workgroup_id) workgroup: vec3u) {
    let pixel = workgroup.z * WORKGROUPS * WORKGROUP + id.x;
    // The same for a whole workgroup, so that it may load weights once.
    let channel = workgroup.y * 8u;
    if pixel >= GROUPS {
        return;
    }
    let p0 = place(pixel);
    let p1 = place(pixel + GROUPS);
    let p2 = place(pixel + 2u * GROUPS);
    let p3 = place(pixel + 3u * GROUPS);
    let p4 = place(pixel + 4u * GROUPS);
    let p5 = place(pixel + 5u * GROUPS);
    let p6 = place(pixel + 6u * GROUPS);
    let p7 = place(pixel + 7u * GROUPS);
    let p8 = place(pixel + 8u * GROUPS);
    let p9 = place(pixel + 9u * GROUPS);
    let p10 = place(pixel + 10u * GROUPS);
    let p11 = place(pixel + 11u * GROUPS);
    let p12 = place(pixel + 12u * GROUPS);
    let p13 = place(pixel + 13u * GROUPS);
    let p14 = place(pixel + 14u * GROUPS);
    let p15 = place(pixel + 15u * GROUPS);
    var a0 = vec4f();
    var a1 = vec4f();
    var a2 = vec4f();
    var a3 = vec4f();
    var a4 = vec4f();
    var a5 = vec4f();
    var a6 = vec4f();
    var a7 = vec4f();
    var a8 = vec4f();
    var a9 = vec4f();
    var a10 = vec4f();
    var a11 = vec4f();
    var a12 = vec4f();
    var a13 = vec4f();
    var a14 = vec4f();
    var a15 = vec4f();
    var b0 = vec4f();
    var b1 = vec4f();
    var b2 = vec4f();
    var b3 = vec4f();
    var b4 = vec4f();
    var b5 = vec4f();
    var b6 = vec4f();
    var b7 = vec4f();
    var b8 = vec4f();
    var b9 = vec4f();
    var b10 = vec4f();
    var b11 = vec4f();
    var b12 = vec4f();
    var b13 = vec4f();
    var b14 = vec4f();
    var b15 = vec4f();
    for (var position = 0u; position < KERNEL * KERNEL; position++) {
        let row = position / KERNEL;
        let column = position % KERNEL;
        let i0 = under(p0, row, column);
        let i1 = under(p1, row, column);
        let i2 = under(p2, row, column);
        let i3 = under(p3, row, column);
        let i4 = under(p4, row, column);
        let i5 = under(p5, row, column);
        let i6 = under(p6, row, column);
        let i7 = under(p7, row, column);
        let i8 = under(p8, row, column);
        let i9 = under(p9, row, column);
        let i10 = under(p10, row, column);
        let i11 = under(p11, row, column);
        let i12 = under(p12, row, column);
        let i13 = under(p13, row, column);
        let i14 = under(p14, row, column);
        let i15 = under(p15, row, column);
        // Of a spread input most rows are empty.
        if max(max(max(i0, i1), max(i2, i3)), max(max(i4, i5), max(i6, max(i7, max(max(max(i8, i9), max(i10, i11)), max(max(i12, i13), max(i14, i15))))))) < 0 {
            continue;
        }
        var w = ((channel / 8u * KERNEL * KERNEL + position) * IN_CHANNELS) * 2u;
        for (var c = 0u; c < IN_CHANNELS; c++) {
            let wa = weight[w];
            let wb = weight[w + 1u];
            w += 2u;
            let x0 = load(i0, c);
            a0 += wa * x0;
            b0 += wb * x0;
            let x1 = load(i1, c);
            a1 += wa * x1;
            b1 += wb * x1;
            let x2 = load(i2, c);
            a2 += wa * x2;
            b2 += wb * x2;
            let x3 = load(i3, c);
            a3 += wa * x3;
            b3 += wb * x3;
            let x4 = load(i4, c);
            a4 += wa * x4;
            b4 += wb * x4;
            let x5 = load(i5, c);
            a5 += wa * x5;
            b5 += wb * x5;
            let x6 = load(i6, c);
            a6 += wa * x6;
            b6 += wb * x6;
            let x7 = load(i7, c);
            a7 += wa * x7;
            b7 += wb * x7;
            let x8 = load(i8, c);
            a8 += wa * x8;
            b8 += wb * x8;
            let x9 = load(i9, c);
            a9 += wa * x9;
            b9 += wb * x9;
            let x10 = load(i10, c);
            a10 += wa * x10;
            b10 += wb * x10;
            let x11 = load(i11, c);
            a11 += wa * x11;
            b11 += wb * x11;
            let x12 = load(i12, c);
            a12 += wa * x12;
            b12 += wb * x12;
            let x13 = load(i13, c);
            a13 += wa * x13;
            b13 += wb * x13;
            let x14 = load(i14, c);
            a14 += wa * x14;
            b14 += wb * x14;
            let x15 = load(i15, c);
            a15 += wa * x15;
            b15 += wb * x15;
        }
    }
    store(pixel, channel, a0, b0);
    store(pixel + GROUPS, channel, a1, b1);
    store(pixel + 2u * GROUPS, channel, a2, b2);
    store(pixel + 3u * GROUPS, channel, a3, b3);
    store(pixel + 4u * GROUPS, channel, a4, b4);
    store(pixel + 5u * GROUPS, channel, a5, b5);
    store(pixel + 6u * GROUPS, channel, a6, b6);
    store(pixel + 7u * GROUPS, channel, a7, b7);
    store(pixel + 8u * GROUPS, channel, a8, b8);
    store(pixel + 9u * GROUPS, channel, a9, b9);
    store(pixel + 10u * GROUPS, channel, a10, b10);
    store(pixel + 11u * GROUPS, channel, a11, b11);
    store(pixel + 12u * GROUPS, channel, a12, b12);
    store(pixel + 13u * GROUPS, channel, a13, b13);
    store(pixel + 14u * GROUPS, channel, a14, b14);
    store(pixel + 15u * GROUPS, channel, a15, b15);
}
