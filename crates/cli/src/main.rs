//! The `kiln` command: arguments, progress and exit codes. The only crate that prints.

mod args;
mod augment;
mod bench;
mod data;
mod devices;
mod doctor;
mod eval;
mod export;
mod predict;
mod recipes;
mod serve;
mod signals;
mod summary;
mod train;

use std::process::ExitCode;

use clap::Parser;

use args::{Args, Command};

/// A training step frees and takes hundreds of megabytes; the system's allocator hands each piece back to
/// the kernel, which clears its pages anew.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    quieten_mesa();
    let result = match Args::parse().command {
        Command::Train(args) => train::run(args),
        Command::Eval(args) => eval::run(args),
        Command::Predict(args) => predict::run(args),
        Command::Export(args) => export::run(args),
        Command::Serve(args) => serve::run(args),
        Command::Recipes(args) => recipes::run(args),
        Command::Augment(args) => augment::run(args),
        Command::Summary(args) => summary::run(args),
        Command::Devices(args) => devices::run(args),
        Command::Doctor(args) => doctor::run(args),
        Command::Bench(args) => bench::run(args),
    };
    match result {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Mesa's device-selection layer looks for a Wayland session and, in a container or over ssh, says ten
/// times on stderr that there is none.
fn quieten_mesa() {
    if cfg!(target_os = "linux") && std::env::var_os("XDG_RUNTIME_DIR").is_none() {
        #[allow(unsafe_code, reason = "the environment has no other way in")]
        // Safety: no other thread runs yet.
        unsafe {
            std::env::set_var("NODEVICE_SELECT", "1");
        }
    }
}
