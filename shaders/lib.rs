//! Kiln's WGSL shaders.
//!
//! This folder is a crate of its own so that the files stay where a reader looks for them, at the top of the
//! repository, and still lie inside the package that includes them, as publishing requires. A host replaces the named
//! constants of a [`Shader`] by a network's sizes ([`Shader::with`]) and compiles what [`Specialized::source`] gives.

mod specialized;

pub use specialized::{Constant, Launch, Specialized, WORKGROUP};

/// One WGSL file of this folder.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Shader {
    /// File name without `.wgsl`.
    pub name: &'static str,
    /// The file, which is valid WGSL without any change.
    pub source: &'static str,
}

/// Declares a constant for each file, and the list of them all.
macro_rules! shaders {
    ($($constant:ident = $name:literal),+ $(,)?) => {
        $(
            #[doc = concat!("`", $name, ".wgsl`")]
            pub const $constant: Shader = Shader { name: $name, source: include_str!(concat!($name, ".wgsl")) };
        )+

        /// Every file of this folder.
        pub const ALL: &[Shader] = &[$($constant),+];
    };
}

shaders! {
    ADD_POSITION = "add_position",
    ATTENTION = "attention",
    BATCH_NORM = "batch_norm",
    BATCH_NORM_BACKWARD = "batch_norm_backward",
    BATCH_NORM_SCALES = "batch_norm_scales",
    CONV2D = "conv2d",
    CONV2D_BACKWARD_WEIGHT = "conv2d_backward_weight",
    CONV2D_BACKWARD_WEIGHT_TILED = "conv2d_backward_weight_tiled",
    CONV2D_FUSED = "conv2d_fused",
    CONV2D_FUSED_SPLIT = "conv2d_fused_split",
    CONV2D_MATRIX = "conv2d_matrix",
    CONV2D_MATRIX_BACKWARD_WEIGHT = "conv2d_matrix_backward_weight",
    CONV2D_MATRIX_PACK = "conv2d_matrix_pack",
    CONV2D_PACK = "conv2d_pack",
    CONV2D_TILED = "conv2d_tiled",
    GELU = "gelu",
    GLOBAL_AVERAGE_POOL = "global_average_pool",
    GLOBAL_AVERAGE_POOL_BACKWARD = "global_average_pool_backward",
    MAX_POOL = "max_pool",
    NORM = "norm",
    PEAK = "peak",
    SUM = "sum",
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_file_is_listed() {
        let folder = std::fs::read_dir(env!("CARGO_MANIFEST_DIR")).unwrap();
        let names = folder.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut files: Vec<_> = names.filter_map(|name| Some(name.strip_suffix(".wgsl")?.to_owned())).collect();
        files.sort();
        assert_eq!(files, ALL.iter().map(|shader| shader.name).collect::<Vec<_>>());
    }
}
