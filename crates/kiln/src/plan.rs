//! How long a run is, and how long it will take.

use std::time::Duration;

use kiln_data::Dataset;
use kiln_train::recipe::{Recipe, Training};
use kiln_train::{TrainError, Trainer};

/// What a run will do, by the rate of some steps that were measured and taken back.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RunPlan {
    pub steps: usize,
    pub epochs: f64,
    pub images_per_second: f64,
    /// Of training, validation and the test at the end.
    pub seconds: f64,
}

/// Measures `trainer`, which is at its beginning and stays there, and fits its length to the budget if there is one.
pub async fn plan(trainer: &mut Trainer<'_>, data: &Dataset, budget: Option<Duration>) -> Result<RunPlan, TrainError> {
    let seconds_per_step = trainer.measure_step_seconds().await?;
    let header = trainer.header();
    // Scoring an image costs about a third of training on it.
    let steps_per_epoch = trainer.steps_per_epoch() as f64;
    let scored = (trainer.split().validation.len() / trainer.batch_size()) as f64 / 3.0;
    let tested = data.test.as_ref().map_or(0, |test| test.len() / trainer.batch_size()) as f64 / 3.0;
    let tested = tested * test_passes(&header.recipe);
    let seconds = |steps: f64| seconds_per_step * (steps * (1.0 + scored / steps_per_epoch) + tested);
    let fitted = budget.map(|budget| {
        let spent = seconds(0.0) + 2.0;
        let steps = (budget.as_secs_f64() - spent) / (seconds(1.0) - seconds(0.0));
        (steps as usize).max(1)
    });
    let steps = fitted.unwrap_or(header.total_steps);
    let plan = RunPlan {
        steps,
        epochs: steps as f64 / steps_per_epoch,
        images_per_second: trainer.batch_size() as f64 / seconds_per_step,
        seconds: seconds(steps as f64),
    };
    trainer.set_total_steps(steps);
    Ok(plan)
}

/// How often the test at the end may run over its images.
fn test_passes(recipe: &Recipe) -> f64 {
    let Training { ema_decay, flip_tta, .. } = recipe.training;
    let weights = if ema_decay > 0.0 { 3.0 } else { 2.0 };
    if flip_tta { 2.0 * weights } else { weights }
}
