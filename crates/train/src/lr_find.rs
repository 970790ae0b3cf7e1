//! What a learning-rate range test finds.

use serde::{Deserialize, Serialize};

/// The curve of a range test, and what follows from it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LrFind {
    /// In the order of the rate.
    pub points: Vec<LrPoint>,
    /// Rate at which the smoothed loss falls fastest by the rate's logarithm; `None` if it never falls.
    pub steepest: Option<f64>,
    /// A tenth of the rate at which the smoothed loss is least; `None` if it never falls.
    pub tenth_of_minimum: Option<f64>,
}

/// One step of a range test.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct LrPoint {
    pub learning_rate: f64,
    /// Of the step's batch, before its update, in nats.
    pub loss: f64,
    /// Moving average of the losses up to here, without the bias of its start.
    pub smoothed: f64,
}
