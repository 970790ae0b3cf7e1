//! Where a run was trained, on which device, and with which arguments: `environment.json`.

use kiln_train::run_dir::RunDir;
use maud::{Markup, html};
use serde::{Deserialize, Serialize};

use crate::ReportError;
use crate::run::json;
use crate::words::{count, grouped};

/// One start of a run. `environment.json` has a list of them, because a resumed run has several.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Session {
    /// Time in UTC, in the format of RFC 3339.
    pub started: String,
    /// Steps done before this start.
    pub step: usize,
    /// The device, and why it was chosen.
    pub device: String,
    pub reason: String,
    /// Number of CPU threads.
    pub threads: usize,
    pub machine: Machine,
    pub versions: Versions,
    /// The program's arguments as typed by the user.
    pub arguments: Vec<String>,
    /// Equivalent arguments in which everything is explicit.
    pub resolved: Vec<String>,
}

/// The computer, without its host name.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Machine {
    /// `linux`, `macos`, `windows` and so on.
    pub system: String,
    pub architecture: String,
    /// The processor's model, if the system reports it.
    pub cpu: Option<String>,
    pub cores: usize,
}

/// Versions of the program and of its libraries, if known at build time.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Versions {
    pub kiln: String,
    pub burn: Option<String>,
    pub wgpu: Option<String>,
}

impl Session {
    /// The starts of a run so far; empty if the run has no record of them.
    ///
    /// # Errors
    ///
    /// If the record is damaged.
    pub fn all(run: &RunDir) -> Result<Vec<Self>, ReportError> {
        Ok(json(&run.environment(), "delete it: the run and its report work without it")?.unwrap_or_default())
    }

    fn facts(&self) -> Vec<(&'static str, String)> {
        let Machine { system, architecture, cpu, cores } = &self.machine;
        let cpu = cpu.as_ref().map(|cpu| format!("{cpu}, ")).unwrap_or_default();
        let Versions { kiln, burn, wgpu } = &self.versions;
        let libraries = [("burn", burn), ("wgpu", wgpu)];
        let libraries =
            libraries.into_iter().filter_map(|(name, version)| Some(format!(", {name} {}", version.as_ref()?)));
        vec![
            ("Started", self.started.replace('T', " ").replace('Z', " UTC")),
            ("Machine", format!("{cpu}{}, {system} on {architecture}", count(*cores, "core", "cores"))),
            ("Device", format!("{}: {}", self.device, self.reason)),
            ("Threads", self.threads.to_string()),
            ("Versions", format!("Kiln {kiln}{}", libraries.collect::<String>())),
        ]
    }
}

/// The starts, in order.
pub(crate) fn sessions(sessions: &[Session], precision: &str) -> Markup {
    html! {
        details {
            summary { "Where it ran and with which arguments" }
            @for session in sessions {
                @if session.step > 0 { h3 { "Resumed after step " (grouped(session.step)) } }
                dl {
                    @for (name, value) in session.facts() { dt { (name) } dd { (value) } }
                    dt { "Precision" } dd { (precision) }
                    dt { "Command as typed" } dd { (command(&session.arguments)) }
                    dt { "Resolved command" } dd { (command(&session.resolved)) }
                }
            }
        }
    }
}

/// A command line for a shell, which the page breaks only between words.
fn command(arguments: &[String]) -> Markup {
    let plain = |letter: char| letter.is_ascii_alphanumeric() || "-_./:=,".contains(letter);
    let quoted = |word: &String| match !word.is_empty() && word.chars().all(plain) {
        true => word.clone(),
        false => format!("'{}'", word.replace('\'', r"'\''")),
    };
    html! { code { "kiln" @for word in arguments { " " span { (quoted(word)) } } } }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_can_be_pasted_into_a_shell() {
        let arguments = ["train", "--data", "Ann's pets", "--set", "optimizer.lr=0.1", ""].map(str::to_owned);
        let text = command(&arguments).into_string().replace("<span>", "").replace("</span>", "");
        assert_eq!(text, r"<code>kiln train --data 'Ann'\''s pets' --set optimizer.lr=0.1 ''</code>");
    }
}
