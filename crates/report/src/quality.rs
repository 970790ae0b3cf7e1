//! Figures of an evaluation: confusion matrix, scores by class, reliability, robustness, and the learning-rate range
//! test.

use kiln_train::{Bin, Calibration, EvaluationReport, LrFind, Metrics, Temperature};
use serde::Serialize;

use crate::chart::{Axis, Bar, Chart, Line, Rule, Scale, legend, rate};
use crate::drawing::{Anchor, Drawing, Text};
use crate::figure::{Figure, Panel};
use crate::theme::{
    BLUE, GREEN, HEAT, INK, LINE, ON_HEAT, RUNS, SKY, SMALL, SOFT, Shade, VERMILLION, fitted, text_width,
};
use crate::words::points;

/// Matrices with more classes have no names and no numbers, which would be too small to read.
const NAMED_CLASSES: usize = 40;

/// The confusion matrix, in images and in percent of each class.
pub fn confusion(metrics: &Metrics) -> Figure {
    let names: Vec<&str> = metrics.classes.iter().map(|class| class.class.as_str()).collect();
    let largest = metrics.confusion.iter().flatten().copied().max().unwrap_or(0).max(1) as f64;
    let counts: Vec<Vec<Cell>> = metrics
        .confusion
        .iter()
        .map(|row| {
            row.iter().map(|&images| Cell { share: images as f64 / largest, text: images.to_string() }).collect()
        })
        .collect();
    let large = names.len() > NAMED_CLASSES;
    let caption = match large {
        false => {
            "Rows are true classes, columns are predictions; empty cells are 0. Color strength follows the square root \
             of the number."
        }
        true => {
            "Rows are true classes, columns are predictions, both in the order of the dataset, with a tick at every \
             tenth. Color strength follows the square root of the number. The table lists the most frequent confusions."
        }
    };
    Figure {
        name: "confusion",
        title: "Confusion matrix".to_owned(),
        caption: caption.to_owned(),
        panels: vec![
            matrix("Images", &names, &counts),
            matrix("Percent of each class's images", &names, &shares(metrics)),
        ],
        columns: if large { 1 } else { 2 },
    }
}

/// The confusion matrices of several runs, in percent of each class.
pub(crate) fn confusions(scored: &[(&str, &EvaluationReport)]) -> Figure {
    let panel = |(name, evaluation): &(&str, &EvaluationReport)| {
        let classes: Vec<&str> = evaluation.metrics.classes.iter().map(|class| class.class.as_str()).collect();
        matrix(name, &classes, &shares(&evaluation.metrics))
    };
    Figure {
        name: "confusion",
        title: "Confusion matrices".to_owned(),
        caption:
            "Percent of each class's images. Rows are true classes, columns are predictions. Color strength follows \
                  the square root of the number."
                .to_owned(),
        panels: scored.iter().map(panel).collect(),
        columns: 2,
    }
}

/// Cells with their share of their class in percent.
fn shares(metrics: &Metrics) -> Vec<Vec<Cell>> {
    let cells = |row: &Vec<usize>| {
        let all = row.iter().sum::<usize>().max(1) as f64;
        let share = |&images: &usize| images as f64 / all;
        row.iter().map(|images| Cell { share: share(images), text: shortest_percent(share(images)) }).collect()
    };
    metrics.confusion.iter().map(cells).collect()
}

/// Maximum width of a class name beside a matrix, in CSS pixels.
const NAME: f64 = 90.0;

/// Position of the square cells of a matrix, in CSS pixels.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(crate) struct Grid {
    /// Left edge of the first cell.
    pub left: f64,
    pub top: f64,
    /// Side of a cell.
    pub cell: f64,
}

impl Grid {
    /// The grid of the matrices that [`confusion`] draws.
    pub fn of_confusion(metrics: &Metrics) -> Self {
        Self::of(&metrics.classes.iter().map(|class| fitted(&class.class, SMALL, NAME)).collect::<Vec<_>>())
    }

    /// A grid with room for names that are fitted to [`NAME`].
    fn of(names: &[String]) -> Self {
        let (classes, named) = (names.len() as f64, names.len() <= NAMED_CLASSES);
        let cell = if named { (320.0 / classes).clamp(15.0, 44.0) } else { (600.0 / classes).max(3.0) };
        let widest = names.iter().map(|name| text_width(name, SMALL)).fold(0.0, f64::max);
        Self { left: if named { widest + 18.0 } else { 38.0 }, top: 32.0, cell }
    }
}

/// A cell of a matrix: the strength of its color, 0..1, and its text.
struct Cell {
    share: f64,
    text: String,
}

/// Percent without decimals (`12`), or with one below 0.95 (`0.4`).
fn shortest_percent(share: f64) -> String {
    let percent = 100.0 * share;
    if percent < 0.95 { format!("{percent:.1}") } else { format!("{percent:.0}") }
}

fn matrix(title: &str, names: &[&str], rows: &[Vec<Cell>]) -> Panel {
    let classes = names.len();
    let named = classes <= NAMED_CLASSES;
    let names: Vec<String> = names.iter().map(|name| fitted(name, SMALL, NAME)).collect();
    let Grid { left, top, cell } = Grid::of(&names);
    let side = cell * classes as f64;
    let mut drawing = Drawing::default();
    drawing.title(title);
    for (row, cells) in rows.iter().enumerate() {
        for (column, Cell { share, text }) in cells.iter().enumerate().filter(|(_, cell)| cell.share > 0.0) {
            let (x, y) = (left + cell * column as f64, top + cell * row as f64);
            let opacity = share.sqrt();
            drawing.rectangle([x, y], [cell, cell], HEAT, opacity);
            let size = (cell * 0.36).min(12.0).min(cell * 0.9 / text_width(text, 1.0));
            if named && size >= 5.5 {
                let color = if opacity > 0.55 { ON_HEAT } else { INK };
                let middle = [x + cell / 2.0, y + cell / 2.0];
                drawing.text(Text::new(text, middle, size, color).anchored(Anchor::Middle));
            }
        }
    }
    drawing.frame([left, top], [side, side], LINE);
    for (class, name) in names.iter().enumerate().step_by(if named { 1 } else { 10 }) {
        let name = if named { name.clone() } else { class.to_string() };
        let middle = cell * (class as f64 + 0.5);
        drawing.text(Text::new(&name, [left - 5.0, top + middle], SMALL, SOFT).anchored(Anchor::End));
        let below = [left + middle, top + side + 5.0];
        drawing.text(Text::new(name, below, SMALL, SOFT).anchored(Anchor::End).upward());
    }
    let label = format!("Confusion matrix: {}", title.to_lowercase());
    Panel { label, size: [left + side + 8.0, top + side + left], drawing }
}

/// Precision, recall and F1 of every class, sorted from the worst.
pub fn classes(metrics: &Metrics) -> Figure {
    let mut classes: Vec<_> = metrics.classes.iter().collect();
    classes.sort_by(|a, b| a.f1.unwrap_or(2.0).total_cmp(&b.f1.unwrap_or(2.0)));
    let names: Vec<&str> = classes.iter().map(|class| class.class.as_str()).collect();
    let series = [
        ("precision".to_owned(), BLUE, classes.iter().map(|class| class.precision).collect()),
        ("recall".to_owned(), VERMILLION, classes.iter().map(|class| class.recall).collect()),
        ("F1".to_owned(), GREEN, classes.iter().map(|class| class.f1).collect()),
    ];
    Figure {
        name: "classes",
        title: "Classes".to_owned(),
        caption: "Precision is the share of a class's predictions that are correct, recall is the share of its images \
                  that are classified correctly, and F1 is their harmonic mean, also shown as a number. The worst class \
                  comes first."
            .to_owned(),
        panels: class_bars(&names, &series),
        columns: 2,
    }
}

/// A name, its color, and its value in 0..1 for each class.
pub(crate) type Series = (String, Shade, Vec<Option<f64>>);

/// A row of bars for each class, in two panels if there are many classes.
pub(crate) fn class_bars(names: &[&str], series: &[Series]) -> Vec<Panel> {
    let rows = if names.len() > MANY_CLASSES { names.len().div_ceil(2) } else { names.len().max(1) };
    let starts = (0..names.len()).step_by(rows);
    starts.map(|start| class_rows(names, series, start..(start + rows).min(names.len()))).collect()
}

/// With more classes than this, bars are thinner.
const MANY_CLASSES: usize = 25;

fn class_rows(names: &[&str], series: &[Series], range: std::ops::Range<usize>) -> Panel {
    const WIDTH: f64 = 400.0;
    let row = if names.len() > MANY_CLASSES { 16.0 } else { 6.0 * series.len().max(3) as f64 + 7.0 };
    let names: Vec<String> = names.iter().map(|name| fitted(name, SMALL, 110.0)).collect();
    let widest = names.iter().map(|name| text_width(name, SMALL)).fold(0.0, f64::max);
    let mut drawing = Drawing::default();
    drawing.title("Scores");
    let entries: Vec<_> = series.iter().map(|(name, color, _)| (*color, name.clone())).collect();
    let top = legend(&mut drawing, &entries, WIDTH) + 16.0;
    let (left, right, bottom) = (widest + 16.0, WIDTH - 56.0, top + row * range.len() as f64);
    let at = |value: f64| left + (right - left) * value;
    for tick in [0.0, 0.25, 0.5, 0.75, 1.0] {
        drawing.path(vec![[at(tick), top - 4.0], [at(tick), bottom + 2.0]], LINE, 1.0);
        let text = Text::new(format!("{:.0} %", 100.0 * tick), [at(tick), bottom + 11.0], SMALL, SOFT);
        drawing.text(text.anchored(Anchor::Middle));
    }
    for (position, class) in range.enumerate() {
        let y = top + row * position as f64;
        let middle = y + row / 2.0 - 1.0;
        drawing.text(Text::new(&names[class], [left - 6.0, middle], SMALL, INK).anchored(Anchor::End));
        let thickness = (row - 5.0) / series.len() as f64;
        for (index, (_, color, values)) in series.iter().enumerate() {
            if let Some(value) = values[class] {
                let y = y + 1.0 + thickness * index as f64;
                drawing.rectangle([left, y], [at(value) - left, thickness * 0.88], *color, 1.0);
            }
        }
        let last = series.last().and_then(|(_, _, values)| values[class]);
        let text = last.map_or("none".to_owned(), |value| format!("{:.1} %", 100.0 * value));
        drawing.text(Text::new(text, [right + 8.0, middle], SMALL, SOFT));
    }
    Panel { label: "Scores of each class".to_owned(), size: [WIDTH, bottom + 24.0], drawing }
}

/// Confidence against accuracy, before and after temperature scaling.
pub fn reliability(evaluation: &EvaluationReport) -> Figure {
    let mut panels = diagram("as trained", &evaluation.metrics.calibration);
    if let Temperature::Fitted(scaling) = &evaluation.temperature {
        let scaled = diagram(&format!("at temperature {:.2}", scaling.temperature), &scaling.calibration);
        panels = panels.into_iter().zip(scaled).flat_map(|(before, after)| [before, after]).collect();
    }
    let columns = panels.len() / 2;
    Figure {
        name: "reliability",
        title: "Reliability".to_owned(),
        caption: "Predictions in 15 bins by confidence. Blue is accuracy, light blue its part above the mean \
                  confidence, and orange the part of the confidence above the accuracy. On the dashed line, confidence \
                  equals accuracy. ECE is the expected calibration error. The lower charts show the share of \
                  predictions in each bin."
            .to_owned(),
        panels,
        columns,
    }
}

/// The reliability diagram, and the distribution of the predictions over its bins.
pub(crate) fn diagram(title: &str, calibration: &Calibration) -> Vec<Panel> {
    let samples: usize = calibration.bins.iter().map(|bin| bin.samples).sum();
    let filled: Vec<&Bin> = calibration.bins.iter().filter(|bin| bin.samples > 0).collect();
    let bar = |bin: &Bin, color, opacity, from: f64, to: f64| {
        let inset = 0.1 * (bin.upper - bin.lower);
        let x = [bin.lower + inset, bin.upper - inset].map(|x| 100.0 * x);
        Bar { color, opacity, from: [x[0], 100.0 * from], to: [x[1], 100.0 * to] }
    };
    let mut bars: Vec<Bar> =
        filled.iter().map(|bin| bar(bin, BLUE, 1.0, 0.0, bin.accuracy.min(bin.confidence))).collect();
    bars.extend(filled.iter().map(|bin| match bin.confidence > bin.accuracy {
        true => bar(bin, VERMILLION, 0.45, bin.accuracy, bin.confidence),
        false => bar(bin, SKY, 1.0, bin.confidence, bin.accuracy),
    }));
    let axis = |name| Axis { name, range: 0.0..100.0, scale: Scale::Linear };
    let diagram = Chart {
        title: format!("ECE {}, {title}", points(calibration.expected_calibration_error)),
        size: [400.0, 300.0],
        x: axis("confidence (%)"),
        y: axis("accuracy (%)"),
        bars,
        lines: vec![],
        rules: vec![Rule::Diagonal],
        marks: vec![],
        legend: vec![
            (BLUE, "accuracy".to_owned()),
            (SKY, "accuracy above confidence".to_owned()),
            (VERMILLION, "confidence above accuracy".to_owned()),
        ],
    };
    let share = |bin: &Bin| bin.samples as f64 / samples.max(1) as f64;
    let spread = Chart {
        title: format!("Confidence histogram, {title}"),
        size: [400.0, 150.0],
        x: axis("confidence (%)"),
        y: Axis::over("share (%)", Scale::Linear, filled.iter().map(|bin| 100.0 * share(bin))).starting_at_zero(),
        bars: filled.iter().map(|bin| bar(bin, SOFT, 0.8, 0.0, share(bin))).collect(),
        lines: vec![],
        rules: vec![],
        marks: vec![],
        legend: vec![],
    };
    vec![diagram.draw(), spread.draw()]
}

/// Accuracy on corrupted images by severity. `None` if it was not measured.
pub fn robustness(evaluation: &EvaluationReport) -> Option<Figure> {
    let mut names: Vec<&str> = evaluation.corruptions.iter().map(|corrupted| corrupted.corruption.as_str()).collect();
    names.dedup();
    let line = |(name, color): (&&str, Shade)| {
        let all = evaluation.corruptions.iter().filter(|corrupted| corrupted.corruption == **name);
        let points = all.map(|corrupted| [corrupted.severity as f64, 100.0 * corrupted.accuracy]);
        let intact = [0.0, 100.0 * evaluation.metrics.accuracy];
        Line { color, width: 2.0, points: [intact].into_iter().chain(points).collect(), dots: true }
    };
    let lines: Vec<Line> = names.iter().zip(RUNS.into_iter().cycle()).map(line).collect();
    let accuracies = lines.iter().flat_map(|line| line.points.iter().map(|point| point[1]));
    let chart = Chart {
        title: "Accuracy on corrupted images".to_owned(),
        size: [400.0, 300.0],
        x: Axis::over("severity", Scale::Whole, [0.0, 5.0].into_iter()),
        y: Axis::over("%", Scale::Linear, accuracies).within(100.0),
        bars: vec![],
        rules: vec![],
        marks: vec![],
        legend: names
            .iter()
            .zip(RUNS.into_iter().cycle())
            .map(|(name, color)| (color, name.replace('_', " ")))
            .collect(),
        lines,
    };
    (!names.is_empty()).then(|| Figure {
        name: "robustness",
        title: "Robustness".to_owned(),
        caption: "The same images with corruptions of CIFAR-10-C (Hendrycks and Dietterich 2019); severity 0 means no \
                  corruption."
            .to_owned(),
        panels: vec![chart.draw()],
        columns: 1,
    })
}

/// The curve of a learning-rate range test.
pub fn lr_find(found: &LrFind) -> Figure {
    let line = |color, width, value: fn(&kiln_train::LrPoint) -> f64| Line {
        color,
        width,
        points: found.points.iter().map(|point| [point.learning_rate, value(point)]).collect(),
        dots: false,
    };
    let rules = [(found.steepest, "steepest"), (found.tenth_of_minimum, "minimum / 10")];
    let rule = |(value, name): (Option<f64>, &str)| Some(Rule::Vertical(value?, format!("{name}: {}", rate(value?))));
    let smoothed = found.points.iter().map(|point| point.smoothed);
    let chart = Chart {
        title: "Learning-rate range test".to_owned(),
        size: [560.0, 320.0],
        x: Axis::over("learning rate", Scale::Log, found.points.iter().map(|point| point.learning_rate)),
        y: Axis::over("loss (nats)", Scale::Linear, smoothed),
        bars: vec![],
        lines: vec![line(SOFT, 0.6, |point| point.loss), line(BLUE, 2.0, |point| point.smoothed)],
        rules: rules.into_iter().filter_map(rule).collect(),
        marks: vec![],
        legend: vec![(SOFT, "each step".to_owned()), (BLUE, "smoothed".to_owned())],
    };
    Figure {
        name: "lr-find",
        title: "Learning-rate range test".to_owned(),
        caption:
            "The learning rate grows with every step. The network learns fastest where the loss falls most steeply."
                .to_owned(),
        panels: vec![chart.draw()],
        columns: 1,
    }
}
