//! Where something was measured, for what is kept of it.

use std::thread;

use kiln_report::{Machine, Versions};

/// System, processor and cores.
pub fn describe() -> Machine {
    let lines = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let cpu = lines.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    Machine {
        system: std::env::consts::OS.to_owned(),
        architecture: std::env::consts::ARCH.to_owned(),
        cpu: cpu.map(|(_, name)| name.to_owned()),
        cores: thread::available_parallelism().map_or(1, usize::from),
    }
}

/// Of what measured.
pub fn versions() -> Versions {
    Versions {
        kiln: env!("CARGO_PKG_VERSION").to_owned(),
        burn: option_env!("KILN_BURN_VERSION").map(str::to_owned),
        wgpu: option_env!("KILN_WGPU_VERSION").map(str::to_owned),
    }
}
