//! Parameters and running statistics by torchvision name, on the host.

use std::collections::BTreeMap;

/// Tensors by name, as a PyTorch state dict has them.
pub type StateDict = BTreeMap<String, StateTensor>;

/// One tensor of a [`StateDict`].
#[derive(Clone, Debug, PartialEq)]
pub struct StateTensor {
    pub shape: Vec<usize>,
    /// In row-major order, as many as the shape says.
    pub values: Vec<f32>,
}

/// A state dict that does not fit the network.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum StateError {
    #[error("the weights lack {}: they belong to another architecture", list(.0))]
    Missing(Vec<String>),
    #[error("the weights hold {}, which the network lacks: they belong to another architecture", list(.0))]
    Unexpected(Vec<String>),
    #[error(
        "'{name}' has shape {found:?} where the network has {expected:?}: the weights belong to another architecture"
    )]
    Shape { name: String, expected: Vec<usize>, found: Vec<usize> },
}

/// The first names of a list that may be long.
fn list(names: &[String]) -> String {
    let shown: Vec<_> = names.iter().take(3).map(|name| format!("'{name}'")).collect();
    match names.len() {
        0..=3 => shown.join(", "),
        more => format!("{} and {} more", shown.join(", "), more - 3),
    }
}
