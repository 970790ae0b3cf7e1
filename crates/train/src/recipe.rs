//! A recipe: everything that decides a training run, as TOML.

use std::borrow::Cow;
use std::ops::RangeInclusive;

use kiln_data::{Augment, DataError, Split, Validation, split};
use kiln_infer::Precision;
use kiln_model::{Architecture, ConfigError, Init, NormKind, Stem};
use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize};
use toml::{Table, Value};

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
    /// Groups of a group normalisation.
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
    /// the batch's mean loss; a batch norm sees each part by itself.
    pub micro_batches: usize,
    /// Height and width in pixels to which the images of a folder are brought.
    pub image_size: usize,
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
    /// Decides weights, splits, order and augmentation.
    pub seed: u64,
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
}

/// The learning rate over a run, as a factor of the optimiser's.
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
    #[error("no recipe is called '{0}'")]
    Unknown(String),
    #[error("the recipe is no valid TOML: {0}")]
    Syntax(#[from] toml::de::Error),
    #[error("a recipe has no key '{key}'{}", suggest(.nearest))]
    UnknownKey { key: String, nearest: Option<String> },
    #[error("the recipe lacks the key '{0}'")]
    MissingKey(String),
    #[error("'{0}' is no override: write key=value, such as optimizer.lr=0.05")]
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

/// The recipes in this program, by name.
pub const BUILT_IN: [(&str, &str); 15] = [
    ("quick", include_str!("../../../recipes/quick.toml")),
    ("resnet18", include_str!("../../../recipes/resnet18.toml")),
    ("speedrun-94", include_str!("../../../recipes/speedrun-94.toml")),
    ("speedrun-96", include_str!("../../../recipes/speedrun-96.toml")),
    ("image-folder", include_str!("../../../recipes/image-folder.toml")),
    ("s1-plain", include_str!("../../../recipes/s1-plain.toml")),
    ("s1-mixup", include_str!("../../../recipes/s1-mixup.toml")),
    ("s1-cutmix", include_str!("../../../recipes/s1-cutmix.toml")),
    ("s1-aggressive", include_str!("../../../recipes/s1-aggressive.toml")),
    ("s1-smoothing", include_str!("../../../recipes/s1-smoothing.toml")),
    ("s2-batch-norm", include_str!("../../../recipes/s2-batch-norm.toml")),
    ("s2-group-norm", include_str!("../../../recipes/s2-group-norm.toml")),
    ("s3", include_str!("../../../recipes/s3.toml")),
    ("cifar100", include_str!("../../../recipes/cifar100.toml")),
    (VIT, include_str!("../../../recipes/vit-tiny.toml")),
];

impl Recipe {
    /// A built-in recipe.
    ///
    /// # Errors
    /// [`RecipeError::Unknown`] if none has that name.
    pub fn named(name: &str) -> Result<Self, RecipeError> {
        let found = BUILT_IN.iter().find(|(known, _)| *known == name);
        let (_, text) = found.ok_or_else(|| RecipeError::Unknown(name.to_owned()))?;
        Self::parse(text, &[])
    }

    /// Reads a recipe and applies `key=value` overrides with dotted keys.
    pub fn parse(text: &str, overrides: &[String]) -> Result<Self, RecipeError> {
        let mut table: Table = text.parse()?;
        let known = known_keys(&table);
        for entry in overrides {
            let (key, value) = entry.split_once('=').ok_or_else(|| RecipeError::Override(entry.clone()))?;
            set(&mut table, key.trim(), value.trim(), &known)?;
        }
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

    /// Images to train and to validate on, of those with these labels `[N]`.
    ///
    /// # Errors
    ///
    /// As for [`kiln_data::split`].
    pub fn split(&self, labels: &[u32]) -> Result<Split, DataError> {
        split(labels, Validation::Fraction(self.training.validation), self.training.seed)
    }

    /// The augmentation of a step, counted from 0.
    pub fn augment_at(&self, step: usize, total_steps: usize) -> Cow<'_, Augment> {
        let last = (self.augment.final_share * total_steps as f64).round() as usize;
        if step < total_steps - last { Cow::Borrowed(&self.augment) } else { Cow::Owned(self.augment.in_the_end()) }
    }

    pub(crate) fn validate(&self) -> Result<(), RecipeError> {
        let (training, optimizer, schedule) = (&self.training, &self.optimizer, &self.schedule);
        // A run's folder is named after it.
        if !is_plain(&self.name) {
            return Err(RecipeError::Range {
                key: "name",
                value: format!("{:?}", self.name.chars().take(40).collect::<String>()),
                expected: "letters, digits, spaces, '-', '_' and '.', 100 bytes at most, the first no '.'".to_owned(),
            });
        }
        let range = |key, value: String, expected: &str| {
            let expected = format!("{expected} for {}", self.model.preset());
            Err(RecipeError::Range { key, value: value.to_lowercase(), expected })
        };
        match &self.model {
            Model::ResNet(ResNetModel { preset, stem, .. }) if (preset == COMPACT) != (*stem == Stem::Compact) => {
                let expected = if preset == COMPACT { "compact" } else { "cifar or imagenet" };
                return range("model.stem", format!("{stem:?}"), expected);
            }
            Model::Vit(_) if training.precision != Precision::F32 => {
                return range("training.precision", format!("{:?}", training.precision), "f32");
            }
            _ => {}
        }
        integer("training.epochs", training.epochs, 1..=100_000)?;
        integer("training.batch_size", training.batch_size, 1..=65_536)?;
        integer("training.micro_batches", training.micro_batches, 1..=training.batch_size)?;
        integer("training.image_size", training.image_size, 1..=1024)?;
        real("training.validation", training.validation.into(), 0.0..=0.9)?;
        real("training.label_smoothing", training.label_smoothing.into(), 0.0..=0.99)?;
        real("training.clip_norm", training.clip_norm, 0.0..=1e6)?;
        real("training.ema_decay", training.ema_decay, 0.0..=0.99999)?;
        real("optimizer.lr", optimizer.lr, 0.0..=1e6)?;
        real("optimizer.momentum", optimizer.momentum, 0.0..=0.9999)?;
        real("optimizer.weight_decay", optimizer.weight_decay, 0.0..=1.0)?;
        real("schedule.warmup", schedule.warmup, 0.0..=1.0)?;
        real("schedule.start_factor", schedule.start_factor, 0.0..=1.0)?;
        real("schedule.final_factor", schedule.final_factor, 0.0..=1.0)?;
        real("schedule.gamma", schedule.gamma, 0.0..=1.0)?;
        for milestone in &schedule.milestones {
            real("schedule.milestones", *milestone, 0.0..=1.0)?;
        }
        validate_augment(&self.augment)?;
        self.architecture(10, training.image_size)?;
        Ok(())
    }
}

/// Whether a name can be that of a folder everywhere, and nothing but a name.
fn is_plain(name: &str) -> bool {
    let allowed = |char: char| char.is_alphanumeric() || "-_. ".contains(char);
    !name.is_empty() && name.len() <= 100 && !name.starts_with('.') && name.chars().all(allowed)
}

fn validate_augment(augment: &Augment) -> Result<(), RecipeError> {
    let Augment { affine, colour, mix, .. } = augment;
    integer("augment.crop_padding", augment.crop_padding, 0..=64)?;
    real("augment.flip_chance", augment.flip_chance, 0.0..=1.0)?;
    integer("augment.cutout", augment.cutout, 0..=1024)?;
    real("augment.final_share", augment.final_share, 0.0..=1.0)?;
    real("augment.affine.chance", affine.chance, 0.0..=1.0)?;
    real("augment.affine.rotation", affine.rotation, 0.0..=180.0)?;
    real("augment.affine.translation", affine.translation, 0.0..=1.0)?;
    real("augment.affine.scale", affine.scale, 0.0..=0.9)?;
    real("augment.affine.shear", affine.shear, 0.0..=60.0)?;
    real("augment.colour.brightness", colour.brightness, 0.0..=1.0)?;
    real("augment.colour.contrast", colour.contrast, 0.0..=1.0)?;
    real("augment.colour.saturation", colour.saturation, 0.0..=1.0)?;
    real("augment.mix.mixup_chance", mix.mixup_chance, 0.0..=1.0)?;
    // Beta's numbers are drawn by a method that takes long beyond that.
    real("augment.mix.mixup_alpha", mix.mixup_alpha, 0.05..=4.0)?;
    real("augment.mix.cutmix_chance", mix.cutmix_chance, 0.0..=1.0 - mix.mixup_chance)?;
    real("augment.mix.cutmix_alpha", mix.cutmix_alpha, 0.05..=4.0)
}

fn integer(key: &'static str, value: usize, range: RangeInclusive<usize>) -> Result<(), RecipeError> {
    if range.contains(&value) {
        return Ok(());
    }
    Err(RecipeError::Range { key, value: value.to_string(), expected: format!("{} to {}", range.start(), range.end()) })
}

fn real(key: &'static str, value: f64, range: RangeInclusive<f64>) -> Result<(), RecipeError> {
    if range.contains(&value) {
        return Ok(());
    }
    Err(RecipeError::Range { key, value: value.to_string(), expected: format!("{} to {}", range.start(), range.end()) })
}

/// Every key of a recipe for the family of `table`'s, dotted.
fn known_keys(table: &Table) -> Vec<String> {
    let model = table.get("model").and_then(Value::as_table);
    let family = if model.is_some_and(is_vit) { VIT } else { BUILT_IN[0].0 };
    let (_, text) = BUILT_IN.iter().find(|(name, _)| *name == family).expect("there is one of each family");
    keys(&text.parse().expect("built-in recipes are valid"))
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

#[cfg(test)]
mod tests {
    use super::*;

    fn quick(overrides: &[&str]) -> Result<Recipe, RecipeError> {
        let overrides: Vec<_> = overrides.iter().map(|text| text.to_string()).collect();
        Recipe::parse(BUILT_IN[0].1, &overrides)
    }

    #[test]
    fn every_built_in_recipe_is_valid_and_bears_its_name() {
        for (name, text) in BUILT_IN {
            let recipe = Recipe::parse(text, &[]).unwrap();
            assert_eq!(recipe.name, name);
            assert_eq!(Recipe::parse(&recipe.to_toml(), &[]).unwrap(), recipe);
        }
    }

    #[test]
    fn every_field_is_explained() {
        let page = include_str!("../../../docs/recipes.md");
        for name in [BUILT_IN[0].0, VIT] {
            let (_, text) = BUILT_IN.iter().find(|(known, _)| *known == name).unwrap();
            for key in keys(&text.parse().unwrap()).into_iter().filter(|key| key != "name") {
                assert!(page.contains(&format!("`{key}`")), "docs/recipes.md lacks {key}");
            }
        }
    }

    #[test]
    fn every_file_in_the_recipes_folder_is_built_in() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../recipes");
        let mut files: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        let mut known: Vec<std::ffi::OsString> =
            BUILT_IN.iter().map(|(name, _)| format!("{name}.toml").into()).collect();
        files.sort();
        known.sort();
        assert_eq!(files, known);
    }

    #[test]
    fn recipes_make_the_networks_and_schedules_of_their_references() {
        let recipe = |name: &str| {
            let (_, text) = BUILT_IN.iter().find(|(known, _)| *known == name).unwrap();
            Recipe::parse(text, &[]).unwrap()
        };
        for name in ["s1-plain", "s1-mixup", "s1-cutmix", "s1-aggressive", "s1-smoothing"] {
            let architecture = recipe(name).architecture(10, 32).unwrap();
            assert_eq!(kiln_model::Summary::new(&architecture, 32).parameters(), 11_154_890, "{name}");
            assert_eq!(50_000 / recipe(name).training.batch_size, 3125, "{name}");
        }
        // 5 of 200 epochs of warm-up, and 1e-6 at the end.
        for name in ["s2-batch-norm", "s2-group-norm", "vit-tiny"] {
            let Recipe { training, optimizer, schedule, .. } = recipe(name);
            let rate = |epoch: usize| optimizer.lr * schedule.factor(epoch, training.epochs);
            assert!(rate(4) < 0.1 && rate(5) == 0.1 && rate(6) < 0.1, "{name}");
            assert!((rate(200) - 1e-6).abs() < 1e-12, "{name}");
        }
        let Recipe { schedule, .. } = recipe("s3");
        for (epoch, factor) in [(0, 1.0), (59, 1.0), (60, 0.1), (79, 0.1), (80, 0.01), (99, 0.01)] {
            assert!((schedule.factor(epoch, 100) - factor).abs() < 1e-12, "{epoch}");
        }
    }

    #[test]
    fn a_transformer_is_trained_under_the_conditions_of_its_rival_and_has_keys_of_its_own() {
        let recipe = |name: &str, overrides: &[&str]| {
            let (_, text) = BUILT_IN.iter().find(|(known, _)| *known == name).unwrap();
            Recipe::parse(text, &overrides.iter().map(|text| text.to_string()).collect::<Vec<_>>())
        };
        let (vit, resnet) = (recipe("vit-tiny", &[]).unwrap(), recipe("s2-batch-norm", &[]).unwrap());
        let conditions = |recipe: Recipe| (recipe.training, recipe.optimizer, recipe.schedule, recipe.augment);
        assert_eq!(conditions(vit.clone()), conditions(resnet));
        assert_eq!(kiln_model::Summary::new(&vit.architecture(10, 32).unwrap(), 32).parameters(), 5_362_378);
        let json = serde_json::to_string(&vit).unwrap();
        assert_eq!(serde_json::from_str::<Recipe>(&json).unwrap(), vit, "as a checkpoint keeps it");
        for (entry, words) in [
            ("model.norm=group", "no key 'model.norm'"),
            ("model.heads=5", "5 heads do not share the 192 channels"),
            ("model.patch=5", "patches of 5"),
            ("training.precision=bf16", "f32 for vit-tiny"),
            ("model.preset=resnet18", "no key 'model."),
        ] {
            let error = recipe("vit-tiny", &[entry]).unwrap_err().to_string();
            assert!(error.contains(words), "{entry}: {error}");
        }
        assert!(quick(&["model.heads=3"]).unwrap_err().to_string().contains("no key 'model.heads'"));
    }

    #[test]
    fn overrides_reach_every_kind_of_field() {
        let recipe = quick(&[
            "optimizer.lr=1",
            "training.epochs = 3",
            "schedule.kind=multi_step",
            "schedule.milestones=[0.6, 0.8]",
            "optimizer.nesterov=false",
        ])
        .unwrap();
        assert_eq!((recipe.optimizer.lr, recipe.training.epochs, recipe.optimizer.nesterov), (1.0, 3, false));
        assert_eq!((recipe.schedule.kind, recipe.schedule.milestones), (ScheduleKind::MultiStep, vec![0.6, 0.8]));
    }

    #[test]
    fn the_last_share_of_a_run_is_augmented_less() {
        let recipe = quick(&["augment.cutout=8", "augment.final_share=0.25", "augment.final_keeps=nothing"]).unwrap();
        assert_eq!([0, 74, 75, 99].map(|step| recipe.augment_at(step, 100).cutout), [8, 8, 0, 0]);
        assert_eq!(recipe.augment_at(99, 100).crop_padding, 0);
        let recipe = quick(&["augment.final_share=0.25", "augment.final_keeps=crop_and_flip"]).unwrap();
        assert_eq!(recipe.augment_at(99, 100).crop_padding, 4);
        let recipe = quick(&[]).unwrap();
        assert_eq!(*recipe.augment_at(99, 100), recipe.augment, "all the way where the share is 0");
    }

    #[test]
    fn a_misspelt_key_brings_the_nearest_one() {
        for (wrong, right) in [
            ("optimizer.learning_rte=1", "lr"),
            ("optimizer.momentm=0.9", "optimizer.momentum"),
            ("training.epoch=3", "training.epochs"),
        ] {
            let error = quick(&[wrong]).unwrap_err().to_string();
            assert!(error.contains("no key"), "{error}");
            if wrong != "optimizer.learning_rte=1" {
                assert!(error.contains(&format!("did you mean '{right}'")), "{error}");
            }
        }
        let misspelt = BUILT_IN[0].1.replace("batch_size", "batchsize");
        let error = Recipe::parse(&misspelt, &[]).unwrap_err().to_string();
        assert!(error.contains("'training.batchsize'; did you mean 'training.batch_size'?"), "{error}");
    }

    #[test]
    fn impossible_values_name_their_key() {
        for (entry, key) in [
            ("model.width=0", "width"),
            ("training.epochs=0", "training.epochs"),
            ("optimizer.lr=nan", "optimizer.lr"),
            ("optimizer.lr=-1", "optimizer.lr"),
            ("training.validation=1.5", "training.validation"),
            ("training.micro_batches=0", "training.micro_batches"),
            ("training.micro_batches=129", "must be 1 to 128"),
            ("training.image_size=0", "training.image_size"),
            ("training.clip_norm=-1", "training.clip_norm"),
            ("training.ema_decay=1", "training.ema_decay"),
            ("training.flip_tta=2", "flip_tta"),
            ("model.stem=compact", "cifar or imagenet for resnet18"),
            ("augment.flip_chance=2", "augment.flip_chance"),
            ("augment.cutout=-1", "cutout"),
            ("augment.final_share=1.1", "augment.final_share"),
            ("augment.final_keeps=all", "final_keeps"),
            ("augment.affine.chance=nan", "augment.affine.chance"),
            ("augment.affine.rotation=200", "augment.affine.rotation"),
            ("augment.affine.translation=2", "augment.affine.translation"),
            ("augment.affine.scale=1", "augment.affine.scale"),
            ("augment.affine.shear=90", "augment.affine.shear"),
            ("augment.colour.brightness=2", "augment.colour.brightness"),
            ("augment.colour.contrast=-1", "augment.colour.contrast"),
            ("augment.colour.saturation=2", "augment.colour.saturation"),
            ("augment.mix.mixup_alpha=0", "augment.mix.mixup_alpha"),
            ("augment.mix.cutmix_alpha=9", "augment.mix.cutmix_alpha"),
            ("model.preset=resnet19", "resnet19"),
        ] {
            let error = quick(&[entry]).unwrap_err().to_string();
            assert!(error.contains(key), "{entry}: {error}");
        }
        let both = ["augment.mix.mixup_chance=0.6", "augment.mix.cutmix_chance=0.6"];
        assert!(quick(&both).unwrap_err().to_string().contains("augment.mix.cutmix_chance = 0.6"));
        assert!(matches!(quick(&["lr"]), Err(RecipeError::Override(_))));
        assert!(matches!(quick(&["training.epochs=many"]), Err(RecipeError::Syntax(_))));
    }
}
