//! `kiln report`

use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Result, ensure};
use kiln::{CLASS_KEY, Evaluator, gather_evidence, open_bundle, refresh_evaluation, test_images, write_report};
use kiln_data::Dataset;
use kiln_model::Bundle;
use kiln_report::{Evidence, History, RunRecord};
use kiln_train::run_dir::RunDir;
use serde_json::json;

use crate::args::{CompareArgs, ReportArgs};
use crate::compare;
use crate::data::of_training;
use crate::devices::choose;

pub fn run(args: ReportArgs) -> Result<ExitCode> {
    ensure!(args.out.is_none() || args.runs.len() > 1, "--out is for runs beside each other: name two or more");
    // Before anything is computed for nothing.
    args.runs.iter().try_for_each(|folder| RunRecord::read(folder).map(drop))?;
    args.runs.iter().try_for_each(|folder| report(&args, &RunDir::open(folder)))?;
    match args.out {
        Some(out) => compare::run(CompareArgs { runs: args.runs, out: Some(out), json: args.json }),
        None => Ok(ExitCode::SUCCESS),
    }
}

/// Makes the report of one run.
fn report(args: &ReportArgs, run: &RunDir) -> Result<()> {
    let started = Instant::now();
    let mut evidence = Evidence::default();
    match finished(args, run) {
        Ok((bundle, data)) => {
            let device = choose(args.scoring.device)?.device;
            let network = Evaluator::new(&bundle, &data, args.scoring.batch_size.into(), &device)?;
            let (_, set) = test_images(&data);
            let set = &*set;
            let predictions = network.predict(set, true)?;
            refresh_evaluation(run, &network, &data, &predictions)?;
            evidence = gather_evidence(run, &bundle, &data, predictions, args.embed)?;
        }
        // What the user named has to be there; what the run was trained on may be gone.
        Err(error) if args.data.is_named() => return Err(error),
        Err(error) => {
            evidence.missing.push(format!("Everything that needs the images, which are unavailable: {error:#}."));
            if !run.evaluation().is_file() {
                evidence.missing.push("Scores on test images, which have not been computed yet.".to_owned());
            }
        }
    }
    let path = write_report(run, &evidence)?;
    warn_of_letters(run);
    if args.json {
        let analysis = RunRecord::read(run.path()).map(|run| History::of(&run.history).sentences(&run.recipe))?;
        let seconds = started.elapsed().as_secs_f64();
        println!("{}", json!({"report": path, "analysis": analysis, "missing": evidence.missing, "seconds": seconds}));
    } else {
        print_analysis(run, &evidence)?;
        println!("report   {}", path.display());
    }
    Ok(())
}

/// The bundle and the images of a run that has both.
fn finished(args: &ReportArgs, run: &RunDir) -> Result<(Bundle, Dataset)> {
    ensure!(run.bundle().is_file(), "the run has no bundle, since it did not reach its end");
    let (_, bundle) = open_bundle(run.path())?;
    let originals = RunRecord::read(run.path())?.recipe.augment.resized_crop.is_on();
    let data = of_training(&args.data, &bundle.metadata, originals, "go without the pictures of them")?;
    Ok((bundle, data))
}

/// Says that class names of some scripts are not in the PNGs.
pub fn warn_of_letters(run: &RunDir) {
    let key = run.figures().join(CLASS_KEY);
    if key.is_file() {
        eprintln!(
            "note: the figures' font lacks letters of some class names: the PNG files have numbers, which {} explains; the \
             report and the SVG files have the names",
            key.display()
        );
    }
}

fn print_analysis(run: &RunDir, evidence: &Evidence) -> Result<()> {
    let run = RunRecord::read(run.path())?;
    println!("{}", run.name);
    for sentence in History::of(&run.history).sentences(&run.recipe) {
        println!("  {sentence}");
    }
    for sentence in &evidence.missing {
        println!("  Missing: {sentence}");
    }
    println!();
    Ok(())
}
