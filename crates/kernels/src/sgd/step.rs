//! What a step is given.

/// How a step goes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SgdStep {
    /// Learning rate.
    pub lr: f64,
    pub momentum: f64,
    /// Coupled: added to the gradient times the weights.
    pub weight_decay: f64,
    pub nesterov: bool,
}
