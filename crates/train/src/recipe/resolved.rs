//! A recipe's text with everything that its base gives it.

use std::collections::BTreeMap;

use toml::de::{DeTable, DeValue};

use super::built_in::{BUILT_IN, built_in, current_key};
use super::{Model, Recipe, RecipeError, VIT};

/// Where the comment behind a short value starts.
const COMMENT_COLUMN: usize = 30;

/// A recipe's text with every key, its value and what it means, as a file without a base. Values stand as they were
/// written, as do the comments at the start of the text and behind its values. A text without a base is complete as it is.
///
/// # Errors
/// As [`Recipe::parse`].
pub fn resolved(text: &str) -> Result<String, RecipeError> {
    let recipe = Recipe::parse(text, &[])?;
    let mut entries = written(text)?;
    let Some(base) = entries.remove("base") else { return Ok(text.to_owned()) };
    let base = base.value.trim_matches(['"', '\'']);
    let (_, base) = built_in(base).ok_or_else(|| RecipeError::Unknown { name: base.to_owned() })?;
    let mut values: BTreeMap<_, _> = written(base)?
        .into_iter()
        .map(|(key, Written { value, .. })| (key, Written { value, comment: None }))
        .collect();
    values.append(&mut entries);
    let mut printed: Vec<String> = text.lines().take_while(|line| line.starts_with('#')).map(str::to_owned).collect();
    printed.push(assignment("name", &values["name"], None));
    let mut section = String::new();
    for line in template(&recipe) {
        if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.split(']').next()) {
            name.clone_into(&mut section);
            printed.push(line.to_owned());
        } else if let Some((key, rest)) = line.split_once(" = ") {
            let explained = rest.split_once(" # ").map(|(_, comment)| comment);
            // An empty table in the text hides nothing: every key has a value, or the recipe was refused.
            printed.push(assignment(key, &values[&format!("{section}.{key}")], explained));
        } else {
            printed.push(line.to_owned());
        }
    }
    Ok(printed.join("\n") + "\n")
}

/// A value as a text has it, and the comment behind it.
struct Written {
    value: String,
    comment: Option<String>,
}

/// The line of a key. The text's own comment goes before `explained`.
fn assignment(key: &str, Written { value, comment }: &Written, explained: Option<&str>) -> String {
    let assignment = format!("{key} = {value}");
    match comment.as_deref().or(explained) {
        // A long value still stands off from its comment.
        Some(comment) => format!("{assignment:<width$}# {comment}", width = COMMENT_COLUMN.max(assignment.len() + 1)),
        None => assignment,
    }
}

/// Every dotted key of a text, in today's spelling.
fn written(text: &str) -> Result<BTreeMap<String, Written>, RecipeError> {
    let mut out = BTreeMap::new();
    collect("", DeTable::parse(text)?.get_ref(), text, &mut out);
    Ok(out)
}

fn collect(prefix: &str, table: &DeTable<'_>, text: &str, out: &mut BTreeMap<String, Written>) {
    for (key, value) in table {
        let key = format!("{prefix}{}", key.get_ref());
        if let DeValue::Table(inner) = value.get_ref() {
            collect(&format!("{key}."), inner, text, out);
            continue;
        }
        let rest = text[value.span().end..].lines().next().unwrap_or_default();
        let comment = rest.trim_start().strip_prefix('#').map(|comment| comment.trim().to_owned());
        out.insert(current_key(&key), Written { value: text[value.span()].to_owned(), comment });
    }
}

/// The lines of a file with every key of a recipe for that kind of network, after its name.
fn template(recipe: &Recipe) -> Vec<&'static str> {
    let whole = BUILT_IN[0].1.lines().skip_while(|line| line.starts_with('#') || line.starts_with("name = "));
    if matches!(recipe.model, Model::ResNet(_)) {
        return whole.collect();
    }
    let (_, vit) = built_in(VIT).unwrap_or(BUILT_IN[0]);
    let model = vit.lines().skip_while(|line| *line != "[model]");
    let rest = whole.skip_while(|line| !line.starts_with("[training]"));
    [""].into_iter().chain(model).chain([""]).chain(rest).collect()
}
