//! `kiln summary`

use std::process::ExitCode;

use anyhow::{Result, bail};
use kiln_model::{Architecture, NormKind, Stem, Summary};
use kiln_report::grouped;
use serde_json::json;

use crate::args::SummaryArgs;

pub fn run(args: SummaryArgs) -> Result<ExitCode> {
    let mut architecture = Architecture::preset(args.model.parse()?, args.classes);
    match &mut architecture {
        Architecture::ResNet(config) => {
            config.width = args.width.unwrap_or(config.width);
            if args.imagenet_stem {
                config.stem = Stem::Imagenet;
            }
            if let Some(groups) = args.group_norm {
                (config.norm, config.groups) = (NormKind::Group, groups);
            }
        }
        Architecture::Vit(_) if args.imagenet_stem || args.group_norm.is_some() => {
            bail!(
                "a transformer has neither a stem nor group normalization: leave --imagenet-stem and --group-norm out"
            )
        }
        Architecture::Vit(config) => {
            config.width = args.width.unwrap_or(config.width);
            config.image_size = args.image_size.into();
        }
    }
    architecture.validate()?;
    let summary = Summary::new(&architecture, args.image_size.into());
    if args.json {
        let (parameters, mult_adds) = (summary.parameters(), summary.mult_adds());
        println!(
            "{}",
            json!({"architecture": architecture, "parameters": parameters, "mult_adds": mult_adds, "layers": summary.layers})
        );
        return Ok(ExitCode::SUCCESS);
    }
    println!("{:<24} {:<20} {:>16} {:>12} {:>14}", "layer", "kind", "output", "parameters", "mult-adds");
    for layer in &summary.layers {
        let output = layer.output.iter().map(usize::to_string).collect::<Vec<_>>().join(" x ");
        let (parameters, mult_adds) = (grouped(layer.parameters), grouped(layer.mult_adds));
        println!("{:<24} {:<20} {output:>16} {parameters:>12} {mult_adds:>14}", layer.name, layer.kind);
    }
    let megabytes = |bytes: usize| format!("{:.2} MB", bytes as f64 / 1e6);
    println!("\nparameters by component");
    for (name, count) in summary.components() {
        println!("  {name:<10} {:>12}  {:>5.1} %", grouped(count), 100.0 * count as f64 / summary.parameters() as f64);
    }
    println!("\nparameters   {:>12}  {} in f32", grouped(summary.parameters()), megabytes(summary.parameters() * 4));
    println!("mult-adds    {:>12}  {:.2} M an image", grouped(summary.mult_adds()), summary.mult_adds() as f64 / 1e6);
    println!("activations  {:>12}  an image, forward, in f32", megabytes(summary.activation_bytes()));
    Ok(ExitCode::SUCCESS)
}
