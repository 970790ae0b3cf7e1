//! `kiln recipes`, and how commands find a recipe.

use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, Result};
use kiln_data::bounded_read;
use kiln_train::recipe::{ALIASES, BUILT_IN, built_in, resolved};

use crate::args::RecipesArgs;

pub fn run(args: RecipesArgs) -> Result<ExitCode> {
    match args.name {
        Some(name) => print!("{}", resolved(&text(&name)?)?),
        None => {
            for (name, text) in BUILT_IN {
                let alias = ALIASES.iter().find(|(_, new)| *new == name);
                let alias = alias.map(|(old, _)| format!(" (formerly {old})")).unwrap_or_default();
                println!("{name:<21}{}{alias}", summary(text));
            }
            println!("\n`kiln recipes NAME` prints one with every key; change it and train with --recipe FILE.");
            println!("A file may start from a built-in one: base = \"NAME\", then only what differs.");
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// The first sentence of a recipe's comment.
fn summary(text: &str) -> String {
    let comment: Vec<_> = text.lines().map_while(|line| line.strip_prefix("# ")).collect();
    let comment = comment.join(" ");
    comment.split_once(". ").map_or(comment.clone(), |(first, _)| first.to_owned())
}

/// What is trained where no recipe is named.
pub fn default_name(is_gpu: bool) -> &'static str {
    if is_gpu { "resnet18" } else { "quick" }
}

/// The recipe of that name, or the file.
pub fn text(name: &str) -> Result<String> {
    if let Some((_, text)) = built_in(name) {
        return Ok(text.to_owned());
    }
    let known = BUILT_IN.map(|(name, _)| name).join(", ");
    bounded_read::read_text(Path::new(name)).with_context(|| {
        format!("no recipe is called '{name}' (there are {known}), nor can a file of that name be read")
    })
}
