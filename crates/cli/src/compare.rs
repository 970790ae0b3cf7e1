//! `kiln compare`

use std::collections::BTreeSet;
use std::process::ExitCode;

use anyhow::Result;
use kiln_data::bounded_read;
use kiln_report::{Comparison, RunRecord, comparison_figures, comparison_page};
use kiln_train::run_dir::write_whole;
use serde_json::json;

use crate::args::CompareArgs;
use crate::printable::printable;
use kiln::write_figures;

pub fn run(args: CompareArgs) -> Result<ExitCode> {
    let mut runs = args.runs.iter().map(|folder| RunRecord::read(folder)).collect::<Result<Vec<_>, _>>()?;
    let names: BTreeSet<&str> = runs.iter().map(|run| run.name.as_str()).collect();
    if names.len() < runs.len() {
        // Folders of one name lie in different places.
        runs.iter_mut().zip(&args.runs).for_each(|(run, folder)| run.name = folder.display().to_string());
    }
    let runs: Vec<&RunRecord> = runs.iter().collect();
    let comparison = Comparison::of(&runs);
    if args.json {
        println!("{}", json!({"comparison": comparison, "caveat": comparison.caveat()}));
    } else {
        print!("{}", printable(comparison.text()));
        if let Some(caveat) = comparison.caveat() {
            println!("\nnote: {}", printable(caveat));
        }
    }
    if let Some(folder) = &args.out {
        let figures = comparison_figures(&runs);
        write_figures(folder, figures.iter(), &[])?;
        let picture = |run: usize, name: &str| {
            let path = args.runs[run].join("figures").join(name).with_extension("svg");
            bounded_read::read(&path, bounded_read::TEXT_BYTES).ok()
        };
        let page = folder.join("compare.html");
        write_whole(&page, comparison_page(&comparison, &figures, picture, env!("CARGO_PKG_VERSION")).as_bytes())?;
        if !args.json {
            println!("\n{}, and the pictures beside it", page.display());
        }
    }
    Ok(ExitCode::SUCCESS)
}
