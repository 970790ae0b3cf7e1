//! `kiln import`

use std::fs;
use std::io;
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, Result};
use kiln_convert::{Choices, Hints, Normalization, open, parse_classes};
use kiln_data::bounded_read;
use kiln_model::{Bundle, Metadata, Summary};
use kiln_report::grouped;
use kiln_train::run_dir::write_whole_with;
use serde_json::json;

use crate::args::ImportArgs;
use crate::export::check_output;
use crate::printable::{message, printable};

pub fn run(args: ImportArgs) -> Result<ExitCode> {
    let output = args.output.clone().unwrap_or_else(|| {
        let stem = args.file.file_stem().unwrap_or_default().to_string_lossy();
        args.file.with_file_name(format!("{stem}-kiln.safetensors"))
    });
    // A missing file is the first thing to say.
    fs::metadata(&args.file).with_context(|| format!("cannot read {}", args.file.display()))?;
    check_output(&args.file, &output, args.force)?;
    let choices = Choices {
        classes: args.classes.as_deref().map(classes).transpose()?,
        normalization: args.mean.zip(args.std).map(|(mean, std)| Normalization { mean: mean.0, std: std.0 }),
        preset: args.preprocess,
        image_size: args.image_size,
    };
    let context = || format!("cannot import {}", args.file.display());
    let imported = open(&args.file, Hints { groups: args.groups, heads: args.heads }).with_context(context)?;
    let format = imported.format.name();
    let (bundle, notes) = imported.bundle(choices).with_context(context)?;
    write_whole_with(&output, |file| bundle.write_to(file).map_err(io::Error::other))?;
    if args.json {
        let metadata = &bundle.metadata;
        println!(
            "{}",
            json!({"file": args.file, "format": format, "output": output, "metadata": metadata, "notes": notes})
        );
    } else {
        describe(&args.file, format, &bundle);
        notes.iter().for_each(|note| println!("note     {}", message(note)));
        println!("written  {}", output.display());
    }
    Ok(ExitCode::SUCCESS)
}

/// A file of names, or the names themselves.
fn classes(text: &str) -> Result<Vec<String>> {
    let path = Path::new(text);
    if path.exists() {
        let names = bounded_read::read_text(path).with_context(|| format!("cannot read {text}"))?;
        return parse_classes(&names).with_context(|| format!("{text} is not a list of classes"));
    }
    Ok(text.split(',').map(|name| name.trim().to_owned()).collect())
}

fn describe(file: &Path, format: &str, bundle: &Bundle) {
    let Metadata { architecture, classes, image_size, mean, std, preprocessing, .. } = &bundle.metadata;
    let parameters = Summary::new(architecture, *image_size).parameters();
    println!("file     {} ({format})", file.display());
    println!("model    {architecture}, {} parameters", grouped(parameters));
    let first: Vec<_> = classes.iter().take(3).map(printable).collect();
    let more = if classes.len() > first.len() { ", .." } else { "" };
    println!("classes  {}: {}{more}", grouped(classes.len()), first.join(", "));
    let way = match preprocessing {
        Some(way) => format!("shorter side to {} pixels ({}), then the middle", way.resize, way.interpolation.name()),
        None => "the center square, resized".to_owned(),
    };
    println!("input    {image_size} x {image_size} pixels: {way}");
    println!("         mean {mean:?}, standard deviation {std:?}");
    println!("accuracy not known");
}
