// Batch normalization of [N, C, H, W] in training, with ReLU. One workgroup makes one channel: mean
// and variance take a pass each, as the sum of squares alone would lose digits, and the output a
// third. The host replaces the `const` lines down to the empty one.

const BATCH = 64u;
const CHANNELS = 16u;
const AREA = 1024u;
const EPSILON = 1e-5;
const RELU = true;

@group(0) @binding(0) var<storage, read_write> input: array<f32>;
@group(0) @binding(1) var<storage, read_write> gamma: array<f32>;
@group(0) @binding(2) var<storage, read_write> beta: array<f32>;
@group(0) @binding(3) var<storage, read_write> output: array<f32>;
@group(0) @binding(4) var<storage, read_write> means: array<f32>;
// Biased.
@group(0) @binding(5) var<storage, read_write> variances: array<f32>;

const THREADS = 64u;
const COUNT = BATCH * AREA;
var<workgroup> partial: array<f32, THREADS>;

fn place(index: u32, channel: u32) -> u32 {
    return (index / AREA * CHANNELS + channel) * AREA + index % AREA;
}

// The sum of every invocation's value.
fn total(value: f32, thread: u32) -> f32 {
    partial[thread] = value;
    for (var half = THREADS / 2u; half > 0u; half /= 2u) {
        workgroupBarrier();
        if thread < half {
            partial[thread] += partial[thread + half];
        }
    }
    return workgroupUniformLoad(&partial[0]);
}

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) workgroup: vec3u, @builtin(local_invocation_index) thread: u32) {
    let channel = workgroup.x;
    var sum = 0.0;
    for (var index = thread; index < COUNT; index += THREADS) {
        sum += input[place(index, channel)];
    }
    let mean = total(sum, thread) / f32(COUNT);
    var squares = 0.0;
    for (var index = thread; index < COUNT; index += THREADS) {
        let centered = input[place(index, channel)] - mean;
        squares += centered * centered;
    }
    let variance = total(squares, thread) / f32(COUNT);
    let scale = gamma[channel] * inverseSqrt(variance + EPSILON);
    let shift = beta[channel];
    for (var index = thread; index < COUNT; index += THREADS) {
        let at = place(index, channel);
        var value = (input[at] - mean) * scale + shift;
        if RELU {
            // Not `max`, which may make a number of NaN.
            value = select(value, 0.0, value < 0.0);
        }
        output[at] = value;
    }
    if thread == 0u {
        means[channel] = mean;
        variances[channel] = variance;
    }
}
