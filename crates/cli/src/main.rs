//! The `kiln` command: arguments, progress and exit codes. The only crate that prints.

mod args;
mod augment;
mod bench;
mod compare;
mod data;
mod devices;
mod doctor;
mod environment;
mod eval;
mod export;
mod hints;
mod import;
mod lr_find;
mod machine;
mod model;
mod predict;
mod printable;
mod recipes;
mod report;
mod serve;
mod shell;
mod signals;
mod summary;
mod teach;
mod train;
mod tune;

use std::panic::{self, PanicHookInfo};
use std::process::{self, ExitCode};

use clap::Parser;

use args::{Args, Command};

/// A training step frees and takes hundreds of megabytes; the system's allocator hands each piece back to
/// the kernel, which clears its pages anew.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    end_with_the_pipe();
    quieten_mesa();
    kiln::work_in_the_pool();
    let command = Args::parse().command;
    keep_memory(!matches!(command, Command::Import(_) | Command::Export(_)));
    let result = match command {
        Command::Train(args) => train::run(args),
        Command::Eval(args) => eval::run(args),
        Command::LrFind(args) => lr_find::run(args),
        Command::Report(args) => report::run(args),
        Command::Compare(args) => compare::run(args),
        Command::Predict(args) => predict::run(args),
        Command::Teach(args) => teach::run(args),
        Command::Import(args) => import::run(args),
        Command::Export(args) => export::run(args),
        Command::Serve(args) => serve::run(args),
        Command::Recipes(args) => recipes::run(args),
        Command::Augment(args) => augment::run(args),
        Command::Summary(args) => summary::run(args),
        Command::Devices(args) => devices::run(args),
        Command::Doctor(args) => doctor::run(args),
        Command::Tune(args) => tune::run(args),
        Command::Bench(args) => bench::run(args),
        Command::Completions(args) => shell::completions(args),
        Command::Man(args) => shell::man(args),
    };
    match result {
        Ok(code) => code,
        Err(error) => {
            let hint = hints::hint(&error).map(|hint| format!("; {hint}")).unwrap_or_default();
            eprintln!("error: {}{}", printable::message(in_full(&error)), printable::message(hint));
            ExitCode::FAILURE
        }
    }
}

/// `kiln compare .. | head` ends when its reader does, as other programs do, where Rust's `println!` panics.
fn end_with_the_pipe() {
    let usual = panic::take_hook();
    panic::set_hook(Box::new(move |info| {
        exit_without_reader(info);
        usual(info);
    }));
}

/// Ends the program if the panic came from printing to a closed pipe.
#[allow(clippy::disallowed_methods, reason = "a hook cannot return to main, and there is nobody to tell anything")]
fn exit_without_reader(info: &PanicHookInfo) {
    if info.payload_as_str().is_some_and(|text| text.starts_with("failed printing to stdout: Broken pipe")) {
        // What a shell makes of SIGPIPE. A run in training has saved before it prints.
        process::exit(141);
    }
}

/// An error and its causes, without those that it quotes itself.
fn in_full(error: &anyhow::Error) -> String {
    error.chain().fold(String::new(), |text, cause| match cause.to_string() {
        cause if text.contains(&cause) => text,
        cause if text.is_empty() => cause,
        cause => format!("{text}: {cause}"),
    })
}

/// Keeps what is freed for the next step, which needs as much again: by default mimalloc, too, gives large
/// pieces back to the kernel, and its clearing of pages took a tenth of a training step. What only converts a
/// file gives it back at once instead: it holds the weights once, and each tensor's copy for a moment.
fn keep_memory(keep: bool) {
    const NEVER: std::ffi::c_long = -1;
    #[allow(unsafe_code, reason = "an option of a C library")]
    // Safety: it may be set at any time.
    unsafe {
        libmimalloc_sys::mi_option_set(MI_OPTION_PURGE_DELAY, if keep { NEVER } else { 0 });
    }
}

/// `mi_option_purge_delay` of mimalloc's `mimalloc.h`, in milliseconds.
const MI_OPTION_PURGE_DELAY: libmimalloc_sys::mi_option_t = 15;

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
