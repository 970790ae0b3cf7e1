//! Files and arguments made to do harm: the built program answers each with an error, in bounded memory.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use kiln_model::container::{self, Storage};
use kiln_model::{Bundle, ResNetConfig};
use tempfile::TempDir;

use crate::program::{TINY, bitmap, fails, image_folder, kiln, succeeds, text, train};
use crate::{bombs, sample};

/// A network of width 2 that knows two classes.
fn bundle() -> Bundle {
    let architecture = ResNetConfig { width: 2, ..ResNetConfig::new(18, 2) };
    let mut bundle = sample::bundle(architecture.into(), |_| 1.0);
    bundle.metadata.classes = vec!["cat".into(), "dog".into()];
    bundle
}

/// Runs a command to its end; what it said, and the most memory it had, in MiB (0 where Linux is not).
fn measured(mut command: Command) -> (std::process::Output, u64) {
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let status = PathBuf::from(format!("/proc/{}/status", child.id()));
    let mut peak = 0;
    while child.try_wait().unwrap().is_none() {
        // The system keeps the maximum, so that looking now and then is enough.
        let status = fs::read_to_string(&status).unwrap_or_default();
        let kilobytes = status.lines().find_map(|line| line.strip_prefix("VmHWM:")?.trim().strip_suffix(" kB"));
        peak = kilobytes.and_then(|number| number.parse().ok()).unwrap_or(peak);
        std::thread::sleep(Duration::from_millis(1));
    }
    (child.wait_with_output().unwrap(), peak / 1024)
}

#[test]
fn image_bombs_of_every_kind_stay_within_256_mib() {
    // Kinds, and whether the picture is answered (within what decoding may take) or refused with these words.
    let refused = Some;
    let cases: Vec<(&str, Vec<u8>, Option<&str>)> = vec![
        ("48 megapixels of a phone.jpg", bombs::jpeg([8064, 6048], 3, [2, 2], false), None),
        ("64 megapixels.jpg", bombs::jpeg([8064, 8000], 3, [2, 2], false), refused("MiB to decode")),
        ("65000 x 65000.jpg", bombs::jpeg([65_000, 65_000], 1, [1, 1], false), refused("16384 per side")),
        ("progressive 17.jpg", bombs::jpeg([4400, 4000], 3, [1, 1], true), None),
        ("progressive 27.jpg", bombs::jpeg([5600, 4800], 3, [2, 2], true), None),
        ("progressive 48.jpg", bombs::jpeg([8064, 6048], 3, [2, 2], true), refused("MiB to decode")),
        ("cmyk.jpg", bombs::jpeg([7000, 7000], 4, [1, 1], false), None),
        ("progressive cmyk.jpg", bombs::jpeg([4000, 3500], 4, [1, 1], true), None),
        ("progressive cmyk 25.jpg", bombs::jpeg([5000, 5000], 4, [1, 1], true), refused("MiB to decode")),
        ("grey.png", bombs::png([8000, 8000], 0, 8), None),
        ("rgb.png", bombs::png([8000, 7200], 2, 8), None),
        ("rgb 16.png", bombs::png([5400, 5300], 2, 16), None),
        ("rgba 16.png", bombs::png([4700, 4600], 6, 16), None),
        ("rgba 16, 48 megapixels.png", bombs::png([8000, 6000], 6, 16), refused("MiB to decode")),
        ("30000 x 30000.png", bombs::png([30_000, 30_000], 0, 8), refused("16384 per side")),
        ("profile.png", bombs::png_profile(400 << 20), None),
        ("rgb.bmp", bombs::bmp([4700, 4700]), None),
        ("large.bmp", bombs::bmp([7000, 7000]), refused("64 MiB per file")),
        ("screen.gif", bombs::gif([5900, 5900], [5900, 5900], 1), None),
        ("screen 42.gif", bombs::gif([6500, 6500], [6500, 6500], 1), refused("MiB to decode")),
        ("frame.gif", bombs::gif([64, 64], [6500, 6500], 1), refused("needs more memory than the limit")),
        ("animated.gif", bombs::gif([4000, 4000], [4000, 3000], 8), None),
        ("lossy.webp", bombs::webp_lossy([5900, 5800]), None),
        ("lossy 48.webp", bombs::webp_lossy([8000, 6000]), refused("MiB to decode")),
        ("lies.webp", bombs::webp_that_lies([16_000, 16_000]), refused("MiB to decode")),
        ("claims.webp", bombs::webp_with_a_claim(), refused("ends before")),
        ("lossless.webp", bombs::webp_lossless([4800, 4700]), None),
        ("animated.webp", bombs::webp_animation([3600, 3600], 4), None),
        ("animated 25.webp", bombs::webp_animation([5000, 5000], 4), refused("MiB to decode")),
        ("codes.webp", bombs::webp_codes(8192), refused("Corrupt")),
        ("65536 codes.webp", bombs::webp_codes(65_536), refused("MiB to decode")),
        ("strip.tif", bombs::tiff([4500, 4400]), None),
        ("strip 36.tif", bombs::tiff([6000, 6000]), refused("MiB to decode")),
        ("run.tga", bombs::tga([4500, 4500]), None),
        ("run 25.tga", bombs::tga([5000, 5000]), refused("MiB to decode")),
        ("run.qoi", bombs::qoi([4500, 4500]), None),
        ("run 25.qoi", bombs::qoi([5000, 5000]), refused("MiB to decode")),
    ];
    let folder = TempDir::new().unwrap();
    fs::write(folder.path().join("model.safetensors"), bundle().to_bytes().unwrap()).unwrap();
    let mut highest = 0;
    for (name, bytes, words) in cases {
        fs::write(folder.path().join(name), &bytes).unwrap();
        let mut command = kiln(folder.path());
        command.args(["predict", "--device", "cpu", "--model", "model.safetensors", name]);
        let (output, peak) = measured(command);
        match words {
            None => drop(succeeds(&output)),
            Some(words) => fails(&output, 1, &[name, words]),
        }
        println!("{name:<30} {:>9} bytes {peak:>5} MiB", bytes.len());
        assert!(peak < 256, "{name} took {peak} MiB");
        highest = highest.max(peak);
        fs::remove_file(folder.path().join(name)).unwrap();
    }
    println!("the most of all: {highest} MiB");
}

#[test]
fn unusual_pictures_are_answered_or_explained() {
    let folder = TempDir::new().unwrap();
    fs::write(folder.path().join("model.safetensors"), bundle().to_bytes().unwrap()).unwrap();
    let predict = |name: &str, bytes: &[u8]| {
        fs::write(folder.path().join(name), bytes).unwrap();
        let arguments = ["predict", "--device", "cpu", "--model", "model.safetensors", name];
        kiln(folder.path()).args(arguments).output().unwrap()
    };
    for (name, bytes) in [
        ("cmyk.jpg", bombs::jpeg([40, 30], 4, [1, 1], false)),
        ("one.jpg", bombs::jpeg([1, 1], 3, [2, 2], false)),
        ("one.png", bombs::png([1, 1], 6, 16)),
        ("one.gif", bombs::gif([1, 1], [1, 1], 1)),
        ("one.webp", bombs::webp_lossless([1, 1])),
        ("animated.gif", bombs::gif([20, 20], [20, 20], 3)),
        ("animated.webp", bombs::webp_animation([20, 20], 3)),
        ("strip.png", bombs::png([16_384, 1], 2, 8)),
    ] {
        let printed = succeeds(&predict(name, &bytes));
        assert!(printed.contains("cat") && printed.contains("dog"), "{name}: {printed}");
        // Before the end of the first frame.
        let cut = bytes.len() / if name.starts_with("animated") { 4 } else { 2 };
        let output = predict(name, &bytes[..cut]);
        assert!(!output.status.success(), "{name} cut to {cut} of {} bytes", bytes.len());
        fails(&output, 1, &[name]);
    }
    for (name, bytes) in
        [("tall.png", bombs::png([1, 20_000], 2, 8)), ("wide.jpg", bombs::jpeg([20_000, 1], 3, [2, 2], false))]
    {
        fails(&predict(name, &bytes), 1, &[name, "20000", "limit of 16384 per side"]);
    }
}

/// A bundle with a right digest whose metadata has one thing changed, by the text of its JSON.
fn changed(from: &str, to: &str) -> Vec<u8> {
    let bundle = bundle();
    let metadata = serde_json::to_string(&bundle.metadata).unwrap();
    assert!(metadata.contains(from), "{metadata}");
    let metadata: Box<serde_json::value::RawValue> = serde_json::from_str(&metadata.replace(from, to)).unwrap();
    container::write(&metadata, &bundle.state, Storage::F32).unwrap()
}

#[test]
fn bundles_that_claim_too_much_are_refused_by_every_command() {
    let folder = TempDir::new().unwrap();
    image_folder(folder.path(), 2);
    for (from, to, words) in [
        ("\"width\":2", "\"width\":1000000000", "width is 1000000000"),
        ("\"width\":2", "\"width\":1024", "another architecture"),
        ("\"depth\":18", "\"depth\":152", "another architecture"),
        ("\"depth\":18", "\"depth\":1000000000", "not a ResNet depth"),
        ("\"classes\":2", "\"classes\":1000000000", "class count"),
        ("\"image_size\":32", "\"image_size\":1000000000", "image size is 1000000000"),
        ("\"std\":[0.25", "\"std\":[0.0", "standard deviation is 0"),
        ("\"mean\":[0.5", "\"mean\":[1e39", "mean is inf"),
        ("\"cat\"", "\"\\u001b]0;title\\u0007\"", "control characters"),
        ("\"recipe\":\"quick\"", "\"recipe\":\"\\u001b[2J\"", "control characters"),
    ] {
        fs::write(folder.path().join("model.safetensors"), changed(from, to)).unwrap();
        for arguments in [
            &["predict", "--model", "model.safetensors", "train/dark/000.bmp"][..],
            &["eval", "model.safetensors", "--data", "."],
            &["export", "model.safetensors", "--no-accuracy"],
            &["train", "--init", "model.safetensors", "--data", ".", "--epochs", "1"],
        ] {
            let mut command = kiln(folder.path());
            command.args(arguments).args(["--device", "cpu"]);
            let (output, peak) = measured(command);
            fails(&output, 1, &["not a usable bundle", words]);
            assert!(!text(&output.stderr).contains('\u{1b}') && peak < 128, "{peak} MiB");
        }
    }
}

#[cfg(unix)]
#[test]
fn files_without_an_end_are_not_read() {
    let folder = TempDir::new().unwrap();
    succeeds(&train(folder.path(), &[&TINY[..], &["--epochs", "1", "--out", "run"]].concat()));
    // Which would take the place of a last one that cannot be read.
    fs::remove_file(folder.path().join("run/previous.ckpt")).unwrap();
    let sparse = |path: &Path| File::create(path).unwrap().set_len(100 << 30).unwrap();
    let pipe = |path: &Path| assert!(Command::new("mkfifo").arg(path).status().unwrap().success());
    let folder_of = |path: &Path| fs::create_dir(path).unwrap();
    let zeros = |path: &Path| std::os::unix::fs::symlink("/dev/zero", path).unwrap();
    type Make<'a> = &'a dyn Fn(&Path);
    let kinds: [(&str, Make); 4] = [("sparse", &sparse), ("pipe", &pipe), ("folder", &folder_of), ("zeros", &zeros)];
    // A run's folder without one of its text files is none.
    let reasons = ["107374182400 bytes", "no regular file", "is a folder", "is not a run folder", "No such file"];
    for (file, commands) in [
        ("model.safetensors", &[&["predict", "--model", "run/model.safetensors", "a.png"][..], &["eval", "run"]][..]),
        ("last.ckpt", &[&["train", "--resume", "run", "--dataset", "synthetic"]]),
        ("recipe.toml", &[&["report", "run"], &["train", "--recipe", "run/recipe.toml", "--dataset", "synthetic"]]),
        ("metrics.jsonl", &[&["report", "run"], &["compare", "run", "run"]]),
        (
            "evaluation.json",
            &[&["report", "run", "--dataset", "synthetic", "--limit", "200"], &["compare", "run", "run"]],
        ),
    ] {
        let path = folder.path().join("run").join(file);
        let kept = fs::read(&path).ok();
        for (kind, make) in &kinds {
            let _ = fs::remove_file(&path);
            make(&path);
            for arguments in commands {
                let mut command = kiln(folder.path());
                command.args(*arguments);
                let (output, peak) = measured(command);
                fails(&output, 1, &["error: "]);
                let said = text(&output.stderr);
                assert!(reasons.iter().any(|reason| said.contains(reason)), "{kind} as {file}, {arguments:?}: {said}");
                assert!(peak < 256, "{kind} as {file}, {arguments:?}: {peak} MiB");
            }
            if path.is_dir() { fs::remove_dir(&path).unwrap() } else { fs::remove_file(&path).unwrap() }
        }
        if let Some(bytes) = kept {
            fs::write(&path, bytes).unwrap();
        }
    }
}

#[test]
fn absurd_recipes_and_arguments_are_explained() {
    let folder = TempDir::new().unwrap();
    for (setting, words) in [
        ("training.epochs=1000000000000000000", "1 to 100000"),
        ("training.epochs=-1", "epochs"),
        ("training.batch_size=0", "1 to 65536"),
        ("training.batch_size=1000000000000", "1 to 65536"),
        ("training.image_size=18446744073709551615", "image_size"),
        ("training.micro_batches=99999", "micro_batches"),
        ("optimizer.lr=nan", "optimizer.lr"),
        ("optimizer.lr=inf", "optimizer.lr"),
        ("optimizer.lr=1e400", "optimizer.lr"),
        ("optimizer.weight_decay=-1.0", "0 to 1"),
        ("schedule.milestones=[nan]", "milestones"),
        ("model.width=18446744073709551616", "expected usize in `width`"),
        ("name=../../elsewhere", "letters, digits"),
        ("name=\u{1b}[2J", "letters, digits"),
    ] {
        let output = train(folder.path(), &["--set", setting]);
        fails(&output, 1, &[words]);
        assert!(!text(&output.stderr).contains('\u{1b}'), "{setting}");
    }
    for budget in ["1000000000h", "nans", "-1h", "1e300h", "infh"] {
        fails(&train(folder.path(), &[&format!("--budget={budget}")]), 2, &["--budget"]);
    }
    fails(&train(folder.path(), &["--limit", "18446744073709551616"]), 2, &["--limit"]);
    let quick = succeeds(&kiln(folder.path()).args(["recipes", "quick"]).output().unwrap());
    for (name, contents, words) in [
        ("nested.toml", format!("{quick}\ndeep = {}1{}", "[".repeat(100_000), "]".repeat(100_000)), "not valid TOML"),
        ("tables.toml", format!("{quick}\n[{}]", vec!["a"; 100_000].join(".")), ""),
        ("long.toml", format!("{quick}\nnote = \"{}\"", "x".repeat(1 << 20)), "no key 'augment.mix.note'"),
        ("unknown.toml", format!("{quick}\n[optimiser]\nlr = 1.0"), "'optimiser.lr'; did you mean 'optimizer.lr'"),
        ("bytes.toml", "\u{0}\u{1b}[2J".to_owned(), "not valid TOML"),
    ] {
        fs::write(folder.path().join(name), contents).unwrap();
        let output = train(folder.path(), &["--recipe", name]);
        fails(&output, 1, &[words]);
        assert!(output.stderr.len() < 10_000 && !text(&output.stderr).contains('\u{1b}'), "{name}");
    }
    assert!(!folder.path().join("runs").exists(), "nothing was left behind");
    assert!(!folder.path().parent().unwrap().join("elsewhere-1").exists());
}

#[test]
fn broken_metrics_and_evaluations_are_explained() {
    let folder = TempDir::new().unwrap();
    succeeds(&train(folder.path(), &[&TINY[..], &["--epochs", "1", "--out", "run"]].concat()));
    let metrics = fs::read_to_string(folder.path().join("run/metrics.jsonl")).unwrap();
    let commands: [&[&str]; 2] = [&["report", "run"], &["compare", "run", "run"]];
    let run = |arguments: &[&str]| kiln(folder.path()).args(arguments).output().unwrap();
    for broken in [
        "{".repeat(100_000),
        "[".repeat(100_000),
        format!("{metrics}{{\"epoch\": 2"),
        metrics.replacen("\"epoch\":1", "\"epoch\":1e300", 1),
        metrics.replacen("\"epoch\":1", "\"epoch\":-1", 1),
        "\u{0}".to_owned(),
        format!("{metrics}\"{}\u{1b}\"", "x".repeat(1 << 20)),
        String::new(),
    ] {
        fs::write(folder.path().join("run/metrics.jsonl"), &broken).unwrap();
        for arguments in commands {
            let output = run(arguments);
            fails(&output, 1, &["run"]);
            assert!(output.stderr.len() < 10_000 && !text(&output.stderr).contains('\u{1b}'));
        }
    }
    // Numbers that are none of a run, but numbers.
    let odd = metrics.replacen("\"step\":", "\"step\":18446744073709551615,\"x\":", 1);
    let odd = format!("{}{}", odd, metrics.replacen("\"seconds\":", "\"seconds\":-1e300,\"y\":", 1));
    fs::write(folder.path().join("run/metrics.jsonl"), odd).unwrap();
    for arguments in commands {
        succeeds(&run(arguments));
    }
    fs::write(folder.path().join("run/metrics.jsonl"), &metrics).unwrap();
    for broken in ["{}", "[]", "null", "{\"metrics\": {}}", "\u{0}", &"[".repeat(100_000)] {
        fs::write(folder.path().join("run/evaluation.json"), broken).unwrap();
        fails(&run(&["compare", "run", "run"]), 1, &["evaluation.json is damaged", "delete it"]);
    }
}

#[cfg(unix)]
#[test]
fn names_from_a_folder_reach_the_terminal_in_plain_text() {
    let folder = TempDir::new().unwrap();
    image_folder(folder.path(), 3);
    fs::write(folder.path().join("train/dark/\u{1b}[2J.jpg"), "text").unwrap();
    let arguments = ["train", "--data", ".", "--device", "cpu", "--no-report", "--epochs", "1", "--out", "run"];
    let output = kiln(folder.path()).args(arguments).args(TINY).output().unwrap();
    succeeds(&output);
    assert!(text(&output.stderr).contains("\\u{1b}[2J.jpg"), "{}", text(&output.stderr));
    assert!(!text(&output.stderr).contains('\u{1b}'));

    fs::create_dir(folder.path().join("train/\u{1b}c")).unwrap();
    fs::write(folder.path().join("train/\u{1b}c/1.bmp"), bitmap(9, 32)).unwrap();
    let output = kiln(folder.path()).args(arguments).args(TINY).output().unwrap();
    fails(&output, 1, &["control characters", "rename its folder"]);
    assert!(!text(&output.stderr).contains('\u{1b}'));
}
