//! `kiln report`, `kiln compare` and the report at the end of `kiln train`, as a user runs them.

use std::fs;
use std::path::Path;

use crate::program::{TINY, fails, image_folder, kiln, succeeds, text, train};
use tempfile::TempDir;

const IMAGES: [&str; 6] = ["--dataset", "synthetic", "--limit", "200", "--device", "cpu"];

fn page(run: &Path) -> String {
    fs::read_to_string(run.join("report.html")).unwrap()
}

#[test]
fn training_ends_with_a_report_of_what_was_trained() {
    let folder = TempDir::new().unwrap();
    let arguments = [&["train"], &IMAGES[..], &TINY, &["--epochs", "2", "--out", "run", "--json"]].concat();
    let printed = succeeds(&kiln(folder.path()).args(arguments).output().unwrap());
    let run = folder.path().join("run");
    assert!(printed.lines().last().unwrap().contains(r#""event":"report""#), "{printed}");
    let finished: serde_json::Value = printed
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .find(|event: &serde_json::Value| event["event"] == "finished")
        .unwrap();

    // The page has the accuracy that the training ended with.
    let html = page(&run);
    let accuracy = format!("<strong>{:.2} %</strong>", 100.0 * finished["test_accuracy"].as_f64().unwrap());
    assert!(html.contains(&accuracy), "{accuracy}");
    for heading in [
        "What was trained",
        "How training went",
        "How accurate it is",
        "Which classes it confuses",
        "What the network sees",
    ] {
        assert!(html.contains(heading), "{heading}");
    }
    let evaluation: serde_json::Value =
        serde_json::from_slice(&fs::read(run.join("evaluation.json")).unwrap()).unwrap();
    assert_eq!(evaluation["metrics"]["accuracy"], finished["test_accuracy"]);
    for name in ["history", "confusion", "reliability", "predictions", "errors", "filters", "augmentation", "t-sne"] {
        for ending in ["svg", "png"] {
            assert!(run.join("figures").join(format!("{name}.{ending}")).is_file(), "{name}.{ending}");
        }
    }

    // It knows where and how it was computed.
    let sessions: serde_json::Value = serde_json::from_slice(&fs::read(run.join("environment.json")).unwrap()).unwrap();
    assert_eq!(sessions[0]["versions"]["kiln"], env!("CARGO_PKG_VERSION"));
    assert!(sessions[0]["versions"]["burn"].is_string() && sessions[0]["threads"].as_u64() >= Some(1), "{sessions}");
    let typed = "kiln train --dataset synthetic --limit 200 --device cpu --set model.width=2";
    let resolved = "kiln train --recipe quick --dataset synthetic --limit 200 --set model.width=2";
    let words = html.replace("<span>", "").replace("</span>", "");
    for text in ["CPU (", "as asked", typed, resolved, "--epochs 2 --seed 0 --device cpu --out run --json"] {
        assert!(words.contains(text), "{text}");
    }

    // Made again, it is the same page.
    let again = succeeds(&kiln(folder.path()).args(["report", "run"]).args(&IMAGES[2..]).output().unwrap());
    assert!(again.contains("Overfitting:") && again.contains("report.html"), "{again}");
    assert!(page(&run) == html, "the page has changed");
}

#[test]
fn no_report_is_made_unasked_and_none_can_fail_a_training() {
    let folder = TempDir::new().unwrap();
    succeeds(&train(folder.path(), &[&TINY[..], &["--epochs", "1", "--out", "quiet"]].concat()));
    assert!(!folder.path().join("quiet/report.html").exists() && !folder.path().join("quiet/figures").exists());

    fs::create_dir(folder.path().join("run")).unwrap();
    fs::write(folder.path().join("run/figures"), "in the way").unwrap();
    let arguments = [&["train"], &IMAGES[..], &TINY, &["--epochs", "1", "--out", "run"]].concat();
    let output = kiln(folder.path()).args(arguments).output().unwrap();
    succeeds(&output);
    let warning = text(&output.stderr);
    let advice = "report run --dataset synthetic --limit 200";
    assert!(warning.contains("the report could not be made") && warning.contains(advice), "{warning}");
    assert!(folder.path().join("run/model.safetensors").is_file());
}

#[test]
fn without_its_images_a_run_is_reported_by_its_numbers() {
    let folder = TempDir::new().unwrap();
    image_folder(&folder.path().join("pets"), 20);
    let common = ["train", "--data", "pets", "--device", "cpu", "--epochs", "2", "--out", "run", "--no-report"];
    succeeds(&kiln(folder.path()).args(common).args(TINY).output().unwrap());
    let report = |arguments: &[&str]| {
        kiln(folder.path()).args(["report", "run", "--device", "cpu"]).args(arguments).output().unwrap()
    };
    // With them, though there are no test images apart.
    succeeds(&report(&["--data", "pets"]));
    assert!(page(&folder.path().join("run")).contains("most of which the network was trained on"));

    fs::remove_dir_all(folder.path().join("pets")).unwrap();
    let printed = succeeds(&report(&[]));
    assert!(printed.contains("Missing:") && printed.contains("--data PATH"), "{printed}");
    let html = page(&folder.path().join("run"));
    assert!(html.contains("What is missing") && html.contains("How accurate it is"), "{html}");
    fails(&report(&["--data", "pets"]), 1, &["pets"]);
    fs::remove_file(folder.path().join("run/evaluation.json")).unwrap();
    succeeds(&report(&[]));
    assert!(!page(&folder.path().join("run")).contains("How accurate it is"));
}

#[test]
fn a_run_that_did_not_end_is_reported_and_what_is_no_run_is_not() {
    let folder = TempDir::new().unwrap();
    succeeds(&train(folder.path(), &[&TINY[..], &["--epochs", "2", "--out", "run"]].concat()));
    fs::remove_file(folder.path().join("run/model.safetensors")).unwrap();
    let report = |run: &str| kiln(folder.path()).args(["report", run, "--json"]).output().unwrap();
    let printed: serde_json::Value = serde_json::from_str(&succeeds(&report("run"))).unwrap();
    assert!(printed["missing"][0].as_str().unwrap().contains("did not reach its end"), "{printed}");
    assert_eq!(printed["report"], "run/report.html");

    fails(&report("nowhere"), 1, &["nowhere is not a run folder"]);
    fs::write(folder.path().join("run/metrics.jsonl"), "").unwrap();
    fails(&report("run"), 1, &["no finished epoch"]);
    fs::write(folder.path().join("run/metrics.jsonl"), "{\"epoch\":").unwrap();
    fails(&report("run"), 1, &["metrics.jsonl is damaged", "line 1"]);
}

#[test]
fn what_the_arguments_came_to_trains_the_same_run() {
    let folder = TempDir::new().unwrap();
    let recorded = |run: &str| -> Vec<serde_json::Value> {
        serde_json::from_slice(&fs::read(folder.path().join(run).join("environment.json")).unwrap()).unwrap()
    };
    succeeds(&train(
        folder.path(),
        &[&TINY[..], &["--epochs", "1", "--set", "optimizer.lr=0.05", "--out", "run"]].concat(),
    ));
    let weights = fs::read(folder.path().join("run/model.safetensors")).unwrap();
    let resolved: Vec<String> = serde_json::from_value(recorded("run")[0]["resolved"].clone()).unwrap();
    fs::rename(folder.path().join("run"), folder.path().join("first")).unwrap();
    succeeds(&kiln(folder.path()).args(&resolved).output().unwrap());
    assert!(fs::read(folder.path().join("run/model.safetensors")).unwrap() == weights, "{resolved:?}");

    // Gone on with, it keeps both starts.
    succeeds(&train(folder.path(), &["--resume", "run"]));
    let sessions = recorded("run");
    assert_eq!(sessions.len(), 2);
    assert!(sessions[0]["step"] == 0 && sessions[1]["step"].as_u64() > Some(0), "{sessions:?}");
    assert_eq!((&sessions[1]["resolved"][1], &sessions[1]["resolved"][2]), (&"--resume".into(), &"run".into()));
    fs::write(folder.path().join("run/environment.json"), "[").unwrap();
    fails(&train(folder.path(), &["--resume", "run"]), 1, &["environment.json is damaged", "delete it"]);
    // One that kept no record is reported, and gone on with.
    fs::remove_file(folder.path().join("run/environment.json")).unwrap();
    succeeds(&kiln(folder.path()).args(["report", "run"]).args(IMAGES).output().unwrap());
    assert!(!page(&folder.path().join("run")).contains("Where it ran"));
    succeeds(&train(folder.path(), &["--resume", "run"]));
    assert_eq!(recorded("run").len(), 1);
}

#[test]
fn several_runs_are_reported_one_by_one_and_beside_each_other() {
    let folder = TempDir::new().unwrap();
    for out in ["one", "two"] {
        succeeds(&train(folder.path(), &[&TINY[..], &["--epochs", "1", "--out", out]].concat()));
    }
    let report = |arguments: &[&str]| kiln(folder.path()).arg("report").args(arguments).args(IMAGES).output().unwrap();
    let printed = succeeds(&report(&["one", "two"]));
    assert!(printed.contains("one/report.html") && printed.contains("two/report.html"), "{printed}");
    let printed = succeeds(&report(&["one", "two", "--out", "both"]));
    assert!(printed.contains("test accuracy") && printed.contains("both/compare.html"), "{printed}");
    let both = fs::read_to_string(folder.path().join("both/compare.html")).unwrap();
    assert!(both.contains(r#"alt="Features (t-SNE) of two""#));
    fails(&report(&["one", "--out", "both"]), 1, &["name two or more"]);
    fs::remove_file(folder.path().join("one/report.html")).unwrap();
    fails(&report(&["one", "nowhere"]), 1, &["nowhere is not a run folder"]);
    assert!(!folder.path().join("one/report.html").exists(), "nothing is computed for nothing");
}

#[test]
fn runs_are_compared_in_a_table_and_in_pictures() {
    let folder = TempDir::new().unwrap();
    for (out, rate) in [("slow", "optimizer.lr=0.01"), ("fast", "optimizer.lr=0.1")] {
        succeeds(&train(folder.path(), &[&TINY[..], &["--epochs", "2", "--out", out, "--set", rate]].concat()));
        succeeds(&kiln(folder.path()).args(["eval", out]).args(IMAGES).output().unwrap());
        succeeds(&kiln(folder.path()).args(["report", out]).args(IMAGES).output().unwrap());
    }
    let compare = |arguments: &[&str]| kiln(folder.path()).arg("compare").args(arguments).output().unwrap();
    let printed = succeeds(&compare(&["slow", "fast", "--out", "pictures"]));
    for word in ["test accuracy", "optimizer.lr", "0.01", "pictures/compare.html"] {
        assert!(printed.contains(word), "{word} is not in: {printed}");
    }
    for name in ["history.svg", "curves.png", "classes.svg", "reliability.png"] {
        assert!(folder.path().join("pictures").join(name).is_file(), "{name}");
    }
    let page = fs::read_to_string(folder.path().join("pictures/compare.html")).unwrap();
    for (name, what) in [("fast", "Features (t-SNE)"), ("slow", "First-layer filters")] {
        assert!(page.contains(&format!(r#"alt="{what} of {name}""#)), "{what} of {name}");
    }
    let printed: serde_json::Value = serde_json::from_str(&succeeds(&compare(&["slow", "fast", "--json"]))).unwrap();
    let evaluation: serde_json::Value =
        serde_json::from_slice(&fs::read(folder.path().join("fast/evaluation.json")).unwrap()).unwrap();
    assert_eq!(printed["comparison"]["runs"][1]["evaluation"]["accuracy"], evaluation["metrics"]["accuracy"]);
    assert_eq!(printed["comparison"]["differences"][0]["values"], serde_json::json!(["0.01", "0.1"]));
    fails(&compare(&["slow", "nowhere"]), 1, &["nowhere is not a run folder"]);
    fails(&compare(&["slow"]), 2, &["2"]);
}
