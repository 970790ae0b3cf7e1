//! The record that a run keeps of where it was computed and with which arguments.

use std::time::SystemTime;

use anyhow::Result;
use kiln_kernels::device::{DeviceRequest, SelectedDevice};
use kiln_report::Session;
use kiln_train::Header;
use kiln_train::run_dir::{RunDir, write_whole};

use crate::args::{DatasetName, TrainArgs};
use crate::{machine, recipes};

/// Writes this start of the run into its folder, after those before it.
pub fn record(run: &RunDir, args: &TrainArgs, chosen: &SelectedDevice, header: &Header) -> Result<()> {
    let mut sessions = if args.resume.is_some() { Session::all(run)? } else { vec![] };
    sessions.push(Session {
        started: humantime::format_rfc3339_seconds(SystemTime::now()).to_string(),
        step: header.step,
        device: chosen.name.clone(),
        reason: chosen.reason.clone(),
        threads: rayon::current_num_threads(),
        machine: machine::describe(),
        versions: machine::versions(),
        arguments: std::env::args_os().skip(1).map(|argument| argument.to_string_lossy().into_owned()).collect(),
        resolved: resolved(run, args, chosen, header),
    });
    Ok(write_whole(&run.environment(), (serde_json::to_string_pretty(&sessions)? + "\n").as_bytes())?)
}

/// Arguments that start this same run again on any machine, with every default written out.
fn resolved(run: &RunDir, args: &TrainArgs, chosen: &SelectedDevice, header: &Header) -> Vec<String> {
    let mut words = vec!["train".to_owned()];
    let mut add = |name: &str, value: Option<String>| {
        words.extend(value.into_iter().flat_map(|value| [name.to_owned(), value]));
    };
    let folder = run.path().display().to_string();
    let new = args.resume.is_none();
    add("--resume", (!new).then(|| folder.clone()));
    let default = || recipes::default_name(chosen.is_gpu).to_owned();
    add("--recipe", args.recipe.clone().or_else(|| new.then(default)));
    match &args.data.data {
        Some(path) => add("--data", Some(path.display().to_string())),
        None => add("--dataset", Some(header.dataset.clone())),
    }
    let downloads = args.data.data.is_none() && header.dataset != DatasetName::Synthetic.name();
    add("--data-dir", downloads.then(|| args.data.data_dir.display().to_string()));
    add("--limit", args.data.limit.map(|limit| limit.to_string()));
    add("--image-size", args.data.image_size.map(|size| size.to_string()));
    args.overrides.iter().for_each(|field| add("--set", Some(field.clone())));
    args.allow_change.iter().for_each(|field| add("--allow-change", Some(field.clone())));
    match args.budget {
        Some(budget) => add("--budget", Some(format!("{}s", budget.0.as_secs_f64()))),
        None => add("--epochs", new.then(|| header.recipe.training.epochs.to_string())),
    }
    add("--seed", Some(header.recipe.training.seed.to_string()));
    let device = match args.device {
        DeviceRequest::Auto if chosen.is_gpu => DeviceRequest::Gpu(0),
        DeviceRequest::Auto => DeviceRequest::Cpu,
        named => named,
    };
    add("--device", Some(device.to_string()));
    add("--init", args.init.as_ref().map(|path| path.display().to_string()));
    add("--out", new.then_some(folder));
    let switches = [
        ("--offline", args.data.offline),
        ("--tensorboard", args.tensorboard),
        ("--no-report", args.no_report),
        ("--json", args.json),
    ];
    words.extend(switches.into_iter().filter(|(_, given)| *given).map(|(name, _)| name.to_owned()));
    words
}
