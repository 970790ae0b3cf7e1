//! The text files of a run's folder, separated by zero bytes: metrics.jsonl, evaluation.json, lr-find.json. What
//! can be read is made into a report and a comparison.

#![no_main]

use std::fs;
use std::path::PathBuf;
use std::sync::LazyLock;

use kiln_report::{Comparison, Evidence, History, Report, RunRecord, comparison_figures, comparison_page};
use libfuzzer_sys::fuzz_target;
use tempfile::TempDir;

static FOLDER: LazyLock<TempDir> = LazyLock::new(|| {
    let folder = tempfile::tempdir().expect("a temporary folder");
    fs::write(folder.path().join("recipe.toml"), kiln_fuzz::recipe().to_toml()).expect("a file");
    folder
});

fuzz_target!(|data: &[u8]| {
    let file = |name: &str| -> PathBuf { FOLDER.path().join(name) };
    let names = ["metrics.jsonl", "evaluation.json", "lr-find.json"];
    for name in names {
        let _ = fs::remove_file(file(name));
    }
    for (name, text) in names.into_iter().zip(data.splitn(3, |byte| *byte == 0)).filter(|(_, text)| !text.is_empty()) {
        fs::write(file(name), text).expect("a small file");
    }
    let Ok(run) = RunRecord::read(FOLDER.path()) else { return };
    run.best();
    History::of(&run.history).sentences(&run.recipe);
    let report = Report { run: &run, about: None, evidence: &Evidence::default(), version: "0" };
    let sections = report.sections();
    report.html(&sections);
    for figure in sections.iter().flat_map(|section| &section.figures) {
        figure.svg();
    }
    let runs = [&run, &run];
    let comparison = Comparison::of(&runs);
    comparison.text();
    comparison_page(&comparison, &comparison_figures(&runs), |_, _| None, "0");
});
