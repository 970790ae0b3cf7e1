// The middle square of RGBA bytes, resized with a triangle filter (wide enough for every pixel to
// count), rounded to 0..255 and normalised: [SIZE, SIZE] planes of red, green and blue. Alpha is dropped.
//
// A workgroup makes one pixel. Each invocation sums some columns under the filter; the columns are then
// added through workgroup memory. The host replaces the `const` lines down to the empty one; a picture's
// own sizes come in a buffer, so that the next picture needs no other pipeline.

const SIZE = 32u;
const MEAN_RED = 0.5;
const MEAN_GREEN = 0.5;
const MEAN_BLUE = 0.5;
const STD_RED = 0.25;
const STD_GREEN = 0.25;
const STD_BLUE = 0.25;

@group(0) @binding(0) var<storage, read_write> pixels: array<u32>;
// Width of the picture; left, top and side of its middle square.
@group(0) @binding(1) var<storage, read_write> square: array<u32>;
@group(0) @binding(2) var<storage, read_write> output: array<f32>;

const THREADS = 64u;
const MEAN = vec3f(MEAN_RED, MEAN_GREEN, MEAN_BLUE);
const STD = vec3f(STD_RED, STD_GREEN, STD_BLUE);
var<workgroup> partial: array<vec4f, THREADS>;

// What the filter covers along one axis: from `first` to before `end`, around `centre`.
struct Window {
    first: u32,
    end: u32,
    centre: f32,
    scale: f32,
}

fn window(pixel: u32, side: u32) -> Window {
    let ratio = f32(side) / f32(SIZE);
    let scale = max(ratio, 1.0);
    let centre = (f32(pixel) + 0.5) * ratio;
    let first = u32(clamp(floor(centre - scale), 0.0, f32(side - 1u)));
    let end = clamp(u32(ceil(centre + scale)), first + 1u, side);
    return Window(first, end, centre - 0.5, scale);
}

fn weight(window: Window, at: u32) -> f32 {
    return max(1.0 - abs((f32(at) - window.centre) / window.scale), 0.0);
}

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) workgroup: vec3u, @builtin(local_invocation_index) thread: u32) {
    let width = square[0];
    let side = square[3];
    let rows = window(workgroup.y, side);
    let columns = window(workgroup.x, side);
    // Red, green, blue, weight.
    var sum = vec4f();
    for (var x = columns.first + thread; x < columns.end; x += THREADS) {
        var column = vec4f();
        for (var y = rows.first; y < rows.end; y++) {
            let rgba = unpack4x8unorm(pixels[(square[2] + y) * width + square[1] + x]);
            column += vec4f(rgba.rgb * 255.0, 1.0) * weight(rows, y);
        }
        sum += vec4f(column.rgb / column.a, 1.0) * weight(columns, x);
    }
    partial[thread] = sum;
    for (var half = THREADS / 2u; half > 0u; half /= 2u) {
        workgroupBarrier();
        if thread < half {
            partial[thread] += partial[thread + half];
        }
    }
    if thread == 0u {
        let level = floor(partial[0].rgb / partial[0].a + 0.5) / 255.0;
        let value = (level - MEAN) / STD;
        for (var channel = 0u; channel < 3u; channel++) {
            output[(channel * SIZE + workgroup.y) * SIZE + workgroup.x] = value[channel];
        }
    }
}
