//! `report.html`: one self-contained file.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use kiln_train::recipe::Model;
use kiln_train::{ClassMetrics, EvaluationReport, Predictions, Temperature};
use maud::{DOCTYPE, Markup, PreEscaped, html};
use sha2::{Digest, Sha256};

use crate::analysis::{self, Confusion, History, confusions};
use crate::cells::{CellImage, explorer};
use crate::embedding::{Embedding, embedding};
use crate::environment::sessions;
use crate::figure::Figure;
use crate::gallery::{self, AugmentedRow, ConfusedPair, Filters, Shown};
use crate::quality::Grid;
use crate::words::{count, duration, grouped, percent};
use crate::{RunRecord, history, quality};

/// What a checkpoint says about a run in addition to its text files.
#[derive(Clone, Debug, PartialEq)]
pub struct About {
    pub dataset: String,
    pub classes: usize,
    /// Height and width of the images in pixels.
    pub image_size: usize,
    pub parameters: usize,
    /// Steps done, and total steps of the run.
    pub step: usize,
    pub total_steps: usize,
}

/// Results that need the dataset. Empty parts are left out of the report.
#[derive(Clone, Debug, Default)]
pub struct Evidence {
    /// Predictions on the test images, with features for the embedding.
    pub predictions: Option<Predictions>,
    pub embedding: Option<Embedding>,
    pub augmented: Vec<AugmentedRow>,
    /// Images spread over the test set.
    pub some: Vec<Shown>,
    pub errors: Vec<Shown>,
    pub confused: Vec<ConfusedPair>,
    /// Images in the cells of the confusion matrix, in the order of `cell_examples`.
    pub cells: Vec<CellImage>,
    pub filters: Option<Filters>,
    /// What is missing and why, in full sentences.
    pub missing: Vec<String>,
}

/// Everything that a report contains.
#[derive(Clone, Debug)]
pub struct Report<'a> {
    pub run: &'a RunRecord,
    pub about: Option<About>,
    pub evidence: &'a Evidence,
    /// Version of the program that makes the report.
    pub version: &'a str,
}

/// A section of the page.
#[derive(Clone, Debug)]
pub struct Section {
    pub title: &'static str,
    /// Sentences, each its own paragraph.
    pub text: Vec<String>,
    table: Option<Markup>,
    pub figures: Vec<Figure>,
}

impl Report<'_> {
    /// The report's sections, without empty ones.
    pub fn sections(&self) -> Vec<Section> {
        let mut sections = vec![self.what(), self.training()];
        if let Some(evaluation) = &self.run.evaluation {
            sections.extend([self.quality(evaluation), self.confusion(evaluation), self.confidence(evaluation)]);
        }
        sections.extend(self.features());
        if !self.evidence.missing.is_empty() {
            let text = self.evidence.missing.clone();
            sections.push(Section { title: "What is missing", text, table: None, figures: vec![] });
        }
        sections
    }

    fn what(&self) -> Section {
        let RunRecord { recipe, history, .. } = self.run;
        let training = &recipe.training;
        let last = &history[history.len() - 1];
        let mut facts = vec![("Recipe", recipe.name.clone())];
        let model = &recipe.model;
        let kind = match model {
            Model::ResNet(model) => format!("{} norm", lower(&model.norm)),
            Model::Vit(model) => count(model.depth, "block", "blocks"),
        };
        let mut network = format!("{} of width {}, {kind}", model.preset(), model.width());
        if let Some(about) = &self.about {
            network += &format!(", {} parameters", grouped(about.parameters));
        }
        facts.push(("Network", network));
        if let Some(about) = &self.about {
            let size = about.image_size;
            facts.push(("Data", format!("{}: {} classes, {size} x {size} pixels", about.dataset, about.classes)));
            let whole = about.step >= about.total_steps;
            let of = if whole { String::new() } else { format!(" of {}", grouped(about.total_steps)) };
            let steps = format!("{}{of} steps of {} images", grouped(about.step), training.batch_size);
            facts.push(("Length", format!("{} in {steps}", count(history.len(), "epoch", "epochs"))));
        } else {
            facts.push(("Length", count(history.len(), "epoch", "epochs")));
        }
        if last.seconds.is_finite() {
            facts.push(("Time", duration(last.seconds)));
        }
        let optimizer = &recipe.optimizer;
        let nesterov = if optimizer.nesterov { ", Nesterov" } else { "" };
        facts.push((
            "Optimizer",
            format!(
                "SGD with learning rate {}, momentum {}{nesterov}, weight decay {}; {} schedule",
                optimizer.lr,
                optimizer.momentum,
                optimizer.weight_decay,
                lower(&recipe.schedule.kind).replace('_', " ")
            ),
        ));
        facts.push(("Seed", training.seed.to_string()));
        let mut text = vec![];
        if let Some(about) = self.about.as_ref().filter(|about| about.step < about.total_steps) {
            text.push(format!(
                "The run stopped early, after step {} of {}: this report covers the epochs up to then.",
                grouped(about.step),
                grouped(about.total_steps)
            ));
        }
        let table = html! {
            dl { @for (name, value) in &facts { dt { (name) } dd { (value) } } }
            details {
                summary { "Full recipe" }
                pre { (recipe.to_toml()) }
            }
            @if !self.run.sessions.is_empty() { (sessions(&self.run.sessions, &training.precision.to_string())) }
        };
        Section { title: "What was trained", text, table: Some(table), figures: vec![] }
    }

    fn training(&self) -> Section {
        let mut text = History::of(&self.run.history).sentences(&self.run.recipe);
        text.extend(analysis::throughput(self.run));
        let runs = &[self.run];
        let mut figures = vec![history::history(runs), history::throughput(runs)];
        figures.extend(self.run.lr_find.as_ref().map(quality::lr_find));
        Section { title: "How training went", text, table: None, figures }
    }

    fn quality(&self, evaluation: &EvaluationReport) -> Section {
        let mut figures = vec![quality::classes(&evaluation.metrics)];
        let shown = &self.evidence.some;
        if !shown.is_empty() {
            figures.push(gallery::predictions(shown, &self.names(evaluation)));
        }
        figures.extend(quality::robustness(evaluation));
        let table = html! { (scores(evaluation)) (class_table(evaluation)) };
        let text = analysis::quality(evaluation);
        Section { title: "How accurate it is", text, table: Some(table), figures }
    }

    fn confusion(&self, evaluation: &EvaluationReport) -> Section {
        let mut figures = vec![quality::confusion(&evaluation.metrics)];
        if !self.evidence.confused.is_empty() {
            figures.push(gallery::confused(&self.evidence.confused, &self.names(evaluation)));
        }
        let text = analysis::confusion(&evaluation.metrics);
        let metrics = &evaluation.metrics;
        let table = html! {
            (confusion_table(evaluation).unwrap_or_default())
            (explorer(metrics, Grid::of_confusion(metrics), &self.evidence.cells))
        };
        Section { title: "Which classes it confuses", text, table: Some(table), figures }
    }

    fn confidence(&self, evaluation: &EvaluationReport) -> Section {
        let mut text = analysis::calibration(evaluation);
        text.extend(self.evidence.predictions.as_ref().and_then(analysis::overconfidence));
        let mut figures = vec![quality::reliability(evaluation)];
        if !self.evidence.errors.is_empty() {
            figures.push(gallery::errors(&self.evidence.errors, &self.names(evaluation)));
        }
        Section { title: "How reliable its confidence is", text, table: None, figures }
    }

    /// `None` if there is nothing to see.
    fn features(&self) -> Option<Section> {
        let Evidence { predictions, embedding: embedded, augmented, filters, .. } = self.evidence;
        let mut figures = vec![];
        if !augmented.is_empty() {
            figures.push(gallery::augmented(augmented));
        }
        figures.extend(filters.as_ref().map(gallery::filters));
        figures.extend(embedded.as_ref().zip(predictions.as_ref()).map(|(points, all)| embedding(points, all)));
        let section = Section { title: "What the network sees", text: vec![], table: None, figures };
        (!section.figures.is_empty()).then_some(section)
    }

    fn names(&self, evaluation: &EvaluationReport) -> Vec<String> {
        evaluation.metrics.classes.iter().map(|class| class.class.clone()).collect()
    }

    /// The page.
    pub fn html(&self, sections: &[Section]) -> String {
        let header = html! {
            h1 { (self.run.name) }
            (self.headline())
        };
        let body = html! { @for section in sections { (section.markup()) } };
        let made = format!("Made by Kiln {} from this run's folder.", self.version);
        document(&format!("{} - Kiln report", self.run.name), &header, &body, &made)
    }

    /// The accuracy in large type, and what it was measured on.
    fn headline(&self) -> Markup {
        match &self.run.evaluation {
            Some(EvaluationReport { metrics, intervals, dataset, split, .. }) => html! {
                p.headline { strong { (percent(metrics.accuracy)) } " of "
                    (count(metrics.samples, "image", "images")) " of " (dataset) " (" (split) ") classified correctly ("
                    (format!("{:.0} %", 100.0 * intervals.level)) " interval: " (percent(intervals.accuracy.low)) " to "
                    (percent(intervals.accuracy.high)) ")" }
            },
            None => {
                let best = self.run.best();
                let (accuracy, on) = match best.validation_accuracy {
                    Some(accuracy) => (accuracy, "validation"),
                    None => (best.train_accuracy, "training"),
                };
                html! {
                    @if accuracy.is_finite() {
                        p.headline { strong { (percent(accuracy)) } " " (on) " accuracy in epoch " (best.epoch) }
                    }
                }
            }
        }
    }
}

impl Section {
    fn markup(&self) -> Markup {
        html! {
            section {
                h2 { (self.title) }
                @for sentence in &self.text { p { (unbroken(sentence)) } }
                @if let Some(table) = &self.table { (table) }
                @for figure in &self.figures { (shown(figure)) }
            }
        }
    }
}

/// A self-contained page that loads nothing.
pub(crate) fn document(title: &str, header: &Markup, body: &Markup, footer: &str) -> String {
    let (style, script) = (include_str!("report.css"), include_str!("report.js"));
    // Only this style sheet and this script are allowed, by their digests.
    let [style_digest, script_digest] = [style, script].map(|text| BASE64_STANDARD.encode(Sha256::digest(text)));
    let policy = format!(
        "default-src 'none'; img-src data:; style-src 'sha256-{style_digest}'; script-src 'sha256-{script_digest}'; \
         base-uri 'none'; form-action 'none'"
    );
    let markup = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta http-equiv="Content-Security-Policy" content=(policy);
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { (title) }
                style { (PreEscaped(style)) }
                script type="module" { (PreEscaped(script)) }
            }
            body {
                header { (header) }
                main { (body) }
                footer { p { (footer) } }
            }
        }
    };
    markup.into_string()
}

/// A figure with its title and caption.
pub(crate) fn shown(figure: &Figure) -> Markup {
    html! {
        figure {
            h3 { (figure.title) }
            div.(figure.name).panels { @for panel in &figure.panels { (panel.element(None)) } }
            figcaption { (unbroken(&figure.caption)) }
        }
    }
}

/// The text with nonbreaking spaces between numbers and percent signs.
fn unbroken(text: &str) -> String {
    text.replace(" %", "\u{a0}%")
}

/// The headline metrics with their intervals.
fn scores(evaluation: &EvaluationReport) -> Markup {
    let EvaluationReport { metrics, intervals, .. } = evaluation;
    let within = |low: f64, high: f64, write: fn(f64) -> String| format!("{} to {}", write(low), write(high));
    let nats: fn(f64) -> String = |value| format!("{value:.4}");
    let interval = |interval: &kiln_train::Interval, write| within(interval.low, interval.high, write);
    let mut rows = vec![("Accuracy".to_owned(), percent(metrics.accuracy), interval(&intervals.accuracy, percent))];
    if let Some(balanced) = metrics.balanced_accuracy() {
        rows.push(("Balanced accuracy (mean over the classes)".to_owned(), percent(balanced), String::new()));
    }
    if let Some(top) = metrics.top_k_accuracy.last().filter(|_| metrics.top_k_accuracy.len() > 1) {
        let name = format!("Top-{} accuracy", metrics.top_k_accuracy.len());
        rows.push((name, percent(*top), interval(&intervals.top_k_accuracy, percent)));
    }
    let error = metrics.calibration.expected_calibration_error;
    rows.extend([
        ("F1 (macro average)".to_owned(), nats(metrics.macro_average.f1), interval(&intervals.f1, nats)),
        ("Loss (nats)".to_owned(), nats(metrics.loss), interval(&intervals.loss, nats)),
        ("Brier score".to_owned(), nats(metrics.brier), interval(&intervals.brier, nats)),
        ("Expected calibration error".to_owned(), nats(error), String::new()),
    ]);
    if let Some(flipped) = &evaluation.flip_tta {
        rows.push(("Accuracy averaged over mirror images".to_owned(), percent(flipped.accuracy), String::new()));
    }
    if let Temperature::Fitted(scaling) = &evaluation.temperature {
        let error = scaling.calibration.expected_calibration_error;
        let at = format!("at temperature {:.3}", scaling.temperature);
        rows.push((format!("Loss {at}"), nats(scaling.loss), String::new()));
        rows.push((format!("Calibration error {at}"), nats(error), String::new()));
    }
    let level = format!("{:.0} % interval", 100.0 * intervals.level);
    html! {
        div.scroll tabindex="0" { table {
            thead { tr { th { "Metric" } th.number { "Value" } th.number { (level) } } }
            tbody {
                @for (name, value, interval) in &rows {
                    tr { th scope="row" { (name) } td.number { (value) } td.number { (interval) } }
                }
            }
        } }
    }
}

/// The classification report.
fn class_table(evaluation: &EvaluationReport) -> Markup {
    let metrics = &evaluation.metrics;
    let share = |value: Option<f64>| value.map_or("none".to_owned(), |value| format!("{value:.4}"));
    let row = |name: &str, scores: [Option<f64>; 3], support: usize| {
        html! {
            tr {
                th scope="row" { (name) }
                @for score in scores { td.number data-value=[score] { (share(score)) } }
                td.number data-value=(support) { (grouped(support)) }
            }
        }
    };
    let of = |class: &ClassMetrics| [class.precision, class.recall, class.f1];
    let averages = [("macro average", &metrics.macro_average), ("weighted average", &metrics.weighted_average)];
    html! {
        details open[metrics.classes.len() <= 20] {
            summary { "All classes" }
            div.scroll tabindex="0" { table.sortable {
                thead { tr {
                    th { "Class" } th.number { "Precision" } th.number { "Recall" } th.number { "F1" } th.number { "Images" }
                } }
                tbody { @for class in &metrics.classes { (row(&class.class, of(class), class.support)) } }
                tfoot {
                    @for (name, average) in averages {
                        (row(name, [Some(average.precision), Some(average.recall), Some(average.f1)], metrics.samples))
                    }
                }
            } }
        }
    }
}

/// The most frequent confusions.
fn confusion_table(evaluation: &EvaluationReport) -> Option<Markup> {
    let metrics = &evaluation.metrics;
    let found = confusions(&metrics.confusion, 10);
    let name = |class: usize| &metrics.classes[class].class;
    let share = |found: &Confusion| found.images as f64 / metrics.classes[found.label].support as f64;
    let table = html! {
        div.scroll tabindex="0" { table.sortable {
            thead { tr { th { "Class" } th { "Predicted" } th.number { "Images" } th.number { "Share" } } }
            tbody {
                @for found in &found {
                    tr {
                        td { (name(found.label)) } td { (name(found.predicted)) }
                        td.number data-value=(found.images) { (grouped(found.images)) }
                        td.number data-value=(share(found)) { (percent(share(found))) }
                    }
                }
            }
        } }
    };
    (!found.is_empty()).then_some(table)
}

/// The name of a variant in recipes.
fn lower(value: &impl serde::Serialize) -> String {
    serde_json::to_value(value).ok().and_then(|value| Some(value.as_str()?.to_owned())).unwrap_or_default()
}
