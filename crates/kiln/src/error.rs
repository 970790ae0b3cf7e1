//! What can go wrong, as facts.

use std::io;
use std::path::PathBuf;

use kiln_data::DataError;
use kiln_kernels::device::DeviceError;
use kiln_model::{BundleError, ConfigError, PredictError, StateError};
use kiln_report::ReportError;
use kiln_train::run_dir::RunDirError;
use kiln_train::teach::TeachError;
use kiln_train::{MetricsError, RecipeError, TrainError};

/// Why a run, an evaluation or a report cannot be made or continued.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Data(#[from] DataError),
    #[error(transparent)]
    Recipe(#[from] RecipeError),
    #[error(transparent)]
    Device(#[from] DeviceError),
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    State(#[from] StateError),
    #[error(transparent)]
    Bundle(#[from] BundleError),
    #[error(transparent)]
    Predict(#[from] PredictError),
    #[error(transparent)]
    Teach(#[from] TeachError),
    #[error(transparent)]
    Train(#[from] TrainError),
    #[error(transparent)]
    RunDir(#[from] RunDirError),
    #[error(transparent)]
    Report(#[from] ReportError),
    #[error("cannot {action} {}: {source}", path.display())]
    Io { action: &'static str, path: PathBuf, source: io::Error },
    #[error("there is no folder {}", .0.display())]
    NoFolder(PathBuf),
    #[error("cannot start with the weights of a {architecture}: {source}")]
    InitialWeights { architecture: String, source: Box<TrainError> },
    #[error("{model} cannot be evaluated on {dataset}: {source}")]
    Metrics { model: String, dataset: String, source: MetricsError },
    #[error(
        "the network knows the classes {} and {dataset} has {}: evaluate it on data with the same class folders",
        .expected.join(", "), .found.join(", ")
    )]
    Classes { dataset: String, expected: Vec<String>, found: Vec<String> },
    #[error("{} is not a usable bundle: {source}", path.display())]
    NoBundle { path: PathBuf, source: BundleError },
    #[error("the run in {} has no bundle, since it did not reach its end", .0.display())]
    Unfinished(PathBuf),
    #[error("the checkpoint has no finished epoch")]
    NoEpoch,
}
