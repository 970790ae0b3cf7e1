//! A recipe: everything that decides a training run, as TOML.

mod built_in;
mod check;
mod resolved;
#[cfg(test)]
mod tests;

use std::borrow::Cow;

use kiln_data::{Augment, DataError, Dataset, Interpolation, Preprocessing, Split, Validation};
#[cfg(not(target_family = "wasm"))]
use kiln_data::{LoadOptions, Source, usual_image_size};
use kiln_infer::Precision;
use kiln_model::{Architecture, ConfigError, Frozen, Init, NormKind, Stem};
use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize};
use toml::{Table, Value};

pub use self::built_in::{ALIASES, BUILT_IN, built_in, canonical_name, current_key};
pub use self::resolved::resolved;

/// Everything that decides a training run but the data and the device.
///
/// A recipe file names every field; `Recipe::parse` takes it with overrides and refuses what it
/// does not know.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recipe {
    /// What the recipe is called; kept in the run and its bundle.
    pub name: String,
    pub model: Model,
    pub training: Training,
    pub optimizer: Optimizer,
    pub schedule: Schedule,
    pub augment: Augment,
}

/// Which network; the preset decides which keys there are.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Model {
    ResNet(ResNetModel),
    Vit(VitModel),
}

/// A network of the ResNet family.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ResNetModel {
    /// `resnet18` to `resnet152`, or `resnet18-compact`.
    pub preset: String,
    /// Of the compact preset always `compact`; of the others `cifar` or `imagenet`.
    pub stem: Stem,
    /// Channels of the first stage.
    pub width: usize,
    pub norm: NormKind,
    /// Groups of a group normalization.
    pub groups: usize,
    pub init: Init,
}

/// A vision transformer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VitModel {
    /// `vit-tiny`
    pub preset: String,
    /// Pixels a side of the squares that tokens are made of.
    pub patch: usize,
    /// Channels of a token.
    pub width: usize,
    /// Blocks.
    pub depth: usize,
    /// Parts of the channels that attend by themselves.
    pub heads: usize,
}

impl Model {
    pub fn preset(&self) -> &str {
        match self {
            Self::ResNet(ResNetModel { preset, .. }) | Self::Vit(VitModel { preset, .. }) => preset,
        }
    }

    pub fn width(&self) -> usize {
        match self {
            Self::ResNet(ResNetModel { width, .. }) | Self::Vit(VitModel { width, .. }) => *width,
        }
    }
}

impl<'de> Deserialize<'de> for Model {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let table = Table::deserialize(deserializer)?;
        let model = if is_vit(&table) { table.try_into().map(Self::Vit) } else { table.try_into().map(Self::ResNet) };
        // One line of the two, with the key.
        model.map_err(|error| D::Error::custom(error.to_string().trim().replace('\n', " ")))
    }
}

/// Whether the table `model` of a recipe is a transformer's.
fn is_vit(model: &Table) -> bool {
    model.get("preset").and_then(Value::as_str) == Some(VIT)
}

/// How long, on what, and towards what.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Training {
    pub epochs: usize,
    /// Images an update.
    pub batch_size: usize,
    /// Parts in which a batch is computed, one after the other. Their gradients are summed to those of
    /// the batch's mean loss; a batch norm sees each part alone.
    pub micro_batches: usize,
    /// Height and width in pixels to which the images of a folder are brought; 0 for what suits them, by
    /// [`kiln_data::usual_image_size`].
    pub image_size: usize,
    /// Share of a picture's shorter side that the square in its middle has which is evaluated; below 1 the picture is resized
    /// and cut as by torchvision's `Resize` and `CenterCrop`.
    #[serde(default = "one")]
    pub crop_pct: f64,
    /// Share of the training images kept for validation.
    pub validation: f32,
    /// Probability mass that the target spreads evenly over all classes.
    pub label_smoothing: f32,
    /// Largest global norm of an update's gradients; 0 for any.
    pub clip_norm: f64,
    /// Decay of a moving average of the weights, which is then what is scored and kept; 0 for none.
    pub ema_decay: f64,
    /// Whether the test at the end also averages over images and mirror images.
    pub flip_tta: bool,
    /// What convolutions multiply.
    #[serde(with = "PrecisionName")]
    pub precision: Precision,
    /// How much each class counts in the loss.
    #[serde(default)]
    pub class_weights: ClassWeights,
    /// Which images an epoch shows.
    #[serde(default)]
    pub sampling: Sampling,
    /// What of the network stays as it is.
    #[serde(default, with = "freeze")]
    pub freeze: Frozen,
    /// Decides weights, splits, order and augmentation.
    pub seed: u64,
}

/// How much each class counts in the loss.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ClassWeights {
    /// As many times as it has images.
    #[default]
    None,
    /// As much as every other, by [`kiln_data::balanced_weights`].
    Balanced,
}

/// Which images an epoch shows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Sampling {
    /// Every image once.
    #[default]
    Shuffled,
    /// As many, every class equally often, by [`kiln_data::balanced_order`].
    Balanced,
}

/// `none`, `backbone`, or `stages:2`.
mod freeze {
    use kiln_model::Frozen;
    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serializer};

    pub fn serialize<S: Serializer>(frozen: &Frozen, serializer: S) -> Result<S::Ok, S::Error> {
        match frozen {
            Frozen::Nothing => serializer.serialize_str("none"),
            Frozen::Backbone => serializer.serialize_str("backbone"),
            Frozen::Stages(stages) => serializer.collect_str(&format_args!("stages:{stages}")),
        }
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Frozen, D::Error> {
        let text = String::deserialize(deserializer)?;
        let stages = |text: &str| text.strip_prefix("stages:")?.parse().ok().map(Frozen::Stages);
        match text.as_str() {
            "none" => Ok(Frozen::Nothing),
            "backbone" => Ok(Frozen::Backbone),
            text => stages(text).ok_or_else(|| {
                D::Error::custom(format!("training.freeze is none, backbone or stages:N, not '{text}'"))
            }),
        }
    }
}

/// The names of [`Precision`].
#[derive(Serialize, Deserialize)]
#[serde(remote = "Precision", rename_all = "lowercase")]
enum PrecisionName {
    F32,
    Bf16,
    F16,
}

/// Stochastic gradient descent as PyTorch's `SGD`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Optimizer {
    /// The schedule's peak.
    pub lr: f64,
    pub momentum: f64,
    pub nesterov: bool,
    pub weight_decay: f64,
    /// Whether norms and biases decay too, as they do in PyTorch by default.
    pub decay_norms_and_biases: bool,
    /// What the rate is multiplied by for the head.
    #[serde(default = "one")]
    pub head_lr_factor: f64,
    /// What the rate is multiplied by for each stage or block nearer to the images.
    #[serde(default = "one")]
    pub layer_decay: f64,
}

impl Default for Optimizer {
    /// What most ResNets are trained with: a rate of 0.1, momentum of 0.9 and a weight decay of 5e-4.
    fn default() -> Self {
        Self {
            lr: 0.1,
            momentum: 0.9,
            nesterov: false,
            weight_decay: 5e-4,
            decay_norms_and_biases: true,
            head_lr_factor: 1.0,
            layer_decay: 1.0,
        }
    }
}

fn one() -> f64 {
    1.0
}

/// The learning rate over a run, as a factor of the optimizer's.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Schedule {
    pub kind: ScheduleKind,
    /// Share of the run over which the rate rises linearly from `start_factor`.
    pub warmup: f64,
    pub start_factor: f64,
    /// Factor at the end of `cosine` and `one_cycle`.
    pub final_factor: f64,
    /// Shares of the run after which `multi_step` multiplies the rate by `gamma`.
    pub milestones: Vec<f64>,
    pub gamma: f64,
}

/// The shape of the learning rate after the warm-up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ScheduleKind {
    Constant,
    Cosine,
    MultiStep,
    /// Linear down to `final_factor`.
    OneCycle,
}

/// A recipe that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum RecipeError {
    #[error("no recipe is called '{name}': there are {}", names())]
    Unknown { name: String },
    #[error("the recipe's base must be a built-in recipe by name, not {0}")]
    Base(String),
    #[error("'{0}' cannot be a base, since it has one itself: take {1}")]
    BaseOfBase(String, String),
    #[error("'{key}' is a table of keys, not {value}: write [{key}] and its keys below it")]
    NotATable { key: String, value: String },
    #[error("the recipe is not valid TOML: {0}")]
    Syntax(#[from] toml::de::Error),
    #[error("a recipe has no key '{key}'{}", suggest(.nearest))]
    UnknownKey { key: String, nearest: Option<String> },
    #[error("the recipe lacks the key '{0}'")]
    MissingKey(String),
    #[error("invalid override '{0}': expected key=value, such as optimizer.lr=0.05")]
    Override(String),
    #[error("{key} = {value} is out of range: it must be {expected}")]
    Range { key: &'static str, value: String, expected: String },
    #[error(transparent)]
    Model(#[from] ConfigError),
}

fn suggest(nearest: &Option<String>) -> String {
    nearest.as_ref().map(|key| format!("; did you mean '{key}'?")).unwrap_or_default()
}

/// The preset with a stem of its own.
const COMPACT: &str = "resnet18-compact";
/// The preset of another family.
const VIT: &str = "vit-tiny";

impl Recipe {
    /// A built-in recipe.
    ///
    /// # Errors
    /// [`RecipeError::Unknown`] if none has that name.
    pub fn named(name: &str) -> Result<Self, RecipeError> {
        let (_, text) = built_in(name).ok_or_else(|| RecipeError::Unknown { name: name.to_owned() })?;
        Self::parse(text, &[])
    }

    /// Reads a recipe and applies `key=value` overrides with dotted keys. A `base` names the built-in recipe from which
    /// everything comes that the text leaves out.
    ///
    /// # Errors
    /// If a key is unknown, missing or has an impossible value, or there is no such base.
    pub fn parse(text: &str, overrides: &[String]) -> Result<Self, RecipeError> {
        let mut table = built_in::on_base(text.parse()?)?;
        let known = known_keys(&table);
        for entry in overrides {
            let (key, value) = entry.split_once('=').ok_or_else(|| RecipeError::Override(entry.clone()))?;
            set(&mut table, &built_in::current_key(key.trim()), value.trim(), &known)?;
        }
        add_new_keys(&mut table);
        let (known, found) = (known_keys(&table), keys(&table));
        for key in &found {
            if !known.contains(key) {
                return Err(RecipeError::UnknownKey { key: key.clone(), nearest: nearest(key, &known) });
            }
        }
        if let Some(key) = known.iter().find(|key| !found.contains(key)) {
            return Err(RecipeError::MissingKey(key.clone()));
        }
        let recipe: Self = Value::Table(table).try_into()?;
        recipe.validate()?;
        Ok(recipe)
    }

    /// The recipe as TOML that [`Recipe::parse`] takes.
    pub fn to_toml(&self) -> String {
        toml::to_string(self).expect("a recipe is made of TOML's types")
    }

    /// Every field by dotted key, in the recipe's order.
    pub fn entries(&self) -> Vec<(String, String)> {
        let value = Value::try_from(self).expect("a recipe is made of TOML's types");
        let mut entries = vec![];
        flatten("", &value, &mut entries);
        entries.into_iter().map(|(key, value)| (key, value.to_string())).collect()
    }

    /// The network for that many classes and images of so many pixels a side.
    pub fn architecture(&self, classes: usize, image_size: usize) -> Result<Architecture, ConfigError> {
        let mut architecture = Architecture::preset(self.model.preset().parse()?, classes);
        match (&mut architecture, &self.model) {
            (Architecture::ResNet(config), Model::ResNet(model)) => {
                (config.stem, config.norm, config.init) = (model.stem, model.norm, model.init);
                (config.width, config.groups) = (model.width, model.groups);
            }
            (Architecture::Vit(config), Model::Vit(model)) => {
                (config.image_size, config.patch) = (image_size, model.patch);
                (config.width, config.depth, config.heads) = (model.width, model.depth, model.heads);
            }
            _ => return Err(ConfigError::UnknownPreset(self.model.preset().to_owned())),
        }
        architecture.validate()?;
        Ok(architecture)
    }

    /// How pictures are brought to images of so many pixels a side for evaluation; `None` for Kiln's own way, all of the square
    /// in the middle.
    pub fn preprocessing(&self, image_size: usize) -> Option<Preprocessing> {
        let Training { crop_pct, .. } = self.training;
        let resize = (image_size as f64 / crop_pct).round() as usize;
        (crop_pct < 1.0).then_some(Preprocessing { resize, interpolation: Interpolation::Bilinear })
    }

    /// How to load images for this recipe: their size, and whether crops of the originals are wanted.
    ///
    /// # Errors
    ///
    /// If the size is to suit the images, and the source cannot be read.
    #[cfg(not(target_family = "wasm"))]
    pub fn load_options(&self, source: Source) -> Result<LoadOptions, DataError> {
        let image_size = match self.training.image_size {
            0 => usual_image_size(&source)?,
            size => size,
        };
        Ok(LoadOptions {
            source,
            image_size: Some(image_size),
            preprocessing: self.preprocessing(image_size),
            originals: self.augment.resized_crop.is_on(),
            seed: self.training.seed,
            ..LoadOptions::default()
        })
    }

    /// Opens a folder or an archive of pictures, as [`Dataset::open`], as this recipe wants them.
    ///
    /// # Errors
    ///
    /// Any [`DataError`].
    #[cfg(not(target_family = "wasm"))]
    pub fn open(&self, path: impl AsRef<std::path::Path>) -> Result<Dataset, DataError> {
        let options = self.load_options(Source::from_path(path.as_ref())?)?;
        Ok(kiln_data::load(&options, &mut |_| {})?.dataset)
    }

    /// Images to train and to validate on: those that the data itself keeps for it, or the recipe's share.
    ///
    /// # Errors
    ///
    /// As for [`Dataset::split`].
    pub fn split(&self, data: &Dataset) -> Result<Split, DataError> {
        data.split(Validation::Fraction(self.training.validation), self.training.seed)
    }

    /// The augmentation of a step, counted from 0.
    pub fn augment_at(&self, step: usize, total_steps: usize) -> Cow<'_, Augment> {
        let last = (self.augment.final_share * total_steps as f64).round() as usize;
        if step < total_steps - last { Cow::Borrowed(&self.augment) } else { Cow::Owned(self.augment.in_the_end()) }
    }
}

/// Keys that recipes have had since version 0.2, with the values that a file written before means.
const NEW_KEYS: [(&str, &str, &str); 8] = [
    ("training", "crop_pct", "1.0"),
    ("augment.resized_crop", "min_area", "1.0"),
    ("augment.resized_crop", "max_aspect", "1.3333333333333333"),
    ("training", "class_weights", "\"none\""),
    ("training", "sampling", "\"shuffled\""),
    ("training", "freeze", "\"none\""),
    ("optimizer", "head_lr_factor", "1.0"),
    ("optimizer", "layer_decay", "1.0"),
];

fn add_new_keys(table: &mut Table) {
    let empty = || Value::Table(Table::new());
    for (section, key, value) in NEW_KEYS {
        let value = value.parse::<Value>().expect("a TOML value");
        let section = section.split('.').enumerate().try_fold(&mut *table, |table, (depth, name)| {
            // A table that was always there is missed by name.
            let section = if depth == 0 { table.get_mut(name) } else { Some(table.entry(name).or_insert_with(empty)) };
            section.and_then(Value::as_table_mut)
        });
        if let Some(section) = section {
            section.entry(key).or_insert(value);
        }
    }
}

/// Every key of a recipe for the family of `table`'s, dotted.
fn known_keys(table: &Table) -> Vec<String> {
    let model = table.get("model").and_then(Value::as_table);
    let family = if model.is_some_and(is_vit) { VIT } else { BUILT_IN[0].0 };
    let (_, text) = built_in(family).expect("there is one of each family");
    let whole = text.parse().map_err(RecipeError::from).and_then(built_in::on_base);
    keys(&whole.expect("built-in recipes are valid"))
}

fn keys(table: &Table) -> Vec<String> {
    let value = Value::Table(table.clone());
    let mut entries = vec![];
    flatten("", &value, &mut entries);
    entries.into_iter().map(|(key, _)| key).collect()
}

fn flatten<'a>(prefix: &str, value: &'a Value, out: &mut Vec<(String, &'a Value)>) {
    match value {
        Value::Table(table) => {
            for (key, value) in table {
                let key = if prefix.is_empty() { key.clone() } else { format!("{prefix}.{key}") };
                flatten(&key, value, out);
            }
        }
        _ => out.push((prefix.to_owned(), value)),
    }
}

/// The known key that `key` most likely was meant to be, if any is near.
fn nearest(key: &str, known: &[String]) -> Option<String> {
    let last = |key: &str| key.rsplit('.').next().unwrap_or_default().to_owned();
    let score = |candidate: &String| {
        strsim::jaro_winkler(key, candidate).max(strsim::jaro_winkler(&last(key), &last(candidate)))
    };
    let best = known.iter().max_by(|a, b| score(a).total_cmp(&score(b)))?;
    (score(best) > 0.8).then(|| best.clone())
}

/// Sets a dotted key. A bare word is taken as a string, so that nobody has to quote twice.
fn set(table: &mut Table, key: &str, text: &str, known: &[String]) -> Result<(), RecipeError> {
    if !known.iter().any(|name| name == key) {
        return Err(RecipeError::UnknownKey { key: key.to_owned(), nearest: nearest(key, known) });
    }
    let parsed: Result<Table, _> = format!("value = {text}").parse();
    let mut value = parsed.ok().and_then(|mut table| table.remove("value")).unwrap_or_else(|| text.into());
    let mut parts: Vec<_> = key.split('.').collect();
    let leaf = parts.pop().unwrap_or_default();
    let table = parts
        .into_iter()
        .try_fold(table, |table, part| table.entry(part).or_insert_with(|| Table::new().into()).as_table_mut());
    let table = table.ok_or_else(|| RecipeError::UnknownKey { key: key.to_owned(), nearest: None })?;
    // `lr=1` is meant as a number wherever a real number stood.
    if let (Some(Value::Float(_)), Value::Integer(number)) = (table.get(leaf), &value) {
        value = Value::Float(*number as f64);
    }
    table.insert(leaf.to_owned(), value);
    Ok(())
}

/// For messages.
fn names() -> String {
    BUILT_IN.map(|(name, _)| name).join(", ")
}
