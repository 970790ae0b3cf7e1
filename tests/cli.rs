//! The built program, run as a user runs it, in folders of its own.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use kiln_kernels::device::AdapterClass;
use tempfile::TempDir;

use crate::program::{TINY, bitmap, fails, image_folder, kiln, succeeds, text, train};

#[test]
fn a_run_leaves_everything_that_the_summary_names() {
    let folder = TempDir::new().unwrap();
    let printed = succeeds(&train(folder.path(), &[&TINY[..], &["--epochs", "2", "--recipe", "quick"]].concat()));
    for name in ["recipe.toml", "metrics.jsonl", "last.ckpt", "best.ckpt", "model.safetensors"] {
        assert!(folder.path().join("runs/quick-1").join(name).is_file(), "{name}");
    }
    let metrics = fs::read_to_string(folder.path().join("runs/quick-1/metrics.jsonl")).unwrap();
    assert_eq!(metrics.lines().count(), 2);
    for word in ["device", "accuracy", "bundle", "predict --model runs/quick-1"] {
        assert!(printed.contains(word), "{printed}");
    }
    // The next run gets a folder of its own, and its saved recipe trains the same network.
    let again = ["--recipe", "runs/quick-1/recipe.toml"];
    succeeds(&train(folder.path(), &again));
    let bundle = |run: &str| fs::read(folder.path().join("runs").join(run).join("model.safetensors")).unwrap();
    assert_eq!(bundle("quick-1"), bundle("quick-2"), "the same recipe and seed give the same bytes");
}

#[test]
fn json_is_one_object_a_line() {
    let folder = TempDir::new().unwrap();
    let printed = succeeds(&train(folder.path(), &[&TINY[..], &["--epochs", "1", "--json"]].concat()));
    let events: Vec<serde_json::Value> = printed.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let names: Vec<_> = events.iter().map(|event| event["event"].as_str().unwrap()).collect();
    assert_eq!(names, ["device", "plan", "start", "epoch", "finished"]);
    let accuracy = events[4]["test_accuracy"].as_f64().unwrap();
    assert!((0.0..=1.0).contains(&accuracy));
}

#[test]
#[cfg(unix)]
fn a_reader_that_goes_away_is_no_panic() {
    let folder = TempDir::new().unwrap();
    let mut child = kiln(folder.path());
    let mut child = child.args(["recipes", "quick"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    // Where the recipe was printed before the pipe was closed, nothing went wrong at all.
    assert!(matches!(output.status.code(), Some(0 | 141)), "{:?}", output.status);
    assert_eq!(text(&output.stderr), "");
}

#[test]
fn training_evaluating_and_predicting_on_a_folder_of_images_work_together() {
    let folder = TempDir::new().unwrap();
    image_folder(folder.path(), 40);
    fs::write(folder.path().join("train/dark/broken.jpg"), "this is text").unwrap();
    let arguments = [
        "train",
        "--data",
        ".",
        "--device",
        "cpu",
        "--epochs",
        "12",
        "--out",
        "run",
        "--set",
        "training.validation=0.2",
    ];
    let output = kiln(folder.path()).args(arguments).args(TINY).output().unwrap();
    succeeds(&output);
    let warning = text(&output.stderr);
    assert!(warning.contains("skipped 1 of 81 files") && warning.contains("broken.jpg"), "{warning}");

    let evaluated =
        kiln(folder.path()).args(["eval", "run", "--data", ".", "--device", "cpu", "--json"]).output().unwrap();
    let evaluated: serde_json::Value = serde_json::from_str(&succeeds(&evaluated)).unwrap();
    let accuracy = evaluated["metrics"]["accuracy"].as_f64().unwrap();
    assert!(accuracy > 0.9, "light and dark are easily told apart: {accuracy}");

    let predict =
        ["predict", "--model", "run", "--json", "train/light/001.bmp", "train/dark/001.bmp", "train/dark/broken.jpg"];
    let predicted = kiln(folder.path()).args(predict).output().unwrap();
    fails(&predicted, 1, &["broken.jpg", "not an image"]);
    let lines: Vec<serde_json::Value> =
        text(&predicted.stdout).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 2);
    assert_eq!(lines[0]["top"][0]["class"], "light");
    assert_eq!(lines[1]["top"][0]["class"], "dark");
}

/// Trains into `whole`, and into `cut` with an interruption in the third epoch or later; both bundles have
/// the same bytes.
#[cfg(unix)]
fn resumes(folder: &Path, arguments: &[&str]) {
    succeeds(&train(folder, &[arguments, &["--out", "whole"]].concat()));
    let mut command = kiln(folder);
    command
        .args(["train", "--dataset", "synthetic", "--limit", "200", "--device", "cpu", "--no-report", "--out", "cut"])
        .args(arguments);
    let mut child = command.stdout(Stdio::null()).spawn().unwrap();
    let metrics = folder.join("cut/metrics.jsonl");
    let since = Instant::now();
    while fs::read_to_string(&metrics).unwrap_or_default().lines().count() < 3 {
        assert!(since.elapsed() < Duration::from_secs(120), "no epoch has ended");
        std::thread::sleep(Duration::from_millis(2));
    }
    Command::new("kill").args(["-TERM", &child.id().to_string()]).status().unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(143));
    succeeds(&kiln(folder).args(RESUME).output().unwrap());
    let bundle = |run: &str| fs::read(folder.join(run).join("model.safetensors")).unwrap();
    assert!(bundle("cut") == bundle("whole"));
}

#[cfg(unix)]
const RESUME: [&str; 10] =
    ["train", "--dataset", "synthetic", "--limit", "200", "--device", "cpu", "--no-report", "--resume", "cut"];

#[test]
#[cfg(unix)]
fn a_terminated_run_resumes_to_the_same_bytes() {
    let folder = TempDir::new().unwrap();
    resumes(folder.path(), &[&TINY[..], &["--epochs", "30"]].concat());
    let resume = RESUME;
    let other = [&resume[..], &["--set", "model.width=4"]].concat();
    fails(&kiln(folder.path()).args(other).output().unwrap(), 1, &["architecture"]);
    let other = ["train", "--dataset", "synthetic", "--limit", "100", "--resume", "cut"];
    fails(&kiln(folder.path()).args(other).output().unwrap(), 1, &["digest"]);
    let occupied = train(folder.path(), &["--out", "whole"]);
    fails(&occupied, 1, &["already contains a run", "--resume"]);
}

#[test]
#[cfg(unix)]
fn a_transformer_resumes_to_the_same_bytes_and_is_evaluated_exported_and_asked() {
    let folder = TempDir::new().unwrap();
    let mut tiny = vec!["--recipe", "vit-tiny", "--epochs", "30", "--set", "training.ema_decay=0.9"];
    for set in ["model.width=12", "model.depth=2", "model.heads=2", "training.batch_size=16", "training.flip_tta=true"]
    {
        tiny.extend(["--set", set]);
    }
    resumes(folder.path(), &tiny);
    let run = |arguments: &[&str]| succeeds(&kiln(folder.path()).args(arguments).output().unwrap());
    let data = ["--dataset", "synthetic", "--limit", "200", "--device", "cpu"];
    let evaluated = run(&[&["eval", "whole", "--json"][..], &data].concat());
    let evaluated: serde_json::Value = serde_json::from_str(&evaluated).unwrap();
    let bundle =
        kiln_model::Bundle::from_bytes(&fs::read(folder.path().join("whole/model.safetensors")).unwrap()).unwrap();
    assert_eq!(evaluated["metrics"]["accuracy"].as_f64(), bundle.metadata.accuracy);
    run(&[&["export", "whole", "--format", "web"][..], &data].concat());
    run(&[&["report", "whole"][..], &data].concat());
    fs::write(folder.path().join("grey.bmp"), bitmap(100, 20)).unwrap();
    for model in ["whole", "whole/model-int8.safetensors"] {
        assert!(run(&["predict", "--device", "cpu", "--model", model, "grey.bmp"]).contains("vit-tiny at width 12"));
    }
    image_folder(folder.path(), 10);
    let on_folder = ["--data", ".", "--device", "cpu"];
    let small = ["train", "--epochs", "1", "--no-report", "--image-size", "16", "--out", "small"];
    run(&[&small[..], &tiny[..2], &tiny[6..], &on_folder].concat());
    let larger = [&["eval", "small", "--image-size", "32"][..], &on_folder].concat();
    fails(&kiln(folder.path()).args(larger).output().unwrap(), 1, &["16 pixels a side and no others"]);
    // Another network altogether.
    let other = train(folder.path(), &[&["--init", "whole", "--out", "other"][..], &TINY].concat());
    fails(&other, 1, &["transformer of 2 blocks of width 12"]);
}

/// The losses of ten steps of eight images.
fn ten_losses(device: &str, precision: &str) -> Vec<f64> {
    let folder = TempDir::new().unwrap();
    let mut command = kiln(folder.path());
    // Every epoch is one step, so that each step's loss is in the metrics.
    command.args(["train", "--dataset", "synthetic", "--limit", "10", "--json", "--epochs", "10", "--out", "run"]);
    command.arg("--no-report");
    let precision = format!("training.precision={precision}");
    for set in ["model.width=4", "training.batch_size=8", "training.validation=0", "optimizer.lr=0.01", &precision] {
        command.args(["--set", set]);
    }
    succeeds(&command.args(["--device", device]).output().unwrap());
    let metrics = fs::read_to_string(folder.path().join("run/metrics.jsonl")).unwrap();
    let lines = metrics.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    let losses: Vec<f64> = lines.map(|line| line["train_loss"].as_f64().unwrap()).collect();
    assert_eq!(losses.len(), 10);
    losses
}

/// Every augmentation, micro-batches, clipping and the moving average.
const TRICKS: [&str; 26] = [
    "--set",
    "augment.flip=alternating",
    "--set",
    "augment.cutout=8",
    "--set",
    "augment.affine.chance=0.5",
    "--set",
    "augment.affine.rotation=15",
    "--set",
    "augment.colour.contrast=0.3",
    "--set",
    "augment.mix.mixup_chance=0.3",
    "--set",
    "augment.mix.cutmix_chance=0.3",
    "--set",
    "augment.final_share=0.2",
    "--set",
    "training.micro_batches=3",
    "--set",
    "training.clip_norm=1",
    "--set",
    "training.ema_decay=0.95",
    "--set",
    "training.flip_tta=true",
    "--set",
    "optimizer.lr=0.05",
];

#[test]
fn a_run_starts_with_the_weights_of_another_and_a_head_for_its_own_classes() {
    let folder = TempDir::new().unwrap();
    image_folder(folder.path(), 20);
    succeeds(&train(folder.path(), &[&TINY[..], &["--epochs", "2", "--out", "first"]].concat()));
    let state = |run: &str| {
        let bytes = fs::read(folder.path().join(run).join("model.safetensors")).unwrap();
        kiln_model::Bundle::from_bytes(&bytes).unwrap().state
    };
    // A rate of zero: weights stay as they are at the start, but for the rounding of their average.
    let still = ["--epochs", "1", "--set", "optimizer.lr=0", "--set", "training.ema_decay=0", "--init", "first"];
    let own = ["train", "--data", ".", "--device", "cpu", "--no-report", "--out", "own"];
    let printed = succeeds(&kiln(folder.path()).args(own).args(TINY).args(still).output().unwrap());
    assert!(printed.contains("weights of first/model.safetensors, with a new head"), "{printed}");
    let (first, own) = (state("first"), state("own"));
    assert_eq!(first["layer4.1.conv2.weight"], own["layer4.1.conv2.weight"]);
    assert_eq!((&first["fc.weight"].shape, &own["fc.weight"].shape), (&vec![10, 16], &vec![2, 16]));

    let printed = succeeds(&train(folder.path(), &[&TINY[..], &still, &["--out", "same"]].concat()));
    assert!(printed.contains("weights of first/model.safetensors\n"), "{printed}");
    assert_eq!(first["fc.weight"], state("same")["fc.weight"], "the head of the same classes stays");

    let wider = train(folder.path(), &["--init", "first", "--set", "model.width=4", "--out", "wider"]);
    fails(&wider, 1, &["ResNet-18 of width 2", "--set model.width=2", "shape"]);
    fails(&train(folder.path(), &["--init", "nowhere"]), 1, &["nowhere"]);
}

#[test]
#[cfg(unix)]
fn a_run_with_every_trick_resumes_to_the_same_bytes() {
    let folder = TempDir::new().unwrap();
    resumes(folder.path(), &[&TINY[..], &TRICKS, &["--epochs", "30"]].concat());
}

#[test]
fn averaged_weights_are_what_is_scored_and_kept() {
    let folder = TempDir::new().unwrap();
    let arguments = [&TINY[..], &TRICKS, &["--epochs", "4", "--json", "--out", "run"]].concat();
    let printed = succeeds(&train(folder.path(), &arguments));
    let finished: serde_json::Value = serde_json::from_str(printed.lines().last().unwrap()).unwrap();
    let tests = finished["tests"].as_array().unwrap();
    let named = |name: &str| tests.iter().find(|test| test["weights"] == name);
    assert!(named("last_before_averaging").is_some(), "{finished}");

    let checkpoint = fs::read(folder.path().join("run/best.ckpt")).unwrap();
    let checkpoint = kiln_train::Checkpoint::from_bytes(&checkpoint).unwrap();
    let bundle = fs::read(folder.path().join("run/model.safetensors")).unwrap();
    assert_eq!(kiln_model::Bundle::from_bytes(&bundle).unwrap().state, checkpoint.ema);
    assert_ne!(checkpoint.ema, checkpoint.model);

    let eval = ["eval", "run", "--dataset", "synthetic", "--limit", "200", "--device", "cpu", "--tta", "--json"];
    let evaluated = succeeds(&kiln(folder.path()).args(eval).output().unwrap());
    let evaluated: serde_json::Value = serde_json::from_str(&evaluated).unwrap();
    let best = named("best").unwrap();
    assert_eq!(evaluated["metrics"]["accuracy"], best["accuracy"]);
    assert_eq!(evaluated["flip_tta"]["accuracy"], best["flip_tta_accuracy"]);
}

#[test]
fn ten_steps_on_wgpu_follow_the_cpus_losses() {
    if std::env::var_os("KILN_SKIP_GPU").is_some() {
        eprintln!("skipped: KILN_SKIP_GPU is set");
        return;
    }
    // Asking for a GPU where there is only a software adapter is an error, and the other way round.
    let gpu = if kiln_kernels::device::choose(kiln_kernels::device::DeviceRequest::Gpu(0)).is_ok() {
        "gpu"
    } else {
        "software"
    };
    let (cpu, gpu) = (ten_losses("cpu", "f32"), ten_losses(gpu, "f32"));
    for (step, (cpu, gpu)) in cpu.iter().zip(&gpu).enumerate() {
        assert!((cpu - gpu).abs() < 1e-3 * cpu, "step {step}: {cpu} on the CPU, {gpu} on wgpu");
    }
}

#[test]
fn ten_steps_in_bf16_follow_those_in_f32_where_the_cpu_has_it() {
    if !kiln_infer::Precision::Bf16.is_on_cpu() {
        eprintln!("this CPU lacks AVX512-BF16: only the error is tested");
        let folder = TempDir::new().unwrap();
        let train = ["train", "--dataset", "synthetic", "--device", "cpu", "--set", "training.precision=bf16"];
        return fails(&kiln(folder.path()).args(train).output().unwrap(), 1, &["AVX512-BF16", "training.precision"]);
    }
    let (f32, bf16) = (ten_losses("cpu", "f32"), ten_losses("cpu", "bf16"));
    assert_ne!(f32, bf16);
    for (step, (f32, bf16)) in f32.iter().zip(&bf16).enumerate() {
        assert!((f32 - bf16).abs() < 0.03 * f32, "step {step}: {f32} in f32, {bf16} in bf16");
    }
}

#[test]
fn ten_steps_in_f16_follow_those_in_f32_where_an_adapter_has_matrix_units() {
    if std::env::var_os("KILN_SKIP_GPU").is_some() {
        return eprintln!("skipped: KILN_SKIP_GPU is set");
    }
    let adapters = kiln_kernels::device::adapters();
    let device = if adapters[0].class == AdapterClass::Software { "software" } else { "gpu" };
    if adapters[0].matrix_units().is_none() {
        eprintln!("{} shows no matrix units of Kiln's kind: only the error is tested", adapters[0].name);
        let folder = TempDir::new().unwrap();
        let train = ["train", "--dataset", "synthetic", "--device", device, "--set", "training.precision=f16"];
        return fails(
            &kiln(folder.path()).args(train).output().unwrap(),
            1,
            &["does not multiply f16", "matrix units"],
        );
    }
    let (f32, f16) = (ten_losses(device, "f32"), ten_losses(device, "f16"));
    assert_ne!(f32, f16);
    for (step, (f32, f16)) in f32.iter().zip(&f16).enumerate() {
        assert!((f32 - f16).abs() < 0.01 * f32, "step {step}: {f32} in f32, {f16} in f16");
    }
}

/// `kiln doctor --json` on one device: all of its rows passed.
fn doctor(device: &str) -> Vec<serde_json::Value> {
    let folder = TempDir::new().unwrap();
    let output = kiln(folder.path()).args(["doctor", "--json", "--device", device]).output().unwrap();
    let report: serde_json::Value = serde_json::from_str(&succeeds(&output)).unwrap();
    assert_eq!((&report["passed"], report["devices"].as_array().unwrap().len()), (&true.into(), 1));
    for key in ["name", "runs", "first_calls_ms"] {
        assert!(!report["devices"][0][key].is_null(), "{key} in {}", report["devices"][0]);
    }
    let rows = report["rows"].as_array().unwrap().clone();
    for row in &rows {
        assert!(row["relative_error"].as_f64() <= row["limit"].as_f64() && row["device"] == device, "{row}");
    }
    rows
}

/// Whether a row is about that operator and direction.
fn has(rows: &[serde_json::Value], operator: &str, direction: &str) -> bool {
    rows.iter().any(|row| {
        let name = row["operator"].as_str().unwrap();
        name.split([',', ' ']).next() == Some(operator) && row["direction"] == direction
    })
}

const DOCTORED: [(&str, &[&str]); 6] = [
    ("conv2d", &["forward", "gradient of x", "gradient of weight"]),
    ("batch_norm_train", &["forward", "mean", "variance", "gradient of x", "gradient of gamma", "gradient of beta"]),
    ("batch_norm", &["forward"]),
    ("group_norm", &["forward", "gradient of x", "gradient of gamma", "gradient of beta"]),
    ("add_relu", &["forward", "gradient of x", "gradient of y"]),
    ("global_average_pool", &["forward", "gradient of x"]),
];

#[test]
fn the_doctor_examines_every_operator_on_the_cpu() {
    let rows = doctor("cpu");
    for (operator, directions) in DOCTORED {
        for direction in directions {
            assert!(has(&rows, operator, direction), "{operator} {direction}");
        }
    }
    assert!(has(&rows, "inference::cpu", "forward"));
}

#[test]
fn the_doctor_examines_every_operator_on_wgpu() {
    if std::env::var_os("KILN_SKIP_GPU").is_some() {
        eprintln!("skipped: KILN_SKIP_GPU is set");
        return;
    }
    let gpu = kiln_kernels::device::choose(kiln_kernels::device::DeviceRequest::Gpu(0)).is_ok();
    let rows = doctor(if gpu { "gpu:0" } else { "software" });
    for (operator, directions) in DOCTORED {
        for direction in directions {
            assert!(has(&rows, operator, direction), "{operator} {direction}");
        }
    }
    assert!(has(&rows, "inference::gpu", "forward"));
}

#[test]
fn every_bench_says_where_by_what_and_how_fast_it_could_be() {
    let folder = TempDir::new().unwrap();
    for what in [
        &["inference", "--runs", "1", "--batch", "3"][..],
        &["layers", "--batch", "1", "--runs", "1"],
        &["train-step", "--batch", "2", "--steps", "1"],
    ] {
        let arguments = [&["bench"], what, &["--width", "2", "--device", "cpu", "--json"]].concat();
        let output = succeeds(&kiln(folder.path()).args(&arguments).output().unwrap());
        let report: serde_json::Value = serde_json::from_str(&output).unwrap();
        assert!(report["peak_gflops"].as_f64().unwrap() > 0.1, "{what:?}: {report}");
        assert_eq!(report["versions"]["kiln"], env!("CARGO_PKG_VERSION"));
        assert!(report["machine"]["cores"].as_u64().unwrap() > 0 && report["device"].is_string(), "{report}");
    }
    let arguments = ["bench", "layers", "--width", "2", "--runs", "1", "--device", "cpu"];
    let table = succeeds(&kiln(folder.path()).args(arguments).output().unwrap());
    for words in ["measured f32 peak: ", "% of the measured f32 peak"] {
        assert!(table.contains(words), "'{words}' is not in: {table}");
    }
}

#[test]
fn the_doctor_shows_a_table_and_knows_its_devices() {
    let folder = TempDir::new().unwrap();
    let table = succeeds(&kiln(folder.path()).args(["doctor", "--device", "cpu"]).output().unwrap());
    for word in ["runs Kiln's CPU forms", "gradient of weight", "first calls", "on every device examined"] {
        assert!(table.contains(word), "'{word}' is not in: {table}");
    }
    let missing = kiln(folder.path()).args(["doctor", "--device", "gpu:99"]).output().unwrap();
    fails(&missing, 1, &["no GPU 99"]);
    let unknown = kiln(folder.path()).args(["doctor", "--device", "tpu"]).output().unwrap();
    fails(&unknown, 2, &["no device is called 'tpu'"]);
}

#[test]
fn a_recipe_that_cannot_be_used_is_explained() {
    let folder = TempDir::new().unwrap();
    fails(&train(folder.path(), &["--recipe", "quik"]), 1, &["no recipe is called 'quik'", "quick, resnet18"]);
    fails(
        &train(folder.path(), &["--set", "optimizer.momentm=0.8"]),
        1,
        &["no key 'optimizer.momentm'", "did you mean 'optimizer.momentum'"],
    );
    fails(&train(folder.path(), &["--set", "model.width=0"]), 1, &["width is 0", "between 1 and"]);
    fails(&train(folder.path(), &["--set", "training.batch_size=2.5"]), 1, &["batch_size"]);
    fails(&train(folder.path(), &["--budget", "10"]), 2, &["10m"]);
    let device = kiln(folder.path()).args(["train", "--device", "tpu"]).output().unwrap();
    fails(&device, 2, &["tpu", "software"]);
    assert!(!folder.path().join("runs").exists(), "nothing was left behind");
}

#[test]
fn recipes_are_listed_and_printed_and_a_printed_one_trains() {
    let folder = TempDir::new().unwrap();
    let list = succeeds(&kiln(folder.path()).arg("recipes").output().unwrap());
    for name in
        ["quick", "resnet18", "compact-plain", "resnet18-group-norm", "resnet18-steps", "speedrun-94", "image-folder"]
    {
        assert!(list.lines().any(|line| line.starts_with(&format!("{name} "))), "{list}");
    }
    let printed = succeeds(&kiln(folder.path()).args(["recipes", "s1-cutmix"]).output().unwrap());
    fs::write(folder.path().join("own.toml"), printed).unwrap();
    let shorter = ["--recipe", "own.toml", "--limit", "40", "--epochs", "1", "--out", "run"];
    let mut command = kiln(folder.path());
    command.args(["train", "--dataset", "synthetic", "--device", "cpu", "--set", "model.width=2"]).args(shorter);
    succeeds(&command.output().unwrap());
    fails(&kiln(folder.path()).args(["recipes", "s4"]).output().unwrap(), 1, &["'s4'", "compact-plain"]);
}

#[test]
fn augmentations_are_shown_one_by_one_and_together() {
    let folder = TempDir::new().unwrap();
    let mut command = kiln(folder.path());
    command.args(["augment", "--dataset", "synthetic", "--samples", "3", "--recipe", "s1-cutmix"]);
    let printed = succeeds(&command.args(["--set", "augment.cutout=6"]).output().unwrap());
    let names = ["original", "flip", "affine", "cutout", "mixup", "cutmix", "all"];
    let mut pictures = vec![];
    for (row, name) in names.iter().enumerate() {
        assert!(printed.contains(name), "{printed}");
        let picture = image::open(folder.path().join(format!("augment/{row}-{name}.png"))).unwrap().to_rgb8();
        assert_eq!(picture.dimensions(), (3 * 100 + 4, 96), "{name}");
        assert!(!pictures.contains(&picture), "{name} looks like another row");
        pictures.push(picture);
    }
    let sheet = image::open(folder.path().join("augment/sheet.png")).unwrap();
    assert_eq!((sheet.width(), sheet.height()), (304, 7 * 100 + 4));
    fails(
        &kiln(folder.path()).args(["augment", "--dataset", "synthetic", "--samples", "0"]).output().unwrap(),
        2,
        &["samples"],
    );
}

#[test]
fn a_recipe_decides_the_size_that_a_folders_images_are_brought_to() {
    let folder = TempDir::new().unwrap();
    image_folder(folder.path(), 8);
    let size = |out: &str, arguments: &[&str]| {
        let common = ["train", "--data", ".", "--device", "cpu", "--no-report", "--epochs", "1", "--out", out];
        succeeds(&kiln(folder.path()).args(common).args(TINY).args(arguments).output().unwrap());
        let bundle = fs::read(folder.path().join(out).join("model.safetensors")).unwrap();
        kiln_model::Bundle::from_bytes(&bundle).unwrap().metadata
    };
    assert_eq!(size("default", &[]).image_size, 32);
    let starter = size("starter", &["--recipe", "image-folder", "--set", "training.image_size=48"]);
    let kiln_model::Architecture::ResNet(architecture) = &starter.architecture else { panic!("{starter:?}") };
    assert_eq!((starter.image_size, architecture.stem), (48, kiln_model::Stem::Imagenet));
    assert_eq!(size("flag", &["--image-size", "16"]).image_size, 16);
}

#[test]
fn data_that_cannot_be_used_is_explained() {
    let folder = TempDir::new().unwrap();
    let with = |path: &str| kiln(folder.path()).args(["train", "--device", "cpu", "--data", path]).output().unwrap();
    fs::create_dir_all(folder.path().join("empty")).unwrap();
    fails(&with("empty"), 1, &["empty", "train/<class>/"]);
    fails(&with("missing"), 1, &["missing"]);
    fs::write(folder.path().join("cut.tar.gz"), &[0x1f, 0x8b, 8, 0, 0, 0][..]).unwrap();
    fails(&with("cut.tar.gz"), 1, &["cut.tar.gz"]);

    // A header that claims 60,000 by 60,000 pixels, and no other picture of its class.
    let (bombs, fine) = (folder.path().join("bombs/train/huge"), folder.path().join("bombs/train/fine"));
    fs::create_dir_all(&bombs).unwrap();
    fs::create_dir_all(&fine).unwrap();
    let mut png = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR".to_vec();
    png.extend([60_000_u32.to_be_bytes(), 60_000_u32.to_be_bytes()].concat());
    png.extend([8, 2, 0, 0, 0, 0, 0, 0, 0]);
    fs::write(bombs.join("bomb.png"), png).unwrap();
    fs::write(fine.join("fine.bmp"), bitmap(9, 32)).unwrap();
    fails(&with("bombs"), 1, &["huge", "bomb.png"]);
}

#[test]
fn an_output_folder_that_cannot_be_written_is_explained_before_training() {
    let folder = TempDir::new().unwrap();
    fs::write(folder.path().join("file"), "").unwrap();
    fails(&train(folder.path(), &["--out", "file/run"]), 1, &["cannot create", "file/run"]);
}

#[test]
fn a_diverging_run_stops_and_keeps_its_last_checkpoint() {
    let folder = TempDir::new().unwrap();
    let arguments =
        ["--out", "run", "--epochs", "8", "--set", "schedule.warmup=0.6", "--set", "schedule.start_factor=0"];
    let output = train(folder.path(), &[&TINY[..], &arguments, &["--set", "optimizer.lr=1000000"]].concat());
    fails(&output, 1, &["at step", "diverged", "optimizer.lr"]);
    assert!(!folder.path().join("run/model.safetensors").exists());
    let checkpoint = folder.path().join("run/last.ckpt");
    if checkpoint.exists() {
        kiln_train::Checkpoint::from_bytes(&fs::read(checkpoint).unwrap()).unwrap();
    }
}

#[test]
fn bundles_that_are_none_are_refused() {
    let folder = TempDir::new().unwrap();
    let predict = |model: &str| kiln(folder.path()).args(["predict", "--model", model, "image.png"]).output().unwrap();
    fails(&predict("nowhere"), 1, &["nowhere", "kiln train"]);
    fs::write(folder.path().join("text.safetensors"), "text").unwrap();
    fails(
        &predict("text.safetensors"),
        1,
        &["text.safetensors is not a usable bundle", "not a whole safetensors file"],
    );
    fails(&kiln(folder.path()).args(["predict", "image.png"]).output().unwrap(), 1, &["no finished run under runs/"]);
}

#[test]
fn an_exported_network_scores_what_the_export_said() {
    let folder = TempDir::new().unwrap();
    succeeds(&train(folder.path(), &[&TINY[..], &["--epochs", "2", "--out", "run"]].concat()));
    let bundle = |name: &str| fs::read(folder.path().join("run").join(name)).unwrap();
    let original = bundle("model.safetensors");
    let data = ["--limit", "200", "--device", "cpu", "--json"];
    for (storage, share) in [("int8", 0.5), ("f16", 0.7)] {
        // No data is named: it is the synthetic set because the network was trained on that.
        let export = ["export", "run", "--format", "web", "--storage", storage];
        let printed = succeeds(&kiln(folder.path()).args([&export[..], &data].concat()).output().unwrap());
        let printed: serde_json::Value = serde_json::from_str(&printed).unwrap();
        let name = format!("model-{storage}.safetensors");
        assert_eq!(printed["output"], format!("run/{name}"));
        let len = bundle(&name).len();
        assert_eq!((&printed["bytes_before"], &printed["bytes_after"]), (&original.len().into(), &len.into()));
        assert!((len as f64) < share * original.len() as f64, "{storage}: {len} of {} bytes", original.len());

        let record = kiln_model::Bundle::from_bytes(&bundle(&name)).unwrap().metadata.quantisation.unwrap();
        assert_eq!(printed["quantisation"], serde_json::to_value(&record).unwrap());
        assert_eq!((record.dataset.as_deref(), record.split.as_deref()), (Some("synthetic"), Some("test")));
        for (model, accuracy, loss) in [
            ("run/model.safetensors", record.accuracy_before, "loss_before"),
            (&format!("run/{name}"), record.accuracy_after, "loss_after"),
        ] {
            let eval = ["eval", model, "--dataset", "synthetic"];
            let evaluated = succeeds(&kiln(folder.path()).args([&eval[..], &data].concat()).output().unwrap());
            let evaluated: serde_json::Value = serde_json::from_str(&evaluated).unwrap();
            let metrics = &evaluated["metrics"];
            assert_eq!(metrics["accuracy"].as_f64(), accuracy, "{model}");
            assert_eq!((&metrics["samples"], &metrics["loss"]), (&record.samples.into(), &printed[loss]));
        }
    }
    let copy = ["export", "run", "--format", "safetensors", "--output", "copy.safetensors"];
    succeeds(&kiln(folder.path()).args(copy).output().unwrap());
    assert_eq!(fs::read(folder.path().join("copy.safetensors")).unwrap(), original);
}

#[test]
fn an_export_destroys_nothing_and_measures_on_no_other_data() {
    let folder = TempDir::new().unwrap();
    succeeds(&train(folder.path(), &[&TINY[..], &["--epochs", "1", "--out", "run"]].concat()));
    let bundle = folder.path().join("run/model.safetensors");
    let original = fs::read(&bundle).unwrap();
    let export = |model: &str, arguments: &[&str]| {
        kiln(folder.path()).args(["export", model, "--device", "cpu"]).args(arguments).output().unwrap()
    };
    let itself = ["--no-accuracy", "--force", "--output", "run/../run/model.safetensors"];
    fails(&export("run", &itself), 1, &["is the file to read", "--output"]);
    let nowhere = ["--no-accuracy", "--output", "nowhere/a.safetensors"];
    fails(&export("run", &nowhere), 1, &["there is no folder nowhere"]);
    fails(&export("run", &["--no-accuracy", "--output", "run"]), 1, &["is not a file"]);
    fails(&export("run", &["--format", "safetensors", "--storage", "f16"]), 1, &["takes no --storage"]);

    // The whole synthetic set, and not the 200 images of it that the network was trained on.
    fails(&export("run", &[]), 1, &["digest", "--limit", "--no-accuracy"]);
    assert!(!folder.path().join("run/model-int8.safetensors").exists());
    let named = export("run", &["--dataset", "synthetic", "--limit", "300"]);
    assert!(succeeds(&named).contains("60 images of synthetic (test)"), "{}", text(&named.stdout));
    assert!(text(&named.stderr).contains("is not what the network was trained on"), "{}", text(&named.stderr));

    fails(&export("run", &["--no-accuracy"]), 1, &["already exists", "--force"]);
    let printed = succeeds(&export("run", &["--no-accuracy", "--force"]));
    assert!(printed.contains("not measured"), "{printed}");
    let exported = fs::read(folder.path().join("run/model-int8.safetensors")).unwrap();
    let record = kiln_model::Bundle::from_bytes(&exported).unwrap().metadata.quantisation.unwrap();
    assert_eq!((record.samples, record.accuracy_before, record.accuracy_after), (None, None, None));
    fails(&export("run/model-int8.safetensors", &["--no-accuracy"]), 1, &["int8 weights already"]);

    // A network that was trained on somebody's own images.
    image_folder(folder.path(), 10);
    fails(&export("run", &["--data", ".", "--force"]), 1, &["the network knows the classes disc", "dark, light"]);
    let mut own = kiln_model::Bundle::from_bytes(&original).unwrap();
    own.metadata.dataset = "pets".to_owned();
    fs::write(folder.path().join("own.safetensors"), own.to_bytes().unwrap()).unwrap();
    fails(&export("own.safetensors", &[]), 1, &["'pets'", "--data PATH", "--no-accuracy"]);
    assert_eq!(fs::read(bundle).unwrap(), original);
}

/// A running `kiln serve`, ended with the test.
struct Served {
    child: Child,
    address: String,
}

impl Served {
    /// Serves `folder` on a free port.
    fn new(folder: &Path) -> Self {
        let mut command = kiln(folder);
        command.args(["serve", "--port", "0"]).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        let (_, address) = line.trim().trim_end_matches('/').rsplit_once("http://").unwrap();
        Self { address: address.to_owned(), child }
    }

    /// Status, headers and body of the answer to that request, `lines` among its headers.
    fn ask(&self, method: &str, target: &str, lines: &[&str]) -> Answer {
        let host = format!("Host: {}", self.address);
        self.send(&[&[&format!("{method} {target} HTTP/1.1"), &*host], lines].concat())
    }

    fn send(&self, lines: &[&str]) -> Answer {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        write!(stream, "{}\r\nConnection: close\r\n\r\n", lines.join("\r\n")).unwrap();
        let mut bytes = vec![];
        stream.read_to_end(&mut bytes).unwrap();
        let end = bytes.windows(4).position(|window| window == b"\r\n\r\n").expect("an end of the headers");
        let head = text(&bytes[..end]);
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        Answer { status, head, body: bytes[end + 4..].to_vec() }
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

struct Answer {
    status: u16,
    head: String,
    body: Vec<u8>,
}

impl Answer {
    fn header(&self, name: &str) -> Option<&str> {
        let fields = self.head.lines().filter_map(|line| line.split_once(": "));
        fields.filter(|(field, _)| field.eq_ignore_ascii_case(name)).map(|(_, value)| value).next()
    }
}

/// A page and things beside it that are not to be served.
fn site(folder: &Path) {
    for name in ["index.html", "web/app.js", "web/pkg/kiln.wasm", "web/models/quick.safetensors", "runs/a/log", ".env"]
    {
        let path = folder.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, name.repeat(10_000)).unwrap();
    }
}

#[test]
fn the_page_is_served_with_its_types_and_isolated() {
    let folder = TempDir::new().unwrap();
    site(folder.path());
    let served = Served::new(folder.path());
    for (target, file, content_type) in [
        ("/", "index.html", "text/html; charset=utf-8"),
        ("/web/app.js?v=1", "web/app.js", "text/javascript; charset=utf-8"),
        ("/web/pkg/kiln.wasm", "web/pkg/kiln.wasm", "application/wasm"),
        ("/web/models/quick.safetensors", "web/models/quick.safetensors", "application/octet-stream"),
    ] {
        let got = served.ask("GET", target, &[]);
        assert_eq!((got.status, got.header("Content-Type")), (200, Some(content_type)), "{target}");
        assert!(got.body == fs::read(folder.path().join(file)).unwrap(), "{target}");
        assert_eq!(got.header("Content-Length"), Some(&*got.body.len().to_string()), "{target}");
        assert_eq!(got.header("Cross-Origin-Opener-Policy"), Some("same-origin"));
        assert_eq!(got.header("Cross-Origin-Embedder-Policy"), Some("require-corp"));
        assert_eq!(got.header("X-Content-Type-Options"), Some("nosniff"));
        assert_eq!(got.header("Cache-Control"), Some("no-cache"));

        let head = served.ask("HEAD", target, &[]);
        assert_eq!((head.status, head.body.len()), (200, 0));
        assert_eq!(head.header("Content-Length"), got.header("Content-Length"));

        let tag = format!("If-None-Match: \"0\", W/{}", got.header("ETag").unwrap());
        let date = format!("If-Modified-Since: {}", got.header("Last-Modified").unwrap());
        for condition in [&tag, &date] {
            let unchanged = served.ask("GET", target, &[condition]);
            assert_eq!((unchanged.status, unchanged.body.len()), (304, 0), "{condition}");
            assert_eq!(unchanged.header("ETag"), got.header("ETag"));
        }
        for condition in ["If-None-Match: \"0\"", "If-Modified-Since: Thu, 01 Jan 1970 00:00:00 GMT"] {
            assert_eq!(served.ask("GET", target, &[condition]).status, 200, "{condition}");
        }
    }
}

#[test]
fn nothing_but_the_page_is_served_and_only_to_this_machine() {
    let folder = TempDir::new().unwrap();
    fs::write(folder.path().join("secret"), "secret").unwrap();
    let root = folder.path().join("root");
    site(&root);
    let served = Served::new(&root);
    for target in [
        "/../secret",
        "/%2e%2e/secret",
        "/web/..%2f..%2fsecret",
        "/..%5csecret",
        "//etc/passwd",
        "/.env",
        "/runs/a/log",
        "/index.html%00",
        "/web",
        "/missing",
        "*",
    ] {
        let got = served.ask("GET", target, &[]);
        assert_eq!(got.status, 404, "{target}");
        assert_eq!(got.header("X-Content-Type-Options"), Some("nosniff"), "{target}");
    }
    for method in ["POST", "PUT", "DELETE", "OPTIONS"] {
        let got = served.ask(method, "/", &[]);
        assert_eq!((got.status, got.header("Allow")), (405, Some("GET, HEAD")), "{method}");
    }
    for hosts in [&["Host: evil.example"][..], &["Host: localhost", "Host: evil.example"], &[]] {
        let got = served.send(&[&["GET / HTTP/1.1"], hosts].concat());
        assert_eq!(got.status, 403, "{hosts:?}");
    }
    assert_eq!(served.send(&["GET / HTTP/1.1", "Host: localhost:1234"]).status, 200);
    // None of which has worn it out.
    assert_eq!(served.ask("GET", "/", &[]).status, 200);
}

#[test]
fn what_cannot_be_served_is_explained() {
    let folder = TempDir::new().unwrap();
    let serve = |arguments: &[&str]| kiln(folder.path()).arg("serve").args(arguments).output().unwrap();
    fails(&serve(&[]), 1, &["no index.html in .", "--dir"]);
    fails(&serve(&["--dir", "nowhere"]), 1, &["nowhere"]);
    site(folder.path());
    fs::remove_dir_all(folder.path().join("web/pkg")).unwrap();
    let served = Served::new(folder.path());
    let (_, port) = served.address.rsplit_once(':').unwrap();
    fails(&serve(&["--port", port]), 1, &["web/build.sh", port, "--port 0"]);
}

#[test]
#[cfg(unix)]
fn the_server_ends_with_ctrl_c() {
    let folder = TempDir::new().unwrap();
    site(folder.path());
    let mut served = Served::new(folder.path());
    // One that never ends its request keeps nothing waiting.
    let mut half = TcpStream::connect(&served.address).unwrap();
    half.write_all(b"GET / HT").unwrap();
    Command::new("kill").args(["-INT", &served.child.id().to_string()]).status().unwrap();
    assert_eq!(served.child.wait().unwrap().code(), Some(130));
}

#[test]
fn the_summary_counts_what_the_papers_count() {
    let folder = TempDir::new().unwrap();
    let printed = succeeds(&kiln(folder.path()).args(["summary", "resnet18-compact"]).output().unwrap());
    assert!(printed.contains("11,154,890") && printed.contains("135.15 M"), "{printed}");
    fails(&kiln(folder.path()).args(["summary", "resnet19"]).output().unwrap(), 1, &["resnet19", "resnet18"]);
    fails(&kiln(folder.path()).args(["summary", "--width", "0"]).output().unwrap(), 1, &["width is 0"]);
}
