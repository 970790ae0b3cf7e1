//! `kiln train`

mod finish;
mod guard;
mod screen;

use std::cell::RefCell;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use kiln::{
    Bundle, Dataset, Recipe, ResumeOptions, Run, RunDir, RunEvent, RunOptions, RunPlan, SavedRun, SelectedDevice,
    choose,
};
use kiln_data::{Input, listed};
use kiln_infer::Precision;
use kiln_kernels::device::OperatorPath;
use kiln_model::{Frozen, Summary};
use kiln_report::{duration, grouped};
use kiln_train::recipe::Model;
use serde_json::json;

use self::finish::finish;
use self::guard::guarded;
use self::screen::{Progress, Screen};
use crate::args::{Columns, DataArgs, DatasetName, TrainArgs};
use crate::printable::printable;
use crate::signals::Signals;
use crate::{data, environment, hints, model, recipes};

/// What is said of a run should its GPU fail: its folder, once it can be resumed.
#[derive(Default)]
struct Stand {
    run: Option<PathBuf>,
    micro_batches: usize,
}

pub fn run(args: TrainArgs) -> Result<ExitCode> {
    let selected = choose(args.device)?;
    let stand = RefCell::new(Stand { run: None, micro_batches: 1 });
    guarded(selected.is_queued(), || train(&args, &selected, &stand)).unwrap_or_else(|fault| {
        let Stand { run, micro_batches } = stand.take();
        let parts = format!("--set training.micro_batches={}", 2 * micro_batches);
        let saved = run.and_then(|run| Some((RunDir::open(&run).latest().ok()?.checkpoint.header.step, run)));
        let advice = match saved {
            Some((step, run)) => format!(
                "the checkpoint after step {step} is still there, resume with: {} train --resume {}{}. If it was out of memory, \
                 compute a batch in more parts, {parts} --allow-change training.micro_batches",
                program(),
                run.display(),
                data_arguments(&args.data)
            ),
            None => format!("if it was out of memory, compute a batch in more parts, {parts}"),
        };
        bail!("{} failed: {fault}; {advice}", selected.name)
    })
}

/// One call of the command, once it has its data and its folder.
struct Session<'a> {
    args: &'a TrainArgs,
    data: &'a Dataset,
    screen: &'a Screen,
    signals: &'a Signals,
}

fn train(args: &TrainArgs, selected: &SelectedDevice, stand: &RefCell<Stand>) -> Result<ExitCode> {
    let saved = args
        .resume
        .as_ref()
        .map(|folder| SavedRun::open(folder).with_context(|| format!("cannot resume {}", folder.display())));
    let mut saved = saved.transpose()?;
    if let Some(warning) = saved.as_mut().and_then(SavedRun::take_warning) {
        eprintln!("warning: {warning}");
    }
    let mut recipe = resolve_recipe(args, saved.as_ref(), selected.is_gpu)?;
    stand.borrow_mut().micro_batches = recipe.training.micro_batches;
    let screen = Screen::new(args.json);
    screen.say(json!({"event": "device", "device": selected.name, "reason": selected.reason}), || {
        format!("device   {}: {}", selected.name, selected.reason)
    });

    let initial = args.init.as_deref().map(model::open_weights).transpose()?;
    let earlier = initial.as_ref().map(|(_, bundle)| bundle.metadata.input());
    let earlier = earlier.or(saved.as_ref().and_then(|saved| earlier_input(saved, &recipe)));
    let data = data::for_training(&args.data, &mut recipe, earlier)?;
    // Until here a signal simply ends the program: a download continues where it was cut.
    let signals = Signals::listen()?;
    let session = Session { args, data: &data, screen: &screen, signals: &signals };
    let mut run = match saved {
        Some(saved) => {
            let options = ResumeOptions {
                device: args.device,
                allow_change: args.allow_change.clone(),
                tensorboard: args.tensorboard,
                no_tune: args.no_tune,
            };
            saved.resume(recipe, &data, options)?
        }
        None => start(recipe, initial, &session, selected)?,
    };
    stand.borrow_mut().run = Some(run.folder().path().to_owned());
    environment::record(run.folder(), args, selected, run.header())?;
    describe(&run, &session);

    let progress = Progress::new(run.trainer(), &screen);
    let result = follow(&mut run, &session, &progress);
    progress.bar.finish_and_clear();
    result.with_context(|| {
        let (folder, step) = (run.folder().path().display(), run.saved_step());
        format!("the run in {folder} ended early, with a checkpoint after step {step}")
    })
}

/// Runs until the end, or until the user stops it.
fn follow(run: &mut Run, session: &Session, progress: &Progress) -> Result<ExitCode> {
    while !session.signals.stop() {
        match run.next()? {
            Some(RunEvent::Step(metrics)) => progress.step(metrics),
            Some(RunEvent::Skipped(skipped)) => progress.skipped(&skipped),
            Some(RunEvent::Epoch { metrics, is_best }) => progress.epoch(&metrics, is_best),
            Some(RunEvent::Warning(warning)) => progress.warn(&warning),
            Some(RunEvent::Tuned(tuned)) => progress.tuned(&tuned),
            Some(RunEvent::Queued | RunEvent::Validating { .. }) => {}
            Some(RunEvent::Testing { .. }) => progress.bar.finish_and_clear(),
            Some(RunEvent::Finished(finished)) => return finish(run, &finished, session),
            None => return Ok(ExitCode::SUCCESS),
        }
    }
    run.save()?;
    let (step, total) = (run.header().step, run.header().total_steps);
    let folder = run.folder().path();
    session.screen.say(json!({"event": "stopped", "step": step, "run": folder}), || {
        format!(
            "stopped after step {step} of {total}, saved; resume with: {} train --resume {}{}",
            program(),
            folder.display(),
            data_arguments(&session.args.data)
        )
    });
    Ok(session.signals.exit_code())
}

fn options(args: &TrainArgs, initial: Option<Bundle>) -> RunOptions {
    RunOptions {
        device: args.device,
        folder: args.out.clone(),
        budget: args.budget.map(|budget| budget.0),
        measure: true,
        initial,
        tensorboard: args.tensorboard,
        no_tune: args.no_tune,
    }
}

/// A new run, its length fitted to the budget if there is one.
fn start<'a>(
    recipe: Recipe,
    initial: Option<(PathBuf, Bundle)>,
    session: &Session<'a>,
    selected: &SelectedDevice,
) -> Result<Run<'a>> {
    let Session { args, data, screen, .. } = *session;
    let path = initial.as_ref().map(|(path, bundle)| (path.clone(), bundle.metadata.clone()));
    let wanted = recipe.architecture(data.classes.len(), recipe.training.image_size).ok();
    let run = Run::start(recipe, data, options(args, initial.map(|(_, bundle)| bundle)));
    let run = match (run, &path) {
        (Err(error @ kiln::Error::InitialWeights { .. }), Some((path, metadata))) => {
            let flags = wanted.and_then(|wanted| hints::same_network(&wanted, &metadata.architecture));
            let flags = flags.map(|flags| format!(": {flags}")).unwrap_or_default();
            return Err(error).with_context(|| format!("{}: give the recipe the same network{flags}", path.display()));
        }
        (run, _) => run?,
    };
    if let Some((path, metadata)) = path {
        let same_classes = metadata.classes == data.classes;
        screen.say(json!({"event": "init", "bundle": path, "same_classes": same_classes}), || {
            let head = if same_classes { "" } else { ", with a new head for other classes" };
            format!("init     weights of {}{head}", path.display())
        });
    }
    if let Some(plan) = run.plan() {
        say_plan(plan, &run.header().recipe, args, selected, screen);
    }
    Ok(run)
}

fn say_plan(plan: &RunPlan, recipe: &Recipe, args: &TrainArgs, selected: &SelectedDevice, screen: &Screen) {
    let RunPlan { steps, epochs, images_per_second: rate, seconds } = *plan;
    let minutes = seconds / 60.0;
    screen.say(
        json!({"event": "plan", "steps": steps, "epochs": epochs, "images_per_second": rate, "minutes": minutes}),
        || {
            let other = if recipe.name == "quick" { "resnet18" } else { "quick" };
            let choice = if args.recipe.is_some() {
                "as asked".to_owned()
            } else {
                format!("the default here; --recipe {other} for the other")
            };
            format!(
                "recipe   {} ({choice})\nplan     {epochs:.1} epochs, {steps} steps at about {rate:.0} images/s: {}{}",
                recipe.name,
                duration(seconds),
                faster(recipe, selected)
            )
        },
    );
}

/// What would make the run much faster on this machine.
fn faster(recipe: &Recipe, selected: &SelectedDevice) -> &'static str {
    let on_cpu = OperatorPath::of(&selected.device) == OperatorPath::Cpu;
    let in_f32 = recipe.training.precision == Precision::F32 && matches!(recipe.model, Model::ResNet(_));
    if on_cpu && in_f32 && Precision::Bf16.unit_of_cpu() == Some("AMX") {
        "\n         much faster in bf16, by this CPU's AMX: --set training.precision=bf16"
    } else {
        ""
    }
}

/// The recipe that the arguments name, with their changes.
fn resolve_recipe(args: &TrainArgs, saved: Option<&SavedRun>, is_gpu: bool) -> Result<Recipe> {
    let text = match (&args.recipe, saved) {
        (Some(name), _) => recipes::text(name)?,
        (None, Some(saved)) => saved.header().recipe.to_toml(),
        (None, None) => recipes::text(recipes::default_name(is_gpu))?,
    };
    let mut overrides = args.overrides.clone();
    overrides.extend(args.epochs.map(|epochs| format!("training.epochs={epochs}")));
    overrides.extend(args.seed.map(|seed| format!("training.seed={seed}")));
    overrides.extend(args.data.image_size.map(|size| format!("training.image_size={size}")));
    Ok(Recipe::parse(&text, &overrides)?)
}

/// How the pictures of a run were brought to its size, unless that is to change now.
fn earlier_input(saved: &SavedRun, recipe: &Recipe) -> Option<Input> {
    let header = saved.header();
    let is_same = header.recipe.training.crop_pct == recipe.training.crop_pct;
    is_same.then_some(Input { size: header.image_size, preprocessing: header.preprocessing })
}

fn describe(run: &Run, session: &Session) {
    let Session { data, screen, .. } = *session;
    let (header, split) = (run.header(), run.trainer().split());
    let (train, validation) = (split.train.len(), split.validation.len());
    let test = data.test.as_ref().map_or(0, |test| test.len());
    let parameters = Summary::new(&header.architecture, header.image_size).parameters();
    let folder = run.folder().path();
    let event = json!({
        "event": "start", "run": folder, "dataset": data.name, "train": train, "validation": validation,
        "test": test, "parameters": parameters, "step": header.step, "recipe": header.recipe,
        "classes": data.classes, "found": data.report.to_string(),
    });
    screen.say(event, || {
        let model = &header.recipe.model;
        let resumed = match header.step {
            0 => String::new(),
            step => format!(", resumed after step {step} of {}", header.total_steps),
        };
        let (parameters, size) = (grouped(parameters), header.image_size);
        let lines = [
            format!(
                "model    {} at width {}, {parameters} parameters, for images of {size} x {size} pixels{}",
                model.preset(),
                model.width(),
                trained(run)
            ),
            format!(
                "data     {}: {train} to train, {validation} to validate{}, {test} to test; {} classes: {}",
                printable(&data.name),
                if data.validation.is_some() { " (the data's own)" } else { "" },
                data.classes.len(),
                printable(listed(data.classes.iter().cloned()))
            ),
            format!("run      {}{resumed}\n", folder.display()),
        ];
        lines.join("\n")
    });
}

/// How many parameters train, where some are frozen.
fn trained(run: &Run) -> String {
    let header = run.header();
    let freeze = header.recipe.training.freeze;
    if freeze == Frozen::Nothing {
        return String::new();
    }
    let summary = Summary::new(&header.architecture, header.image_size);
    let moves = |name: &str| !freeze.has(&header.architecture, &format!("{name}.weight"));
    let count = summary.layers.iter().filter(|layer| moves(&layer.name)).map(|layer| layer.parameters).sum();
    let once = if run.trainer().keeps_features() { "; features are computed once, before the first step" } else { "" };
    format!(", of which {} train{once}", grouped(count))
}

/// How the user named the data, to be typed again.
fn data_arguments(args: &DataArgs) -> String {
    let mut text = match (&args.data, args.dataset) {
        (Some(path), _) => format!(" --data {}", path.display()),
        (None, DatasetName::Auto) => String::new(),
        (None, named) => format!(" --dataset {}", named.name()),
    };
    text += &args.labels.as_ref().map(|path| format!(" --labels {}", path.display())).unwrap_or_default();
    text += &args.label_columns.as_ref().map(|Columns([a, b])| format!(" --label-columns {a},{b}")).unwrap_or_default();
    text += &args.limit.map(|limit| format!(" --limit {limit}")).unwrap_or_default();
    text
}

/// How the user started this program, for lines to type next.
fn program() -> String {
    std::env::args().next().unwrap_or_else(|| "kiln".to_owned())
}
