//! A device examined by a process of its own, so that a driver that crashes, hangs or loses its device takes nothing
//! else along. The process says what it finds as JSON lines: [`examine`] makes them, [`listen`] gathers them.

use std::any::Any;
use std::io::{BufRead, BufReader};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::{Command, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use kiln_infer::check::relative_error;
use serde_json::{Value, json};

use crate::device::{DeviceError, DeviceRequest, OperatorPath, SelectedDevice, choose};
use crate::self_test::{Case, Failure, Found, cases};

/// What is known of one device.
#[derive(Debug, Default)]
pub struct Report {
    pub request: String,
    /// Its name, driver and path, and the time of all first calls.
    pub device: Value,
    pub rows: Vec<Value>,
}

impl Report {
    pub fn passed(&self) -> bool {
        self.rows.iter().all(|row| row["passed"] == true)
    }
}

/// Runs every case on a device in this process, perhaps at WebGPU's limits, and hands each event to `say`: a line for the process
/// that listens.
pub fn examine(request: DeviceRequest, webgpu_limits: bool, mut say: impl FnMut(Value)) -> Result<(), DeviceError> {
    let chosen = choose(request)?;
    let chosen = if webgpu_limits { chosen.with_webgpu_limits()? } else { chosen };
    say(json!({"device": describe(&chosen)}));
    // Opens the device, so that no operator is charged with it.
    say(json!({"start": "opening the device"}));
    let path = OperatorPath::of(&chosen.device).to_string();
    say(json!({"device": {"runs": path}}));
    let mut first = 0.0;
    for case in cases(&chosen) {
        say(json!({"start": case.name}));
        let found = catch_unwind(AssertUnwindSafe(|| case.run(&chosen)));
        let found = found.map_err(|panic| message(&*panic)).and_then(|found| found.map_err(|error| error.to_string()));
        if let Ok(found) = &found {
            first += found.first;
        }
        for row in rows(&case, found) {
            say(json!({"row": row}));
        }
    }
    say(json!({"device": {"first_calls_ms": first}, "end": true}));
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
pub fn listen(request: &str, mut command: Command, patience: Duration, show: impl Fn(&Value)) -> Report {
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
            let row = failed(&doing, &format!("{failure}"));
            show(&json!({"row": row}));
            report.rows.push(row);
        }
    }
    report
}

/// Calls `event` with each JSON line that `command` writes, until one is the last.
fn events(command: &mut Command, patience: Duration, mut event: impl FnMut(Value) -> bool) -> Result<(), Failure> {
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|error| format!("cannot start the examination: {error}"))?;
    let lines = BufReader::new(child.stdout.take().ok_or("the examination has no stdout")?).lines();
    let (send, receive) = mpsc::channel();
    thread::spawn(move || lines.map_while(Result::ok).try_for_each(|line| send.send(line)));
    loop {
        match receive.recv_timeout(patience) {
            // A line that is not JSON was printed by a driver.
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
                return Err(format!("no answer in {} s", patience.as_secs()).into());
            }
            Err(RecvTimeoutError::Disconnected) => return Err(format!("the process ended: {}", child.wait()?).into()),
        }
    }
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
        let report = shell(script, Duration::from_secs(60));
        assert!(!report.passed());
        assert_eq!((report.rows.len(), report.device["name"].as_str()), (2, Some("A")));
        assert_eq!(report.rows[1]["operator"], "two");
        assert!(report.rows[1]["failure"].as_str().unwrap().contains("signal: 11"), "{}", report.rows[1]);
    }

    #[test]
    #[cfg(unix)]
    fn a_device_that_hangs_has_failed() {
        let report = shell(r#"echo '{"start":"one"}'; exec sleep 60"#, Duration::from_secs(1));
        assert_eq!(report.rows[0]["failure"], "no answer in 1 s");
    }
}
