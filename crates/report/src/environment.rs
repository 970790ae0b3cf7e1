//! Where a run was computed, by what, and with which arguments: `environment.json`.

use kiln_train::run_dir::RunDir;
use maud::{Markup, html};
use serde::{Deserialize, Serialize};

use crate::ReportError;
use crate::run::json;
use crate::words::{count, grouped};

/// One start of a run: `environment.json` has a list of them, for a run that was resumed has several.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Session {
    /// In UTC, as RFC 3339 writes it.
    pub started: String,
    /// Steps that were done before.
    pub step: usize,
    /// What trains, and why it does.
    pub device: String,
    pub reason: String,
    /// Threads of the CPU that work.
    pub threads: usize,
    pub machine: Machine,
    pub versions: Versions,
    /// The program's arguments as the user typed them.
    pub arguments: Vec<String>,
    /// Arguments that ask for the same, with nothing left to be chosen by the program.
    pub resolved: Vec<String>,
}

/// The computer, without a name of its own.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Machine {
    /// `linux`, `macos`, `windows` and the like.
    pub system: String,
    pub architecture: String,
    /// The processor's model, where the system tells.
    pub cpu: Option<String>,
    pub cores: usize,
}

/// Of the program, and of the libraries that it was built with, where its build knew them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Versions {
    pub kiln: String,
    pub burn: Option<String>,
    pub wgpu: Option<String>,
}

impl Session {
    /// The starts of a run so far, none of a run that kept no record of them.
    ///
    /// # Errors
    ///
    /// If the record is damaged.
    pub fn all(run: &RunDir) -> Result<Vec<Self>, ReportError> {
        Ok(json(&run.environment(), "delete it; the run goes on without, and its report too")?.unwrap_or_default())
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

/// The starts, the first one first.
pub(crate) fn sessions(sessions: &[Session], precision: &str) -> Markup {
    html! {
        details {
            summary { "Where it ran, and with which arguments" }
            @for session in sessions {
                @if session.step > 0 { h3 { "Resumed after step " (grouped(session.step)) } }
                dl {
                    @for (name, value) in session.facts() { dt { (name) } dd { (value) } }
                    dt { "Precision" } dd { (precision) }
                    dt { "As typed" } dd { (command(&session.arguments)) }
                    dt { "As resolved" } dd { (command(&session.resolved)) }
                }
            }
        }
    }
}

/// A line for a shell, that a page breaks between words.
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
