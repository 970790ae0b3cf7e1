// What batch_norm_backward.wgsl needs of each channel in one buffer: WebGPU grants a shader eight. The host
// replaces the `const` lines down to the empty one.

const CHANNELS = 16u;
const EPSILON = 1e-5;

@group(0) @binding(0) var<storage, read_write> gamma: array<f32>;
@group(0) @binding(1) var<storage, read_write> means: array<f32>;
@group(0) @binding(2) var<storage, read_write> variances: array<f32>;
// [C, 4]: mean, one over the deviation, gamma, and nothing.
@group(0) @binding(3) var<storage, read_write> scales: array<vec4f>;

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3u) {
    if id.x < CHANNELS {
        scales[id.x] = vec4f(means[id.x], inverseSqrt(variances[id.x] + EPSILON), gamma[id.x], 0.0);
    }
}
