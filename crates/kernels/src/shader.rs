//! Shaders specialised by their named constants, and launches of them.

use std::fmt;

/// Invocations of a workgroup, in every shader.
pub const WORKGROUP: usize = 64;
/// Workgroups along x, the most that WebGPU allows.
const ROW: usize = 65_535;

/// A file of `shaders/`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Shader {
    pub name: &'static str,
    source: &'static str,
}

/// Declares a constant for each file, and the list of them all.
macro_rules! shaders {
    ($($constant:ident = $name:literal),+ $(,)?) => {
        $(pub const $constant: Shader =
            Shader { name: $name, source: include_str!(concat!("../../../shaders/", $name, ".wgsl")) };)+

        /// Every file of `shaders/`.
        pub const ALL: &[Shader] = &[$($constant),+];
    };
}

shaders! {
    ADD_POSITION = "add_position",
    ATTENTION = "attention",
    AUGMENT = "augment",
    BATCH_NORM = "batch_norm",
    BATCH_NORM_BACKWARD = "batch_norm_backward",
    CONV2D = "conv2d",
    CONV2D_BACKWARD_WEIGHT = "conv2d_backward_weight",
    CONV2D_FUSED = "conv2d_fused",
    CONV2D_FUSED_SPLIT = "conv2d_fused_split",
    CONV2D_MATRIX = "conv2d_matrix",
    CONV2D_MATRIX_BACKWARD_WEIGHT = "conv2d_matrix_backward_weight",
    CONV2D_MATRIX_PACK = "conv2d_matrix_pack",
    CONV2D_PACK = "conv2d_pack",
    GELU = "gelu",
    GLOBAL_AVERAGE_POOL = "global_average_pool",
    GLOBAL_AVERAGE_POOL_BACKWARD = "global_average_pool_backward",
    MAX_POOL = "max_pool",
    NORM = "norm",
    PEAK = "peak",
    RESIZE_NORMALIZE = "resize_normalize",
    SUM = "sum",
}

/// The value of a constant, or the type of an alias. Floats are kept as bits, so that values can key a
/// cache.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Value {
    Type(&'static str),
    Unsigned(usize),
    Signed(i32),
    Float(u32),
    Bool(bool),
}

impl From<&'static str> for Value {
    fn from(name: &'static str) -> Self {
        Self::Type(name)
    }
}

impl From<usize> for Value {
    fn from(value: usize) -> Self {
        Self::Unsigned(value)
    }
}

impl From<i32> for Value {
    fn from(value: i32) -> Self {
        Self::Signed(value)
    }
}

impl From<f32> for Value {
    fn from(value: f32) -> Self {
        Self::Float(value.to_bits())
    }
}

impl From<bool> for Value {
    fn from(value: bool) -> Self {
        Self::Bool(value)
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Self::Type(name) => f.write_str(name),
            Self::Unsigned(value) => write!(f, "{value}u"),
            Self::Signed(value) => write!(f, "{value}i"),
            Self::Float(bits) => write!(f, "{:e}", f32::from_bits(*bits)),
            Self::Bool(value) => write!(f, "{value}"),
        }
    }
}

/// A shader with values for its constants: what a compiled pipeline is a function of.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Specialised {
    pub shader: Shader,
    constants: Vec<(&'static str, Value)>,
}

impl Shader {
    /// Whether it needs no extension, so that every WebGPU device takes it.
    pub fn is_standard(self) -> bool {
        !self.source.contains("\nenable ")
    }

    pub fn with<const N: usize>(self, constants: [(&'static str, Value); N]) -> Specialised {
        Specialised { shader: self, constants: constants.to_vec() }
    }
}

impl Specialised {
    pub fn and<const N: usize>(mut self, constants: [(&'static str, Value); N]) -> Self {
        self.constants.extend(constants);
        self
    }

    /// At least `invocations` of it.
    pub fn over(self, invocations: usize) -> Launch {
        self.on([invocations.div_ceil(WORKGROUP), 1])
    }

    /// That many workgroups of it along x and y.
    pub fn on(self, workgroups: [usize; 2]) -> Launch {
        Launch { shader: self, workgroups }
    }

    /// # Panics
    /// If the shader has no such constant: a fault of this crate, which every test of it would show.
    pub fn source(&self) -> String {
        let mut source = self.shader.source.to_owned();
        for (name, value) in &self.constants {
            let keyword = if matches!(value, Value::Type(_)) { "alias" } else { "const" };
            let declaration = format!("{keyword} {name} = ");
            let found = source.find(&declaration);
            let start =
                found.unwrap_or_else(|| panic!("{} has no constant {name}", self.shader.name)) + declaration.len();
            let len = source[start..].find(';').expect("a declaration ends");
            source.replace_range(start..start + len, &value.to_string());
        }
        // A directive comes before everything else.
        if self.constants.contains(&("Number", Value::Type("f16"))) {
            source.insert_str(0, "enable f16;\n");
        }
        source
    }
}

/// A shader, and how many of its workgroups run.
#[derive(Clone, Debug)]
pub struct Launch {
    pub shader: Specialised,
    workgroups: [usize; 2],
}

impl Launch {
    /// Workgroups along x, continued along z after the most that WebGPU allows; y; z. `None` if there is nothing to do.
    pub fn grid(&self) -> Option<[u32; 3]> {
        let [x, y] = self.workgroups;
        (x * y > 0).then(|| [x.min(ROW) as u32, y as u32, x.div_ceil(ROW) as u32])
    }
}

#[cfg(test)]
mod tests {
    use naga::valid::Capabilities;

    use super::*;
    use crate::conv2d::matrix::MatrixUnits;

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

    fn assert_valid(shader: &Specialised) {
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

    #[test]
    fn every_file_is_listed() {
        let folder = std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/../../shaders")).unwrap();
        let names = folder.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut files: Vec<_> = names.filter_map(|name| Some(name.strip_suffix(".wgsl")?.to_owned())).collect();
        files.sort();
        assert_eq!(files, ALL.iter().map(|shader| shader.name).collect::<Vec<_>>());
    }

    #[test]
    fn a_long_row_of_workgroups_goes_on_along_z() {
        let grid = |workgroups| SUM.with([]).on(workgroups).grid();
        assert_eq!(grid([65_535, 2]), Some([65_535, 2, 1]));
        assert_eq!(grid([65_536, 1]), Some([65_535, 1, 2]));
        assert_eq!(grid([0, 3]), None);
        assert_eq!(SUM.with([]).over(65).grid(), Some([2, 1, 1]));
    }

    #[test]
    fn constants_are_replaced_by_name() {
        let source = MAX_POOL.with([("KERNEL", 5_usize.into()), ("RELU", true.into())]).source();
        assert!(source.contains("const KERNEL = 5u;") && source.contains("const RELU = true;"));
        assert!(source.contains("const STRIDE = 2u;"), "the others stay");
        let source = MAX_POOL.with([("Number", "f16".into())]).source();
        assert!(source.starts_with("enable f16;") && source.contains("alias Number = f16;"), "{source}");
        let source = NORM.with([("EPSILON", 1e-5_f32.into())]).source();
        assert!(source.contains("const EPSILON = 1e-5;"), "{source}");
    }
}
