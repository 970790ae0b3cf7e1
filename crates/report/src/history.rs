//! Figures of runs epoch by epoch: one run, or several overlaid.

use kiln_train::EpochMetrics;
use kiln_train::recipe::ScheduleKind;

use crate::RunRecord;
use crate::analysis::OVERFITTING_GAP;
use crate::chart::{Axis, Chart, Line, Rule, Scale};
use crate::figure::{Figure, Panel};
use crate::theme::{BLUE, RUNS, Shade, VERMILLION};
use crate::words::percent;

const SIZE: [f64; 2] = [400.0, 280.0];
/// Curves with more epochs than this have no dots.
const DOTS: usize = 40;
/// Lower learning rates are drawn at this fraction of the highest: otherwise a schedule that ends near 0 would leave no
/// room for the rest.
const LOWEST_RATE: f64 = 1e-5;

/// A value of an epoch in the unit of its chart; `None` if the epoch does not have it.
type Value = fn(&EpochMetrics) -> Option<f64>;

fn train_accuracy(epoch: &EpochMetrics) -> Option<f64> {
    Some(100.0 * epoch.train_accuracy)
}

fn validation_accuracy(epoch: &EpochMetrics) -> Option<f64> {
    epoch.validation_accuracy.map(|accuracy| 100.0 * accuracy)
}

fn gap(epoch: &EpochMetrics) -> Option<f64> {
    epoch.validation_accuracy.map(|validation| 100.0 * (epoch.train_accuracy - validation))
}

/// Points of a curve, `[epoch, value]`.
pub(crate) fn points(history: &[EpochMetrics], value: Value) -> Vec<[f64; 2]> {
    history.iter().filter_map(|epoch| Some([epoch.epoch as f64, value(epoch)?])).collect()
}

/// Four panels: loss, accuracy with the best epoch, learning rate with its drops, and the gap between training and
/// validation accuracy with the limit above which it counts as overfitting.
///
/// # Panics
///
/// Without runs.
pub fn history(runs: &[&RunRecord]) -> Figure {
    let mut caption = reading(runs);
    if runs.iter().any(|run| run.recipe.training.label_smoothing > 0.0) {
        caption +=
            " The training loss is for smoothed labels and cannot reach 0; the validation loss is for plain labels.";
    }
    let lowest = lowest_rate(runs);
    if runs.iter().flat_map(|run| &run.history).any(|epoch| epoch.learning_rate < lowest) {
        caption += " Learning rates below 1/100,000 of the highest are drawn at that value.";
    }
    let mut panels = vec![loss(runs), accuracy(runs), learning_rate(runs)];
    panels.extend(gap_panel(runs));
    Figure { name: "history", title: title("History", runs), caption, panels, columns: 2 }
}

/// Only loss and accuracy.
///
/// # Panics
///
/// Without runs.
pub fn curves(runs: &[&RunRecord]) -> Figure {
    let (title, caption) = (title("Loss and accuracy", runs), reading(runs));
    Figure { name: "curves", title, caption, panels: vec![loss(runs), accuracy(runs)], columns: 2 }
}

/// Training images per second.
///
/// # Panics
///
/// Without runs.
pub fn throughput(runs: &[&RunRecord]) -> Figure {
    let series = each(runs, |epoch| Some(epoch.images_per_second), 2.0);
    let mut chart = chart("Training images per second", "", Scale::Linear, runs, series);
    chart.y = chart.y.starting_at_zero();
    Figure {
        name: "throughput",
        title: title("Throughput", runs),
        caption: "The average of each epoch, without validation.".to_owned(),
        panels: vec![chart.draw()],
        columns: 1,
    }
}

fn title(what: &str, runs: &[&RunRecord]) -> String {
    match runs {
        [run] => format!("{what} of {}", run.name),
        _ => format!("{what} of {} runs", runs.len()),
    }
}

fn reading(runs: &[&RunRecord]) -> String {
    match runs {
        [run] if run.history.iter().all(|epoch| epoch.validation_accuracy.is_none()) => {
            "Epoch by epoch; the recipe keeps no images for validation.".to_owned()
        }
        [_] => "Epoch by epoch, on training and on validation images.".to_owned(),
        _ => "Thick lines are validation, thin lines are training, and rings mark the best epochs.".to_owned(),
    }
}

fn loss(runs: &[&RunRecord]) -> Panel {
    let mut chart = pair("Loss", "nats", runs, |epoch| Some(epoch.train_loss), |epoch| epoch.validation_loss);
    chart.y = chart.y.within(f64::INFINITY);
    chart.draw()
}

fn accuracy(runs: &[&RunRecord]) -> Panel {
    let mut chart = pair("Accuracy", "%", runs, train_accuracy, validation_accuracy);
    chart.y = chart.y.within(100.0);
    for run in runs {
        let best = run.best();
        let Some(value) = validation_accuracy(best).or(train_accuracy(best)).filter(|value| value.is_finite()) else {
            continue;
        };
        chart.marks.push([best.epoch as f64, value]);
        if runs.len() == 1 {
            chart.title = format!("Accuracy, best {} in epoch {}", percent(value / 100.0), best.epoch);
        }
    }
    chart.draw()
}

fn learning_rate(runs: &[&RunRecord]) -> Panel {
    let mut series = each(runs, |epoch| Some(epoch.learning_rate), 2.0);
    let lowest = lowest_rate(runs);
    for [_, rate] in series.iter_mut().flat_map(|line| &mut line.points) {
        // NaN stays NaN.
        if *rate < lowest {
            *rate = lowest;
        }
    }
    let mut chart = chart("Learning rate, at each epoch's last step", "", Scale::Log, runs, series);
    if let [run] = runs {
        chart.rules = drops(run).into_iter().map(|(at, text)| Rule::Vertical(at, text)).collect();
    }
    chart.draw()
}

/// The value that lower learning rates are drawn at.
fn lowest_rate(runs: &[&RunRecord]) -> f64 {
    let rates = runs.iter().flat_map(|run| &run.history).map(|epoch| epoch.learning_rate);
    LOWEST_RATE * rates.filter(|rate| rate.is_finite()).fold(0.0, f64::max)
}

/// Where a multi-step schedule lowers the rate: between which epochs, and by what factor.
fn drops(run: &RunRecord) -> Vec<(f64, String)> {
    let schedule = &run.recipe.schedule;
    if schedule.kind != ScheduleKind::MultiStep {
        return vec![];
    }
    let falls = |pair: &&[EpochMetrics]| {
        let expected = pair[0].learning_rate * schedule.gamma;
        (pair[1].learning_rate - expected).abs() < 1e-6 * expected
    };
    let drop = |pair: &[EpochMetrics]| (pair[1].epoch as f64 - 0.5, format!("× {}", schedule.gamma));
    run.history.windows(2).filter(falls).map(drop).collect()
}

/// `None` if no run has validation images.
fn gap_panel(runs: &[&RunRecord]) -> Option<Panel> {
    let series = each(runs, gap, 2.0);
    if series.iter().all(|line| line.points.is_empty()) {
        return None;
    }
    let title = "Training minus validation accuracy";
    let mut chart = chart(title, "percentage points", Scale::Linear, runs, series);
    let line = 100.0 * OVERFITTING_GAP;
    chart.y.range.start = chart.y.range.start.min(-0.5);
    chart.y.range.end = chart.y.range.end.max(2.0 * line);
    chart.rules = vec![Rule::Horizontal(line, format!("overfitting above {line} points"))];
    Some(chart.draw())
}

/// One line per run.
fn each(runs: &[&RunRecord], value: Value, width: f64) -> Vec<Line> {
    let line = |(run, color): (&&RunRecord, Shade)| Line {
        color,
        width,
        points: points(&run.history, value),
        dots: run.history.len() <= DOTS,
    };
    runs.iter().zip(RUNS.into_iter().cycle()).map(line).collect()
}

/// Training and validation of every run; colors distinguish them if there is only one run.
fn pair(title: &str, unit: &'static str, runs: &[&RunRecord], train: Value, validation: Value) -> Chart {
    let mut lines = each(runs, train, if runs.len() > 1 { 0.8 } else { 2.0 });
    lines.extend(each(runs, validation, 2.0));
    let mut chart = chart(title, unit, Scale::Linear, runs, lines);
    if let [_] = runs {
        chart.lines[1].color = VERMILLION;
        chart.legend = vec![(BLUE, "training".to_owned())];
        if !chart.lines[1].points.is_empty() {
            chart.legend.push((VERMILLION, "validation".to_owned()));
        }
    } else {
        // Figures in files have no captions.
        chart.title += " (thin lines: training)";
    }
    chart
}

fn chart(title: &str, unit: &'static str, scale: Scale, runs: &[&RunRecord], lines: Vec<Line>) -> Chart {
    let values = |axis: usize| lines.iter().flat_map(move |line| line.points.iter().map(move |point| point[axis]));
    let legend = match runs {
        [_] => vec![],
        _ => runs.iter().zip(RUNS.into_iter().cycle()).map(|(run, color)| (color, run.name.clone())).collect(),
    };
    let epochs = runs.iter().flat_map(|run| run.history.iter().map(|epoch| epoch.epoch as f64));
    Chart {
        title: title.to_owned(),
        size: SIZE,
        x: Axis::over("epoch", Scale::Whole, epochs),
        y: Axis::over(unit, scale, values(1)),
        bars: vec![],
        lines,
        rules: vec![],
        marks: vec![],
        legend,
    }
}
