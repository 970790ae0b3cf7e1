//! Reports of all kinds of runs, and whether their figures match the data.

use std::fs;
use std::path::Path;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use kiln_report::{
    About, AugmentedRow, CellImage, Comparison, ConfusedPair, Embedding, Evidence, Figure, Filters, History, Machine,
    NumberedNames, Report, ReportError, RunRecord, Session, Shown, Versions, cell_examples, comparison_figures,
    comparison_page, confident_errors, confusions, curves, examples, history,
};
use kiln_train::{
    Corrupted, EpochMetrics, EvaluationReport, Intervals, LrFind, LrPoint, Metrics, Predictions, Recipe, Temperature,
    TemperatureScaling,
};
use sha2::{Digest, Sha256};
use tempfile::TempDir;

fn epoch(epoch: usize) -> EpochMetrics {
    let progress = epoch as f64;
    EpochMetrics {
        epoch,
        step: 10 * epoch,
        learning_rate: 0.1 / progress,
        train_loss: 2.0 / progress,
        train_accuracy: 1.0 - 0.8 / progress,
        validation_loss: Some(1.8 / progress + 0.1),
        validation_accuracy: Some(0.95 - 0.7 / progress),
        validation_balanced_accuracy: None,
        seconds: 3.0 * progress,
        images_per_second: 500.0 + progress,
    }
}

fn recipe(overrides: &[&str]) -> Recipe {
    let overrides: Vec<String> = overrides.iter().map(|text| (*text).to_owned()).collect();
    Recipe::parse(kiln_train::recipe::BUILT_IN[0].1, &overrides).unwrap()
}

/// Writes the text files of a run.
fn write_run(folder: &Path, recipe: &Recipe, lines: &[String]) {
    fs::create_dir_all(folder).unwrap();
    fs::write(folder.join("recipe.toml"), recipe.to_toml()).unwrap();
    fs::write(folder.join("metrics.jsonl"), lines.join("\n") + "\n").unwrap();
}

fn lines(history: &[EpochMetrics]) -> Vec<String> {
    history.iter().map(|epoch| serde_json::to_string(epoch).unwrap()).collect()
}

/// A run with this many epochs.
fn run(epochs: usize) -> RunRecord {
    let history = (1..=epochs).map(epoch).collect();
    RunRecord {
        name: "run".to_owned(),
        recipe: recipe(&[]),
        history,
        evaluation: None,
        lr_find: None,
        sessions: vec![],
    }
}

/// Predictions for `images` images of alternating classes. Every seventh is wrong, and the last class has no images.
fn predictions(classes: &[String], images: usize) -> Predictions {
    let count = classes.len() - 1;
    let labels: Vec<usize> = (0..images).map(|image| image % count).collect();
    let mut logits = vec![];
    for (image, label) in labels.iter().enumerate() {
        let answer = if image % 7 == 0 { (label + 1) % count } else { *label };
        logits.extend((0..classes.len()).map(|class| if class == answer { 2.0 + (image % 5) as f32 } else { 0.0 }));
    }
    let features = labels.iter().enumerate().flat_map(|(image, label)| [*label as f32, (image % 11) as f32, 1.0]);
    Predictions { classes: classes.to_vec(), features: features.collect(), labels, logits }
}

fn evaluation(predictions: &Predictions) -> EvaluationReport {
    EvaluationReport {
        model: "run/model.safetensors".to_owned(),
        dataset: "pets".to_owned(),
        split: "test".to_owned(),
        metrics: Metrics::of(predictions).unwrap(),
        intervals: Intervals::of(predictions, 0).unwrap(),
        flip_tta: None,
        temperature: TemperatureScaling::fit(predictions, predictions).map(Temperature::Fitted).unwrap(),
        corruptions: vec![],
    }
}

fn shown(predictions: &Predictions, index: usize) -> Shown {
    Shown {
        image: image::RgbImage::from_fn(8, 8, |x, y| image::Rgb([x as u8 * 30, y as u8 * 30, 128])),
        label: predictions.labels[index],
        probabilities: predictions.probabilities(index),
        activation: vec![-1.0, 0.0, 0.5, 1.0],
        activation_width: 2,
    }
}

fn evidence(predictions: Predictions) -> Evidence {
    let metrics = Metrics::of(&predictions).unwrap();
    let all = |indices: Vec<usize>| indices.into_iter().map(|index| shown(&predictions, index)).collect::<Vec<_>>();
    let confused = confusions(&metrics.confusion, 2).into_iter().map(|pair| ConfusedPair {
        label: pair.label,
        predicted: pair.predicted,
        count: pair.images,
        examples: all(examples(&predictions, &pair, 2)),
    });
    let cell = |index: usize| CellImage::new(&shown(&predictions, index).image, &predictions, index);
    Evidence {
        cells: cell_examples(&predictions, 50).into_iter().map(cell).collect(),
        embedding: Embedding::of(&predictions, 100),
        augmented: vec![AugmentedRow { name: "crop".to_owned(), images: vec![shown(&predictions, 0).image] }],
        some: all(vec![0, 1, 2]),
        errors: all(confident_errors(&predictions, 3)),
        confused: confused.collect(),
        filters: Some(Filters { weights: (0..2 * 27).map(|weight| weight as f32 - 20.0).collect(), kernel: 3 }),
        missing: vec![],
        predictions: Some(predictions),
    }
}

fn names(count: usize) -> Vec<String> {
    (0..count).map(|class| format!("class {class}")).collect()
}

/// The page and all its figures.
fn report(run: &RunRecord, evidence: &Evidence, about: Option<About>) -> (String, Vec<Figure>) {
    let report = Report { run, about, evidence, version: "1.2.3" };
    let sections = report.sections();
    let html = report.html(&sections);
    (html, sections.into_iter().flat_map(|section| section.figures).collect())
}

/// The values of an attribute in every element with this name.
fn attributes<'a>(svg: &'a str, element: &str, name: &str) -> Vec<&'a str> {
    let value = |tag: &'a str| {
        let tag = &tag[..tag.find('>')?];
        let start = tag.find(&format!(" {name}=\""))? + name.len() + 3;
        Some(&tag[start..start + tag[start..].find('"')?])
    };
    svg.split(&format!("<{element}")).skip(1).filter_map(value).collect()
}

/// Texts of a panel with this `text-anchor`, and their positions.
fn texts(panel: &str, anchor: &str) -> Vec<([f64; 2], String)> {
    let parse = |text: &str| -> Option<([f64; 2], String)> {
        let (tag, rest) = text.split_once('>')?;
        let tag = format!("<text{tag}>");
        let at = |name| attributes(&tag, "text", name).first().and_then(|value| value.parse::<f64>().ok());
        let words = rest.split_once('<')?.0.to_owned();
        let is_tick = attributes(&tag, "text", "text-anchor") == [anchor] && !tag.contains("transform");
        is_tick.then_some(([at("x")?, at("y")?], words))
    };
    panel.split("<text").skip(1).filter_map(parse).collect()
}

/// The line through two ticks, from a position in pixels to a value.
fn axis(ticks: &[(f64, f64)]) -> impl Fn(f64) -> f64 {
    let ((from, low), (to, high)) = (ticks[0], ticks[ticks.len() - 1]);
    move |place| low + (place - from) / (to - from) * (high - low)
}

#[test]
fn drawn_curves_are_those_of_the_metrics_file() {
    let folder = TempDir::new().unwrap();
    let written: Vec<EpochMetrics> = (1..=12).map(epoch).collect();
    write_run(folder.path(), &recipe(&[]), &lines(&written));
    let run = RunRecord::read(folder.path()).unwrap();
    assert_eq!(run.history.len(), written.len());
    let svg = history(&[&run]).svg();
    let panels: Vec<&str> = svg.split("<svg").skip(2).collect();
    assert_eq!(panels.len(), 4);

    type Value = fn(&EpochMetrics) -> f64;
    let accuracies: [Value; 2] = [|e| 100.0 * e.train_accuracy, |e| 100.0 * e.validation_accuracy.unwrap()];
    let cases: [(usize, &str, Value, bool); 6] = [
        (0, "#0072B2", |e| e.train_loss, false),
        (0, "#D55E00", |e| e.validation_loss.unwrap(), false),
        (1, "#0072B2", accuracies[0], false),
        (1, "#D55E00", accuracies[1], false),
        (2, "#0072B2", |e| e.learning_rate, true),
        (3, "#0072B2", |e| 100.0 * (e.train_accuracy - e.validation_accuracy.unwrap()), false),
    ];
    for (panel, color, value, log) in cases {
        let panel = panels[panel];
        let number = |text: &str| text.parse::<f64>().ok();
        let x_ticks: Vec<_> =
            texts(panel, "middle").iter().filter_map(|(at, text)| Some((at[0], number(text)?))).collect();
        let y_ticks: Vec<_> =
            texts(panel, "end").iter().filter_map(|(at, text)| Some((at[1], number(text)?))).collect();
        let place = |value: f64| if log { value.log10() } else { value };
        let y_ticks: Vec<_> = y_ticks.into_iter().map(|(at, tick)| (at, place(tick))).collect();
        // Texts are lower than their ticks by a fraction of their size.
        let lower = 11.5 * 0.71 / 2.0;
        let (x_axis, y_axis) = (axis(&x_ticks), axis(&y_ticks));
        let strokes = attributes(panel, "polyline", "stroke");
        let at = strokes.iter().position(|stroke| *stroke == color).unwrap();
        let drawn: Vec<(f64, f64)> = attributes(panel, "polyline", "points")[at]
            .split(' ')
            .map(|point| point.split_once(',').unwrap())
            .map(|(x, y)| (x_axis(x.parse().unwrap()), y_axis(y.parse::<f64>().unwrap() + lower)))
            .collect();
        assert_eq!(drawn.len(), written.len());
        let (low, high) = (y_axis(300.0), y_axis(0.0));
        for ((x, y), epoch) in drawn.into_iter().zip(&written) {
            assert!((x - epoch.epoch as f64).abs() < 0.05, "epoch {} is drawn at {x}", epoch.epoch);
            let expected = place(value(epoch));
            assert!(
                (y - expected).abs() < 0.002 * (high - low),
                "{y} is drawn for {expected} in epoch {}",
                epoch.epoch
            );
        }
    }
}

#[test]
fn every_picture_comes_out_as_svg_and_as_png_of_the_same_size() {
    let predictions = predictions(&names(5), 90);
    let mut run = run(6);
    run.evaluation = Some(evaluation(&predictions));
    let corrupted = |severity: usize| Corrupted {
        corruption: "gaussian_noise".to_owned(),
        severity,
        accuracy: 0.8 - 0.1 * severity as f64,
        loss: 1.0,
    };
    run.evaluation.as_mut().unwrap().corruptions = (1..=5).map(corrupted).collect();
    let point = |step: i32| LrPoint { learning_rate: 1e-5 * 2_f64.powi(step), loss: 2.0, smoothed: 2.0 };
    run.lr_find =
        Some(LrFind { points: (0..20).map(point).collect(), steepest: Some(1e-3), tenth_of_minimum: Some(2e-3) });
    let (html, mut figures) = report(&run, &evidence(predictions), None);
    assert!(html.contains("is gaussian noise at severity 5, with an accuracy of 30.00\u{a0}%."), "{html}");
    figures.push(curves(&[&run]));
    let names: Vec<&str> = figures.iter().map(|figure| figure.name).collect();
    let expected = [
        "history",
        "throughput",
        "lr-find",
        "classes",
        "predictions",
        "robustness",
        "confusion",
        "confused",
        "reliability",
        "errors",
        "augmentation",
        "filters",
        "t-sne",
        "curves",
    ];
    assert_eq!(names, expected);
    for figure in figures {
        let svg = figure.svg();
        let size = |name| attributes(&svg, "svg", name)[0].parse::<f64>().unwrap();
        let image = image::load_from_memory(&figure.png(2.0, &NumberedNames::default()).unwrap()).unwrap().to_rgb8();
        let expected = [size("width"), size("height")].map(|pixels| (2.0 * pixels).ceil() as u32);
        assert_eq!([image.width(), image.height()], expected, "{}", figure.name);
        let ground = *image.get_pixel(0, 0);
        let drawn = image.pixels().filter(|pixel| **pixel != ground).count();
        assert!(drawn > 1000, "{} pixels of {} are drawn", drawn, figure.name);
        assert!(!svg.contains("NaN") && !svg.contains("inf"), "{}", figure.name);
    }
}

#[test]
fn the_page_needs_nothing_else_and_allows_nothing_else() {
    let predictions = predictions(&names(5), 90);
    let mut run = run(6);
    run.evaluation = Some(evaluation(&predictions));
    let (html, _) = report(&run, &evidence(predictions), None);
    let (script, rest) = apart(&html);
    let style = html.split_once("<style>").unwrap().1.split_once("</style>").unwrap().0;
    let policy = attributes(&html, "meta", "content").into_iter().find(|value| value.contains("default-src")).unwrap();
    let [style, digest] = [style, script].map(|text| BASE64_STANDARD.encode(Sha256::digest(text)));
    for part in
        ["default-src 'none'", &format!("style-src 'sha256-{style}';"), &format!("script-src 'sha256-{digest}';")]
    {
        assert!(policy.contains(part), "{part} is not in {policy}");
    }
    assert!(!policy.contains("unsafe"), "{policy}");
    for forbidden in ["<script", " style=", " onload", "http://", "https://", "url("] {
        assert!(!rest.contains(forbidden), "{forbidden}");
    }
    for forbidden in ["http", "innerHTML", "fetch", "import", "eval"] {
        assert!(!script.contains(forbidden), "{forbidden}");
    }
    for reference in attributes(&html, "image", "href").into_iter().chain(attributes(&html, "img", "src")) {
        assert!(reference.starts_with("data:image/"), "{reference}");
    }
}

/// The page's script, and the page without the script.
fn apart(html: &str) -> (&str, String) {
    let (before, rest) = html.split_once("<script type=\"module\">").unwrap();
    let (script, after) = rest.split_once("</script>").unwrap();
    (script, format!("{before}{after}"))
}

#[test]
fn every_cell_of_the_matrix_gets_its_surest_images() {
    let answers = [(0, 0, 1.0), (0, 1, 2.0), (0, 0, 3.0), (1, 1, 1.0), (0, 0, 2.0), (0, 0, 4.0), (1, 0, 5.0)];
    let logits =
        answers.iter().flat_map(|&(_, answer, height)| [0, 1].map(|class| if class == answer { height } else { 0.0 }));
    let predictions = Predictions {
        classes: names(2),
        labels: answers.iter().map(|(label, ..)| *label).collect(),
        logits: logits.collect(),
        features: vec![],
    };
    // Cell by cell, most confident first.
    assert_eq!(cell_examples(&predictions, 7), [5, 2, 4, 0, 1, 6, 3]);
    // Small cells are complete before a large one gets its third image.
    assert_eq!(cell_examples(&predictions, 5), [5, 2, 1, 6, 3]);
    // Not enough for one image per cell: the largest cells come first.
    assert_eq!(cell_examples(&predictions, 2), [5, 1]);
    assert_eq!(cell_examples(&predictions, 0), [0_usize; 0]);

    let sure = Predictions { classes: names(1), labels: vec![0; 250], logits: vec![1.0; 250], features: vec![] };
    assert_eq!(cell_examples(&sure, 2000), (0..40).collect::<Vec<_>>());
    let errors =
        Predictions { classes: names(2), labels: vec![1; 250], logits: [1.0, 0.0].repeat(250), features: vec![] };
    assert_eq!(cell_examples(&errors, 2000), (0..200).collect::<Vec<_>>());
}

#[test]
fn the_page_says_what_is_in_each_cell() {
    let predictions = predictions(&names(5), 90);
    let mut run = run(6);
    run.evaluation = Some(evaluation(&predictions));
    let told = |evidence: &Evidence| -> serde_json::Value {
        let html = report(&run, evidence, None).0;
        serde_json::from_str(&attributes(&html, "div", "data-matrix")[0].replace("&quot;", "\"")).unwrap()
    };
    let all = told(&evidence(predictions));
    let confusion = &run.evaluation.as_ref().unwrap().metrics.confusion;
    let mut images = 0;
    for cell in all["cells"].as_array().unwrap() {
        let numbers: Vec<usize> =
            cell.as_array().unwrap().iter().map(|number| number.as_u64().unwrap() as usize).collect();
        assert_eq!(confusion[numbers[0]][numbers[1]], numbers[2]);
        assert!(numbers[3..].is_sorted_by(|a, b| a >= b) && numbers.len() - 3 <= numbers[2], "{numbers:?}");
        images += numbers.len() - 3;
    }
    assert_eq!(images, 50);
    // Without images the counts are still there.
    assert_eq!(told(&Evidence::default())["cells"].as_array().unwrap().len(), all["cells"].as_array().unwrap().len());
}

#[test]
fn the_page_says_where_the_run_was_computed() {
    let started = |step, precision: &str| Session {
        started: "2026-11-21T15:27:33Z".to_owned(),
        step,
        device: "CPU (2 threads)".to_owned(),
        reason: "as asked".to_owned(),
        threads: 2,
        machine: Machine {
            system: "linux".to_owned(),
            architecture: "x86_64".to_owned(),
            cpu: Some("Fast <CPU>".to_owned()),
            cores: 2,
        },
        versions: Versions { kiln: "1.2.3".to_owned(), burn: Some("0.22.1".to_owned()), wgpu: None },
        arguments: vec!["train".to_owned(), "--set".to_owned(), format!("training.precision={precision}")],
        resolved: ["train", "--recipe", "quick", "--data", "my pets"].map(str::to_owned).to_vec(),
    };
    let mut run = run(3);
    assert!(!report(&run, &Evidence::default(), None).0.contains("Where it ran"));
    run.sessions = vec![started(0, "f32"), started(1200, "f32")];
    let (html, _) = report(&run, &Evidence::default(), None);
    let html = html.replace("<span>", "").replace("</span>", "");
    for text in [
        "<dd>2026-11-21 15:27:33 UTC</dd>",
        "<dd>Fast &lt;CPU&gt;, 2 cores, linux on x86_64</dd>",
        "<dd>CPU (2 threads): as asked</dd>",
        "<dd>Kiln 1.2.3, burn 0.22.1</dd>",
        "<dt>Precision</dt><dd>f32</dd>",
        "<code>kiln train --set training.precision=f32</code>",
        "<code>kiln train --recipe quick --data 'my pets'</code>",
        "<h3>Resumed after step 1,200</h3>",
    ] {
        assert!(html.contains(text), "{text}");
    }
}

#[test]
fn names_never_become_markup() {
    let evil = "<script>alert(\"1\")</script>&'";
    let mut classes = names(4);
    classes[1] = evil.to_owned();
    let predictions = predictions(&classes, 90);
    let mut run = run(3);
    run.name = evil.to_owned();
    run.evaluation = Some(EvaluationReport { dataset: evil.to_owned(), ..evaluation(&predictions) });
    let evidence = Evidence { missing: vec![evil.to_owned()], ..evidence(predictions) };
    let (html, figures) = report(&run, &evidence, None);
    let texts = figures.iter().map(Figure::svg).chain([apart(&html).1]);
    for text in texts {
        assert!(!text.contains("<script"));
        let entities = ["amp;", "lt;", "gt;", "quot;"];
        for rest in text.split('&').skip(1) {
            assert!(entities.iter().any(|entity| rest.starts_with(entity)), "&{}", &rest[..20.min(rest.len())]);
        }
    }
}

#[test]
fn one_epoch_is_enough() {
    let run = run(1);
    let (html, figures) = report(&run, &Evidence::default(), None);
    assert!(html.contains("Best epoch: 1, the only one"), "{html}");
    // A single value is a dot.
    assert!(attributes(&figures[0].svg(), "path", "d").len() >= 4);
    let analysis = History::of(&run.history);
    assert_eq!((analysis.best_epoch, analysis.overfitting, analysis.late_rise), (1, Some(false), None));
}

#[test]
fn a_run_that_stopped_early_says_so() {
    let about = About {
        dataset: "synthetic".to_owned(),
        classes: 10,
        image_size: 32,
        parameters: 701_466,
        step: 30,
        total_steps: 120,
    };
    let (html, _) = report(&run(3), &Evidence::default(), Some(about));
    assert!(html.contains("stopped early, after step 30 of 120"), "{html}");
    assert!(html.contains("701,466 parameters"));
}

#[test]
fn an_epoch_with_numbers_that_are_none_leaves_gaps() {
    let folder = TempDir::new().unwrap();
    let mut history: Vec<EpochMetrics> = (1..=6).map(epoch).collect();
    history[3].train_loss = f64::NAN;
    history[3].validation_loss = Some(f64::INFINITY);
    history[3].validation_accuracy = Some(f64::NAN);
    write_run(folder.path(), &recipe(&[]), &lines(&history));
    let run = RunRecord::read(folder.path()).unwrap();
    assert!(run.history[3].train_loss.is_nan() && run.history[3].validation_accuracy.unwrap().is_nan());
    assert_eq!(run.best().epoch, 6);
    let (html, figures) = report(&run, &Evidence::default(), None);
    assert!(html.contains("Some numbers of epoch 4 are missing"), "{html}");
    assert!(!html.contains("NaN"));
    let svg = figures[0].svg();
    let loss = svg.split("<svg").nth(2).unwrap();
    let blue = attributes(loss, "polyline", "stroke").iter().filter(|stroke| **stroke == "#0072B2").count();
    assert_eq!(blue, 2, "one line before the gap and one after it");

    history.iter_mut().for_each(|epoch| {
        epoch.train_loss = f64::NAN;
        epoch.train_accuracy = f64::NAN;
        epoch.learning_rate = f64::NAN;
        epoch.images_per_second = f64::NAN;
        epoch.seconds = f64::NAN;
    });
    write_run(folder.path(), &recipe(&[]), &lines(&history));
    let (html, _) = report(&RunRecord::read(folder.path()).unwrap(), &Evidence::default(), None);
    assert!(html.contains("epochs 1, 2, 3, 4, 5 and 6 are missing") && !html.contains("NaN"), "{html}");
}

#[test]
fn a_run_without_validation_is_reported_by_its_training() {
    let mut run = run(4);
    for epoch in &mut run.history {
        (epoch.validation_loss, epoch.validation_accuracy) = (None, None);
    }
    let (html, figures) = report(&run, &Evidence::default(), None);
    assert!(html.contains("Overfitting: unknown") && html.contains("keeps no images for validation"), "{html}");
    assert_eq!(figures[0].panels.len(), 3, "there is no gap to draw");
}

#[test]
fn a_hundred_classes_one_of_them_without_images_are_reported() {
    let predictions = predictions(&names(100), 1000);
    let mut run = run(6);
    run.evaluation = Some(evaluation(&predictions));
    let (html, figures) = report(&run, &evidence(predictions), None);
    assert!(html.contains("Class 99 has no images here"), "{html}");
    assert!(html.contains("<summary>All classes</summary>") && !html.contains("<details open"));
    let figure = |name| figures.iter().find(|figure: &&Figure| figure.name == name).unwrap();
    let [width, _] = figure("confusion").panels[0].size;
    assert!(width < 700.0, "{width}");
    assert_eq!(figure("classes").panels.len(), 2);
    assert!(figure("classes").svg().contains(">none<"), "a class without images has no score");
}

#[test]
fn the_verdict_on_overfitting_follows_the_gap() {
    let mut run = run(5);
    let last = run.history.last_mut().unwrap();
    for (train, validation, overfitting) in [(0.9, 0.86, false), (0.9, 0.84, true), (0.8, 0.9, false)] {
        (last.train_accuracy, last.validation_accuracy) = (train, Some(validation));
        let history = [epoch(1), last.clone()];
        let analysis = History::of(&history);
        assert_eq!(analysis.overfitting, Some(overfitting), "{train} {validation}");
        let sentence = &analysis.sentences(&recipe(&[]))[0];
        assert!(sentence.starts_with(if overfitting { "Overfitting: yes" } else { "Overfitting: no" }), "{sentence}");
    }
}

#[test]
fn sentences_count_what_the_answers_are() {
    let classes = ["cat", "dog", "ship"].map(str::to_owned);
    // 10 of 40 cats are predicted as dogs, 5 of 40 dogs as cats, and all 40 ships are correct. The network is always
    // almost certain.
    let answer = |image: usize| match (image % 3, image / 3) {
        (0, ..10) => 1,
        (1, ..5) => 0,
        (label, _) => label,
    };
    let logits = |image: usize| (0..3).map(move |class| if class == answer(image) { 9.0 } else { 0.0 });
    let predictions = Predictions {
        classes: classes.to_vec(),
        labels: (0..120).map(|image| image % 3).collect(),
        logits: (0..120).flat_map(logits).collect(),
        features: vec![],
    };
    let mut run = run(6);
    run.evaluation = Some(evaluation(&predictions));
    let evidence = Evidence { predictions: Some(predictions), ..Evidence::default() };
    let (html, _) = report(&run, &evidence, None);
    for sentence in [
        "Cat is predicted as dog in 10 of 40 images (25.00\u{a0}%).",
        "Dog is predicted as cat in 5 of 40 images (12.50\u{a0}%).",
        "Confusions between cat and dog make up 100.00\u{a0}% of all 15 errors.",
        "The network is overconfident: its mean confidence is 99.98\u{a0}%, and 87.50\u{a0}% of its predictions are correct.",
        "Of 120 predictions with more than 80\u{a0}% confidence, 87.50\u{a0}% are correct.",
        "when it predicts dog: 77.78\u{a0}% of 45 such predictions are correct",
        "The best class is ship (F1 1.000), the worst is cat (F1 0.800).",
    ] {
        assert!(html.contains(sentence), "'{sentence}' is not in: {}", html.split_once("How accurate").unwrap().1);
    }
}

#[test]
fn damaged_files_are_named_with_what_is_wrong() {
    let folder = TempDir::new().unwrap();
    let error = |folder: &Path| RunRecord::read(folder).unwrap_err();
    assert!(matches!(error(folder.path()), ReportError::NoRun(_)));
    write_run(folder.path(), &recipe(&[]), &[]);
    assert!(matches!(error(folder.path()), ReportError::NoEpoch(_)));
    let mut broken = lines(&[epoch(1), epoch(2)]);
    broken[1].truncate(20);
    write_run(folder.path(), &recipe(&[]), &broken);
    let message = error(folder.path()).to_string();
    assert!(message.contains("metrics.jsonl") && message.contains("line 2"), "{message}");
    write_run(folder.path(), &recipe(&[]), &lines(&[epoch(1)]));
    fs::write(folder.path().join("evaluation.json"), "{}").unwrap();
    let message = error(folder.path()).to_string();
    assert!(message.contains("evaluation.json is damaged") && message.contains("delete it"), "{message}");
    fs::remove_file(folder.path().join("evaluation.json")).unwrap();
    fs::write(folder.path().join("environment.json"), "[{}]").unwrap();
    let message = error(folder.path()).to_string();
    assert!(message.contains("environment.json is damaged") && message.contains("delete it"), "{message}");
    fs::write(folder.path().join("recipe.toml"), "name = 3").unwrap();
    assert!(error(folder.path()).to_string().contains("recipe.toml"));
}

#[test]
fn a_comparison_names_what_differs_and_draws_all_runs() {
    let (first, mut second) = (run(6), run(4));
    second.name = "other <run>".to_owned();
    second.recipe = recipe(&["optimizer.lr=0.05", "training.epochs=4"]);
    let comparison = Comparison::of(&[&first, &second]);
    let keys: Vec<&str> = comparison.differences.iter().map(|found| found.key.as_str()).collect();
    assert_eq!(keys, ["optimizer.lr", "training.epochs"]);
    assert_eq!(comparison.differences[0].values, ["0.2", "0.05"]);
    assert!(comparison.caveat().unwrap().contains("not evaluated: run, other <run>"));
    let text = comparison.text();
    assert!(text.contains("optimizer.lr") && text.lines().all(|line| line.chars().count() <= 120), "{text}");

    let (some, more) = (predictions(&names(5), 90), predictions(&names(5), 120));
    let mut first = first;
    first.evaluation = Some(evaluation(&some));
    second.evaluation = Some(evaluation(&some));
    assert_eq!(Comparison::of(&[&first, &second]).caveat(), None);
    let figures = comparison_figures(&[&first, &second]);
    let names: Vec<&str> = figures.iter().map(|figure| figure.name).collect();
    assert_eq!(names, ["history", "curves", "throughput", "confusion", "reliability", "classes"]);
    for figure in &figures {
        let svg = figure.svg();
        assert!(
            svg.contains("other &lt;run&gt;")
                // Matrices have the same color for all runs.
                && (figure.name == "confusion" || svg.contains("#0072B2") && svg.contains("#D55E00")),
            "{}",
            figure.name
        );
    }
    let page = comparison_page(&Comparison::of(&[&first, &second]), &figures, |_, _| None, "1.2.3");
    let accuracy = first.evaluation.as_ref().unwrap().metrics.accuracy;
    assert!(page.contains(&format!(r#"<td class="number" data-value="{accuracy}">{:.2} %</td>"#, 100.0 * accuracy)));
    assert!(page.contains("<td>other &lt;run&gt;</td>") && page.contains("<td>optimizer.lr</td>"), "{page}");
    second.evaluation = Some(evaluation(&more));
    assert!(Comparison::of(&[&first, &second]).caveat().unwrap().contains("not comparable"));
}

#[test]
fn a_schedule_in_steps_has_its_drops_marked() {
    let mut run = run(6);
    let overrides = ["schedule.kind=multi_step", "schedule.milestones=[0.5, 0.8]", "schedule.warmup=0"];
    run.recipe = recipe(&overrides);
    for (epoch, rate) in run.history.iter_mut().zip([0.1, 0.1, 0.1, 0.01, 0.01, 0.001]) {
        epoch.learning_rate = rate;
    }
    let svg = history(&[&run]).svg();
    assert_eq!(svg.matches("× 0.1").count(), 2);
    run.recipe = recipe(&[]);
    assert_eq!(history(&[&run]).svg().matches("× 0.1").count(), 0);
}

#[test]
fn a_learning_rate_that_ends_near_zero_leaves_the_others_room() {
    let mut run = run(6);
    run.history[5].learning_rate = 1e-12;
    let svg = history(&[&run]).svg();
    let panel = svg.split("<svg").nth(4).unwrap();
    let ticks: Vec<f64> = texts(panel, "end").iter().filter_map(|(_, text)| text.parse().ok()).collect();
    assert!(ticks.iter().all(|&tick| tick > 5e-7), "{ticks:?}");
    let line = attributes(panel, "polyline", "stroke").iter().position(|stroke| *stroke == "#0072B2").unwrap();
    let points = attributes(panel, "polyline", "points")[line].split(' ').count();
    assert_eq!(points, 6, "the last is drawn at the lowest");
}
