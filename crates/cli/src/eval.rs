//! `kiln eval`

use std::io::IsTerminal;
use std::process::ExitCode;

use anyhow::Result;
use indicatif::{ProgressBar, ProgressStyle};
use kiln::{Evaluator, evaluate, save_evaluation, test_images};
use kiln_data::{Corruption, ImageSet, SEVERITIES, corrupt};
use kiln_report::evaluation_text;
use kiln_train::run_dir::RunDir;
use kiln_train::{Corrupted, Metrics};

use crate::args::EvalArgs;
use crate::data;
use crate::devices::choose;
use crate::model::open;

pub fn run(args: EvalArgs) -> Result<ExitCode> {
    let (path, bundle) = open(&args.model)?;
    let chosen = choose(args.scoring.device)?;
    let data = data::to_score(&args.data, &bundle.metadata)?;
    let network = Evaluator::new(&bundle, &data, args.scoring.batch_size.into(), &chosen.device)?;
    let (_, set) = test_images(&data);
    let set = &*set;

    let predictions = network.predict(set, args.tta)?;
    let run = args.model.is_dir().then(|| RunDir::open(&args.model));
    let mut report = evaluate(&network, run.as_ref(), &path, &data, &predictions, args.seed)?;
    if args.tta {
        report.flip_tta = Some(Metrics::of(&network.predict_flipped(set, &predictions)?)?);
    }
    if args.corruptions {
        report.corruptions = corruptions(&network, set, args.seed)?;
    }
    if args.json {
        println!("{}", serde_json::to_string(&report)?)
    } else {
        print!("{}", evaluation_text(&report))
    }
    if let Some(run) = run {
        save_evaluation(&run, &report)?;
        if !args.json {
            println!("\nsaved {}", run.evaluation().display());
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Every corruption at every severity.
fn corruptions(network: &Evaluator, set: &ImageSet, seed: u64) -> Result<Vec<Corrupted>> {
    let passes = Corruption::ALL.len() * SEVERITIES;
    let bar = if std::io::stderr().is_terminal() { ProgressBar::new(passes as u64) } else { ProgressBar::hidden() };
    bar.set_style(ProgressStyle::with_template("corrupted images {bar:24} {pos}/{len} ETA {eta}")?);
    let mut results = vec![];
    for corruption in Corruption::ALL {
        for severity in 1..=SEVERITIES {
            let metrics = Metrics::of(&network.predict(&corrupt(set, corruption, severity, seed), false)?)?;
            let corruption = corruption.name().to_owned();
            results.push(Corrupted { corruption, severity, accuracy: metrics.accuracy, loss: metrics.loss });
            bar.inc(1);
        }
    }
    bar.finish_and_clear();
    Ok(results)
}
