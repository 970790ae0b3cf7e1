//! What comes after the last step: the test, the bundle and the report.

use std::process::ExitCode;

use anyhow::{Context, Result};
use kiln_data::Split;
use kiln_model::{Bundle, Metadata};
use kiln_report::duration;
use kiln_train::run_dir::{RunDir, write_whole};
use kiln_train::{Checkpoint, EpochMetrics, Evaluation, Predictions, Trainer};
use serde_json::json;

use super::{Session, data_arguments, program};
use crate::eval::Network;
use crate::report;

/// What some weights of the run say of the test images.
struct Tested {
    /// `best`, `last` or `last_before_averaging`.
    weights: &'static str,
    plain: Predictions,
    /// Averaged over mirror images, if the recipe asks for it.
    flip_tta: Option<Predictions>,
}

/// Scores the best epoch's weights by validation, which the bundle gets, on the test images; then, for
/// comparison, the last epoch's if they are others, and those before averaging if they are averaged.
/// Empty without test images; `None` when stopped.
fn test(best: &Checkpoint, trainer: &Trainer, session: &Session) -> Result<Option<Vec<Tested>>> {
    let Session { data, chosen, signals, .. } = *session;
    let Some(set) = &data.test else { return Ok(Some(vec![])) };
    let indices: Vec<u32> = (0..set.len() as u32).collect();
    let last = trainer.checkpoint();
    let mut weights = vec![("best", best.weights())];
    if best.header.step != last.header.step {
        weights.push(("last", last.weights()));
    }
    if !last.ema.is_empty() {
        weights.push(("last_before_averaging", &last.model));
    }
    let mut tested = vec![];
    for (weights, state) in weights {
        let network = best.header.architecture.init(0, &chosen.device)?.load_state_dict(state)?;
        let classifier = trainer.classifier(network);
        let stop = &mut || signals.stop();
        let with_flipped = best.header.recipe.training.flip_tta;
        // The report shows the best weights' features.
        let features = with_flipped || weights == "best";
        let Some(plain) = classifier.predict(set, &indices, features, stop) else { return Ok(None) };
        let flip_tta = match with_flipped {
            true => match classifier.predict_flipped(set, &indices, &plain, stop) {
                Some(predictions) => Some(predictions),
                None => return Ok(None),
            },
            false => None,
        };
        tested.push(Tested { weights, plain, flip_tta });
    }
    Ok(Some(tested))
}

/// Tests the weights, writes the bundle and says where everything is.
pub fn finish(trainer: &Trainer, session: &Session) -> Result<ExitCode> {
    let Session { args, run, data, screen, .. } = *session;
    let header = trainer.header();
    let best = RunDir::read(&run.best()).unwrap_or_else(|error| {
        eprintln!("warning: {error}; the bundle gets the last epoch's weights instead of the best one's");
        trainer.checkpoint()
    });
    let best_epoch = best.header.history.last().context("the best checkpoint has no epoch")?;
    let Some(tested) = test(&best, trainer, session)? else { return Ok(session.signals.exit_code()) };
    let test = tested.first().map(|tested| tested.plain.evaluation());
    let bundle = bundle(&best, best_epoch, trainer.split(), test.as_ref());
    write_whole(&run.bundle(), &bundle.to_bytes()?)?;

    let tests: Vec<_> = tested
        .iter()
        .map(|tested| {
            json!({
                "weights": tested.weights,
                "accuracy": tested.plain.accuracy(),
                "loss": tested.plain.loss(),
                "flip_tta_accuracy": tested.flip_tta.as_ref().map(Predictions::accuracy),
            })
        })
        .collect();
    let event = json!({
        "event": "finished",
        "run": run.path(),
        "bundle": run.bundle(),
        "seconds": header.seconds,
        "best_epoch": best_epoch.epoch,
        "validation_accuracy": best_epoch.validation_accuracy,
        "last_validation_accuracy": header.history.last().and_then(|last| last.validation_accuracy),
        "test_accuracy": test.as_ref().map(|test| test.accuracy),
        "test_loss": test.as_ref().map(|test| test.loss),
        "test_samples": test.as_ref().map(|test| test.samples),
        "tests": tests,
    });
    screen.say(event, || {
        let Metadata { accuracy, accuracy_samples, accuracy_split, dataset, .. } = &bundle.metadata;
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
        let of = format!("on {accuracy_samples} {accuracy_split} images of {dataset}");
        let mut lines = vec![format!("accuracy {}", line(*accuracy, &of, tested.first()))];
        lines.extend(tested.iter().skip(1).map(|tested| {
            let of = if tested.weights == "last" { "with the last epoch's weights" } else { "before averaging" };
            format!("         {}", line(tested.plain.accuracy(), of, Some(tested)))
        }));
        lines.extend([
            format!("weights  of epoch {}{chosen_by}", best_epoch.epoch),
            format!("time     {}", duration(header.seconds)),
            format!("bundle   {}", run.bundle().display()),
            format!("metrics  {}", run.metrics().display()),
        ]);
        lines.join("\n")
    });
    if !args.no_report {
        let answers = tested.into_iter().next().map(|best| (best.plain, best.flip_tta));
        let made = Network::new(&bundle, data, trainer.batch_size(), &session.chosen.device)
            .and_then(|network| report::after_training(run, &network, data, answers));
        match made {
            Ok(path) => {
                screen.say(json!({"event": "report", "report": path}), || format!("report   {}", path.display()))
            }
            // Whatever it is, the network is trained and its bundle written.
            Err(error) => eprintln!(
                "warning: the report could not be made: {error:#}; try again with: {} report {}{}",
                program(),
                run.path().display(),
                data_arguments(&args.data)
            ),
        }
    }
    if !screen.json {
        println!("next     {} predict --model {} IMAGE..", program(), run.path().display());
    }
    Ok(if session.signals.stop() { session.signals.exit_code() } else { ExitCode::SUCCESS })
}

fn bundle(best: &Checkpoint, epoch: &EpochMetrics, split: &Split, test: Option<&Evaluation>) -> Bundle {
    let header = &best.header;
    let (accuracy, accuracy_split, samples) = match test {
        Some(test) => (test.accuracy, "test", test.samples),
        None => match epoch.validation_accuracy {
            Some(accuracy) => (accuracy, "validation", split.validation.len()),
            None => (epoch.train_accuracy, "train", split.train.len()),
        },
    };
    let metadata = Metadata {
        architecture: header.architecture.clone(),
        classes: header.classes.clone(),
        image_size: header.image_size,
        mean: header.mean,
        std: header.std,
        dataset: header.dataset.clone(),
        dataset_digest: header.dataset_digest.clone(),
        accuracy,
        accuracy_split: accuracy_split.to_owned(),
        accuracy_samples: samples,
        recipe: header.recipe.name.clone(),
        seed: header.recipe.training.seed,
        kiln_version: env!("CARGO_PKG_VERSION").to_owned(),
        quantisation: None,
    };
    Bundle { metadata, state: best.weights().clone() }
}
