//! `kiln doctor`: does every operator give the right numbers on every device of this machine?
//!
//! Each device is examined by a process of its own, which writes what it finds as JSON lines, so that
//! a driver that crashes, hangs or loses its device takes nothing else along.

use std::path::Path;
use std::process::{Command, ExitCode};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use kiln_kernels::device::{self, DeviceRequest, choose};
use kiln_kernels::examination::{Report, examine, listen};
use kiln_kernels::self_test::{F16_LIMIT, LIMIT};
use kiln_train::run_dir::write_whole;
use serde_json::{Value, json};

use crate::args::{DoctorArgs, Examined, Limits};
use crate::machine;

/// How long a device may take over one operator.
const PATIENCE: Duration = Duration::from_secs(180);
/// Where a failure is written down.
const REPORT: &str = "kiln-doctor.json";

pub fn run(args: DoctorArgs) -> Result<ExitCode> {
    let webgpu = args.limits == Limits::Webgpu;
    let requests = match args.device {
        Examined::All if webgpu => device::all().into_iter().filter(|request| *request != DeviceRequest::Cpu).collect(),
        Examined::All => device::all(),
        Examined::One(request) => {
            let chosen = choose(request)?;
            if webgpu {
                chosen.with_webgpu_limits()?;
            }
            vec![request]
        }
    };
    ensure!(!requests.is_empty(), "this machine has no GPU and no software adapter to examine at WebGPU's limits");
    if args.events {
        examine(requests[0], webgpu, |event| println!("{event}"))?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut reports = vec![];
    for request in requests {
        let program = std::env::current_exe().context("cannot find this program's own file")?;
        let mut command = Command::new(program);
        command.args(["doctor", "--events", "--device", &request.to_string()]);
        command.args(["--limits", if webgpu { "webgpu" } else { "adapter" }]);
        let show = |event: &Value| {
            if !args.json {
                print(&request.to_string(), event)
            }
        };
        reports.push(listen(&request.to_string(), command, PATIENCE, show));
    }
    conclude(&reports, args.json, Path::new(REPORT))
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
}
