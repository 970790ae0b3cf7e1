//! How long a run is, and how long it will take.

use std::cell::Cell;
use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Context, Result};
use kiln_data::Dataset;
use kiln_infer::Precision;
use kiln_kernels::device::{OperatorPath, SelectedDevice};
use kiln_model::Bundle;
use kiln_report::duration;
use kiln_train::recipe::{Model, Training};
use kiln_train::{Event, Recipe, TrainError, Trainer};
use serde_json::json;

use super::screen::Screen;
use crate::args::TrainArgs;

/// A new run, its length fitted to the budget if there is one.
pub fn start<'a>(
    recipe: Recipe,
    args: &TrainArgs,
    initial: Option<&(PathBuf, Bundle)>,
    data: &'a Dataset,
    chosen: &SelectedDevice,
    screen: &Screen,
) -> Result<Trainer<'a>> {
    let mut trial = untrained(recipe.clone(), initial, data, None, chosen)?;
    if let Some((path, bundle)) = initial {
        let same_classes = bundle.metadata.classes == data.classes;
        screen.say(json!({"event": "init", "bundle": path, "same_classes": same_classes}), || {
            let head = if same_classes { "" } else { ", with a new head for other classes" };
            format!("init     weights of {}{head}", path.display())
        });
    }
    let seconds_per_step = step_seconds(&mut trial)?;
    let header = trial.header();
    // Scoring an image costs about a third of training on it.
    let steps_per_epoch = trial.steps_per_epoch() as f64;
    let scored = (trial.split().validation.len() / trial.batch_size()) as f64 / 3.0;
    let tested = data.test.as_ref().map_or(0, |test| test.len() / trial.batch_size()) as f64 / 3.0;
    let tested = tested * test_passes(&recipe);
    let seconds = |steps: f64| seconds_per_step * (steps * (1.0 + scored / steps_per_epoch) + tested);
    let total_steps = args.budget.map(|budget| {
        let spent = seconds(0.0) + 2.0;
        let steps = (budget.0.as_secs_f64() - spent) / (seconds(1.0) - seconds(0.0));
        (steps as usize).max(1)
    });
    let steps = total_steps.unwrap_or(header.total_steps);
    let (rate, minutes) = (trial.batch_size() as f64 / seconds_per_step, seconds(steps as f64) / 60.0);
    let epochs = steps as f64 / steps_per_epoch;
    screen.say(
        json!({"event": "plan", "steps": steps, "epochs": epochs, "images_per_second": rate, "minutes": minutes}),
        || {
            let other = if recipe.name == "quick" { "resnet18" } else { "quick" };
            let choice = if args.recipe.is_some() {
                "as asked".to_owned()
            } else {
                format!("the default here; --recipe {other} for the other")
            };
            format!(
                "recipe   {} ({choice})\nplan     {epochs:.1} epochs, {steps} steps at about {rate:.0} images/s: {}{}",
                recipe.name,
                duration(minutes * 60.0),
                faster(&recipe, chosen)
            )
        },
    );
    untrained(recipe, initial, data, Some(steps), chosen)
}

/// What would make the run much faster on this machine.
fn faster(recipe: &Recipe, chosen: &SelectedDevice) -> &'static str {
    let on_cpu = OperatorPath::of(&chosen.device) == OperatorPath::Cpu;
    let in_f32 = recipe.training.precision == Precision::F32 && matches!(recipe.model, Model::ResNet(_));
    if on_cpu && in_f32 && Precision::Bf16.unit_of_cpu() == Some("AMX") {
        "\n         much faster in bf16, by this CPU's AMX: --set training.precision=bf16"
    } else {
        ""
    }
}

/// A run at its beginning, with the weights of `initial` if there are any.
fn untrained<'a>(
    recipe: Recipe,
    initial: Option<&(PathBuf, Bundle)>,
    data: &'a Dataset,
    total_steps: Option<usize>,
    chosen: &SelectedDevice,
) -> Result<Trainer<'a>> {
    let trainer = Trainer::new(recipe, data, total_steps, &chosen.device)?;
    let Some((path, Bundle { metadata, state })) = initial else { return Ok(trainer) };
    trainer.with_weights(state.clone(), metadata.classes == data.classes).with_context(|| {
        let architecture = &metadata.architecture;
        format!(
            "cannot start with the weights of {}, a {architecture}: give the recipe the same network, such as \
             --set model.width={}",
            path.display(),
            architecture.width()
        )
    })
}

/// What a step takes by the second half of some seconds' trial: the first steps compile and allocate, and those after them still
/// meet memory for the first time. Of a run of one step, all of it. The trial's weights are thrown away.
fn step_seconds(trial: &mut Trainer) -> Result<f64, TrainError> {
    const MOST_STEPS: usize = 64;
    const LONGEST: f64 = 3.0;
    let started = Instant::now();
    let mut ends = vec![];
    let enough = Cell::new(false);
    trial.run(&mut || enough.get(), &mut |event| {
        match event {
            Event::Step { .. } | Event::Skipped(_) => ends.push(started.elapsed().as_secs_f64()),
            Event::Epoch { .. } => enough.set(true),
        }
        let is_long = ends.len() > 2 && started.elapsed().as_secs_f64() > LONGEST;
        enough.set(enough.get() || ends.len() == MOST_STEPS || is_long);
        Ok(())
    })?;
    let half = ends.len() / 2;
    Ok(match ends[half..] {
        [.., last] if half > 0 => (last - ends[half - 1]) / (ends.len() - half) as f64,
        _ => started.elapsed().as_secs_f64() / ends.len().max(1) as f64,
    })
}

/// How often the test at the end may run over its images.
fn test_passes(recipe: &Recipe) -> f64 {
    let Training { ema_decay, flip_tta, .. } = recipe.training;
    let weights = if ema_decay > 0.0 { 3.0 } else { 2.0 };
    if flip_tta { 2.0 * weights } else { weights }
}
