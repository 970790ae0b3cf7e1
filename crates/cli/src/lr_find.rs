//! `kiln lr-find`

use std::io::IsTerminal;
use std::process::ExitCode;

use anyhow::{Result, ensure};
use indicatif::{ProgressBar, ProgressStyle};
use kiln_train::run_dir::write_whole;
use kiln_train::{LrFind, RangeTest, Recipe, Trainer};

use crate::args::LrFindArgs;
use crate::devices::choose;
use crate::signals::Signals;
use crate::{data, recipes};

/// Lines of the table.
const ROWS: usize = 15;

pub fn run(args: LrFindArgs) -> Result<ExitCode> {
    let test = RangeTest { start: args.start, end: args.end, steps: args.steps.into() };
    ensure!(
        0.0 < test.start && test.start < test.end && test.end.is_finite(),
        "the rate cannot grow from {} to {}: --start has to be above 0 and below --end",
        test.start,
        test.end
    );
    let chosen = choose(args.device)?;
    let name = args.recipe.as_deref().unwrap_or(recipes::default_name(chosen.is_gpu));
    let mut recipe = Recipe::parse(&recipes::text(name)?, &args.overrides)?;
    let data = data::for_training(&args.data, &mut recipe, None)?;
    let signals = Signals::listen()?;
    let mut trainer = Trainer::new(recipe, &data, Some(test.steps), &chosen.device)?.with_max_pending(0);

    let quiet = args.json || !std::io::stderr().is_terminal();
    let bar = if quiet { ProgressBar::hidden() } else { ProgressBar::new(test.steps as u64) };
    bar.set_style(ProgressStyle::with_template("step {bar:24} {pos}/{len} ETA {eta}")?);
    let found = pollster::block_on(test.run(&mut trainer, &mut || {
        bar.inc(1);
        signals.stop()
    }))?;
    bar.finish_and_clear();
    if signals.stop() {
        return Ok(signals.exit_code());
    }
    ensure!(!found.points.is_empty(), "the loss was not finite at the first step: try a smaller --start");

    let json = serde_json::to_string(&found)?;
    if args.json {
        println!("{json}");
    } else {
        let header = trainer.header();
        println!("recipe {} on {}, {} steps on {}\n", header.recipe.name, data.name, found.points.len(), chosen.name);
        print!("{}", table(&found, header.recipe.optimizer.lr));
    }
    if let Some(out) = args.out {
        let path = if out.is_dir() { out.join("lr-find.json") } else { out };
        write_whole(&path, (json + "\n").as_bytes())?;
        if !args.json {
            println!("curve    {}", path.display());
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Some of the points, evenly, and what they suggest.
fn table(found: &LrFind, now: f64) -> String {
    let mut text = "      rate      loss  smoothed\n".to_owned();
    for point in found.points.iter().step_by(found.points.len().div_ceil(ROWS)) {
        text += &format!("{:>10.2e}  {:>8.4}  {:>8.4}\n", point.learning_rate, point.loss, point.smoothed);
    }
    text += &match (found.steepest, found.tenth_of_minimum) {
        (Some(steepest), Some(tenth)) => format!(
            "\nsuggests {steepest:.2e} (steepest descent) or {tenth:.2e} (a tenth of the minimum's rate)\nthe recipe \
             has {now:.2e}; --set optimizer.lr=RATE changes it\n"
        ),
        _ => {
            "\nthe loss never falls: there is nothing to suggest; try a smaller --start or a larger --end\n".to_owned()
        }
    };
    text
}
