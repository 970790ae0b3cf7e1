//! `kiln recipes`, and how commands find a recipe.

use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, Result};
use kiln_data::bounded_read;
use kiln_train::recipe::BUILT_IN;

use crate::args::RecipesArgs;

pub fn run(args: RecipesArgs) -> Result<ExitCode> {
    match args.name {
        Some(name) => print!("{}", text(&name)?),
        None => {
            for (name, text) in BUILT_IN {
                println!("{name:<16}{}", summary(text));
            }
            println!("\n`kiln recipes NAME` prints one, to be changed and trained with --recipe FILE.");
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
    if let Some((_, text)) = BUILT_IN.iter().find(|(known, _)| *known == name) {
        return Ok((*text).to_owned());
    }
    let known = BUILT_IN.map(|(name, _)| name).join(", ");
    bounded_read::read_text(Path::new(name)).with_context(|| {
        format!("no recipe is called '{name}' (there are {known}), nor can a file of that name be read")
    })
}
