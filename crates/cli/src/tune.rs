//! `kiln tune`

use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use kiln::choose;
use kiln_infer::conv2d::{Geometry, Outcome};
use kiln_kernels::tuning::{Patience, TunedPass, Tuning};
use kiln_report::{duration, grouped};
use kiln_train::Recipe;
use serde_json::{Value, json};

use crate::args::TuneArgs;
use crate::bench::{peak, print_json};
use crate::printable::message;
use crate::recipes;

/// For a form to be compiled and run, or to be timed. Some drivers compile for many seconds.
const PATIENCE: Duration = Duration::from_secs(20);

pub fn run(args: TuneArgs) -> Result<ExitCode> {
    let selected = choose(args.device)?;
    let adapter = selected.adapter.as_ref();
    let adapter = adapter.with_context(|| format!("{} runs no shaders: choose a GPU with --device", selected.name))?;
    let recipe = Recipe::parse(&recipes::text(&args.recipe)?, &args.overrides)?;
    let training = &recipe.training;
    let batch = training.batch_size.div_ceil(training.micro_batches);
    ensure!(training.image_size > 0, "the recipe leaves the size of its images open: say --set training.image_size=N");
    let convolutions = recipe.architecture(args.classes, training.image_size)?.convolutions(training.image_size, batch);
    let mut tuning = Tuning::open(adapter);
    if let Some(warning) = tuning.warning() {
        eprintln!("warning: {}", message(warning));
    }
    let missing = if args.again { convolutions.clone() } else { tuning.missing(&convolutions) };

    let peak = peak(&selected)?;
    if !args.json {
        println!("device   {}", selected.name);
        let (count, known) = (convolutions.len(), convolutions.len() - missing.len());
        println!("network  {count} different convolutions in batches of {batch}, {known} of them known already");
        if let Some(peak) = peak.filter(|_| !missing.is_empty()) {
            println!("peak     {} GFLOP/s in f32, measured\n", grouped(peak as usize));
            println!("{HEAD}");
        }
    }
    let (start, mut rows) = (Instant::now(), vec![]);
    let patience = Patience { total: args.budget.map_or(Duration::MAX, |budget| budget.0), form: PATIENCE };
    let result = tuning.tune(adapter, &missing, patience, |pass| {
        if args.json {
            rows.push(row(pass));
        } else {
            print(pass, peak);
        }
    });
    result.with_context(|| format!("{} was not tuned to its end", selected.name))?;
    let (seconds, left) = (start.elapsed().as_secs_f64(), tuning.missing(&convolutions).len());
    if args.json {
        print_json(
            &selected,
            peak,
            json!({"batch": batch, "seconds": seconds, "left": left, "file": tuning.file(), "passes": rows}),
        );
        return Ok(ExitCode::SUCCESS);
    }
    let rest = if left == 0 { String::new() } else { format!("; the time was too short for {left} convolutions") };
    println!("\ntuned    in {}{rest}", duration(seconds));
    match tuning.file() {
        Some(file) => println!("kept in  {}", file.display()),
        None => println!("kept     nowhere: this system names no folder for it"),
    }
    Ok(ExitCode::SUCCESS)
}

const HEAD: &str =
    "convolution                     pass             fastest form            ms   GFLOP/s  of peak   next best";

fn name(geometry: &Geometry) -> String {
    let Geometry { input: [channels, height, width], outputs: [out, ..], kernel, stride, .. } = *geometry;
    format!("{kernel}x{kernel} {channels}->{out} at {height}x{width} /{stride}")
}

fn print(pass: &TunedPass, peak: Option<f64>) {
    let ranking = pass.ranking();
    let name = name(&pass.geometry);
    match ranking.first() {
        Some((form, time)) => {
            let seconds = time.as_secs_f64();
            let rate = pass.operations() / seconds / 1e9;
            let share = peak.map_or(String::new(), |peak| format!("{:.0} %", 100.0 * rate / peak));
            let next = ranking.get(1).map_or(String::new(), |(form, time)| {
                format!("{form}, {:.2} times as long", time.as_secs_f64() / seconds)
            });
            let milliseconds = 1000.0 * seconds;
            println!("{name:<31} {:<16} {form:<19} {milliseconds:>7.2} {rate:>9.1} {share:>8}   {next}", pass.pass);
        }
        None => println!("{name:<31} {:<16} no form is right on this device: see kiln doctor", pass.pass),
    }
    for (form, fault) in faults(pass) {
        println!("{:<31} {:<16} left out: {form} {}", "", "", message(fault));
    }
}

/// Forms that are never chosen on this device, and why.
fn faults(pass: &TunedPass) -> Vec<(String, String)> {
    let failed = pass.trials.iter().filter_map(|trial| {
        let fault = match &trial.outcome {
            Outcome::Right(_) => return None,
            Outcome::Wrong(error) => format!("gives wrong numbers, off by {error:.1e} of the largest"),
            Outcome::Refused(reason) => format!("is refused: {reason}"),
            Outcome::TooLong(patience) => format!("takes longer than {} s", patience.as_secs()),
        };
        Some((trial.form.to_string(), fault))
    });
    let avoided = pass.avoided.iter().map(|form| (form.to_string(), "ended two earlier processes".to_owned()));
    failed.chain(avoided).collect()
}

fn row(pass: &TunedPass) -> Value {
    let times: Vec<_> = pass
        .ranking()
        .into_iter()
        .map(|(form, time)| json!({"form": form.to_string(), "milliseconds": 1000.0 * time.as_secs_f64()}))
        .collect();
    let left_out: Vec<_> =
        faults(pass).into_iter().map(|(form, reason)| json!({"form": form, "reason": reason})).collect();
    json!({
        "convolution": name(&pass.geometry), "pass": pass.pass.to_string(), "timed_batch": pass.batch,
        "operations": pass.operations(), "forms": times, "left_out": left_out,
    })
}
