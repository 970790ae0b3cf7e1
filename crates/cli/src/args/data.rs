//! Arguments that say where images come from.

use std::path::PathBuf;
use std::str::FromStr;

use kiln_data::cifar::{CIFAR10, CIFAR100, CIFAR100_COARSE};

/// Where images come from.
#[derive(clap::Args, Clone)]
pub struct DataArgs {
    /// Your images: a folder with train/<class>/*.jpg (and maybe val/ and test/) or <class>/*.jpg, such a folder as
    /// .zip, .tar or .tar.gz, or the files of CIFAR-10 or CIFAR-100
    #[arg(long, value_name = "PATH", conflicts_with = "dataset")]
    pub data: Option<PathBuf>,
    /// A table (CSV) with the images' names and classes, instead of folders named after the classes
    #[arg(long, value_name = "FILE", requires = "data")]
    pub labels: Option<PathBuf>,
    /// The table's columns of names and of classes [default: by their usual names]
    #[arg(long, value_name = "NAME,CLASS", requires = "labels")]
    pub label_columns: Option<Columns>,
    /// auto (CIFAR-10 if it is on disk or can be downloaded, else synthetic), cifar10, cifar100 (its 100
    /// fine classes), cifar100-coarse (its 20 superclasses) or synthetic
    #[arg(long, default_value = "auto")]
    pub dataset: DatasetName,
    /// Folder for downloads
    #[arg(long, value_name = "DIR", default_value = "data")]
    pub data_dir: PathBuf,
    /// Download nothing
    #[arg(long)]
    pub offline: bool,
    /// Use only the first N training images, evenly by class, and a fifth as many test images
    #[arg(long, value_name = "N")]
    pub limit: Option<usize>,
    /// Resize a folder's images to this many pixels a side [default: the recipe's or the bundle's]
    #[arg(long, value_name = "PIXELS")]
    pub image_size: Option<usize>,
}

#[derive(clap::ValueEnum, Clone, Copy, PartialEq, Eq)]
pub enum DatasetName {
    Auto,
    Cifar10,
    Cifar100,
    #[value(name = "cifar100-coarse")]
    Cifar100Coarse,
    Synthetic,
}

/// Two columns of a table, with a comma between them.
#[derive(Clone)]
pub struct Columns(pub [String; 2]);

impl FromStr for Columns {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (image, class) = text.split_once(',').ok_or("name two columns, such as file,label")?;
        Ok(Self([image.to_owned(), class.to_owned()]))
    }
}

impl DataArgs {
    /// Whether the user named the images.
    pub fn is_named(&self) -> bool {
        self.data.is_some() || self.dataset != DatasetName::Auto
    }
}

impl DatasetName {
    /// As it is typed, and as bundles have it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Cifar10 => CIFAR10.name,
            Self::Cifar100 => CIFAR100.name,
            Self::Cifar100Coarse => CIFAR100_COARSE.name,
            Self::Synthetic => "synthetic",
        }
    }
}
