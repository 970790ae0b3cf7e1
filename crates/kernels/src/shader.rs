//! Shaders specialised by their named constants.

use std::fmt;

/// A file of `shaders/`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Shader {
    pub name: &'static str,
    source: &'static str,
}

macro_rules! shader {
    ($name:literal) => {
        Shader { name: $name, source: include_str!(concat!("../../../shaders/", $name, ".wgsl")) }
    };
}

#[cfg(feature = "burn")]
pub const BATCH_NORM: Shader = shader!("batch_norm");
#[cfg(feature = "burn")]
pub const BATCH_NORM_BACKWARD: Shader = shader!("batch_norm_backward");
#[cfg(feature = "burn")]
pub const CONV2D: Shader = shader!("conv2d");
#[cfg(feature = "burn")]
pub const CONV2D_BACKWARD_WEIGHT: Shader = shader!("conv2d_backward_weight");
pub const CONV2D_FUSED: Shader = shader!("conv2d_fused");
pub const CONV2D_FUSED_SPLIT: Shader = shader!("conv2d_fused_split");
#[cfg(feature = "burn")]
pub const CONV2D_PACK: Shader = shader!("conv2d_pack");
pub const GROUP_NORM: Shader = shader!("group_norm");
pub const MAX_POOL: Shader = shader!("max_pool");
#[cfg(feature = "burn")]
pub const SUM: Shader = shader!("sum");

/// The value of a constant. Floats are kept as bits, so that values can key a cache.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Value {
    Unsigned(usize),
    Signed(i32),
    Float(u32),
    Bool(bool),
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
    pub fn with<const N: usize>(self, constants: [(&'static str, Value); N]) -> Specialised {
        Specialised { shader: self, constants: constants.to_vec() }
    }
}

impl Specialised {
    pub fn and<const N: usize>(mut self, constants: [(&'static str, Value); N]) -> Self {
        self.constants.extend(constants);
        self
    }

    /// # Panics
    /// If the shader has no such constant: a fault of this crate, which every test of it would show.
    pub fn source(&self) -> String {
        let mut source = self.shader.source.to_owned();
        for (name, value) in &self.constants {
            let declaration = format!("const {name} = ");
            let found = source.find(&declaration);
            let start =
                found.unwrap_or_else(|| panic!("{} has no constant {name}", self.shader.name)) + declaration.len();
            let len = source[start..].find(';').expect("a declaration ends");
            source.replace_range(start..start + len, &value.to_string());
        }
        source
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_shader_is_valid_as_it_stands() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../shaders");
        let mut checked = 0;
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_none_or(|extension| extension != "wgsl") {
                continue;
            }
            let source = std::fs::read_to_string(&path).unwrap();
            let module = naga::front::wgsl::parse_str(&source)
                .unwrap_or_else(|error| panic!("{}: {}", path.display(), error.emit_to_string(&source)));
            let (flags, capabilities) = (naga::valid::ValidationFlags::all(), naga::valid::Capabilities::empty());
            let valid = naga::valid::Validator::new(flags, capabilities).validate(&module);
            valid.unwrap_or_else(|error| panic!("{}: {error:?}", path.display()));
            checked += 1;
        }
        assert!(checked >= 10);
    }

    #[test]
    fn constants_are_replaced_by_name() {
        let source = MAX_POOL.with([("KERNEL", 5_usize.into()), ("RELU", true.into())]).source();
        assert!(source.contains("const KERNEL = 5u;") && source.contains("const RELU = true;"));
        assert!(source.contains("const STRIDE = 2u;"), "the others stay");
        let source = GROUP_NORM.with([("EPSILON", 1e-5_f32.into())]).source();
        assert!(source.contains("const EPSILON = 1e-5;"), "{source}");
    }
}
