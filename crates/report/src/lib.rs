//! Figures of training runs, and the HTML report that explains a run.
//!
//! Everything is drawn from plain data: a [`RunRecord`] read from its folder's text files, and an [`Evidence`] that the
//! caller gathers from the dataset if it is available. Nothing here runs a network or prints.

mod analysis;
mod cells;
mod chart;
mod compare;
mod drawing;
mod embedding;
mod environment;
mod evaluation;
mod figure;
mod gallery;
mod history;
mod letters;
mod page;
mod quality;
mod run;
mod theme;
mod words;

use std::path::PathBuf;

pub use analysis::{Confusion, History, OVERFITTING_GAP, cell_examples, confident_errors, confusions, examples};
pub use cells::CellImage;
pub use compare::{Comparison, Row, RunDifference, Scores, figures as comparison_figures, page as comparison_page};
pub use embedding::{Embedding, embedding};
pub use environment::{Machine, Session, Versions};
pub use evaluation::evaluation_text;
pub use figure::{Figure, Panel};
pub use gallery::{AugmentedRow, ConfusedPair, Filters, Shown, augmented, confused, errors, filters, predictions};
pub use history::{curves, history, throughput};
pub use letters::NumberedNames;
pub use page::{About, Evidence, Report, Section};
pub use quality::{classes, confusion, lr_find, reliability, robustness};
pub use run::RunRecord;
pub use words::{duration, grouped};

/// Why a report cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum ReportError {
    #[error("{} is not a run folder: recipe.toml or metrics.jsonl is missing", .0.display())]
    NoRun(PathBuf),
    #[error("{} has no finished epoch yet, so there is nothing to report", .0.display())]
    NoEpoch(PathBuf),
    #[error("cannot read {}: {source}", path.display())]
    Read { path: PathBuf, source: std::io::Error },
    #[error("{} is damaged: {reason}; {advice}", path.display())]
    Damaged { path: PathBuf, reason: String, advice: &'static str },
    #[error("cannot draw the figure {name}: {reason}")]
    Picture { name: &'static str, reason: String },
}
