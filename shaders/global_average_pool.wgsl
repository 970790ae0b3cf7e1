// Mean over each map: [MAPS, AREA] -> [MAPS]. One invocation makes one: the maps that are pooled are
// small and many. The host replaces the `const` lines down to the empty one.

const MAPS = 512u;          // of all images
const AREA = 16u;

@group(0) @binding(0) var<storage, read_write> input: array<f32>;
@group(0) @binding(1) var<storage, read_write> output: array<f32>;

const WORKGROUP = 64u;
const WORKGROUPS = 65535u;

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3u) {
    let index = id.z * WORKGROUPS * WORKGROUP + id.x;
    if index >= MAPS {
        return;
    }
    var sum = 0.0;
    for (var pixel = 0u; pixel < AREA; pixel++) {
        sum += input[index * AREA + pixel];
    }
    output[index] = sum / f32(AREA);
}
