//! Comparison of runs.

use std::collections::BTreeSet;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use kiln_train::{EvaluationReport, Interval};
use maud::{Markup, html};
use serde::Serialize;

use crate::chart::{Axis, Chart, Line, Rule, Scale};
use crate::figure::Figure;
use crate::page::{document, shown};
use crate::quality::{Series, class_bars, confusions};
use crate::theme::RUNS;
use crate::words::{duration, percent, points};
use crate::{RunRecord, history};

/// How runs differ, and their results.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Comparison {
    pub runs: Vec<Row>,
    /// Fields of the recipe that differ between the runs.
    pub differences: Vec<RunDifference>,
}

/// The results of one run.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Row {
    pub run: String,
    pub epochs: usize,
    pub best_epoch: usize,
    /// Validation accuracy of the best epoch, 0..1; `None` if the recipe keeps no images for validation.
    pub validation_accuracy: Option<f64>,
    /// Time of training and validation.
    pub seconds: f64,
    /// `None` if the run was not evaluated.
    pub evaluation: Option<Scores>,
}

/// The headline metrics of a run's `evaluation.json`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Scores {
    pub dataset: String,
    pub split: String,
    pub samples: usize,
    /// 0..1
    pub accuracy: f64,
    pub accuracy_interval: Interval,
    /// Mean cross-entropy in nats.
    pub loss: f64,
    pub loss_interval: Interval,
    /// Mean over the classes, 0..1.
    pub f1: f64,
    pub expected_calibration_error: f64,
}

/// A field of the recipe, and its value in every run.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RunDifference {
    pub key: String,
    pub values: Vec<String>,
}

impl From<&EvaluationReport> for Scores {
    fn from(EvaluationReport { dataset, split, metrics, intervals, .. }: &EvaluationReport) -> Self {
        Self {
            dataset: dataset.clone(),
            split: split.clone(),
            samples: metrics.samples,
            accuracy: metrics.accuracy,
            accuracy_interval: intervals.accuracy,
            loss: metrics.loss,
            loss_interval: intervals.loss,
            f1: metrics.macro_average.f1,
            expected_calibration_error: metrics.calibration.expected_calibration_error,
        }
    }
}

impl Comparison {
    pub fn of(runs: &[&RunRecord]) -> Self {
        let row = |run: &&RunRecord| Row {
            run: run.name.clone(),
            epochs: run.history.len(),
            best_epoch: run.best().epoch,
            validation_accuracy: run.best().validation_accuracy,
            seconds: run.history[run.history.len() - 1].seconds,
            evaluation: run.evaluation.as_ref().map(Scores::from),
        };
        let recipes: Vec<Vec<(String, String)>> = runs.iter().map(|run| run.recipe.entries()).collect();
        let fields = recipes.first().map_or(0, Vec::len);
        let difference = |field: usize| {
            let values: Vec<String> = recipes.iter().map(|recipe| recipe[field].1.clone()).collect();
            let differs = values.iter().any(|value| *value != values[0]);
            differs.then(|| RunDifference { key: recipes[0][field].0.clone(), values })
        };
        Self { runs: runs.iter().map(row).collect(), differences: (0..fields).filter_map(difference).collect() }
    }

    /// Both tables as text for a terminal.
    pub fn text(&self) -> String {
        let scores = self.runs.iter().map(|row| row.cells().map(|(text, _)| text).to_vec());
        let text = aligned(&[vec![HEADINGS.map(str::to_owned).to_vec()], scores.collect()].concat());
        match self.differences[..] {
            [] => format!("{text}\n{SAME_RECIPES}\n"),
            _ => format!("{text}\n{}", aligned(&self.recipes())),
        }
    }

    /// The differing fields of the recipes, after a line with the runs' names.
    fn recipes(&self) -> Vec<Vec<String>> {
        let names = self.runs.iter().map(|row| row.run.clone()).collect();
        let mut rows = vec![[vec!["recipe".to_owned()], names].concat()];
        rows.extend(self.differences.iter().map(|found| [vec![found.key.clone()], found.values.clone()].concat()));
        rows
    }

    /// Both tables as HTML.
    fn tables(&self) -> Markup {
        let recipes = self.recipes();
        let number = |column: usize| (column > 0).then_some("number");
        html! {
            div.scroll tabindex="0" { table.sortable {
                thead { tr { @for (column, heading) in HEADINGS.iter().enumerate() {
                    th class=[number(column)] { (heading) }
                } } }
                tbody { @for row in &self.runs { tr {
                    @for (column, (text, value)) in row.cells().into_iter().enumerate() {
                        td class=[number(column)] data-value=[value] { (text) }
                    }
                } } }
            } }
            @if self.differences.is_empty() {
                p { (SAME_RECIPES) }
            } @else {
                div.scroll tabindex="0" { table {
                    thead { tr { @for (column, name) in recipes[0].iter().enumerate() {
                        th class=[number(column)] { (name) }
                    } } }
                    tbody { @for row in &recipes[1..] { tr {
                        @for (column, text) in row.iter().enumerate() { td class=[number(column)] { (text) } }
                    } } }
                } }
            }
        }
    }

    /// Why the scores cannot be compared, or `None` if they can.
    pub fn caveat(&self) -> Option<String> {
        let missing: Vec<&str> =
            self.runs.iter().filter(|row| row.evaluation.is_none()).map(|row| row.run.as_str()).collect();
        if !missing.is_empty() {
            return Some(format!("not evaluated: {}", missing.join(", ")));
        }
        let scored = self.runs.iter().filter_map(|row| row.evaluation.as_ref());
        let sets: BTreeSet<_> = scored.map(|scores| (&scores.dataset, &scores.split, scores.samples)).collect();
        (sets.len() > 1).then(|| {
            let sets: Vec<String> = sets
                .iter()
                .map(|(dataset, split, samples)| format!("{samples} images of {dataset} ({split})"))
                .collect();
            format!("the scores are not comparable because they are of different images: {}", sets.join(", "))
        })
    }
}

const HEADINGS: [&str; 9] =
    ["run", "test accuracy", "interval", "loss", "ECE", "F1", "validation", "best epoch", "time"];
const SAME_RECIPES: &str = "The recipes are identical.";

impl Row {
    /// The text under each heading, and the number to sort by.
    fn cells(&self) -> [(String, Option<f64>); 9] {
        let scores = self.evaluation.as_ref();
        let cell = |value: Option<f64>, text: fn(f64) -> String| match value {
            Some(value) if value.is_finite() => (text(value), Some(value)),
            _ => ("-".to_owned(), None),
        };
        let number = |value: fn(&Scores) -> f64| cell(scores.map(value), |value| format!("{value:.4}"));
        let interval = scores.map(|Scores { accuracy_interval: Interval { low, high }, .. }| {
            (format!("{:.2} to {:.2}", 100.0 * low, 100.0 * high), Some(*low))
        });
        [
            (self.run.clone(), None),
            cell(scores.map(|scores| scores.accuracy), percent),
            interval.unwrap_or_else(|| ("-".to_owned(), None)),
            number(|scores| scores.loss),
            number(|scores| scores.expected_calibration_error),
            number(|scores| scores.f1),
            cell(self.validation_accuracy, percent),
            (format!("{} of {}", self.best_epoch, self.epochs), Some(self.best_epoch as f64)),
            cell(Some(self.seconds), duration),
        ]
    }
}

/// A table with columns as wide as their widest entry. The first column is left-aligned, the others right-aligned.
fn aligned(rows: &[Vec<String>]) -> String {
    let length = |text: &String| text.chars().count();
    let widths: Vec<usize> =
        (0..rows[0].len()).map(|column| rows.iter().map(|row| length(&row[column])).max().unwrap_or(0)).collect();
    let line = |row: &Vec<String>| {
        let cells = row.iter().zip(&widths).enumerate();
        let cells = cells.map(|(column, (text, width))| match column {
            0 => format!("{text:<width$}"),
            _ => format!("{text:>width$}"),
        });
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned() + "\n"
    };
    rows.iter().map(line).collect()
}

/// Figures of several runs: their curves, and, for those that were evaluated, confusion matrices, reliability and
/// scores by class.
///
/// # Panics
///
/// Without runs.
pub fn figures(runs: &[&RunRecord]) -> Vec<Figure> {
    let mut figures = vec![history::history(runs), history::curves(runs), history::throughput(runs)];
    let scored: Vec<(&str, &EvaluationReport)> =
        runs.iter().filter_map(|run| Some((run.name.as_str(), run.evaluation.as_ref()?))).collect();
    if scored.len() > 1 {
        figures.push(confusions(&scored));
        figures.push(reliability(&scored));
        figures.extend(classes(&scored));
    }
    figures
}

/// Figures that are shown side by side, with the names of their files in each run's report.
const BESIDE: [(&str, &str); 7] = [
    ("t-sne", "Features (t-SNE)"),
    ("errors", "Most confident errors"),
    ("confused", "Most frequent confusions"),
    ("predictions", "Predictions on some test images"),
    ("augmentation", "Augmented training images"),
    ("robustness", "Accuracy on corrupted images"),
    ("filters", "First-layer filters"),
];

/// `compare.html`: the tables, the overlaid figures, and the figures of each run side by side. `pictures` returns a
/// figure of a run's report as SVG, by the index of the run and the file's name.
pub fn page(
    comparison: &Comparison,
    figures: &[Figure],
    pictures: impl Fn(usize, &str) -> Option<Vec<u8>>,
    version: &str,
) -> String {
    let names: Vec<&str> = comparison.runs.iter().map(|row| row.run.as_str()).collect();
    let header = html! {
        h1 { (names.join(", ")) }
        @if let Some(caveat) = comparison.caveat() { p.headline { (caveat) } }
    };
    let body = html! {
        section { h2 { "Runs" } (comparison.tables()) }
        section { h2 { "Overlaid" } @for figure in figures { (shown(figure)) } }
        section {
            h2 { "Side by side" }
            @for (file, title) in BESIDE {
                @let found: Vec<(&str, Vec<u8>)> =
                    names.iter().enumerate().filter_map(|(run, name)| Some((*name, pictures(run, file)?))).collect();
                @if !found.is_empty() {
                    h3 { (title) }
                    div.beside {
                        @for (name, svg) in &found {
                            figure {
                                img src={ "data:image/svg+xml;base64," (BASE64_STANDARD.encode(svg)) }
                                    alt={ (title) " of " (name) };
                                figcaption { (name) }
                            }
                        }
                    }
                }
            }
        }
    };
    let made = format!("Made by Kiln {version} from these runs' folders.");
    document(&format!("{} - Kiln comparison", names.join(", ")), &header, &body, &made)
}

/// Accuracy by confidence, one line per run.
fn reliability(scored: &[(&str, &EvaluationReport)]) -> Figure {
    let line = |(index, (_, evaluation)): (usize, &(&str, &EvaluationReport))| {
        let bins = evaluation.metrics.calibration.bins.iter().filter(|bin| bin.samples > 0);
        let points = bins.map(|bin| [100.0 * bin.confidence, 100.0 * bin.accuracy]).collect();
        Line { color: RUNS[index % RUNS.len()], width: 2.0, points, dots: true }
    };
    let entry = |(index, (name, evaluation)): (usize, &(&str, &EvaluationReport))| {
        let error = evaluation.metrics.calibration.expected_calibration_error;
        (RUNS[index % RUNS.len()], format!("{name} (ECE {})", points(error)))
    };
    let axis = |name| Axis { name, range: 0.0..100.0, scale: Scale::Linear };
    let chart = Chart {
        title: "Accuracy by confidence".to_owned(),
        size: [400.0, 360.0],
        x: axis("confidence (%)"),
        y: axis("accuracy (%)"),
        bars: vec![],
        lines: scored.iter().enumerate().map(line).collect(),
        rules: vec![Rule::Diagonal],
        marks: vec![],
        legend: scored.iter().enumerate().map(entry).collect(),
    };
    Figure {
        name: "reliability",
        title: "Reliability".to_owned(),
        caption:
            "Predictions in 15 bins by confidence. On the dashed line, confidence equals accuracy. ECE is the expected \
                  calibration error."
                .to_owned(),
        panels: vec![chart.draw()],
        columns: 1,
    }
}

/// F1 of every class in every run, sorted from the worst average. `None` if the runs have different classes.
fn classes(scored: &[(&str, &EvaluationReport)]) -> Option<Figure> {
    let names = |evaluation: &EvaluationReport| -> Vec<String> {
        evaluation.metrics.classes.iter().map(|class| class.class.clone()).collect()
    };
    let all = names(scored[0].1);
    if scored.iter().any(|(_, evaluation)| names(evaluation) != all) {
        return None;
    }
    let f1 = |class: usize| scored.iter().map(move |(_, evaluation)| evaluation.metrics.classes[class].f1);
    let mean = |class: &usize| {
        let values: Vec<f64> = f1(*class).flatten().collect();
        if values.is_empty() { 2.0 } else { values.iter().sum::<f64>() / values.len() as f64 }
    };
    let mut order: Vec<usize> = (0..all.len()).collect();
    order.sort_by(|a, b| mean(a).total_cmp(&mean(b)));
    let labels: Vec<&str> = order.iter().map(|class| all[*class].as_str()).collect();
    let series: Vec<Series> = scored
        .iter()
        .enumerate()
        .map(|(index, (name, evaluation))| {
            let values = order.iter().map(|class| evaluation.metrics.classes[*class].f1).collect();
            ((*name).to_owned(), RUNS[index % RUNS.len()], values)
        })
        .collect();
    Some(Figure {
        name: "classes",
        title: "F1 of each class".to_owned(),
        caption: "The harmonic mean of precision and recall, one bar per run, with the last run's value as a number. \
                  Classes are sorted by their average, worst first."
            .to_owned(),
        panels: class_bars(&labels, &series),
        columns: 2,
    })
}
