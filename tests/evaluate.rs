//! What the built program says of trained networks, of learning rates, and to TensorBoard.

use std::fs;
use std::path::Path;
use std::process::Command;

use kiln_train::{EvaluationReport, LrFind, Temperature};
use serde_json::Value;
use tempfile::TempDir;

use crate::program::{TINY, bitmap, fails, image_folder, kiln, succeeds, text, train};

/// `kiln eval` of `model` on the synthetic images that [`train`] uses.
fn eval(folder: &Path, model: &str, arguments: &[&str]) -> String {
    let mut command = kiln(folder);
    command.args(["eval", model, "--dataset", "synthetic", "--limit", "200", "--device", "cpu"]).args(arguments);
    succeeds(&command.output().unwrap())
}

fn report(json: &str) -> EvaluationReport {
    serde_json::from_str(json).unwrap()
}

fn is_narrow(table: &str) {
    for line in table.lines() {
        assert!(line.chars().count() <= 100, "{line}");
    }
}

#[test]
fn an_evaluation_of_a_run_is_shown_kept_and_complete() {
    let folder = TempDir::new().unwrap();
    let longer = ["--epochs", "8", "--out", "run", "--set", "training.validation=0.2"];
    let printed = succeeds(&train(folder.path(), &[&TINY[..], &longer, &["--json"]].concat()));
    let finished: Value = serde_json::from_str(printed.lines().last().unwrap()).unwrap();

    let json = eval(folder.path(), "run", &["--json", "--tta", "--corruptions"]);
    let file = folder.path().join("run/evaluation.json");
    assert_eq!(fs::read_to_string(&file).unwrap(), json);
    let evaluated = report(&json);
    let metrics = &evaluated.metrics;
    assert_eq!(finished["test_accuracy"].as_f64(), Some(metrics.accuracy));
    assert_eq!((metrics.samples, evaluated.split.as_str(), metrics.classes.len()), (40, "test", 10));
    assert_eq!(metrics.confusion.iter().flatten().sum::<usize>(), 40);
    let interval = evaluated.intervals.accuracy;
    assert!(interval.low < metrics.accuracy && metrics.accuracy < interval.high, "{interval:?}");
    let Temperature::Fitted(temperature) = &evaluated.temperature else { panic!("{:?}", evaluated.temperature) };
    assert_eq!(temperature.fitted_on, 40);
    assert!(evaluated.flip_tta.as_ref().is_some_and(|averaged| averaged.samples == 40));
    let corruptions: Vec<_> = evaluated.corruptions.iter().map(|c| (c.corruption.as_str(), c.severity)).collect();
    assert_eq!((corruptions.len(), corruptions[0], corruptions[24]), (25, ("gaussian_noise", 1), ("jpeg", 5)));

    let table = eval(folder.path(), "run", &["--tta", "--corruptions"]);
    is_narrow(&table);
    for words in [
        &format!("accuracy{:>20.2} %", 100.0 * metrics.accuracy)[..],
        "95 % interval",
        "over mirror images",
        "macro F1",
        "calibration error",
        "from 40 validation images",
        "most often predicted",
        "weighted average",
        "gaussian_noise",
        "saved run/evaluation.json",
    ] {
        assert!(table.contains(words), "'{words}' is not in:\n{table}");
    }
    assert_eq!(report(&fs::read_to_string(file).unwrap()), evaluated, "the same twice over");
}

#[test]
fn without_known_validation_images_no_temperature_is_fitted_and_the_reason_said() {
    let folder = TempDir::new().unwrap();
    succeeds(&train(folder.path(), &[&TINY[..], &["--epochs", "1", "--out", "run"]].concat()));
    let none = ["--epochs", "1", "--out", "none", "--set", "training.validation=0"];
    succeeds(&train(folder.path(), &[&TINY[..], &none].concat()));
    let skipped = |model: &str, arguments: &[&str], reason: &str| {
        let table = eval(folder.path(), model, arguments);
        let line = table.lines().find(|line| line.starts_with("temperature")).unwrap();
        assert!(line.contains("skipped") && line.contains(reason), "{line}");
        is_narrow(&table);
    };
    skipped("run/model.safetensors", &[], "a bundle alone");
    assert!(!folder.path().join("run/evaluation.json").exists(), "a bundle has no folder to keep it in");
    skipped("none", &[], "keeps no images for validation");
    fs::remove_file(folder.path().join("none/recipe.toml")).unwrap();
    skipped("none", &[], "cannot read none/recipe.toml");
    let other = ["eval", "run", "--dataset", "synthetic", "--limit", "100", "--device", "cpu"];
    let table = succeeds(&kiln(folder.path()).args(other).output().unwrap());
    assert!(table.contains("by their digest"), "{table}");
}

#[test]
fn a_hundred_classes_most_of_them_never_answered_are_no_trouble() {
    let folder = TempDir::new().unwrap();
    for class in 0..100 {
        let ending = if class == 0 { ", which has a rather long name" } else { "" };
        for part in ["train", "test"] {
            let class = folder.path().join(part).join(format!("species {class:02}{ending}"));
            fs::create_dir_all(&class).unwrap();
            fs::write(class.join("picture.bmp"), bitmap(100, 32)).unwrap();
        }
    }
    let on = ["--data", ".", "--device", "cpu"];
    let out = ["--epochs", "1", "--out", "run"];
    succeeds(&kiln(folder.path()).arg("train").args(on).args(TINY).args(out).output().unwrap());
    let table = succeeds(&kiln(folder.path()).args(["eval", "run"]).args(on).output().unwrap());
    is_narrow(&table);
    for words in ["(test, 100 images)", "top-5 accuracy", "species 00, which h…", "species 99"] {
        assert!(table.contains(words), "'{words}' is not in:\n{table}");
    }
    let metrics = report(&fs::read_to_string(folder.path().join("run/evaluation.json")).unwrap()).metrics;
    // All pictures are alike, and so are the answers.
    let answered: Vec<_> = metrics.classes.iter().filter(|class| class.precision.is_some()).collect();
    assert_eq!((answered.len(), metrics.accuracy), (1, 0.01));
    let never = metrics.classes.iter().find(|class| class.precision.is_none()).unwrap();
    let line = table.lines().find(|line| line.starts_with(&never.class[..10])).unwrap();
    assert!(line.split_whitespace().any(|word| word == "-"), "{line}");
}

#[test]
fn all_images_of_a_set_without_a_test_are_evaluated_on_and_so_called() {
    let folder = TempDir::new().unwrap();
    image_folder(folder.path(), 10);
    let on = ["--data", ".", "--device", "cpu"];
    succeeds(
        &kiln(folder.path()).arg("train").args(on).args(TINY).args(["--epochs", "1", "--out", "run"]).output().unwrap(),
    );
    let table = succeeds(&kiln(folder.path()).args(["eval", "run"]).args(on).output().unwrap());
    assert!(table.contains("(all, 20 images)") && table.contains("no test images apart"), "{table}");
    assert!(!table.contains("top-"), "all classes are among two: {table}");
}

#[test]
fn a_learning_rate_is_suggested_and_no_run_left_behind() {
    let folder = TempDir::new().unwrap();
    image_folder(folder.path(), 40);
    let find = |arguments: &[&str]| {
        kiln(folder.path())
            .args(["lr-find", "--data", ".", "--device", "cpu"])
            .args(TINY)
            .args(arguments)
            .output()
            .unwrap()
    };
    let json = succeeds(&find(&["--steps", "100", "--json", "--out", "."]));
    let found: LrFind = serde_json::from_str(&json).unwrap();
    assert_eq!(fs::read_to_string(folder.path().join("lr-find.json")).unwrap(), json);
    assert!(found.points.len() > 20 && found.points[0].learning_rate == 1e-5, "{found:?}");
    let (steepest, tenth) = (found.steepest.unwrap(), found.tenth_of_minimum.unwrap());
    assert!((1e-5..10.0).contains(&steepest) && (1e-6..1.0).contains(&tenth), "{steepest} {tenth}");
    let table = succeeds(&find(&["--steps", "100", "--out", "curve.json"]));
    for words in ["smoothed", &format!("{steepest:.2e} (steepest descent)"), "curve    curve.json"] {
        assert!(table.contains(words), "'{words}' is not in:\n{table}");
    }
    assert!(fs::read_to_string(folder.path().join("curve.json")).unwrap() == json, "the same twice over");

    // A rate beyond all measure ends the test early, with numbers all the same.
    let json = succeeds(&find(&["--start", "1", "--end", "1e30", "--steps", "40", "--json"]));
    let found: LrFind = serde_json::from_str(&json).unwrap();
    assert!((1..40).contains(&found.points.len()), "{json}");
    fails(&find(&["--start", "1", "--end", "0.1"]), 1, &["--start", "--end"]);
    fails(&find(&["--start", "0"]), 1, &["above 0"]);
    fails(&find(&["--steps", "1"]), 2, &["--steps"]);
    let mut left: Vec<_> = fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    left.sort();
    assert_eq!(left, ["curve.json", "lr-find.json", "train"]);
}

#[test]
fn tensorboard_reads_the_epochs_of_a_resumed_run() {
    let folder = TempDir::new().unwrap();
    let three = ["--epochs", "3", "--out", "run", "--tensorboard"];
    succeeds(&train(folder.path(), &[&TINY[..], &three].concat()));
    // A finished run has nothing left to train, but it writes its events anew.
    succeeds(&train(folder.path(), &["--resume", "run"]));

    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/tensorboard.py");
    let read = match Command::new("python3").arg(script).arg(folder.path().join("run")).output() {
        Ok(output) if output.status.code() != Some(77) => output,
        missing => {
            eprintln!("skipped: Python or its package tensorboard is missing ({missing:?})");
            return;
        }
    };
    let scalars: Value = serde_json::from_str(&succeeds(&read)).unwrap_or_else(|_| panic!("{}", text(&read.stderr)));
    let metrics = fs::read_to_string(folder.path().join("run/metrics.jsonl")).unwrap();
    let epochs: Vec<Value> = metrics.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    for (tag, key) in [
        ("loss/train", "train_loss"),
        ("loss/validation", "validation_loss"),
        ("accuracy/train", "train_accuracy"),
        ("accuracy/validation", "validation_accuracy"),
        ("learning_rate", "learning_rate"),
        ("images_per_second", "images_per_second"),
    ] {
        let points = scalars[tag].as_array().unwrap_or_else(|| panic!("{tag} is not in {scalars}"));
        assert_eq!(points.len(), 3, "{tag}");
        for (point, epoch) in points.iter().zip(&epochs) {
            assert_eq!(point[0], epoch["step"], "{tag}");
            assert_eq!(point[1].as_f64().unwrap() as f32, epoch[key].as_f64().unwrap() as f32, "{tag}");
        }
    }
}
