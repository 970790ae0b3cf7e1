// Gradient of a convolution's weights [O, C, K, K] as conv2d_backward_weight.wgsl makes it, as a product of
// matrices cut into tiles: output channels by the numbers under the kernel, summed over pixels.
//
// A workgroup makes TILE output channels of 4096 / TILE numbers under the kernel, an invocation 8 by 8 of
// them, over the pixels of a part. CHUNK pixels at a time are loaded into workgroup memory. The parts are added by
// sum.wgsl, in an order that does not depend on the device. The host replaces the `const` lines down to the
// empty one.

const BATCH = 8u;
const PART = 2048u;         // pixels of a part, a multiple of CHUNK
const IN_CHANNELS = 3u;
const IN_HEIGHT = 32u;
const IN_WIDTH = 32u;
const OUT_CHANNELS = 16u;
const OUT_HEIGHT = 32u;
const OUT_WIDTH = 32u;
const KERNEL = 3u;
const STRIDE = 1u;
const PADDING = 1u;
const TILE = 64u;           // 16, 32 or 64
const CHUNK = 16u;

@group(0) @binding(0) var<storage, read_write> input: array<f32>;
@group(0) @binding(1) var<storage, read_write> gradient: array<f32>;
// [parts, O, C, K, K]
@group(0) @binding(2) var<storage, read_write> output: array<f32>;

const WORKGROUP = 64u;
const IN_AREA = IN_HEIGHT * IN_WIDTH;
const OUT_AREA = OUT_HEIGHT * OUT_WIDTH;
const POSITIONS = KERNEL * KERNEL;
const PATCH = IN_CHANNELS * POSITIONS;
const PIXELS = BATCH * OUT_AREA;
const TILE_PATCH = 4096u / TILE;
const TILES = (PATCH + TILE_PATCH - 1u) / TILE_PATCH;
// Vectors of a pixel: of four output channels, and of four numbers under the kernel.
const BLOCKS = TILE / 4u;
const QUADS = TILE_PATCH / 4u;
// One more than there are, so that neighbours write to different banks.
const BLOCK_ROW = BLOCKS + 1u;
const QUAD_ROW = QUADS + 1u;

var<workgroup> gradients: array<vec4f, CHUNK * BLOCK_ROW>;
var<workgroup> inputs: array<vec4f, CHUNK * QUAD_ROW>;

// A number under the kernel, whose first position is at `place`; zero outside the image.
fn load_input(image: u32, place: vec2u, entry: u32) -> f32 {
    let channel = entry / POSITIONS;
    // Above the first row wraps around to far below the last.
    let row = place.x + entry % POSITIONS / KERNEL;
    let column = place.y + entry % KERNEL;
    let inside = row < IN_HEIGHT && column < IN_WIDTH && channel < IN_CHANNELS;
    let at = (image * IN_CHANNELS + channel) * IN_AREA + row * IN_WIDTH + column;
    return select(0.0, input[select(0u, at, inside)], inside);
}

fn load_gradient(first: u32, channel: u32) -> f32 {
    return gradient[first + min(channel, OUT_CHANNELS - 1u) * OUT_AREA];
}

fn store(part: u32, out: u32, entry: u32, sums: vec4f) {
    if entry < PATCH {
        for (var o = 0u; o < 4u && out + o < OUT_CHANNELS; o++) {
            output[(part * OUT_CHANNELS + out + o) * PATCH + entry] = sums[o];
        }
    }
}

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) workgroup: vec3u, @builtin(local_invocation_index) thread: u32) {
    let first_entry = workgroup.x % TILES * TILE_PATCH;
    let part = workgroup.x / TILES;
    let first_out = workgroup.y * TILE;
    // The pixel of each chunk that this invocation loads, and what of it comes first.
    let k = thread % CHUNK;
    let lane = thread / CHUNK;
    let column = thread % (TILE_PATCH / 8u);
    let row = thread / (TILE_PATCH / 8u);
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
    let end = min(PIXELS, part * PART + PART);
    for (var chunk = part * PART; chunk < end; chunk += CHUNK) {
        let pixel = min(chunk + k, PIXELS - 1u);
        // A pixel after the last is multiplied by zero.
        let is_real = chunk + k < end;
        let image = pixel / OUT_AREA;
        let place = vec2u(pixel % OUT_AREA / OUT_WIDTH, pixel % OUT_WIDTH) * STRIDE - vec2u(PADDING);
        for (var i = lane; i < QUADS; i += WORKGROUP / CHUNK) {
            let entry = first_entry + i * 4u;
            inputs[k * QUAD_ROW + i] = vec4f(
                load_input(image, place, entry),
                load_input(image, place, entry + 1u),
                load_input(image, place, entry + 2u),
                load_input(image, place, entry + 3u),
            );
        }
        let g = image * OUT_CHANNELS * OUT_AREA + pixel % OUT_AREA;
        for (var i = lane; i < BLOCKS; i += WORKGROUP / CHUNK) {
            let out = first_out + i * 4u;
            let value = vec4f(
                load_gradient(g, out),
                load_gradient(g, out + 1u),
                load_gradient(g, out + 2u),
                load_gradient(g, out + 3u),
            );
            gradients[k * BLOCK_ROW + i] = select(vec4f(), value, is_real);
        }
        workgroupBarrier();
        for (var k = 0u; k < CHUNK; k++) {
            let low = gradients[k * BLOCK_ROW + row];
            let high = gradients[k * BLOCK_ROW + BLOCKS / 2u + row];
            let x = inputs[k * QUAD_ROW + column];
            let y = inputs[k * QUAD_ROW + QUADS / 2u + column];
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
    let near = first_entry + column * 4u;
    let far = near + TILE_PATCH / 2u;
    let out = first_out + row * 4u;
    let other = out + TILE / 2u;
    store(part, out, near, a0);
    store(part, out, near + 1u, a1);
    store(part, out, near + 2u, a2);
    store(part, out, near + 3u, a3);
    store(part, out, far, a4);
    store(part, out, far + 1u, a5);
    store(part, out, far + 2u, a6);
    store(part, out, far + 3u, a7);
    store(part, other, near, b0);
    store(part, other, near + 1u, b1);
    store(part, other, near + 2u, b2);
    store(part, other, near + 3u, b3);
    store(part, other, far, b4);
    store(part, other, far + 1u, b5);
    store(part, other, far + 2u, b6);
    store(part, other, far + 3u, b7);
}
