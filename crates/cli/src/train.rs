//! `kiln train`

mod finish;
mod guard;
mod plan;
mod saver;
mod screen;

use std::cell::RefCell;
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use kiln_data::Dataset;
use kiln_kernels::device::{SelectedDevice, choose};
use kiln_model::Summary;
use kiln_report::grouped;
use kiln_train::run_dir::{Latest, RunDir, RunLock, write_whole};
use kiln_train::tensorboard::{self, EventFile};
use kiln_train::{Checkpoint, Event, Outcome, Recipe, Trainer};
use serde_json::json;

use self::finish::finish;
use self::guard::guarded;
use self::plan::start;
use self::saver::{Saver, Stand};
use self::screen::{Progress, Screen};
use crate::args::{DataArgs, DatasetName, TrainArgs};
use crate::signals::Signals;
use crate::{data, environment, eval, recipes};

pub fn run(args: TrainArgs) -> Result<ExitCode> {
    let chosen = choose(args.device)?;
    let stand = RefCell::new(Stand { run: None, step: 0, micro_batches: 1 });
    guarded(chosen.is_queued(), || train(&args, &chosen, &stand)).unwrap_or_else(|fault| {
        let Stand { run, step, micro_batches } = stand.take();
        let parts = format!("--set training.micro_batches={}", 2 * micro_batches);
        let advice = match run {
            Some(run) => format!(
                "the checkpoint after step {step} is as it was, go on with: {} train --resume {}{}. If it was out of memory, \
                 compute a batch in more parts, {parts} --allow-change training.micro_batches",
                program(),
                run.display(),
                data_arguments(&args.data)
            ),
            None => format!("if it was out of memory, compute a batch in more parts, {parts}"),
        };
        bail!("{} failed: {fault}; {advice}", chosen.name)
    })
}

/// One call of the command, once it has its data and its folder.
struct Session<'a> {
    args: &'a TrainArgs,
    chosen: &'a SelectedDevice,
    data: &'a Dataset,
    run: &'a RunDir,
    screen: &'a Screen,
    signals: &'a Signals,
}

fn train(args: &TrainArgs, chosen: &SelectedDevice, stand: &RefCell<Stand>) -> Result<ExitCode> {
    let resumed = args.resume.as_deref().map(resume).transpose()?;
    let recipe = resolve_recipe(args, resumed.as_ref(), chosen.is_gpu)?;
    stand.borrow_mut().micro_batches = recipe.training.micro_batches;
    let screen = Screen::new(args.json);
    screen.say(json!({"event": "device", "device": chosen.name, "reason": chosen.reason}), || {
        format!("device   {}: {}", chosen.name, chosen.reason)
    });

    let data_args = DataArgs { image_size: Some(recipe.training.image_size), ..args.data.clone() };
    let data = data::dataset(&data_args, recipe.training.seed)?;
    // Until here a signal simply ends the program: a download goes on where it was cut.
    let signals = Signals::listen()?;
    let initial = args.init.as_deref().map(eval::open).transpose()?;
    let (run, _lock, mut trainer) = match resumed {
        Some(Resumed { run, lock, checkpoint }) => {
            (run, lock, Trainer::resume(checkpoint, recipe, &args.allow_change, &data, &chosen.device)?)
        }
        None => {
            let run = match &args.out {
                Some(folder) => RunDir::create(folder)?,
                None => RunDir::create_numbered(Path::new("runs"), &recipe.name)?,
            };
            let lock = run.lock()?;
            (run, lock, start(recipe, args, initial.as_ref(), &data, chosen, &screen)?)
        }
    };
    // A GPU works ahead of the numbers it is asked for; on a CPU they are there at once.
    trainer = trainer.with_max_pending(if chosen.is_queued() { 16 } else { 0 });
    write_whole(&run.recipe(), trainer.header().recipe.to_toml().as_bytes())?;
    environment::record(&run, args, chosen, trainer.header())?;
    let mut saver = Saver::new(&run, stand);
    // Better to learn now than after the first epoch that nothing can be written here, and from now on the run can be
    // resumed whatever happens.
    saver.save(trainer.checkpoint())?;
    let (history, seconds) = (&trainer.header().history, trainer.header().seconds);
    let with_events = args.tensorboard || tensorboard::path(run.path()).exists();
    let events = with_events.then(|| EventFile::create(run.path(), history, seconds)).transpose()?;
    let session = Session { args, chosen, data: &data, run: &run, screen: &screen, signals: &signals };
    describe(&trainer, &session);

    let progress = Progress::new(&trainer, &screen);
    let outcome = trainer.run(&mut || signals.stop(), &mut |event| {
        match event {
            Event::Step { metrics, checkpoint } => {
                progress.step(metrics);
                if saver.is_due() {
                    saver.try_save(checkpoint(), &progress);
                }
            }
            Event::Skipped(skipped) => progress.skipped(&skipped),
            Event::Epoch { metrics, is_best, checkpoint } => {
                let checkpoint = checkpoint();
                if is_best {
                    saver.best = Some(checkpoint.clone());
                }
                saver.try_save(checkpoint, &progress);
                if let Some(Err(error)) = events.as_ref().map(|events| events.append(metrics)) {
                    progress.warn(&format!("{error}; TensorBoard will lack epoch {}", metrics.epoch));
                }
                progress.epoch(metrics, is_best);
            }
        }
        Ok(())
    });
    progress.bar.finish_and_clear();
    match outcome {
        Ok(Outcome::Finished) => {
            // What could not be saved on the way has to be now.
            if saver.is_behind() {
                saver.save(trainer.checkpoint())?;
            }
            finish(&trainer, &session)
        }
        Ok(Outcome::Stopped) => {
            saver.save(trainer.checkpoint())?;
            let (step, total) = (trainer.header().step, trainer.header().total_steps);
            let folder = run.path().display();
            screen.say(json!({"event": "stopped", "step": step, "run": run.path()}), || {
                format!(
                    "stopped after step {step} of {total}, saved; go on with: {} train --resume {folder}{}",
                    program(),
                    data_arguments(&args.data)
                )
            });
            Ok(signals.exit_code())
        }
        Err(error) => Err(error).with_context(|| {
            let (folder, step) = (run.path().display(), stand.borrow().step);
            format!("the run in {folder} ended early, with a checkpoint after step {step}")
        }),
    }
}

/// A run to go on with.
struct Resumed {
    run: RunDir,
    lock: RunLock,
    checkpoint: Checkpoint,
}

fn resume(folder: &Path) -> Result<Resumed> {
    let run = RunDir::open(folder);
    if !folder.is_dir() {
        bail!("cannot resume {}: there is no such folder", folder.display());
    }
    let lock = run.lock()?;
    let Latest { checkpoint, passed_over } = run.latest()?;
    if let Some(error) = passed_over {
        let step = checkpoint.header.step;
        eprintln!("warning: {error}; going on from the checkpoint before it, after step {step}");
        run.set_aside()?;
    }
    Ok(Resumed { run, lock, checkpoint })
}

/// The recipe that the arguments name, with their changes.
fn resolve_recipe(args: &TrainArgs, resumed: Option<&Resumed>, is_gpu: bool) -> Result<Recipe> {
    let text = match (&args.recipe, resumed) {
        (Some(name), _) => recipes::text(name)?,
        (None, Some(resumed)) => resumed.checkpoint.header.recipe.to_toml(),
        (None, None) => recipes::text(recipes::default_name(is_gpu))?,
    };
    let mut overrides = args.overrides.clone();
    overrides.extend(args.epochs.map(|epochs| format!("training.epochs={epochs}")));
    overrides.extend(args.seed.map(|seed| format!("training.seed={seed}")));
    overrides.extend(args.data.image_size.map(|size| format!("training.image_size={size}")));
    Ok(Recipe::parse(&text, &overrides)?)
}

fn describe(trainer: &Trainer, session: &Session) {
    let Session { data, run, screen, .. } = *session;
    let header = trainer.header();
    let (train, validation) = (trainer.split().train.len(), trainer.split().validation.len());
    let test = data.test.as_ref().map_or(0, |test| test.len());
    let parameters = Summary::new(&header.architecture, header.image_size).parameters();
    let event = json!({
        "event": "start", "run": run.path(), "dataset": data.name, "train": train, "validation": validation,
        "test": test, "parameters": parameters, "step": header.step, "recipe": header.recipe,
    });
    screen.say(event, || {
        let model = &header.recipe.model;
        let resumed = match header.step {
            0 => String::new(),
            step => format!(", resumed after step {step} of {}", header.total_steps),
        };
        let parameters = grouped(parameters);
        let lines = [
            format!("model    {} at width {}, {parameters} parameters", model.preset(), model.width()),
            format!("data     {}: {train} to train, {validation} to validate, {test} to test", data.name),
            format!("run      {}{resumed}\n", run.path().display()),
        ];
        lines.join("\n")
    });
}

/// How the user named the data, to be typed again.
fn data_arguments(args: &DataArgs) -> String {
    let mut text = match (&args.data, args.dataset) {
        (Some(path), _) => format!(" --data {}", path.display()),
        (None, DatasetName::Auto) => String::new(),
        (None, named) => format!(" --dataset {}", named.name()),
    };
    text += &args.limit.map(|limit| format!(" --limit {limit}")).unwrap_or_default();
    text
}

/// How the user started this program, for lines to type next.
fn program() -> String {
    std::env::args().next().unwrap_or_else(|| "kiln".to_owned())
}
