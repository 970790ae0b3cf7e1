//! What values a recipe may have.

use std::ops::RangeInclusive;

use kiln_data::Augment;
use kiln_infer::Precision;
use kiln_model::{Frozen, Stem};

use super::{COMPACT, Model, Recipe, RecipeError, ResNetModel};

/// The smallest size that suits any images, see [`kiln_data::usual_image_size`].
const SMALLEST_USUAL: usize = 32;

impl Recipe {
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
        integer("training.image_size", training.image_size, 0..=1024)?;
        real("training.crop_pct", training.crop_pct, 0.1..=1.0)?;
        real("training.validation", training.validation.into(), 0.0..=0.9)?;
        real("training.label_smoothing", training.label_smoothing.into(), 0.0..=0.99)?;
        real("training.clip_norm", training.clip_norm, 0.0..=1e6)?;
        real("training.ema_decay", training.ema_decay, 0.0..=0.99999)?;
        real("optimizer.lr", optimizer.lr, 0.0..=1e6)?;
        real("optimizer.momentum", optimizer.momentum, 0.0..=0.9999)?;
        real("optimizer.head_lr_factor", optimizer.head_lr_factor, 0.0..=1e4)?;
        real("optimizer.layer_decay", optimizer.layer_decay, 0.0..=1.0)?;
        real("optimizer.weight_decay", optimizer.weight_decay, 0.0..=1.0)?;
        real("schedule.warmup", schedule.warmup, 0.0..=1.0)?;
        real("schedule.start_factor", schedule.start_factor, 0.0..=1.0)?;
        real("schedule.final_factor", schedule.final_factor, 0.0..=1.0)?;
        real("schedule.gamma", schedule.gamma, 0.0..=1.0)?;
        for milestone in &schedule.milestones {
            real("schedule.milestones", *milestone, 0.0..=1.0)?;
        }
        validate_augment(&self.augment)?;
        // A size that is left to the images is at least this.
        let image_size = if training.image_size == 0 { SMALLEST_USUAL } else { training.image_size };
        let architecture = self.architecture(10, image_size)?;
        match training.freeze {
            Frozen::Stages(stages) => integer("training.freeze", stages, 0..=architecture.stages()),
            Frozen::Nothing | Frozen::Backbone => Ok(()),
        }
    }
}

/// Whether a folder can have that name on every system, and the name has no path in it.
fn is_plain(name: &str) -> bool {
    let allowed = |char: char| char.is_alphanumeric() || "-_. ".contains(char);
    !name.is_empty() && name.len() <= 100 && !name.starts_with('.') && name.chars().all(allowed)
}

fn validate_augment(augment: &Augment) -> Result<(), RecipeError> {
    let Augment { affine, color, mix, .. } = augment;
    real("augment.resized_crop.min_area", augment.resized_crop.min_area, 0.01..=1.0)?;
    real("augment.resized_crop.max_aspect", augment.resized_crop.max_aspect, 1.0..=10.0)?;
    integer("augment.crop_padding", augment.crop_padding, 0..=64)?;
    real("augment.flip_chance", augment.flip_chance, 0.0..=1.0)?;
    integer("augment.cutout", augment.cutout, 0..=1024)?;
    real("augment.final_share", augment.final_share, 0.0..=1.0)?;
    real("augment.affine.chance", affine.chance, 0.0..=1.0)?;
    real("augment.affine.rotation", affine.rotation, 0.0..=180.0)?;
    real("augment.affine.translation", affine.translation, 0.0..=1.0)?;
    real("augment.affine.scale", affine.scale, 0.0..=0.9)?;
    real("augment.affine.shear", affine.shear, 0.0..=60.0)?;
    real("augment.color.brightness", color.brightness, 0.0..=1.0)?;
    real("augment.color.contrast", color.contrast, 0.0..=1.0)?;
    real("augment.color.saturation", color.saturation, 0.0..=1.0)?;
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
