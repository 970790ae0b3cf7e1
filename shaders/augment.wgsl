// Training images out of a set of bytes [M, 3, H, W]: crops out of a black border, mirrored left to right,
// normalised, with a rectangle cut out: [N, 3, H, W]. One invocation makes one number. The host replaces the
// `const` lines down to the empty one.

const IMAGES = 64u;         // N
const HEIGHT = 32u;
const WIDTH = 32u;
const PADDING = 4u;

// Four bytes a word, the first lowest.
@group(0) @binding(0) var<storage, read_write> pixels: array<u32>;
// [N, 8]: image, row and column of the crop within the padded image, whether it is mirrored; top, left,
// height and width of what is cut out.
@group(0) @binding(1) var<storage, read_write> changes: array<u32>;
// [3, 256]: each level of each channel, normalised.
@group(0) @binding(2) var<storage, read_write> levels: array<f32>;
@group(0) @binding(3) var<storage, read_write> output: array<f32>;

const WORKGROUP = 64u;
const WORKGROUPS = 65535u;
const AREA = HEIGHT * WIDTH;

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3u) {
    let index = id.z * WORKGROUPS * WORKGROUP + id.x;
    if index >= IMAGES * 3u * AREA {
        return;
    }
    let first = index / (3u * AREA) * 8u;
    let channel = index / AREA % 3u;
    let row = index % AREA / WIDTH;
    let column = index % WIDTH;
    // Above and left of the image these wrap around to far beyond it.
    let source_row = row + changes[first + 1u] - PADDING;
    let source_column = select(column, WIDTH - 1u - column, changes[first + 3u] != 0u) + changes[first + 2u] - PADDING;
    var level = 0u;
    if source_row < HEIGHT && source_column < WIDTH {
        let at = ((changes[first] * 3u + channel) * HEIGHT + source_row) * WIDTH + source_column;
        level = extractBits(pixels[at / 4u], at % 4u * 8u, 8u);
    }
    let value = levels[channel * 256u + level];
    let cut = row - changes[first + 4u] < changes[first + 6u] && column - changes[first + 5u] < changes[first + 7u];
    output[index] = select(value, 0.0, cut);
}
