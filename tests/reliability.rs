//! What a run survives: kills at random moments, full disks, damaged files, a second process.
//!
//! A few of each in every run of the tests; for the figures in docs/reliability.md,
//! `KILN_KILLS=200 KILN_STEPS=10000 KILN_INFERENCES=10000 cargo test --release --workspace reliability -- --nocapture`.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use crate::program::{TINY, fails, is_alone, kiln, succeeds, text, train};
use kiln_train::Checkpoint;
use serde_json::Value;
use tempfile::TempDir;

/// How much of something to do: what the environment says, or else what every run of the tests has time for.
fn amount(variable: &str, usual: usize) -> usize {
    std::env::var(variable).map_or(usual, |text| text.parse().expect("a number"))
}

/// Random enough, and the same every time.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (self.0 >> 33) % bound
    }
}

fn resume(folder: &Path, run: &str, arguments: &[&str]) -> Command {
    let mut command = kiln(folder);
    command
        .args(["train", "--dataset", "synthetic", "--limit", "200", "--device", "cpu", "--no-report", "--resume", run])
        .args(arguments);
    command
}

fn start(folder: &Path, run: &str, arguments: &[&str]) -> Command {
    let mut command = kiln(folder);
    command
        .args(["train", "--dataset", "synthetic", "--limit", "200", "--device", "cpu", "--no-report", "--out", run])
        .args(TINY)
        .args(arguments);
    command
}

fn bundle(folder: &Path, run: &str) -> Vec<u8> {
    fs::read(folder.join(run).join("model.safetensors")).unwrap()
}

/// A run's metrics without the times, which differ.
fn metrics(folder: &Path, run: &str) -> Vec<Value> {
    let text = fs::read_to_string(folder.join(run).join("metrics.jsonl")).unwrap();
    let line = |line: &str| {
        let mut line: Value = serde_json::from_str(line).unwrap();
        for timed in ["seconds", "images_per_second"] {
            line.as_object_mut().unwrap().remove(timed).unwrap();
        }
        line
    };
    text.lines().map(line).collect()
}

/// Steps that the newest checkpoint has behind it.
fn saved(folder: &Path, run: &str) -> usize {
    let run = kiln_train::run_dir::RunDir::open(&folder.join(run));
    run.latest().unwrap().checkpoint.header.step
}

#[test]
fn a_run_killed_again_and_again_ends_with_the_same_bytes() {
    let folder = TempDir::new().unwrap();
    let folder = folder.path();
    let epochs = ["--epochs", "12"];
    let began = Instant::now();
    succeeds(&start(folder, "whole", &epochs).output().unwrap());
    let whole = began.elapsed();
    let (kills, mut done, mut runs, mut random) = (amount("KILN_KILLS", 6), 0, 0, Random(1));
    while done < kills {
        let run = format!("run{runs}");
        runs += 1;
        let mut command = start(folder, &run, &epochs);
        let mut step = 0;
        while done < kills {
            let mut child = command.arg("--json").stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
            std::thread::sleep(Duration::from_micros(random.below(whole.as_micros() as u64)));
            let ended = child.try_wait().unwrap().is_some();
            child.kill().unwrap();
            let output = child.wait_with_output().unwrap();
            if ended {
                break;
            }
            done += 1;
            // What the run had said to be done when it died is there.
            let epochs = text(&output.stdout);
            let told = epochs.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
            let told = told.filter_map(|event| event["metrics"]["step"].as_u64()).next_back().unwrap_or(0) as usize;
            if !folder.join(&run).join("last.ckpt").exists() && !folder.join(&run).join("previous.ckpt").exists() {
                assert_eq!((told, step), (0, 0), "a run that has not begun loses nothing");
                command = start(folder, &run, &["--epochs", "12"]);
                continue;
            }
            let now = saved(folder, &run);
            assert!(now >= told.max(step), "{now} steps are saved after {told} were told and {step} were there");
            step = now;
            command = resume(folder, &run, &[]);
        }
        if !folder.join(&run).join("model.safetensors").exists() {
            succeeds(&command.output().unwrap());
        }
        assert!(bundle(folder, &run) == bundle(folder, "whole"), "run {run}");
        assert_eq!(metrics(folder, &run), metrics(folder, "whole"));
        fs::remove_dir_all(folder.join(&run)).unwrap();
    }
    println!("{kills} kills in {runs} runs of {:.1} s: all resumed, to the same bytes", whole.as_secs_f64());
}

/// Waits until a run has saved so many epochs.
fn wait_for_epochs(folder: &Path, run: &str, epochs: usize, child: &mut Child) {
    let since = Instant::now();
    let path = folder.join(run).join("metrics.jsonl");
    while fs::read_to_string(&path).unwrap_or_default().lines().count() < epochs {
        assert!(since.elapsed() < Duration::from_secs(120), "no epoch has ended");
        assert!(child.try_wait().unwrap().is_none(), "the run has ended");
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn signal(name: &str, child: &Child) {
    assert!(Command::new("kill").args([name, &child.id().to_string()]).status().unwrap().success());
}

#[test]
fn a_folder_is_trained_in_by_one_process() {
    let folder = TempDir::new().unwrap();
    let folder = folder.path();
    let mut child = start(folder, "run", &["--epochs", "10000"]).stdout(Stdio::null()).spawn().unwrap();
    wait_for_epochs(folder, "run", 1, &mut child);
    fails(&resume(folder, "run", &[]).output().unwrap(), 1, &["another process is training in run"]);
    signal("-INT", &child);
    assert_eq!(child.wait().unwrap().code(), Some(130));
}

#[test]
fn a_damaged_checkpoint_costs_the_work_since_the_one_before() {
    let folder = TempDir::new().unwrap();
    let folder = folder.path();
    let arguments = ["--epochs", "3"];
    for run in ["whole", "cut"] {
        succeeds(&start(folder, run, &arguments).output().unwrap());
    }
    let last = folder.join("cut/last.ckpt");
    let bytes = fs::read(&last).unwrap();
    fs::write(&last, &bytes[..bytes.len() / 2]).unwrap();
    let resumed = resume(folder, "cut", &[]).output().unwrap();
    succeeds(&resumed);
    let warning = text(&resumed.stderr);
    assert!(warning.contains("last.ckpt cannot be read") && warning.contains("the checkpoint before it"), "{warning}");
    assert!(bundle(folder, "cut") == bundle(folder, "whole"));
    assert!(folder.join("cut/damaged.ckpt").exists(), "nothing is thrown away");

    for name in ["last.ckpt", "previous.ckpt"] {
        fs::write(folder.join("cut").join(name), "").unwrap();
    }
    fails(&resume(folder, "cut", &[]).output().unwrap(), 1, &["both checkpoints", "--init"]);
    fails(&resume(folder, "nowhere", &[]).output().unwrap(), 1, &["nowhere", "there is no folder"]);
    fs::create_dir(folder.join("empty")).unwrap();
    fails(&resume(folder, "empty", &[]).output().unwrap(), 1, &["contains no checkpoint"]);

    // A best one that is damaged costs only itself.
    let cut = start(folder, "half", &["--epochs", "10000"]).stdout(Stdio::null()).spawn().unwrap();
    let mut cut = cut;
    wait_for_epochs(folder, "half", 1, &mut cut);
    signal("-TERM", &cut);
    assert_eq!(cut.wait().unwrap().code(), Some(143));
    fs::write(folder.join("half/best.ckpt"), "").unwrap();
    let step = saved(folder, "half").to_string();
    let few = ["--set", "training.epochs=10", "--allow-change", "training.epochs", "--set", "optimizer.lr=0"];
    let few = [&few[..], &["--allow-change", "optimizer.lr"]].concat();
    let resumed = resume(folder, "half", &few).output().unwrap();
    if resumed.status.success() {
        // Either an epoch was better and is the best now, or the last one stands in.
        assert!(folder.join("half/model.safetensors").exists());
    } else {
        fails(&resumed, 1, &[&step, "choose more epochs"]);
    }
}

#[test]
fn a_full_disk_costs_no_checkpoint_and_no_training() {
    let folder = TempDir::new().unwrap();
    let folder = folder.path();
    if !cfg!(target_os = "linux") || Command::new("prlimit").arg("--version").output().is_err() {
        eprintln!("skipped: a limit to the size of files, which stands for a full disk, takes Linux and prlimit");
        return;
    }
    let epochs = ["--epochs", "60"];
    succeeds(&start(folder, "whole", &epochs).output().unwrap());
    // With the signal ignored, a write beyond the limit fails as one to a full disk does.
    let command = start(folder, "full", &epochs);
    let arguments: Vec<_> = command.get_args().map(|text| text.to_str().unwrap()).collect();
    let script = "trap '' XFSZ; exec \"$0\" \"$@\"";
    let mut child = Command::new("sh");
    child.current_dir(folder).args(["-c", script, env!("CARGO_BIN_EXE_kiln")]).args(arguments);
    let mut child = child.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    wait_for_epochs(folder, "full", 2, &mut child);
    let limit = |size: &str| {
        let arguments = ["--pid", &child.id().to_string(), &format!("--fsize={size}:unlimited")];
        assert!(Command::new("prlimit").args(arguments).status().unwrap().success());
    };
    limit("4096");
    std::thread::sleep(Duration::from_millis(700));
    let step = saved(folder, "full");
    limit("unlimited");
    let output = child.wait_with_output().unwrap();
    let warning = text(&output.stderr);
    assert!(output.status.success(), "{warning}");
    let says = format!("the checkpoint after step {step} is still there");
    assert!(warning.contains("cannot write") && warning.contains(&says), "'{says}' is not in: {warning}");
    assert!(bundle(folder, "full") == bundle(folder, "whole"));
    assert_eq!(metrics(folder, "full"), metrics(folder, "whole"));
}

#[test]
fn a_field_changes_in_a_resumed_run_only_by_its_name() {
    let folder = TempDir::new().unwrap();
    let folder = folder.path();
    succeeds(&train(folder, &[&TINY[..], &["--epochs", "2", "--out", "run"]].concat()));
    let more = ["--set", "training.epochs=3", "--set", "optimizer.lr=0.01"];
    let output = resume(folder, "run", &more).output().unwrap();
    fails(&output, 1, &["--allow-change training.epochs", "--allow-change optimizer.lr"]);
    let allowed = [&more[..], &["--allow-change", "training.epochs", "--allow-change", "optimizer.lr"]].concat();
    succeeds(&resume(folder, "run", &allowed).output().unwrap());
    assert_eq!(metrics(folder, "run").len(), 3);
    let bytes = fs::read(folder.join("run/last.ckpt")).unwrap();
    assert_eq!(Checkpoint::from_bytes(&bytes).unwrap().header.recipe.optimizer.lr, 0.01);
    fails(&train(folder, &["--allow-change", "optimizer.lr"]), 2, &["--resume"]);
}

/// KiB of memory that a process has now.
fn resident(pid: impl std::fmt::Display) -> Option<usize> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.trim().strip_suffix(" kB")?.trim().parse().ok())
}

#[test]
fn memory_stays_flat_over_many_steps() {
    if !cfg!(target_os = "linux") {
        eprintln!("skipped: memory is read from /proc");
        return;
    }
    let folder = TempDir::new().unwrap();
    let folder = folder.path();
    // 112 steps an epoch.
    let epochs = amount("KILN_STEPS", 450).div_ceil(112);
    let mut command = kiln(folder);
    command
        .args(["train", "--dataset", "synthetic", "--limit", "2000", "--device", "cpu", "--no-report", "--json"])
        .args(TINY)
        .args(["--out", "run", "--epochs", &epochs.to_string()]);
    let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
    let (pid, lines) = (child.id(), BufReader::new(child.stdout.take().unwrap()).lines());
    let ended = AtomicUsize::new(0);
    let mut memory = vec![];
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for line in lines {
                ended.fetch_add(usize::from(line.unwrap().contains(r#""event":"epoch""#)), Relaxed);
            }
            // Also should it have failed before.
            ended.store(epochs, Relaxed);
        });
        while ended.load(Relaxed) < epochs {
            std::thread::sleep(Duration::from_millis(5));
            if ended.load(Relaxed) > 0 {
                memory.extend(resident(pid));
            }
        }
    });
    assert!(child.wait().unwrap().success());
    is_flat(&memory, &format!("{} steps of training", 112 * epochs));
}

#[test]
fn memory_stays_flat_over_many_inferences() {
    if !cfg!(target_os = "linux") {
        eprintln!("skipped: memory is read from /proc");
        return;
    }
    if !is_alone("reliability::memory_stays_flat_over_many_inferences") {
        return;
    }
    let inferences = amount("KILN_INFERENCES", 400);
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../web/models/quick.safetensors");
    let network = kiln_model::Bundle::from_bytes(&fs::read(path).unwrap()).unwrap().inference().unwrap();
    let mut executor = kiln_infer::CpuExecutor::new(network.plan.clone()).unwrap();
    let mut memory = vec![];
    for index in 0..inferences {
        let prediction = network.predict(executor.run(&vec![index as f32 / inferences as f32; 3 * 32 * 32]));
        assert!(prediction.logits.iter().all(|logit| logit.is_finite()));
        memory.extend(resident("self"));
    }
    is_flat(&memory, &format!("{inferences} inferences"));
}

/// Whether the last quarter of the measurements, KiB each, is at most 2 % above the second, or three of the pieces of
/// 2 MiB that the allocator takes; `crates/train/tests/memory.rs` counts to the byte.
fn is_flat(memory: &[usize], what: &str) {
    let quarter = memory.len() / 4;
    assert!(quarter > 4, "{memory:?}");
    let greatest = |part: &[usize]| *part.iter().max().unwrap();
    let (early, late) = (greatest(&memory[quarter..2 * quarter]), greatest(&memory[3 * quarter..]));
    let growth = late as f64 / early as f64 - 1.0;
    println!("{what}: {early} KiB in the second quarter at most, {late} in the last, {:+.2} %", 100.0 * growth);
    assert!(growth < 0.02 || late - early <= 3 * 2048, "memory grew from {early} to {late} KiB over {what}");
}
