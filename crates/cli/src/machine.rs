//! Where something was measured, for the JSON that is kept of it.

use std::thread;

use serde_json::{Value, json};

/// System, processor and cores.
pub fn describe() -> Value {
    let lines = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let cpu = lines.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    json!({
        "system": std::env::consts::OS,
        "architecture": std::env::consts::ARCH,
        "cpu": cpu.map(|(_, name)| name),
        "cores": thread::available_parallelism().map_or(1, usize::from),
    })
}

/// Of what measured.
pub fn versions() -> Value {
    json!({"kiln": env!("CARGO_PKG_VERSION")})
}
