// Convolution of [N, C, H, W] for training as conv2d.wgsl makes it, and the gradient of its input, as a
// product of matrices cut into tiles: output channels by pixels, summed over kernel positions and input
// channels.
//
// A workgroup makes TILE channels of 4096 / TILE pixels, an invocation 8 by 8 of them. CHUNK terms of the
// sums at a time are loaded into workgroup memory, where 64 multiply-adds follow 4 loads of a vector. The sum
// may be cut into PARTS, which sum.wgsl adds: small maps of many channels are too few tiles for a GPU. The
// host replaces the `const` lines down to the empty one.

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
const TILE = 64u;           // 16, 32 or 64
const CHUNK = 16u;
const PARTS = 1u;

@group(0) @binding(0) var<storage, read_write> input: array<f32>;
// [O / 8, K, K, C, 8], by conv2d_pack.wgsl
@group(0) @binding(1) var<storage, read_write> weight: array<vec4f>;
// [PARTS, N, O, H', W']
@group(0) @binding(2) var<storage, read_write> output: array<f32>;

const WORKGROUP = 64u;
const WORKGROUPS = 65535u;  // along x, the most that WebGPU allows
const IN_AREA = IN_HEIGHT * IN_WIDTH;
const OUT_AREA = OUT_HEIGHT * OUT_WIDTH;
const TERMS = KERNEL * KERNEL * IN_CHANNELS;
const PART = (TERMS + PARTS * CHUNK - 1u) / (PARTS * CHUNK) * CHUNK;
const TILE_PIXELS = 4096u / TILE;
const TILES = (PIXELS + TILE_PIXELS - 1u) / TILE_PIXELS;
const CHANNEL_TILES = (OUT_CHANNELS + TILE - 1u) / TILE;
// Vectors of a term: of four channels, and of four pixels.
const BLOCKS = TILE / 4u;
const QUADS = TILE_PIXELS / 4u;

var<workgroup> weights: array<vec4f, CHUNK * BLOCKS>;
var<workgroup> pixels: array<vec4f, CHUNK * QUADS>;

// Image, row and column of the spread input under a pixel's first kernel position.
fn place(pixel: u32) -> vec3i {
    let at = min(pixel, PIXELS - 1u);
    let row = at % OUT_AREA / OUT_WIDTH * STRIDE;
    let column = at % OUT_WIDTH * STRIDE;
    return vec3i(i32(at / OUT_AREA), i32(row) - PADDING, i32(column) - PADDING);
}

// The number under a kernel position, zero where there is none.
fn load(place: vec3i, offset: vec2i, channel: u32) -> f32 {
    let at = place.yz + offset;
    let size = vec2i(vec2u(IN_HEIGHT, IN_WIDTH));
    let spread = i32(SPREAD);
    let inside = at / spread;
    let outside = any((at < vec2i()) | (at % spread != vec2i()) | (inside >= size));
    let first = place.x * i32(IN_CHANNELS * IN_AREA) + inside.x * size.y + inside.y;
    return select(input[u32(select(first, 0, outside)) + channel * IN_AREA], 0.0, outside);
}

fn store(part: u32, pixel: u32, channel: u32, sums: vec4f) {
    if pixel < PIXELS {
        let image = part * (PIXELS / OUT_AREA) + pixel / OUT_AREA;
        let first = (image * OUT_CHANNELS + channel) * OUT_AREA + pixel % OUT_AREA;
        for (var c = 0u; c < 4u && channel + c < OUT_CHANNELS; c++) {
            output[first + c * OUT_AREA] = sums[c];
        }
    }
}

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) workgroup: vec3u, @builtin(local_invocation_index) thread: u32) {
    let tile = workgroup.z * WORKGROUPS + workgroup.x;
    if tile >= TILES {
        return;
    }
    let first_pixel = tile * TILE_PIXELS;
    let first_channel = workgroup.y % CHANNEL_TILES * TILE;
    let part = workgroup.y / CHANNEL_TILES;
    // What this invocation loads: always the same four pixels.
    let quad = thread % QUADS;
    let p0 = place(first_pixel + quad * 4u);
    let p1 = place(first_pixel + quad * 4u + 1u);
    let p2 = place(first_pixel + quad * 4u + 2u);
    let p3 = place(first_pixel + quad * 4u + 3u);
    // What it makes: two vectors of channels at eight pixels.
    let column = thread % (TILE_PIXELS / 8u);
    let row = thread / (TILE_PIXELS / 8u);
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
    for (var chunk = part * PART; chunk < min(TERMS, part * PART + PART); chunk += CHUNK) {
        for (var k = thread / QUADS; k < CHUNK; k += WORKGROUP / QUADS) {
            let term = min(chunk + k, TERMS - 1u);
            let position = term / IN_CHANNELS;
            let offset = vec2i(vec2u(position / KERNEL, position % KERNEL));
            let channel = term % IN_CHANNELS;
            pixels[k * QUADS + quad] = vec4f(
                load(p0, offset, channel),
                load(p1, offset, channel),
                load(p2, offset, channel),
                load(p3, offset, channel),
            );
        }
        for (var i = thread; i < CHUNK * BLOCKS; i += WORKGROUP) {
            let term = chunk + i / BLOCKS;
            let channel = first_channel + i % BLOCKS * 4u;
            var value = vec4f();
            // A term after the last is multiplied by zero.
            if term < TERMS && channel < OUT_CHANNELS {
                value = weight[(channel / 8u * TERMS + term) * 2u + channel / 4u % 2u];
            }
            weights[i] = value;
        }
        workgroupBarrier();
        for (var k = 0u; k < CHUNK; k++) {
            let low = weights[k * BLOCKS + row];
            let high = weights[k * BLOCKS + BLOCKS / 2u + row];
            let x = pixels[k * QUADS + column];
            let y = pixels[k * QUADS + QUADS / 2u + column];
            a0 += low * x.x;
            b0 += high * x.x;
            a1 += low * x.y;
            b1 += high * x.y;
            a2 += low * x.z;
            b2 += high * x.z;
            a3 += low * x.w;
            b3 += high * x.w;
            a4 += low * y.x;
            b4 += high * y.x;
            a5 += low * y.y;
            b5 += high * y.y;
            a6 += low * y.z;
            b6 += high * y.z;
            a7 += low * y.w;
            b7 += high * y.w;
        }
        workgroupBarrier();
    }
    let near = first_pixel + column * 4u;
    let far = near + TILE_PIXELS / 2u;
    let channel = first_channel + row * 4u;
    let other = channel + TILE / 2u;
    store(part, near, channel, a0);
    store(part, near + 1u, channel, a1);
    store(part, near + 2u, channel, a2);
    store(part, near + 3u, channel, a3);
    store(part, far, channel, a4);
    store(part, far + 1u, channel, a5);
    store(part, far + 2u, channel, a6);
    store(part, far + 3u, channel, a7);
    store(part, near, other, b0);
    store(part, near + 1u, other, b1);
    store(part, near + 2u, other, b2);
    store(part, near + 3u, other, b3);
    store(part, far, other, b4);
    store(part, far + 1u, other, b5);
    store(part, far + 2u, other, b6);
    store(part, far + 3u, other, b7);
}
