// Convolution of [N, C, H, W] for training, as conv2d.wgsl, by matrix units: products of f16, sums in
// f32. Also the gradient of its input.
//
// A workgroup makes 64 channels by 64 pixels. At each kernel position it takes 32 input channels at a
// time: weights lie packed, the input is rounded into workgroup memory, an invocation a pixel. Each
// subgroup holds 2 by 4 matrices of sums. The host replaces the `const` and `alias` lines down to the
// empty one.

enable f16;
enable wgpu_cooperative_matrix;

alias Left = coop_mat16x16<f16, A>;
alias Right = coop_mat16x16<f16, B>;
alias Sums = coop_mat16x16<f32, C>;
const SIDE = 16u;           // of a matrix
const IN_CHANNELS = 64u;
const IN_HEIGHT = 32u;
const IN_WIDTH = 32u;
const OUT_CHANNELS = 64u;
const OUT_HEIGHT = 32u;
const OUT_WIDTH = 32u;
const PIXELS = 1024u;       // of the output, all images
const KERNEL = 3u;
const STRIDE = 1u;
const SPREAD = 1u;          // distance of the input's pixels
const PADDING = 1i;         // around the spread input
const SCALE = 1e0;          // of the input before it is rounded: small gradients would vanish

@group(0) @binding(0) var<storage, read_write> input: array<f32>;
// [O / 64, K, K, C / 32, 64, 32], by conv2d_matrix_pack.wgsl
@group(0) @binding(1) var<storage, read_write> weight: array<f16>;
@group(0) @binding(2) var<storage, read_write> output: array<f32>;

const WORKGROUPS = 65535u;  // along x, the most that WebGPU allows
const IN_AREA = IN_HEIGHT * IN_WIDTH;
const OUT_AREA = OUT_HEIGHT * OUT_WIDTH;
const POSITIONS = KERNEL * KERNEL;
const BLOCKS = (PIXELS + 63u) / 64u;
const STEPS = (IN_CHANNELS + 31u) / 32u;
const COLUMNS = 16u / SIDE; // of subgroups

// [32 input channels, 64 pixels]
var<workgroup> tile: array<f16, 2048>;
// [64 output channels, 64 pixels]
var<workgroup> sums: array<f32, 4096>;

// Index of the number under a kernel position in the first channel, or -1 where there is none.
fn under(pixel: u32, position: u32) -> i32 {
    let first = vec2u(pixel % OUT_AREA / OUT_WIDTH, pixel % OUT_WIDTH) * STRIDE;
    let at = vec2i(first + vec2u(position / KERNEL, position % KERNEL)) - PADDING;
    let size = vec2i(vec2u(IN_HEIGHT, IN_WIDTH));
    let spread = i32(SPREAD);
    let inside = at / spread;
    let outside = (at < vec2i()) | (at % spread != vec2i()) | (inside >= size);
    let image = i32(pixel / OUT_AREA * IN_CHANNELS * IN_AREA);
    return select(image + inside.x * size.y + inside.y, -1, any(outside) || pixel >= PIXELS);
}

@compute @workgroup_size(64)
fn main(
    @builtin(workgroup_id) workgroup: vec3u,
    @builtin(local_invocation_index) thread: u32,
    @builtin(subgroup_id) subgroup: u32,
) {
    let block = workgroup.z * WORKGROUPS + workgroup.x;
    if block >= BLOCKS {
        return;
    }
    let pixel = block * 64u + thread;
    // The first channel and pixel of a subgroup's matrices.
    let row = subgroup / COLUMNS * 2u * SIDE;
    let column = subgroup % COLUMNS * 4u * SIDE;
    var a0: Sums;
    var a1: Sums;
    var a2: Sums;
    var a3: Sums;
    var b0: Sums;
    var b1: Sums;
    var b2: Sums;
    var b3: Sums;
    for (var position = 0u; position < POSITIONS; position++) {
        let first = under(pixel, position);
        for (var step = 0u; step < STEPS; step++) {
            workgroupBarrier();
            for (var c = 0u; c < 32u; c++) {
                let channel = step * 32u + c;
                let index = u32(max(first, 0)) + min(channel, IN_CHANNELS - 1u) * IN_AREA;
                let inside = first >= 0 && channel < IN_CHANNELS;
                tile[c * 64u + thread] = f16(select(0.0, input[index] * SCALE, inside));
            }
            workgroupBarrier();
            let w = ((workgroup.y * POSITIONS + position) * STEPS + step) * 2048u + row * 32u;
            for (var k = 0u; k < 32u; k += SIDE) {
                let wa = coopLoadT<Left>(&weight[w + k], 32u);
                let wb = coopLoadT<Left>(&weight[w + SIDE * 32u + k], 32u);
                let x0 = coopLoadT<Right>(&tile[k * 64u + column], 64u);
                let x1 = coopLoadT<Right>(&tile[k * 64u + column + SIDE], 64u);
                let x2 = coopLoadT<Right>(&tile[k * 64u + column + 2u * SIDE], 64u);
                let x3 = coopLoadT<Right>(&tile[k * 64u + column + 3u * SIDE], 64u);
                a0 = coopMultiplyAdd(wa, x0, a0);
                b0 = coopMultiplyAdd(wb, x0, b0);
                a1 = coopMultiplyAdd(wa, x1, a1);
                b1 = coopMultiplyAdd(wb, x1, b1);
                a2 = coopMultiplyAdd(wa, x2, a2);
                b2 = coopMultiplyAdd(wb, x2, b2);
                a3 = coopMultiplyAdd(wa, x3, a3);
                b3 = coopMultiplyAdd(wb, x3, b3);
            }
        }
    }
    let top = row * 64u + column;
    let bottom = top + SIDE * 64u;
    coopStoreT(a0, &sums[top], 64u);
    coopStoreT(a1, &sums[top + SIDE], 64u);
    coopStoreT(a2, &sums[top + 2u * SIDE], 64u);
    coopStoreT(a3, &sums[top + 3u * SIDE], 64u);
    coopStoreT(b0, &sums[bottom], 64u);
    coopStoreT(b1, &sums[bottom + SIDE], 64u);
    coopStoreT(b2, &sums[bottom + 2u * SIDE], 64u);
    coopStoreT(b3, &sums[bottom + 3u * SIDE], 64u);
    workgroupBarrier();
    if pixel >= PIXELS {
        return;
    }
    let channel = workgroup.y * 64u;
    let first = (pixel / OUT_AREA * OUT_CHANNELS + channel) * OUT_AREA + pixel % OUT_AREA;
    for (var c = 0u; c < min(64u, OUT_CHANNELS - channel); c++) {
        output[first + c * OUT_AREA] = sums[c * 64u + thread] / SCALE;
    }
}
