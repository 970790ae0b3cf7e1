//! `kiln compare`

use std::collections::BTreeSet;
use std::process::ExitCode;

use anyhow::Result;
use kiln_report::{Comparison, Run, comparison_figures};
use serde_json::json;

use crate::args::CompareArgs;
use crate::report::write_figures;

pub fn run(args: CompareArgs) -> Result<ExitCode> {
    let mut runs = args.runs.iter().map(|folder| Run::read(folder)).collect::<Result<Vec<_>, _>>()?;
    let names: BTreeSet<&str> = runs.iter().map(|run| run.name.as_str()).collect();
    if names.len() < runs.len() {
        // Folders of one name lie in different places.
        runs.iter_mut().zip(&args.runs).for_each(|(run, folder)| run.name = folder.display().to_string());
    }
    let runs: Vec<&Run> = runs.iter().collect();
    let comparison = Comparison::of(&runs);
    if args.json {
        println!("{}", json!({"comparison": comparison, "caveat": comparison.caveat()}));
    } else {
        print!("{}", comparison.text());
        if let Some(caveat) = comparison.caveat() {
            println!("\nnote: {caveat}");
        }
    }
    if let Some(folder) = &args.out {
        write_figures(folder, comparison_figures(&runs).iter())?;
        if !args.json {
            println!("\npictures in {}", folder.display());
        }
    }
    Ok(ExitCode::SUCCESS)
}
