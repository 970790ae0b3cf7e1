//! Shaders specialized by their named constants, and launches of them.

use std::fmt;

use crate::Shader;

/// Invocations of a workgroup, in every shader.
pub const WORKGROUP: usize = 64;
/// Workgroups along x, the most that WebGPU allows.
const ROW: usize = 65_535;

/// The value of a constant, or the type of an alias. Floats are kept as bits, so that values can key a
/// cache.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Constant {
    Type(&'static str),
    Unsigned(usize),
    Signed(i32),
    Float(u32),
    Bool(bool),
}

impl From<&'static str> for Constant {
    fn from(name: &'static str) -> Self {
        Self::Type(name)
    }
}

impl From<usize> for Constant {
    fn from(value: usize) -> Self {
        Self::Unsigned(value)
    }
}

impl From<i32> for Constant {
    fn from(value: i32) -> Self {
        Self::Signed(value)
    }
}

impl From<f32> for Constant {
    fn from(value: f32) -> Self {
        Self::Float(value.to_bits())
    }
}

impl From<bool> for Constant {
    fn from(value: bool) -> Self {
        Self::Bool(value)
    }
}

impl fmt::Display for Constant {
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
pub struct Specialized {
    pub shader: Shader,
    constants: Vec<(&'static str, Constant)>,
}

impl Shader {
    /// Whether it needs no extension, so that every WebGPU device takes it.
    pub fn is_standard(self) -> bool {
        !self.source.contains("\nenable ")
    }

    /// The shader with these values for its constants.
    pub fn with<const N: usize>(self, constants: [(&'static str, Constant); N]) -> Specialized {
        Specialized { shader: self, constants: constants.to_vec() }
    }
}

impl Specialized {
    pub fn and<const N: usize>(mut self, constants: [(&'static str, Constant); N]) -> Self {
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
            let keyword = if matches!(value, Constant::Type(_)) { "alias" } else { "const" };
            let declaration = format!("{keyword} {name} = ");
            let found = source.find(&declaration);
            let start =
                found.unwrap_or_else(|| panic!("{} has no constant {name}", self.shader.name)) + declaration.len();
            let len = source[start..].find(';').expect("a declaration ends");
            source.replace_range(start..start + len, &value.to_string());
        }
        // A directive comes before everything else.
        if self.constants.contains(&("Number", Constant::Type("f16"))) {
            source.insert_str(0, "enable f16;\n");
        }
        source
    }
}

/// A shader, and how many of its workgroups run.
#[derive(Clone, Debug)]
pub struct Launch {
    pub shader: Specialized,
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
    use crate::{MAX_POOL, NORM, SUM};

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
