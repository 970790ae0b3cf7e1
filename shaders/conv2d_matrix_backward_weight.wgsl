// Gradient of a convolution's weights, as conv2d_backward_weight.wgsl, by matrix units: products of f16,
// sums in f32.
//
// A workgroup sums 64 output by 64 input channels at one kernel position over the pixels of some
// images, 32 pixels at a time, which it rounds into workgroup memory. Each subgroup holds 2 by 4
// matrices of sums. sum.wgsl adds the parts that the images are cut into. The host replaces the
// `const` and `alias` lines down to the empty one.

enable f16;
enable wgpu_cooperative_matrix;

alias Left = coop_mat16x16<f16, A>;
alias Right = coop_mat16x16<f16, B>;
alias Sums = coop_mat16x16<f32, C>;
const SIDE = 16u;           // of a matrix
const BATCH = 8u;
const PART = 2u;            // images of a part
const IN_CHANNELS = 64u;
const IN_HEIGHT = 32u;
const IN_WIDTH = 32u;
const OUT_CHANNELS = 64u;
const OUT_HEIGHT = 32u;
const OUT_WIDTH = 32u;
const KERNEL = 3u;
const STRIDE = 1u;
const PADDING = 1u;
const SCALE = 1e0;          // of the gradient before it is rounded: small ones would vanish

@group(0) @binding(0) var<storage, read_write> input: array<f32>;
@group(0) @binding(1) var<storage, read_write> gradient: array<f32>;
// [parts, O, C, K, K]
@group(0) @binding(2) var<storage, read_write> output: array<f32>;

const WORKGROUPS = 65535u;
const IN_AREA = IN_HEIGHT * IN_WIDTH;
const OUT_AREA = OUT_HEIGHT * OUT_WIDTH;
const POSITIONS = KERNEL * KERNEL;
const IN_BLOCKS = (IN_CHANNELS + 63u) / 64u;
const PARTS = (BATCH + PART - 1u) / PART;
const COLUMNS = 16u / SIDE; // of subgroups

// [64 output channels, 32 pixels]
var<workgroup> gradients: array<f16, 2048>;
// [64 input channels, 32 pixels]
var<workgroup> inputs: array<f16, 2048>;
// [64 output channels, 64 input channels]
var<workgroup> sums: array<f32, 4096>;

@compute @workgroup_size(64)
fn main(
    @builtin(workgroup_id) workgroup: vec3u,
    @builtin(local_invocation_index) thread: u32,
    @builtin(subgroup_id) subgroup: u32,
) {
    let index = workgroup.z * WORKGROUPS + workgroup.x;
    let position = index % POSITIONS;
    let channel = index / POSITIONS % IN_BLOCKS * 64u;
    let part = index / POSITIONS / IN_BLOCKS;
    let out = workgroup.y * 64u;
    if part >= PARTS {
        return;
    }
    // The first channels of a subgroup's matrices, and those that an invocation rounds.
    let row = subgroup / COLUMNS * 2u * SIDE;
    let column = subgroup % COLUMNS * 4u * SIDE;
    let lane = thread % 32u;
    let mine = thread / 32u * 32u;
    var a0: Sums;
    var a1: Sums;
    var a2: Sums;
    var a3: Sums;
    var b0: Sums;
    var b1: Sums;
    var b2: Sums;
    var b3: Sums;
    let end = min(BATCH, part * PART + PART) * OUT_AREA;
    for (var start = part * PART * OUT_AREA; start < end; start += 32u) {
        let pixel = min(start + lane, end - 1u);
        let image = pixel / OUT_AREA;
        // Before the first row or column wraps around to far beyond the last.
        let i = pixel % OUT_AREA / OUT_WIDTH * STRIDE + position / KERNEL - PADDING;
        let j = pixel % OUT_WIDTH * STRIDE + position % KERNEL - PADDING;
        let inside = start + lane < end && i < IN_HEIGHT && j < IN_WIDTH;
        let x = image * IN_CHANNELS * IN_AREA + select(0u, i * IN_WIDTH + j, inside);
        let g = image * OUT_CHANNELS * OUT_AREA + pixel % OUT_AREA;
        workgroupBarrier();
        for (var c = mine; c < mine + 32u; c++) {
            // A channel after the last reads the last, and its sums are not stored.
            let value = input[x + min(channel + c, IN_CHANNELS - 1u) * IN_AREA];
            let slope = gradient[g + min(out + c, OUT_CHANNELS - 1u) * OUT_AREA] * SCALE;
            inputs[c * 32u + lane] = f16(select(0.0, value, inside));
            gradients[c * 32u + lane] = f16(select(0.0, slope, inside));
        }
        workgroupBarrier();
        for (var k = 0u; k < 32u; k += SIDE) {
            let ga = coopLoadT<Left>(&gradients[row * 32u + k], 32u);
            let gb = coopLoadT<Left>(&gradients[(row + SIDE) * 32u + k], 32u);
            let x0 = coopLoad<Right>(&inputs[column * 32u + k], 32u);
            let x1 = coopLoad<Right>(&inputs[(column + SIDE) * 32u + k], 32u);
            let x2 = coopLoad<Right>(&inputs[(column + 2u * SIDE) * 32u + k], 32u);
            let x3 = coopLoad<Right>(&inputs[(column + 3u * SIDE) * 32u + k], 32u);
            a0 = coopMultiplyAdd(ga, x0, a0);
            b0 = coopMultiplyAdd(gb, x0, b0);
            a1 = coopMultiplyAdd(ga, x1, a1);
            b1 = coopMultiplyAdd(gb, x1, b1);
            a2 = coopMultiplyAdd(ga, x2, a2);
            b2 = coopMultiplyAdd(gb, x2, b2);
            a3 = coopMultiplyAdd(ga, x3, a3);
            b3 = coopMultiplyAdd(gb, x3, b3);
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
    if channel + thread >= IN_CHANNELS {
        return;
    }
    for (var o = 0u; o < min(64u, OUT_CHANNELS - out); o++) {
        let at = ((part * OUT_CHANNELS + out + o) * IN_CHANNELS + channel + thread) * POSITIONS + position;
        output[at] = sums[o * 64u + thread] / SCALE;
    }
}
