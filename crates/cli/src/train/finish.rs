//! What is said after the last step: accuracies, and where everything is.

use std::process::ExitCode;

use anyhow::Result;
use kiln::{Finished, Run, Tested};
use kiln_model::Metadata;
use kiln_report::duration;
use kiln_train::{EpochMetrics, Predictions};
use serde_json::{Value, json};

use super::{Session, data_arguments, program};
use crate::report::warn_of_letters;

/// Says how good the network is and makes the report.
pub fn finish(run: &Run, finished: &Finished, session: &Session) -> Result<ExitCode> {
    let Session { args, screen, .. } = *session;
    screen.say(event(run, finished), || lines(run, finished).join("\n"));
    let folder = run.folder();
    if !args.no_report {
        match run.report() {
            Ok(path) => {
                screen.say(json!({"event": "report", "report": path}), || format!("report   {}", path.display()));
                warn_of_letters(folder);
            }
            // Whatever it is, the network is trained and its bundle written.
            Err(error) => eprintln!(
                "warning: the report could not be made: {error}; try again with: {} report {}{}",
                program(),
                folder.path().display(),
                data_arguments(&args.data)
            ),
        }
    }
    if !screen.json {
        println!("next     {} predict --model {} IMAGE..", program(), folder.path().display());
    }
    Ok(if session.signals.stop() { session.signals.exit_code() } else { ExitCode::SUCCESS })
}

fn event(run: &Run, Finished { best_epoch, tested, .. }: &Finished) -> Value {
    let (header, folder) = (run.header(), run.folder());
    let test = tested.first().map(|tested| tested.plain.evaluation());
    let tests: Vec<_> = tested
        .iter()
        .map(|tested| {
            json!({
                "weights": tested.weights,
                "accuracy": tested.plain.accuracy(),
                "loss": tested.plain.loss(),
                "balanced_accuracy": tested.plain.balanced_accuracy(),
                "flip_tta_accuracy": tested.flip_tta.as_ref().map(Predictions::accuracy),
            })
        })
        .collect();
    json!({
        "event": "finished",
        "run": folder.path(),
        "bundle": folder.bundle(),
        "seconds": header.seconds,
        "best_epoch": best_epoch.epoch,
        "validation_accuracy": best_epoch.validation_accuracy,
        "validation_balanced_accuracy": best_epoch.validation_balanced_accuracy,
        "last_validation_accuracy": header.history.last().and_then(|last| last.validation_accuracy),
        "test_accuracy": test.as_ref().map(|test| test.accuracy),
        "test_loss": test.as_ref().map(|test| test.loss),
        "test_samples": test.as_ref().map(|test| test.samples),
        "tests": tests,
    })
}

fn lines(run: &Run, Finished { bundle, best_epoch, tested }: &Finished) -> Vec<String> {
    let (header, folder) = (run.header(), run.folder());
    let Metadata { dataset, .. } = &bundle.metadata;
    let chosen_by = match best_epoch.validation_accuracy {
        Some(validation) => {
            format!(", the best of {} by validation ({:.2} %)", header.history.len(), 100.0 * validation)
        }
        None => String::new(),
    };
    let line = |accuracy: f64, of: &str, tested: Option<&Tested>| {
        let flipped = tested.and_then(|tested| tested.flip_tta.as_ref());
        let flipped = flipped.map(|flipped| format!("; {:.2} % over mirror images", 100.0 * flipped.accuracy()));
        format!("{:.2} % {of}{}", 100.0 * accuracy, flipped.unwrap_or_default())
    };
    let accuracy = match bundle.metadata.measured_accuracy() {
        Some((accuracy, split, images)) => line(
            accuracy,
            &format!("on {images} {split} images of {dataset}{}", balanced(best_epoch, tested)),
            tested.first(),
        ),
        None => "not known".to_owned(),
    };
    let mut lines = vec![format!("accuracy {accuracy}")];
    lines.extend(tested.iter().skip(1).map(|tested| {
        let of = if tested.weights == "last" { "with the last epoch's weights" } else { "before averaging" };
        format!("         {}", line(tested.plain.accuracy(), of, Some(tested)))
    }));
    lines.extend([
        format!("weights  of epoch {}{chosen_by}", best_epoch.epoch),
        format!("time     {}", duration(header.seconds)),
        format!("bundle   {}", folder.bundle().display()),
        format!("metrics  {}", folder.metrics().display()),
    ]);
    lines
}

/// The mean of the classes' own accuracies, where their sizes differ much.
fn balanced(best_epoch: &EpochMetrics, tested: &[Tested]) -> String {
    let balanced = match tested.first() {
        Some(tested) => tested.plain.balanced_accuracy(),
        None => best_epoch.validation_balanced_accuracy,
    };
    balanced.map(|balanced| format!(", {:.2} % balanced over the classes", 100.0 * balanced)).unwrap_or_default()
}
