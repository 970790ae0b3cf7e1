// Adds parts of equal length: [PARTS, LEN] -> [LEN]. The host replaces the `const` lines down to the
// empty one.

const PARTS = 4u;
const LEN = 1024u;

@group(0) @binding(0) var<storage, read_write> parts: array<f32>;
@group(0) @binding(1) var<storage, read_write> output: array<f32>;

const WORKGROUP = 64u;
const WORKGROUPS = 65535u;

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3u) {
    let index = id.z * WORKGROUPS * WORKGROUP + id.x;
    if index >= LEN {
        return;
    }
    var sum = 0.0;
    for (var part = 0u; part < PARTS; part++) {
        sum += parts[part * LEN + index];
    }
    output[index] = sum;
}
