//! A learning-rate range test (Smith 2015, <https://arxiv.org/abs/1506.01186>): the rate grows from step to step,
//! and the loss shows where learning starts and where it breaks.

#[cfg(feature = "burn")]
pub use range_test::RangeTest;
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

#[cfg(feature = "burn")]
mod range_test {
    use super::{LrFind, LrPoint};
    use crate::{TrainError, Trainer};

    /// How the rate grows.
    #[derive(Clone, Copy, Debug, PartialEq)]
    pub struct RangeTest {
        /// Rate of the first step and of the last; each step multiplies it by the same factor.
        pub start: f64,
        pub end: f64,
        /// 2 or more.
        pub steps: usize,
    }

    /// Weight of the past in the smoothed loss.
    const SMOOTHING: f64 = 0.9;
    /// The test ends when the smoothed loss is so many times its least.
    const DIVERGED: f64 = 4.0;

    impl RangeTest {
        /// Trains `trainer`, which is of no use afterwards, until the last rate, until the loss diverges, or until
        /// `stop` says so.
        ///
        /// # Errors
        /// If an image cannot be read any more.
        pub async fn run(
            &self,
            trainer: &mut Trainer<'_>,
            stop: &mut dyn FnMut() -> bool,
        ) -> Result<LrFind, TrainError> {
            let mut points: Vec<LrPoint> = vec![];
            let (mut average, mut least) = (0.0, f64::INFINITY);
            for step in 0..self.steps {
                if stop() {
                    break;
                }
                let learning_rate = self.rate(step);
                let loss = trainer.step_at(learning_rate).await?;
                average = SMOOTHING * average + (1.0 - SMOOTHING) * loss;
                let smoothed = average / (1.0 - SMOOTHING.powi(step as i32 + 1));
                if !smoothed.is_finite() {
                    break;
                }
                least = least.min(smoothed);
                points.push(LrPoint { learning_rate, loss, smoothed });
                if smoothed > DIVERGED * least {
                    break;
                }
            }
            Ok(LrFind::of(points))
        }

        fn rate(&self, step: usize) -> f64 {
            let progress = step as f64 / (self.steps - 1).max(1) as f64;
            self.start * (self.end / self.start).powf(progress)
        }
    }

    impl LrFind {
        fn of(points: Vec<LrPoint>) -> Self {
            let lowest =
                (0..points.len()).min_by(|a, b| points[*a].smoothed.total_cmp(&points[*b].smoothed)).unwrap_or(0);
            // Before the minimum: beyond it, the curve may well fall again on its way to diverging.
            let slope = |at: usize| {
                let (before, after) = (&points[at - 1], &points[at + 1]);
                (after.smoothed - before.smoothed) / (after.learning_rate / before.learning_rate).ln()
            };
            let steepest = (1..lowest).min_by(|a, b| slope(*a).total_cmp(&slope(*b)));
            Self {
                steepest: steepest.filter(|&at| slope(at) < 0.0).map(|at| points[at].learning_rate),
                tenth_of_minimum: (lowest > 0).then(|| points[lowest].learning_rate / 10.0),
                points,
            }
        }
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        fn curve(smoothed: &[f64]) -> LrFind {
            let point = |(step, &smoothed): (usize, &f64)| LrPoint {
                learning_rate: 10_f64.powi(step as i32 - 4),
                loss: smoothed,
                smoothed,
            };
            LrFind::of(smoothed.iter().enumerate().map(point).collect())
        }

        #[test]
        fn the_steepest_descent_and_a_tenth_of_the_minimum_are_suggested() {
            let found = curve(&[2.3, 2.3, 2.2, 1.6, 1.2, 1.1, 3.0]);
            let close = |found: Option<f64>, expected: f64| (found.unwrap() / expected - 1.0).abs() < 1e-9;
            assert!(close(found.steepest, 1e-1), "{:?}", found.steepest);
            assert!(close(found.tenth_of_minimum, 1.0), "{:?}", found.tenth_of_minimum);
        }

        #[test]
        fn a_loss_that_only_grows_suggests_nothing() {
            for losses in [&[1.0, 2.0, 3.0][..], &[1.0], &[]] {
                let found = curve(losses);
                assert_eq!((found.steepest, found.tenth_of_minimum), (None, None));
            }
        }

        #[test]
        fn rates_grow_by_one_factor_from_the_first_to_the_last() {
            let rates = [0, 1, 2, 3].map(|step| RangeTest { start: 1e-2, end: 10.0, steps: 4 }.rate(step));
            for (rate, expected) in rates.into_iter().zip([1e-2, 1e-1, 1.0, 10.0]) {
                assert!((rate / expected - 1.0).abs() < 1e-9, "{rates:?}");
            }
        }
    }
}
