//! Arguments of `kiln import`.

use std::path::PathBuf;
use std::str::FromStr;

use kiln_convert::Preset;

#[derive(clap::Args)]
#[command(
    after_help = "Depth, width, stem and number of classes are found from the weights. Whatever is assumed is said, \
    and a tensor that the network lacks is an error. Nothing in the file is executed. docs/import.md says more."
)]
pub struct ImportArgs {
    /// Weights as .safetensors, .pt, .pth or .onnx
    pub file: PathBuf,
    /// Bundle to write [default: <name>-kiln.safetensors beside the file]
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// Names of the classes in the order of the logits: a file with one a line or a JSON array, or a list with commas
    #[arg(long, value_name = "FILE|LIST")]
    pub classes: Option<String>,
    /// How a picture becomes the network's input: imagenet (Resize(256), CenterCrop(224)), imagenet-v2 (Resize(232)),
    /// cifar10, cifar100, or parts such as resize=256,crop=224,interpolation=bicubic [default: imagenet for its stem]
    #[arg(long, value_name = "WAY")]
    pub preprocess: Option<Preset>,
    /// Mean of red, green and blue, pixels scaled to 0..1, such as 0.485,0.456,0.406
    #[arg(long, value_name = "R,G,B", requires = "std")]
    pub mean: Option<Channels>,
    /// Standard deviation of the same, such as 0.229,0.224,0.225
    #[arg(long, value_name = "R,G,B", requires = "mean")]
    pub std: Option<Channels>,
    /// Height and width of the network's images in pixels [default: the model's or those of --preprocess]
    #[arg(long, value_name = "PIXELS")]
    pub image_size: Option<usize>,
    /// Groups of a network's group normalization, which its weights do not show
    #[arg(long, value_name = "N")]
    pub groups: Option<usize>,
    /// Heads of a transformer, which its weights do not show
    #[arg(long, value_name = "N")]
    pub heads: Option<usize>,
    /// Replace an existing file
    #[arg(long)]
    pub force: bool,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// A number for each channel.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Channels(pub [f32; 3]);

impl FromStr for Channels {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let numbers = text.split(',').map(|number| number.trim().parse::<f32>()).collect::<Result<Vec<_>, _>>();
        let numbers = numbers.ok().and_then(|numbers| <[f32; 3]>::try_from(numbers).ok());
        numbers.map(Self).ok_or_else(|| format!("'{text}' is not three numbers with commas between them"))
    }
}
