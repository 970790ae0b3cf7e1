// Softmax attention of every pixel to every pixel, then the residual sum and ReLU. One workgroup
// makes one head's channels of one pixel: its scores for all pixels first, then what they weigh. The
// input has the channels of all queries, then of all keys, then of all values. The host replaces
// the `const` lines down to the empty one; lengths and offsets count numbers.

alias Number = f32;         // what is stored; sums are f32
const HEADS = 2u;
const SIZE = 4u;            // channels of a head
const SCALE = 0.5;
const IN_CHANNELS = 8u;     // per pixel, padding included
const IN_ROW = 272u;
const IN_START = 0u;        // the first pixel
const PIXELS = 1024u;       // at most 1024, which `scores` holds
const OUT_WIDTH = 32u;
const OUT_CHANNELS = 8u;
const OUT_ROW = 272u;
const OUT_START = 0u;
const RESIDUAL = false;
const RESIDUAL_ROW = 272u;
const RESIDUAL_START = 0u;
const RELU = false;

@group(0) @binding(2) var<storage, read> input: array<Number>;
@group(0) @binding(3) var<storage, read> residual: array<Number>;
@group(0) @binding(4) var<storage, read_write> output: array<Number>;

const THREADS = 64u;
const CHANNELS = HEADS * SIZE;
var<workgroup> scores: array<f32, PIXELS>;
var<workgroup> partial: array<f32, THREADS>;

// Where the queries of a pixel start.
fn start(pixel: u32) -> u32 {
    return IN_START + pixel / OUT_WIDTH * IN_ROW + pixel % OUT_WIDTH * IN_CHANNELS;
}

// The sum or the greatest of every invocation's value.
fn together(value: f32, thread: u32, greatest: bool) -> f32 {
    partial[thread] = value;
    for (var half = THREADS / 2u; half > 0u; half /= 2u) {
        workgroupBarrier();
        if thread < half {
            let other = partial[thread + half];
            partial[thread] = select(partial[thread] + other, max(partial[thread], other), greatest);
        }
    }
    let result = workgroupUniformLoad(&partial[0]);
    return result;
}

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) id: vec3u, @builtin(local_invocation_index) thread: u32) {
    let first = id.x % HEADS * SIZE;
    let pixel = id.x / HEADS;
    let queries = start(pixel) + first;
    var most = -3.4e38;
    for (var key = thread; key < PIXELS; key += THREADS) {
        let keys = start(key) + CHANNELS + first;
        var score = 0.0;
        for (var c = 0u; c < SIZE; c++) {
            score += f32(input[queries + c]) * f32(input[keys + c]);
        }
        score *= SCALE;
        scores[key] = score;
        most = max(most, score);
    }
    most = together(most, thread, true);
    var sum = 0.0;
    for (var key = thread; key < PIXELS; key += THREADS) {
        let weight = exp(scores[key] - most);
        scores[key] = weight;
        sum += weight;
    }
    // Its barriers also show every invocation all scores.
    sum = together(sum, thread, false);
    let row = pixel / OUT_WIDTH;
    let column = pixel % OUT_WIDTH;
    for (var c = thread; c < SIZE; c += THREADS) {
        var value = 0.0;
        for (var key = 0u; key < PIXELS; key++) {
            value += scores[key] * f32(input[start(key) + 2u * CHANNELS + first + c]);
        }
        value /= sum;
        let channel = first + c;
        if RESIDUAL {
            value += f32(residual[RESIDUAL_START + row * RESIDUAL_ROW + column * OUT_CHANNELS + channel]);
        }
        if RELU {
            value = select(value, 0.0, value < 0.0);
        }
        output[OUT_START + row * OUT_ROW + column * OUT_CHANNELS + channel] = Number(value);
    }
}
