//! Steps that are left out, and the learning rate after them.

use serde::{Deserialize, Serialize};

/// Steps in a row whose loss or gradient is not finite after which a run ends: each of them halves the learning rate.
pub const MAX_SKIPPED: usize = 10;
/// Good steps after which a halving is taken back.
#[cfg(feature = "burn")]
const GOOD_STEPS: usize = 100;

/// What became of steps whose loss or gradient was not finite.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recovery {
    /// Left out since the start of the run.
    pub skipped: usize,
    /// The last ones, without a good one among them.
    pub in_a_row: usize,
    /// How often the learning rate is halved at present.
    pub halvings: i32,
    /// Good steps since the last change of `halvings`.
    pub good: usize,
}

#[cfg(feature = "burn")]
impl Recovery {
    pub(crate) fn skip(&mut self) {
        *self = Self { skipped: self.skipped + 1, in_a_row: self.in_a_row + 1, halvings: self.halvings + 1, good: 0 };
    }

    pub(crate) fn good_step(&mut self) {
        self.in_a_row = 0;
        self.good += 1;
        if self.good == GOOD_STEPS {
            self.halvings = (self.halvings - 1).max(0);
            self.good = 0;
        }
    }
}

#[cfg(all(test, feature = "burn"))]
mod tests {
    use super::*;

    #[test]
    fn halvings_are_taken_back() {
        let mut recovery = Recovery::default();
        recovery.skip();
        recovery.skip();
        for (steps, halvings) in [(GOOD_STEPS - 1, 2), (1, 1), (GOOD_STEPS, 0), (GOOD_STEPS, 0)] {
            (0..steps).for_each(|_| recovery.good_step());
            assert_eq!(recovery.halvings, halvings);
        }
        assert_eq!((recovery.skipped, recovery.in_a_row), (2, 0));
    }
}
