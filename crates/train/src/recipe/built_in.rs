//! The recipes in this program, and recipes that are changes of one of them.

use toml::{Table, Value};

use super::{RecipeError, VIT, is_vit};

/// The recipes in this program, by name.
pub const BUILT_IN: [(&str, &str); 16] = [
    ("quick", include_str!("../../recipes/quick.toml")),
    ("resnet18", include_str!("../../recipes/resnet18.toml")),
    ("speedrun-94", include_str!("../../recipes/speedrun-94.toml")),
    ("speedrun-96", include_str!("../../recipes/speedrun-96.toml")),
    ("image-folder", include_str!("../../recipes/image-folder.toml")),
    ("finetune", include_str!("../../recipes/finetune.toml")),
    ("compact-plain", include_str!("../../recipes/compact-plain.toml")),
    ("compact-mixup", include_str!("../../recipes/compact-mixup.toml")),
    ("compact-cutmix", include_str!("../../recipes/compact-cutmix.toml")),
    ("compact-aggressive", include_str!("../../recipes/compact-aggressive.toml")),
    ("compact-smoothing", include_str!("../../recipes/compact-smoothing.toml")),
    ("resnet18-batch-norm", include_str!("../../recipes/resnet18-batch-norm.toml")),
    ("resnet18-group-norm", include_str!("../../recipes/resnet18-group-norm.toml")),
    ("resnet18-steps", include_str!("../../recipes/resnet18-steps.toml")),
    ("cifar100", include_str!("../../recipes/cifar100.toml")),
    (VIT, include_str!("../../recipes/vit-tiny.toml")),
];

/// Names that recipes had before, and their names now.
pub const ALIASES: [(&str, &str); 8] = [
    ("s1-plain", "compact-plain"),
    ("s1-mixup", "compact-mixup"),
    ("s1-cutmix", "compact-cutmix"),
    ("s1-aggressive", "compact-aggressive"),
    ("s1-smoothing", "compact-smoothing"),
    ("s2-batch-norm", "resnet18-batch-norm"),
    ("s2-group-norm", "resnet18-group-norm"),
    ("s3", "resnet18-steps"),
];

/// Keys that were spelled another way before, by their starts.
const RENAMED_KEYS: [(&str, &str); 1] = [("augment.colour.", "augment.color.")];

/// Today's name of a recipe that may be named by an old one.
pub fn canonical_name(name: &str) -> &str {
    ALIASES.iter().find(|(old, _)| *old == name).map_or(name, |(_, new)| new)
}

/// Today's spelling of a dotted key.
pub fn current_key(key: &str) -> String {
    let renamed = RENAMED_KEYS.iter().find_map(|(old, new)| Some(format!("{new}{}", key.strip_prefix(old)?)));
    renamed.unwrap_or_else(|| key.to_owned())
}

/// Name and text of a built-in recipe, by its name or an old one.
pub fn built_in(name: &str) -> Option<(&'static str, &'static str)> {
    BUILT_IN.into_iter().find(|(known, _)| *known == canonical_name(name))
}

/// A recipe's table with everything that it leaves to its base, if it has one, key by key. Only a `[model]` of another
/// family replaces the base's as a whole, since it has other keys.
pub(super) fn on_base(mut table: Table) -> Result<Table, RecipeError> {
    rename_keys(&mut table);
    let Some(base) = table.remove("base") else { return Ok(table) };
    let name = base.as_str().ok_or_else(|| RecipeError::Base(base.to_string()))?;
    let (name, text) = built_in(name).ok_or_else(|| RecipeError::Unknown { name: name.to_owned() })?;
    let mut whole: Table = text.parse()?;
    if let Some(base) = whole.get("base").and_then(Value::as_str) {
        return Err(RecipeError::BaseOfBase(name.to_owned(), base.to_owned()));
    }
    // The base's name is not this recipe's.
    whole.remove("name");
    let family =
        |table: &Table| table.get("model").and_then(Value::as_table).filter(|model| has_preset(model)).map(is_vit);
    if family(&table).is_some_and(|is_vit| family(&whole) != Some(is_vit)) {
        whole.remove("model");
    }
    merge("", &mut whole, table)?;
    Ok(whole)
}

fn has_preset(model: &Table) -> bool {
    model.contains_key("preset")
}

fn merge(prefix: &str, whole: &mut Table, changes: Table) -> Result<(), RecipeError> {
    for (key, value) in changes {
        match (whole.get_mut(&key), value) {
            (Some(Value::Table(inner)), Value::Table(changes)) => merge(&format!("{prefix}{key}."), inner, changes)?,
            (Some(Value::Table(_)), value) => {
                return Err(RecipeError::NotATable { key: format!("{prefix}{key}"), value: value.to_string() });
            }
            (_, value) => {
                whole.insert(key, value);
            }
        }
    }
    Ok(())
}

fn rename_keys(table: &mut Table) {
    let Some(Value::Table(augment)) = table.get_mut("augment") else { return };
    if let Some(color) = augment.remove("colour") {
        augment.entry("color").or_insert(color);
    }
}
