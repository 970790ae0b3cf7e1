// Gradient of global_average_pool.wgsl: [MAPS] -> [MAPS, AREA], each map's share for every pixel. The host
// replaces the `const` lines down to the empty one.

const MAPS = 512u;          // of all images
const AREA = 16u;

@group(0) @binding(0) var<storage, read_write> gradient: array<f32>;
@group(0) @binding(1) var<storage, read_write> input_gradient: array<f32>;

const WORKGROUP = 64u;
const WORKGROUPS = 65535u;

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3u) {
    let index = id.z * WORKGROUPS * WORKGROUP + id.x;
    if index < MAPS * AREA {
        input_gradient[index] = gradient[index / AREA] / f32(AREA);
    }
}
