// The most multiply-adds that a device does: sums that wait for nothing but themselves, and no memory to
// speak of. The host replaces the `const` lines down to the empty one.

const ROUNDS = 1024u;

// What each round multiplies with and adds.
@group(0) @binding(0) var<storage, read_write> factors: array<vec4f, 2>;
@group(0) @binding(1) var<storage, read_write> output: array<f32>;

const WORKGROUP = 64u;
const WORKGROUPS = 65535u;

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3u) {
    let index = id.z * WORKGROUPS * WORKGROUP + id.x;
    let scale = factors[0];
    let shift = factors[1];
    // Different everywhere, so that no compiler makes one of them all.
    var a = vec4f(f32(index)) + shift;
    var b = a + 1.0;
    var c = a + 2.0;
    for (var round = 0u; round < ROUNDS; round++) {
        a = fma(a, scale, shift);
        b = fma(b, scale, shift);
        c = fma(c, scale, shift);
    }
    output[index] = dot(a + b + c, vec4f(1.0));
}
