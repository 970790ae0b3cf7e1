//! Every form of every shader is valid WGSL.

use kiln_infer::conv2d::matrix::MatrixUnits;
use kiln_infer::shader::{ALL, Specialized};
use naga::valid::Capabilities;

#[test]
fn every_form_of_every_shader_is_valid() {
    for shader in ALL {
        assert_valid(&shader.with([]));
        if shader.source.contains("alias Number") {
            assert_valid(&shader.with([("Number", "f16".into())]));
        }
        if shader.source.contains("alias Left") {
            assert_valid(&shader.with(MatrixUnits::Side8.constants()));
        }
    }
}

fn assert_valid(shader: &Specialized) {
    let (name, source) = (shader.shader.name, shader.source());
    let module = naga::front::wgsl::parse_str(&source)
        .unwrap_or_else(|error| panic!("{name}: {}", error.emit_to_string(&source)));
    let mut capabilities = Capabilities::empty();
    capabilities.set(Capabilities::SHADER_FLOAT16, source.contains("enable f16;"));
    capabilities.set(Capabilities::SUBGROUP | Capabilities::COOPERATIVE_MATRIX, !shader.shader.is_standard());
    let mut validator = naga::valid::Validator::new(naga::valid::ValidationFlags::all(), capabilities);
    let valid = validator.subgroup_stages(naga::valid::ShaderStages::COMPUTE).validate(&module);
    valid.unwrap_or_else(|error| panic!("{name}: {error:?}"));
}
