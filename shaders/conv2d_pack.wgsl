// Weights [O, C, K, K] in the order in which conv2d.wgsl reads them, zeros after the last channel. For
// the gradient of the input, inputs and outputs change places and the kernel is turned around. The
// host replaces the `const` lines down to the empty one.

const OUTPUTS = 16u;        // O, or C for the gradient
const INPUTS = 3u;
const KERNEL = 3u;
const TURNED = false;

@group(0) @binding(0) var<storage, read_write> weight: array<f32>;
// [OUTPUTS / 8, K, K, INPUTS, 8]
@group(0) @binding(1) var<storage, read_write> packed: array<f32>;

const WORKGROUP = 64u;
const WORKGROUPS = 65535u;
const POSITIONS = KERNEL * KERNEL;
const COUNT = (OUTPUTS + 7u) / 8u * 8u * INPUTS * POSITIONS;

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3u) {
    let index = id.z * WORKGROUPS * WORKGROUP + id.x;
    if index >= COUNT {
        return;
    }
    let input = index / 8u % INPUTS;
    let position = index / 8u / INPUTS % POSITIONS;
    let output = index / 8u / INPUTS / POSITIONS * 8u + index % 8u;
    var value = 0.0;
    if output < OUTPUTS {
        if TURNED {
            value = weight[(input * OUTPUTS + output) * POSITIONS + POSITIONS - 1u - position];
        } else {
            value = weight[(output * INPUTS + input) * POSITIONS + position];
        }
    }
    packed[index] = value;
}
