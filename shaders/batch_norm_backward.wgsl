// Gradients of batch_norm.wgsl: of its input [N, C, H, W], gamma and beta [C]. One workgroup makes
// one channel; where the forward pass cut at zero nothing comes back. The host replaces the `const`
// lines down to the empty one.

const BATCH = 64u;
const CHANNELS = 16u;
const AREA = 1024u;
const RELU = true;

@group(0) @binding(0) var<storage, read_write> input: array<f32>;
@group(0) @binding(1) var<storage, read_write> output: array<f32>;
@group(0) @binding(2) var<storage, read_write> gradient: array<f32>;
// Of each channel, by batch_norm_scales.wgsl: mean, one over the deviation, gamma.
@group(0) @binding(3) var<storage, read_write> scales: array<vec4f>;
@group(0) @binding(4) var<storage, read_write> input_gradient: array<f32>;
@group(0) @binding(5) var<storage, read_write> gamma_gradient: array<f32>;
@group(0) @binding(6) var<storage, read_write> beta_gradient: array<f32>;

const THREADS = 64u;
const COUNT = BATCH * AREA;
var<workgroup> partial: array<vec2f, THREADS>;

fn place(index: u32, channel: u32) -> u32 {
    return (index / AREA * CHANNELS + channel) * AREA + index % AREA;
}

fn load(at: u32) -> f32 {
    var value = gradient[at];
    if RELU {
        value = select(value, 0.0, output[at] <= 0.0);
    }
    return value;
}

// The sum of every invocation's values.
fn total(value: vec2f, thread: u32) -> vec2f {
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
    let mean = scales[channel].x;
    let inverse = scales[channel].y;
    // Of the gradient, and of the gradient times the normalized input.
    var sums = vec2f();
    for (var index = thread; index < COUNT; index += THREADS) {
        let at = place(index, channel);
        let value = load(at);
        sums += vec2f(value, value * (input[at] - mean) * inverse);
    }
    let all = total(sums, thread);
    let scale = scales[channel].z * inverse;
    let average = all / f32(COUNT);
    for (var index = thread; index < COUNT; index += THREADS) {
        let at = place(index, channel);
        let normalized = (input[at] - mean) * inverse;
        input_gradient[at] = scale * (load(at) - average.x - normalized * average.y);
    }
    if thread == 0u {
        gamma_gradient[channel] = all.y;
        beta_gradient[channel] = all.x;
    }
}
