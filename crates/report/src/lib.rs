//! Pictures of training runs, and the page that explains a run in words and pictures.
//!
//! Everything is drawn from plain data: a [`Run`] as its folder's text files tell it, and an [`Evidence`] that the
//! caller gathers from the data, if that is at hand. Nothing here runs a network or prints.

mod analysis;
mod cells;
mod chart;
mod compare;
mod drawing;
mod embedding;
mod environment;
mod figure;
mod gallery;
mod history;
mod page;
mod quality;
mod run;
mod theme;
mod words;

use std::path::PathBuf;

pub use analysis::{Confusion, History, OVERFITTING_GAP, cell_examples, confident_errors, confusions, examples};
pub use cells::CellImage;
pub use compare::{Comparison, Difference, Row, Scores, figures as comparison_figures, page as comparison_page};
pub use embedding::{Embedding, embedding};
pub use environment::{Machine, Session, Versions};
pub use figure::{Figure, Panel};
pub use gallery::{AugmentedRow, ConfusedPair, Filters, Shown, augmented, confused, errors, filters, predictions};
pub use history::{curves, history, throughput};
pub use page::{About, Evidence, Report, Section};
pub use quality::{classes, confusion, lr_find, reliability, robustness};
pub use run::Run;
pub use words::{duration, grouped};

/// Why there is no report.
#[derive(Debug, thiserror::Error)]
pub enum ReportError {
    #[error("{} is no run: name a folder that `kiln train` made, with recipe.toml and metrics.jsonl", .0.display())]
    NoRun(PathBuf),
    #[error("{} has no finished epoch yet: there is nothing to report", .0.display())]
    NoEpoch(PathBuf),
    #[error("cannot read {}: {source}", path.display())]
    Read { path: PathBuf, source: std::io::Error },
    #[error("{} is damaged: {reason}; {advice}", path.display())]
    Damaged { path: PathBuf, reason: String, advice: &'static str },
    #[error("the picture {name} cannot be drawn: {reason}")]
    Picture { name: &'static str, reason: String },
}
