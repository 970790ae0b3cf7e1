// The most multiply-adds that a device does: twelve sums that wait for nothing but themselves, and no
// memory to speak of. The host replaces the `const` lines down to the empty one.

const ROUNDS = 1024u;       // a multiple of eight

// What each round multiplies with and adds.
@group(0) @binding(0) var<storage, read_write> factors: array<vec4f, 2>;
@group(0) @binding(1) var<storage, read_write> output: array<f32>;

const WORKGROUP = 64u;
const WORKGROUPS = 65535u;

fn one(sums: mat3x4f, scale: vec4f, shift: vec4f) -> mat3x4f {
    return mat3x4f(fma(sums[0], scale, shift), fma(sums[1], scale, shift), fma(sums[2], scale, shift));
}

fn two(sums: mat3x4f, scale: vec4f, shift: vec4f) -> mat3x4f {
    return one(one(sums, scale, shift), scale, shift);
}

fn four(sums: mat3x4f, scale: vec4f, shift: vec4f) -> mat3x4f {
    return two(two(sums, scale, shift), scale, shift);
}

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3u) {
    let index = id.z * WORKGROUPS * WORKGROUP + id.x;
    let scale = factors[0];
    let shift = factors[1];
    // Different everywhere, so that no compiler makes one of them all.
    let first = vec4f(f32(index)) + shift;
    var sums = mat3x4f(first, first + 1.0, first + 2.0);
    // Eight at a time: a loop's own work would count.
    for (var round = 0u; round < ROUNDS; round += 8u) {
        sums = four(four(sums, scale, shift), scale, shift);
    }
    output[index] = dot(sums[0] + sums[1] + sums[2], vec4f(1.0));
}
