//! `kiln doctor`: does every operator give the right numbers on every device of this machine?
//!
//! Each device is examined by a process of its own, which writes what it finds as JSON lines, so that
//! a driver that crashes, hangs or loses its device takes nothing else along.

use std::any::Any;
use std::io::{BufRead, BufReader};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};
use kiln_infer::check::relative_error;
use kiln_kernels::device::{self, DeviceRequest, SelectedDevice, choose};
use kiln_kernels::self_test::{Case, F16_LIMIT, Found, LIMIT, cases};
use kiln_train::run_dir::write_whole;
use serde_json::{Value, json};

use crate::args::{DoctorArgs, Examined};
use crate::machine;

/// How long a device may take over one operator.
const PATIENCE: Duration = Duration::from_secs(180);
/// Where a failure is written down.
const REPORT: &str = "kiln-doctor.json";

pub fn run(args: DoctorArgs) -> Result<ExitCode> {
    let requests = match args.device {
        Examined::All => device::all(),
        Examined::One(request) => {
            choose(request)?;
            vec![request]
        }
    };
    if args.events {
        examine(requests[0])?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut reports = vec![];
    for request in requests {
        let program = std::env::current_exe().context("cannot find this program's own file")?;
        let mut command = Command::new(program);
        command.args(["doctor", "--events", "--device", &request.to_string()]);
        let show = |event: &Value| {
            if !args.json {
                print(&request.to_string(), event)
            }
        };
        reports.push(listen(&request.to_string(), command, PATIENCE, show));
    }
    conclude(&reports, args.json, Path::new(REPORT))
}

/// What is known of one device.
#[derive(Default)]
struct Report {
    request: String,
    /// Its name, driver and path, and the time of all first calls.
    device: Value,
    rows: Vec<Value>,
}

impl Report {
    fn passed(&self) -> bool {
        self.rows.iter().all(|row| row["passed"] == true)
    }
}

/// Examines a device in this process; an event is a line on stdout.
fn examine(request: DeviceRequest) -> Result<()> {
    let chosen = choose(request)?;
    println!("{}", json!({"device": describe(&chosen)}));
    // Opens the device, so that no operator is charged with it.
    println!("{}", json!({"start": "opening the device"}));
    let path = device::OperatorPath::of(&chosen.device).to_string();
    println!("{}", json!({"device": {"runs": path}}));
    let mut first = 0.0;
    for case in cases(&chosen) {
        println!("{}", json!({"start": case.name}));
        let found = catch_unwind(AssertUnwindSafe(|| case.run(&chosen)));
        let found = found.map_err(|panic| message(&*panic)).and_then(|found| found.map_err(|error| error.to_string()));
        if let Ok(found) = &found {
            first += found.first;
        }
        for row in rows(&case, found) {
            println!("{}", json!({"row": row}));
        }
    }
    println!("{}", json!({"device": {"first_calls_ms": first}, "end": true}));
    Ok(())
}

fn describe(chosen: &SelectedDevice) -> Value {
    let mut described = json!({"name": chosen.name});
    if let Some(adapter) = &chosen.adapter {
        described["api"] = json!(adapter.api);
        described["driver"] = json!(adapter.driver);
        described["class"] = json!(adapter.class.to_string());
    }
    described
}

fn message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str).or(panic.downcast_ref::<&str>().copied());
    format!("panicked: {}", text.unwrap_or("without a word"))
}

/// A row for each thing that a case compares, or one for its failure.
fn rows(case: &Case, found: Result<Found, String>) -> Vec<Value> {
    let found = match found {
        Ok(found) => found,
        Err(failure) => return vec![failed(&case.name, &failure)],
    };
    let mut backward = found.backward;
    let row = |((direction, expected), values): (&(&str, Vec<f64>), &Vec<f32>)| {
        let milliseconds = match *direction {
            "forward" => Some(found.forward),
            gradient if gradient.starts_with("gradient") => backward.take(),
            _ => None,
        };
        let error = relative_error(values, expected);
        json!({
            "operator": case.name, "direction": direction, "relative_error": error.is_finite().then_some(error),
            "milliseconds": milliseconds, "limit": case.limit, "passed": error <= case.limit,
        })
    };
    case.expected.iter().zip(&found.values).map(row).collect()
}

fn failed(operator: &str, failure: &str) -> Value {
    json!({"operator": operator, "direction": "all", "relative_error": null, "milliseconds": null,
           "passed": false, "failure": failure})
}

/// Runs `command` and gathers its events until it ends, dies or says nothing for `patience`.
fn listen(request: &str, mut command: Command, patience: Duration, show: impl Fn(&Value)) -> Report {
    let mut report = Report { request: request.to_owned(), device: json!({}), ..Default::default() };
    let mut doing = "starting".to_owned();
    match events(&mut command, patience, |event| {
        show(&event);
        if let Some(start) = event["start"].as_str() {
            start.clone_into(&mut doing);
        }
        if let (Some(known), Some(more)) = (report.device.as_object_mut(), event["device"].as_object()) {
            known.extend(more.clone());
        }
        report.rows.extend(event.get("row").cloned());
        event["end"] == true
    }) {
        Ok(()) => {}
        Err(failure) => {
            let row = failed(&doing, &format!("{failure:#}"));
            show(&json!({"row": row}));
            report.rows.push(row);
        }
    }
    report
}

/// Calls `event` with each JSON line that `command` writes, until one is the last.
fn events(command: &mut Command, patience: Duration, mut event: impl FnMut(Value) -> bool) -> Result<()> {
    let mut child =
        command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().context("cannot start the examination")?;
    let lines = BufReader::new(child.stdout.take().context("the examination has no stdout")?).lines();
    let (send, receive) = mpsc::channel();
    thread::spawn(move || lines.map_while(Result::ok).try_for_each(|line| send.send(line)));
    loop {
        match receive.recv_timeout(patience) {
            // Anything that is no JSON was printed by a driver.
            Ok(line) => {
                if serde_json::from_str(&line).is_ok_and(&mut event) {
                    // What a driver does while it is unloaded says nothing about the operators.
                    let _ = child.kill();
                    child.wait()?;
                    return Ok(());
                }
            }
            Err(RecvTimeoutError::Timeout) => {
                child.kill()?;
                child.wait()?;
                anyhow::bail!("no answer in {} s", patience.as_secs());
            }
            Err(RecvTimeoutError::Disconnected) => anyhow::bail!("the process ended: {}", child.wait()?),
        }
    }
}

/// An event of the device as lines of the table.
fn print(request: &str, event: &Value) {
    let device = &event["device"];
    if let Some(name) = device["name"].as_str() {
        println!("{request:<10} {name}{}", device["driver"].as_str().map_or(String::new(), |d| format!(", {d}")));
    }
    if let Some(path) = device["runs"].as_str() {
        println!("{:<10} runs {path}\n", "");
        println!("{:<10} {:<40} {:<18} {:>9} {:>9}  verdict", "device", "operator", "direction", "error", "ms");
    }
    if let Some(first) = device["first_calls_ms"].as_f64() {
        println!("\n{:<10} first calls of all of them, compilation included: {first:.0} ms\n", "");
    }
    if let Some(row) = event.get("row") {
        let number = |key: &str, show: fn(f64) -> String| row[key].as_f64().map_or("-".to_owned(), show);
        let text = |key: &str| row[key].as_str().unwrap_or_default().to_owned();
        let verdict = if row["passed"] == true { "ok".to_owned() } else { format!("FAILED {}", text("failure")) };
        let (error, time) =
            (number("relative_error", |e| format!("{e:.1e}")), number("milliseconds", |t| format!("{t:.2}")));
        println!("{request:<10} {:<40} {:<18} {error:>9} {time:>9}  {verdict}", text("operator"), text("direction"));
    }
}

/// The last line, which says what to do; on a failure `file` gets everything.
fn conclude(reports: &[Report], json: bool, file: &Path) -> Result<ExitCode> {
    let failed: Vec<_> = reports.iter().filter(|report| !report.passed()).map(|report| &*report.request).collect();
    let whole = whole(reports);
    if json {
        println!("{whole}");
    }
    if failed.is_empty() {
        if !json {
            println!(
                "every operator is within {LIMIT:.0e} of its reference in double precision ({F16_LIMIT:.0e} where \
                 numbers are stored in f16), on every device examined"
            );
        }
        return Ok(ExitCode::SUCCESS);
    }
    let advice = if failed.contains(&"cpu") {
        "the CPU is not to be trusted: see whether another build of Kiln is"
    } else {
        "update the driver; until then use --device cpu"
    };
    let last = format!("failed on {}: {advice}", failed.join(", "));
    if json {
        eprintln!("{last}");
    } else {
        write_whole(file, format!("{whole:#}\n").as_bytes())?;
        println!("{last}. {} has everything for a bug report", file.display());
    }
    Ok(ExitCode::FAILURE)
}

/// Everything, as one object.
fn whole(reports: &[Report]) -> Value {
    let devices = reports.iter().map(|report| {
        let mut device = json!({"device": report.request, "passed": report.passed()});
        device
            .as_object_mut()
            .zip(report.device.as_object())
            .into_iter()
            .for_each(|(to, from)| to.extend(from.clone()));
        device
    });
    let rows = reports.iter().flat_map(|report| {
        report.rows.iter().map(|row| {
            let mut row = row.clone();
            row["device"] = json!(report.request);
            row
        })
    });
    json!({
        "machine": machine::describe(),
        "versions": machine::versions(),
        "passed": reports.iter().all(Report::passed),
        "devices": devices.collect::<Vec<_>>(),
        "rows": rows.collect::<Vec<_>>(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_a_number_fails() {
        let case = Case::answering("twice", vec![1.0, 2.0]);
        let found = |values| Ok(Found { values: vec![values], first: 1.0, forward: 1.0, backward: None });
        assert_eq!(rows(&case, found(vec![1.0, 2.0]))[0]["passed"], true);
        assert_eq!(rows(&case, found(vec![1.0, f32::NAN]))[0]["passed"], false);
    }

    #[test]
    fn a_panic_is_a_row() {
        let panic = catch_unwind(|| panic!("no {}", "memory")).unwrap_err();
        let row = &rows(&Case::answering("twice", vec![]), Err(message(&*panic)))[0];
        assert_eq!((&row["passed"], row["failure"].as_str()), (&json!(false), Some("panicked: no memory")));
    }

    #[cfg(unix)]
    fn shell(script: &str, patience: Duration) -> Report {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        listen("gpu:0", command, patience, |_| {})
    }

    #[test]
    #[cfg(unix)]
    fn a_device_that_takes_its_process_along_has_failed() {
        let script = r#"echo '{"device":{"name":"A"}}'; echo 'a driver speaks'; echo '{"start":"one"}'
            echo '{"row":{"operator":"one","passed":true}}'; echo '{"start":"two"}'; kill -SEGV $$"#;
        let report = shell(script, PATIENCE);
        assert!(!report.passed());
        assert_eq!((report.rows.len(), report.device["name"].as_str()), (2, Some("A")));
        assert_eq!(report.rows[1]["operator"], "two");
        assert!(report.rows[1]["failure"].as_str().unwrap().contains("signal: 11"), "{}", report.rows[1]);
    }

    #[test]
    fn a_failure_is_written_down_with_all_that_passed() {
        let report = |request: &str, passed| Report {
            request: request.to_owned(),
            device: json!({"name": "A"}),
            rows: vec![json!({"operator": "one", "passed": passed})],
        };
        let folder = tempfile::TempDir::new().unwrap();
        let file = folder.path().join(REPORT);
        conclude(&[report("cpu", true)], false, &file).unwrap();
        assert!(!file.exists());
        conclude(&[report("cpu", true), report("gpu:0", false)], false, &file).unwrap();
        let written: Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
        assert_eq!(written["passed"], false);
        assert_eq!(written["devices"][1], json!({"device": "gpu:0", "name": "A", "passed": false}));
        assert_eq!(written["rows"][0], json!({"device": "cpu", "operator": "one", "passed": true}));
    }

    #[test]
    #[cfg(unix)]
    fn a_device_that_hangs_has_failed() {
        let report = shell(r#"echo '{"start":"one"}'; exec sleep 60"#, Duration::from_secs(1));
        assert_eq!(report.rows[0]["failure"], "no answer in 1 s");
    }
}
