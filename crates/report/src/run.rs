//! Reads the text files of a run's folder, which are enough for curves and tables without the dataset.

use std::io::ErrorKind;
use std::path::Path;

use kiln_data::bounded_read;
use kiln_train::run_dir::RunDir;
use kiln_train::{EpochMetrics, EvaluationReport, LrFind, Recipe};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::{ReportError, Session};

/// A run, read from its text files.
#[derive(Clone, Debug, PartialEq)]
pub struct RunRecord {
    /// Name of the folder.
    pub name: String,
    pub recipe: Recipe,
    /// Finished epochs, at least one. Values that were not finite are NaN.
    pub history: Vec<EpochMetrics>,
    /// `evaluation.json`, if the run was evaluated.
    pub evaluation: Option<EvaluationReport>,
    /// `lr-find.json`, if the folder has one.
    pub lr_find: Option<LrFind>,
    /// `environment.json`: where the run was trained; empty if there is no record.
    pub sessions: Vec<Session>,
}

/// A line of `metrics.jsonl`. Values that are not finite are `null` in JSON.
#[derive(Deserialize)]
struct Line {
    epoch: usize,
    step: usize,
    learning_rate: Option<f64>,
    train_loss: Option<f64>,
    train_accuracy: Option<f64>,
    validation_loss: Option<f64>,
    validation_accuracy: Option<f64>,
    #[serde(default)]
    validation_balanced_accuracy: Option<f64>,
    seconds: Option<f64>,
    images_per_second: Option<f64>,
}

impl From<Line> for EpochMetrics {
    fn from(line: Line) -> Self {
        let number = |value: Option<f64>| value.unwrap_or(f64::NAN);
        Self {
            epoch: line.epoch,
            step: line.step,
            learning_rate: number(line.learning_rate),
            train_loss: number(line.train_loss),
            train_accuracy: number(line.train_accuracy),
            validation_loss: line.validation_loss,
            validation_accuracy: line.validation_accuracy,
            validation_balanced_accuracy: line.validation_balanced_accuracy,
            seconds: number(line.seconds),
            images_per_second: number(line.images_per_second),
        }
    }
}

impl RunRecord {
    /// Reads the folder of a run, finished or not.
    ///
    /// # Errors
    ///
    /// If the folder is not a run, has no finished epoch, or has a damaged file.
    pub fn read(folder: &Path) -> Result<Self, ReportError> {
        let run = RunDir::open(folder);
        if !run.recipe().is_file() || !run.metrics().is_file() {
            return Err(ReportError::NoRun(folder.to_owned()));
        }
        let recipe = Recipe::parse(&text(&run.recipe())?, &[])
            .map_err(|error| damaged(&run.recipe(), error.to_string(), IRREPLACEABLE))?;
        let history = history(&run.metrics())?;
        if history.is_empty() {
            return Err(ReportError::NoEpoch(folder.to_owned()));
        }
        let name = folder.canonicalize().ok().and_then(|path| Some(path.file_name()?.to_string_lossy().into_owned()));
        Ok(Self {
            name: name.unwrap_or_else(|| folder.display().to_string()),
            recipe,
            history,
            evaluation: json(&run.evaluation(), MADE_AGAIN)?,
            lr_find: json(&folder.join("lr-find.json"), MADE_AGAIN)?,
            sessions: Session::all(&run)?,
        })
    }

    /// The epoch whose weights are in the bundle.
    pub fn best(&self) -> &EpochMetrics {
        kiln_train::best_epoch(&self.history).expect("a run has an epoch")
    }
}

fn history(path: &Path) -> Result<Vec<EpochMetrics>, ReportError> {
    let text = text(path)?;
    let parse = |(index, line): (usize, &str)| {
        let damaged = |error| damaged(path, format!("line {}: {error}", index + 1), IRREPLACEABLE);
        serde_json::from_str::<Line>(line).map(EpochMetrics::from).map_err(damaged)
    };
    let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    let mut history = lines.map(parse).collect::<Result<Vec<EpochMetrics>, _>>()?;
    if history.iter().any(|epoch| epoch.validation_accuracy.is_some()) {
        // If other epochs have a score, a missing one was not finite.
        for epoch in &mut history {
            epoch.validation_loss.get_or_insert(f64::NAN);
            epoch.validation_accuracy.get_or_insert(f64::NAN);
        }
    }
    Ok(history)
}

fn text(path: &Path) -> Result<String, ReportError> {
    bounded_read::read_text(path).map_err(|source| ReportError::Read { path: path.to_owned(), source })
}

/// Reads a JSON file if it exists; `advice` is for the error if it is damaged.
pub(crate) fn json<T: DeserializeOwned>(path: &Path, advice: &'static str) -> Result<Option<T>, ReportError> {
    let bytes = match bounded_read::read(path, bounded_read::TEXT_BYTES) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        read => read.map_err(|source| ReportError::Read { path: path.to_owned(), source })?,
    };
    serde_json::from_slice(&bytes).map(Some).map_err(|error| damaged(path, error.to_string(), advice))
}

const MADE_AGAIN: &str = "delete it; the command that wrote it can make it again";
const IRREPLACEABLE: &str = "replace it with an intact copy";

fn damaged(path: &Path, reason: String, advice: &'static str) -> ReportError {
    ReportError::Damaged { path: path.to_owned(), reason, advice }
}
