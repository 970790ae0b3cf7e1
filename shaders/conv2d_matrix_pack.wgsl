// Weights [O, C, K, K] in f16 and in the order in which conv2d_matrix.wgsl reads them, zeros after the
// last channel; for the gradient of the input as in conv2d_pack.wgsl. The host replaces the `const`
// lines down to the empty one.

enable f16;

const OUTPUTS = 64u;        // O, or C for the gradient
const INPUTS = 64u;
const KERNEL = 3u;
const TURNED = false;

@group(0) @binding(0) var<storage, read_write> weight: array<f32>;
// [OUTPUTS / 64, K, K, INPUTS / 32, 64, 32]
@group(0) @binding(1) var<storage, read_write> packed: array<f16>;

const WORKGROUP = 64u;
const WORKGROUPS = 65535u;
const POSITIONS = KERNEL * KERNEL;
const STEPS = (INPUTS + 31u) / 32u;
const COUNT = (OUTPUTS + 63u) / 64u * POSITIONS * STEPS * 2048u;

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3u) {
    let index = id.z * WORKGROUPS * WORKGROUP + id.x;
    if index >= COUNT {
        return;
    }
    let step = index / 2048u;
    let input = step % STEPS * 32u + index % 32u;
    let position = step / STEPS % POSITIONS;
    let output = step / STEPS / POSITIONS * 64u + index / 32u % 64u;
    var value = 0.0;
    if output < OUTPUTS && input < INPUTS {
        if TURNED {
            value = weight[(input * OUTPUTS + output) * POSITIONS + POSITIONS - 1u - position];
        } else {
            value = weight[(output * INPUTS + input) * POSITIONS + position];
        }
    }
    packed[index] = f16(value);
}
