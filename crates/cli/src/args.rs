//! The command line.

mod bench;
mod data;
mod import;

use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use clap::builder::BoolishValueParser;
use clap::{ArgAction, Parser, Subcommand};
use kiln_kernels::device::{DeviceError, DeviceRequest};
use kiln_model::container::Storage;

pub use self::bench::{Bench, BenchArgs};
pub use self::data::{Columns, DataArgs, DatasetName};
pub use self::import::ImportArgs;

/// Images in a report's embedding by default: four seconds on two cores, where 10,000 take fifteen.
pub const EMBEDDED: usize = 2000;

/// Train residual networks in Rust, on any GPU or none.
#[derive(Parser)]
#[command(name = "kiln", version, arg_required_else_help = true)]
pub struct Args {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Subcommand)]
pub enum Command {
    /// Train a network and write its bundle
    Train(TrainArgs),
    /// Score a trained network on a dataset's test images
    Eval(EvalArgs),
    /// Find a learning rate: train briefly while the rate grows, and suggest one
    LrFind(LrFindArgs),
    /// Make a run's report: one HTML file with charts, pictures and explanations
    Report(ReportArgs),
    /// Compare runs
    Compare(CompareArgs),
    /// Classify image files
    Predict(PredictArgs),
    /// Teach a network other classes by some pictures, in seconds: its head is fitted anew, the rest stays
    Teach(TeachArgs),
    /// Make a bundle of a network from PyTorch, torchvision, timm or ONNX
    Import(ImportArgs),
    /// Write a trained network in fewer bits for a web page, or for PyTorch or ONNX
    Export(ExportArgs),
    /// Serve the classifier page on localhost
    Serve(ServeArgs),
    /// List the built-in recipes, or print one
    Recipes(RecipesArgs),
    /// Draw what a recipe's augmentation does to images
    Augment(AugmentArgs),
    /// Show a network layer by layer
    Summary(SummaryArgs),
    /// List the devices that a network can run on
    Devices(DevicesArgs),
    /// Check every operator on every device of this machine
    Doctor(DoctorArgs),
    /// Find the fastest of Kiln's shaders on a GPU, and check that they are right there
    Tune(TuneArgs),
    /// Measure this machine's speed
    Bench(BenchArgs),
    /// Print a completion script for a shell
    Completions(CompletionsArgs),
    /// Write man pages into a folder
    Man(ManArgs),
}

#[derive(clap::Args)]
pub struct CompletionsArgs {
    /// The shell
    pub shell: clap_complete::Shell,
}

#[derive(clap::Args)]
pub struct ManArgs {
    /// Folder for kiln.1 and a page for each command
    pub folder: PathBuf,
}

/// How a network is run over a dataset.
#[derive(clap::Args)]
pub struct ScoringArgs {
    /// auto, cpu, gpu, gpu:N, software (or cuda, cuda:N in a build that has it)
    #[arg(long, default_value = "auto")]
    pub device: DeviceRequest,
    /// Batch size
    #[arg(long, default_value_t = 256, value_parser = clap::value_parser!(u16).range(1..))]
    pub batch_size: u16,
}

#[derive(clap::Args)]
pub struct TrainArgs {
    /// A built-in recipe (see kiln recipes) or a TOML file [default: quick on a CPU, resnet18 on a GPU]
    #[arg(long, value_name = "NAME|FILE")]
    pub recipe: Option<String>,
    #[command(flatten)]
    pub data: DataArgs,
    /// Change a field of the recipe, such as optimizer.lr=0.05 (repeatable)
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub overrides: Vec<String>,
    /// Short for --set training.epochs=N
    #[arg(long, value_name = "N")]
    pub epochs: Option<usize>,
    /// Short for --set training.seed=N
    #[arg(long, value_name = "N")]
    pub seed: Option<u64>,
    /// Fit training and its test into this time, such as 90s, 10m or 2h
    #[arg(long, value_name = "TIME", conflicts_with = "epochs")]
    pub budget: Option<Budget>,
    /// auto, cpu, gpu, gpu:N, software (or cuda, cuda:N in a build that has it)
    #[arg(long, default_value = "auto")]
    pub device: DeviceRequest,
    /// Fine-tune: start from the weights of this bundle or run, or of a .safetensors, .pth or .onnx file of the same
    /// network from elsewhere; with other classes, the head starts anew
    /// (how random weights are drawn is the recipe's model.init)
    #[arg(long, value_name = "PATH", conflicts_with = "resume")]
    pub init: Option<PathBuf>,
    /// Folder for the run [default: the next free runs/<recipe>-<n>]
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// Write an event file for TensorBoard into the run's folder; a resumed run continues its own
    #[arg(long)]
    pub tensorboard: bool,
    /// Skip report.html
    #[arg(long)]
    pub no_report: bool,
    /// Do not spend up to five seconds to find the fastest shaders on a GPU that is new to Kiln
    #[arg(long)]
    pub no_tune: bool,
    /// Resume the run in this folder, on the same data
    #[arg(long, value_name = "DIR", conflicts_with_all = ["epochs", "budget", "out"])]
    pub resume: Option<PathBuf>,
    /// Let this field differ from the resumed run's: a key of the recipe, such as optimizer.lr, or
    /// dataset (repeatable)
    #[arg(long, value_name = "FIELD", requires = "resume")]
    pub allow_change: Vec<String>,
    /// Print one JSON object a line instead of text
    #[arg(long)]
    pub json: bool,
}

#[derive(clap::Args)]
#[command(after_help = "Of a run's folder, the results are also kept there, as evaluation.json, and a temperature is \
    fitted on the images that its training kept for validation.")]
pub struct EvalArgs {
    /// A run's folder or a bundle
    pub model: PathBuf,
    /// Also average over each image and its mirror image (test-time augmentation)
    #[arg(long)]
    pub tta: bool,
    /// Also score on images with noise, blur, more brightness, less contrast and as JPEG, each at five
    /// severities: 25 times as many images
    #[arg(long)]
    pub corruptions: bool,
    /// Seed of the confidence intervals and of the noise
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub seed: u64,
    #[command(flatten)]
    pub data: DataArgs,
    #[command(flatten)]
    pub scoring: ScoringArgs,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(clap::Args)]
#[command(
    after_help = "A learning-rate range test (Smith 2015): the rate grows by the same factor each step, until the \
    smoothed loss is four times its least. Leaves no run behind."
)]
pub struct LrFindArgs {
    /// A built-in recipe (see kiln recipes) or a TOML file [default: quick on a CPU, resnet18 on a GPU]
    #[arg(long, value_name = "NAME|FILE")]
    pub recipe: Option<String>,
    #[command(flatten)]
    pub data: DataArgs,
    /// Change a field of the recipe, such as training.batch_size=256 (repeatable)
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub overrides: Vec<String>,
    /// Rate of the first step
    #[arg(long, value_name = "RATE", default_value_t = 1e-5)]
    pub start: f64,
    /// Rate of the last step
    #[arg(long, value_name = "RATE", default_value_t = 10.0)]
    pub end: f64,
    /// Steps from the first rate to the last
    #[arg(long, value_name = "N", default_value_t = 200, value_parser = clap::value_parser!(u16).range(2..))]
    pub steps: u16,
    /// auto, cpu, gpu, gpu:N, software (or cuda, cuda:N in a build that has it)
    #[arg(long, default_value = "auto")]
    pub device: DeviceRequest,
    /// File for the curve as JSON; for a folder, such as a run's, lr-find.json in it
    #[arg(long, value_name = "PATH")]
    pub out: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(clap::Args)]
#[command(
    after_help = "Writes report.html and figures/ into each run's folder, and evaluation.json where there is none of \
    these images. Without images named, auto is the set that the run was trained on; where that is gone, the report has \
    what the folder tells, and says what is missing."
)]
pub struct ReportArgs {
    /// Run folders
    #[arg(required = true, value_name = "RUN")]
    pub runs: Vec<PathBuf>,
    /// With several runs: folder for the comparison, as kiln compare --out writes it
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    #[command(flatten)]
    pub data: DataArgs,
    /// Most test images in the embedding (t-SNE); 0 for no embedding
    #[arg(long, value_name = "N", default_value_t = EMBEDDED)]
    pub embed: usize,
    #[command(flatten)]
    pub scoring: ScoringArgs,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(clap::Args)]
#[command(after_help = "Scores are those of each run's evaluation.json: kiln eval and kiln report write it.")]
pub struct CompareArgs {
    /// Run folders
    #[arg(required = true, num_args = 2..)]
    pub runs: Vec<PathBuf>,
    /// Folder for compare.html and its pictures: the curves of all runs, and their reports' pictures side by side
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(clap::Args)]
pub struct PredictArgs {
    /// Image files, folders of them, patterns such as 'photos/*.jpg', or - for a list of files on standard input
    #[arg(required = true, value_name = "IMAGE")]
    pub images: Vec<PathBuf>,
    /// A run's folder, a bundle, or a file that kiln import needs to be told nothing about [default: the newest run]
    #[arg(long, value_name = "PATH")]
    pub model: Option<PathBuf>,
    /// auto, cpu, gpu, gpu:N, software (or cuda, cuda:N in a build that has it)
    #[arg(long, default_value = "cpu")]
    pub device: DeviceRequest,
    /// The K likeliest classes
    #[arg(long, value_name = "K", default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..))]
    pub top: u16,
    /// Also write the answers to this file as a table, a row for each image
    #[arg(long, value_name = "FILE")]
    pub csv: Option<PathBuf>,
    /// Print a JSON object for each image, with its logits
    #[arg(long)]
    pub json: bool,
}

#[derive(clap::Args)]
#[command(
    after_help = "The accuracy is that on test/ if there is such a part. Otherwise the pictures of each class take turns in \
    being held out, in up to five parts. A network that was trained on many kinds of pictures teaches best."
)]
pub struct TeachArgs {
    /// Your pictures: a folder with <class>/*.jpg, or in another layout that kiln train takes
    #[arg(value_name = "PICTURES")]
    pub images: PathBuf,
    /// A run's folder, a bundle, or a file that kiln import needs to be told nothing about
    #[arg(long, value_name = "PATH")]
    pub model: PathBuf,
    /// A table (CSV) with the images' names and classes, instead of folders named after the classes
    #[arg(long, value_name = "FILE")]
    pub labels: Option<PathBuf>,
    /// The table's columns of names and of classes [default: by their usual names]
    #[arg(long, value_name = "NAME,CLASS", requires = "labels")]
    pub label_columns: Option<Columns>,
    /// Use only the first N pictures, evenly by class
    #[arg(long, value_name = "N")]
    pub limit: Option<usize>,
    /// auto, cpu, gpu, gpu:N, software (or cuda, cuda:N in a build that has it)
    #[arg(long, default_value = "cpu")]
    pub device: DeviceRequest,
    /// Bundle to write [default: <name>-taught.safetensors beside the model]
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// Replace an existing file
    #[arg(long)]
    pub force: bool,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(clap::Args)]
#[command(after_help = "Measures the accuracy before and after, on the images that the network was trained on or on \
    those that --data or --dataset name: here, auto is the set that the bundle names.")]
pub struct ExportArgs {
    /// A run's folder or a bundle
    pub model: PathBuf,
    #[arg(long, default_value = "web")]
    pub format: Format,
    /// How --format web stores weights [default: int8]
    #[arg(long)]
    pub storage: Option<WebStorage>,
    /// With --format onnx: keep batch norms instead of folding them into the convolutions
    #[arg(long)]
    pub unfolded: bool,
    /// With --format onnx: give probabilities instead of logits
    #[arg(long)]
    pub softmax: bool,
    /// File to write [default: <name>-<storage>.safetensors, <name>-pytorch.safetensors or <name>.onnx beside the bundle]
    #[arg(long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// Replace an existing file
    #[arg(long)]
    pub force: bool,
    /// Skip measuring the accuracy before and after
    #[arg(long, conflicts_with_all = ["data", "dataset", "limit"])]
    pub no_accuracy: bool,
    #[command(flatten)]
    pub data: DataArgs,
    #[command(flatten)]
    pub scoring: ScoringArgs,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(clap::ValueEnum, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// Weights in int8 or f16, for the browser page (and every command here)
    Web,
    /// Weights in f32, as a bundle
    Safetensors,
    /// Weights in f32 under torchvision's names, without Kiln's metadata
    Pytorch,
    /// A model in f32 for ONNX runtimes, with classes and normalization in its metadata
    Onnx,
}

#[derive(clap::ValueEnum, Clone, Copy)]
pub enum WebStorage {
    /// 8 bits a weight, with a scale for each output channel
    Int8,
    /// 16 bits a weight
    F16,
}

impl From<WebStorage> for Storage {
    fn from(storage: WebStorage) -> Self {
        match storage {
            WebStorage::Int8 => Self::Int8,
            WebStorage::F16 => Self::F16,
        }
    }
}

#[derive(clap::Args)]
pub struct ServeArgs {
    /// Port on 127.0.0.1; 0 takes a free one
    #[arg(long, default_value_t = 8000)]
    pub port: u16,
    /// Folder of index.html
    #[arg(long, value_name = "DIR", default_value = ".")]
    pub dir: PathBuf,
    /// Open the page in the browser
    #[arg(
        long, value_name = "yes|no", num_args = 0..=1, default_value = "no", default_missing_value = "yes",
        value_parser = BoolishValueParser::new(), action = ArgAction::Set, hide_possible_values = true
    )]
    pub open: bool,
}

#[derive(clap::Args)]
pub struct RecipesArgs {
    /// A built-in recipe to print
    pub name: Option<String>,
}

#[derive(clap::Args)]
#[command(after_help = "Writes a picture for each augmentation that the recipe has on, applied to every image, one \
    for all of them as they are trained on, and sheet.png with those below each other.")]
pub struct AugmentArgs {
    /// A built-in recipe (see kiln recipes) or a TOML file
    #[arg(long, value_name = "NAME|FILE", default_value = "quick")]
    pub recipe: String,
    #[command(flatten)]
    pub data: DataArgs,
    /// Change a field of the recipe, such as augment.cutout=8 (repeatable)
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub overrides: Vec<String>,
    /// Images in a row
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub samples: u16,
    /// Also show augmentations that the recipe has off, each at a usual strength
    #[arg(long)]
    pub every: bool,
    /// Folder to write into; pictures of the same names are replaced
    #[arg(long, value_name = "DIR", default_value = "augment")]
    pub out: PathBuf,
}

#[derive(clap::Args)]
pub struct SummaryArgs {
    /// resnet18, resnet34, resnet50, resnet101, resnet152 or resnet18-compact
    #[arg(default_value = "resnet18")]
    pub model: String,
    /// Channels of the first stage [default: 64], or of a transformer's tokens [default: 192]
    #[arg(long)]
    pub width: Option<usize>,
    #[arg(long, default_value_t = 10)]
    pub classes: usize,
    /// Height and width of the images in pixels
    #[arg(long, default_value_t = 32, value_parser = clap::value_parser!(u16).range(1..=4096))]
    pub image_size: u16,
    /// Start with a 7x7 convolution and pooling, for large images
    #[arg(long)]
    pub imagenet_stem: bool,
    /// Group instead of batch normalization, with this many groups
    #[arg(long, value_name = "GROUPS")]
    pub group_norm: Option<usize>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(clap::Args)]
pub struct DevicesArgs {
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(clap::Args)]
#[command(
    after_help = "Runs every form of each convolution, forward and both gradients, on random numbers, leaves out those that \
    give others than the rest, and keeps the fastest in your cache folder, where training, evaluation and benchmarks \
    find it. kiln train does the same by itself for up to five seconds."
)]
pub struct TuneArgs {
    /// A built-in recipe (see kiln recipes) or a TOML file, for its network, image size and batch
    #[arg(long, value_name = "NAME|FILE", default_value = "resnet18")]
    pub recipe: String,
    /// Change a field of the recipe, such as training.batch_size=512 (repeatable)
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub overrides: Vec<String>,
    /// Classes of the network
    #[arg(long, value_name = "N", default_value_t = 10)]
    pub classes: usize,
    /// auto, gpu, gpu:N or software
    #[arg(long, default_value = "auto")]
    pub device: DeviceRequest,
    /// Begin no further convolution after this time, such as 30s or 5m
    #[arg(long, value_name = "TIME")]
    pub budget: Option<Budget>,
    /// Also tune what is known already
    #[arg(long)]
    pub again: bool,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(clap::Args)]
#[command(
    after_help = "Compares each operator and its gradients with plain references in double precision; exits with \
    1 if one differs by more than 1e-5 of the largest value (1e-2 where numbers are stored in f16)."
)]
pub struct DoctorArgs {
    /// all, auto, cpu, gpu, gpu:N, software (or cuda, cuda:N in a build that has it)
    #[arg(long, default_value = "all")]
    pub device: Examined,
    /// The limits of a GPU's device: its adapter's own, or the least that WebGPU allows
    #[arg(long, default_value = "adapter")]
    pub limits: Limits,
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
    /// Set for the process that examines one device
    #[arg(long, hide = true)]
    pub events: bool,
}

#[derive(clap::ValueEnum, Clone, Copy, PartialEq, Eq)]
pub enum Limits {
    Adapter,
    Webgpu,
}

/// The devices that `kiln doctor` examines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Examined {
    All,
    One(DeviceRequest),
}

impl FromStr for Examined {
    type Err = DeviceError;

    fn from_str(text: &str) -> Result<Self, DeviceError> {
        if text == "all" { Ok(Self::All) } else { text.parse().map(Self::One) }
    }
}

/// A length of time.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Budget(pub Duration);

impl FromStr for Budget {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("'{text}' is not a length of time: write 90s, 10m or 2h");
        let unit = text.chars().last().ok_or_else(wrong)?;
        let factor = match unit {
            's' => 1.0,
            'm' => 60.0,
            'h' => 3600.0,
            _ => return Err(wrong()),
        };
        let number: f64 = text[..text.len() - 1].parse().map_err(|_| wrong())?;
        let seconds = number * factor;
        if !(1.0..=1e7).contains(&seconds) {
            return Err(format!("'{text}' is out of range: from 1s to 2777h"));
        }
        Ok(Self(Duration::from_secs_f64(seconds)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::{CommandFactory, ValueEnum};

    #[test]
    fn the_command_line_is_consistent() {
        Args::command().debug_assert();
    }

    #[test]
    fn datasets_are_typed_by_their_names() {
        for dataset in DatasetName::value_variants() {
            assert_eq!(dataset.to_possible_value().unwrap().get_name(), dataset.name());
        }
    }

    #[test]
    fn budgets_need_a_unit() {
        assert_eq!("10m".parse(), Ok(Budget(Duration::from_secs(600))));
        assert_eq!("1.5h".parse(), Ok(Budget(Duration::from_secs(5400))));
        for text in ["", "10", "m", "-3m", "0s", "nans", "9999h", "5µ"] {
            assert!(text.parse::<Budget>().is_err(), "{text}");
        }
    }
}
