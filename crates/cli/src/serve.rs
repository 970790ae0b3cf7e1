//! `kiln serve`: the page that classifies images, for this machine alone.

use std::process::{Command, ExitCode};

use anyhow::{Result, anyhow};
use kiln_serve::{ServeError, Site};

use crate::args::ServeArgs;
use crate::signals::Signals;

pub fn run(args: ServeArgs) -> Result<ExitCode> {
    if args.dir.join("index.html").is_file() && !args.dir.join("web/pkg").is_dir() {
        eprintln!("note: {} is missing: build it: bash web/build.sh", args.dir.join("web/pkg").display());
    }
    let site = Site::open(&args.dir, args.port).map_err(|error| match error {
        ServeError::NoIndex(_) => {
            anyhow!("{error}: run this in a clone of Kiln's repository, or name its folder with --dir")
        }
        ServeError::PortTaken(_) => anyhow!("{error}: choose one with --port, or --port 0 for a free one"),
        ServeError::Listen { .. } => anyhow!("{error}; choose another with --port"),
        error => error.into(),
    })?;
    let signals = Signals::listen()?;
    let url = site.url();
    println!("serving  {} at {url}\nstop     Ctrl-C", args.dir.display());
    if args.open
        && let Err(error) = open_browser(&url)
    {
        eprintln!("note: cannot open a browser ({error}): open {url} yourself");
    }
    site.serve(|| signals.stop())?;
    Ok(signals.exit_code())
}

fn open_browser(url: &str) -> std::io::Result<()> {
    let (program, arguments) = match std::env::consts::OS {
        "macos" => ("open", &[][..]),
        "windows" => ("rundll32", &["url.dll,FileProtocolHandler"][..]),
        _ => ("xdg-open", &[][..]),
    };
    Command::new(program).args(arguments).arg(url).spawn().map(drop)
}
