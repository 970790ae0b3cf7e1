//! `kiln completions` and `kiln man`: what shells and `man` know about the command.

use std::fs;
use std::io;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::CommandFactory;

use crate::args::{Args, CompletionsArgs, ManArgs};

pub fn completions(args: CompletionsArgs) -> Result<ExitCode> {
    clap_complete::generate(args.shell, &mut Args::command(), "kiln", &mut io::stdout());
    Ok(ExitCode::SUCCESS)
}

pub fn man(args: ManArgs) -> Result<ExitCode> {
    let folder = &args.folder;
    let written = fs::create_dir_all(folder).and_then(|()| clap_mangen::generate_to(Args::command(), folder));
    written.with_context(|| format!("cannot write man pages into {}", folder.display()))?;
    println!("written  {}", folder.display());
    Ok(ExitCode::SUCCESS)
}
