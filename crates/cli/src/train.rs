//! `kiln train`

use std::cell::{Cell, RefCell};
use std::io::IsTerminal;
use std::panic::{self, AssertUnwindSafe};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use indicatif::{ProgressBar, ProgressStyle};
use kiln_data::{Dataset, Split};
use kiln_kernels::device::{Chosen, choose};
use kiln_model::{Bundle, Metadata, Summary};
use kiln_report::{duration, grouped};
use kiln_train::recipe::Training;
use kiln_train::run_dir::{Latest, RunDir, RunDirError, RunLock, write_whole};
use kiln_train::tensorboard::{self, EventFile};
use kiln_train::{
    Checkpoint, Classifier, EpochMetrics, Evaluation, Event, MAX_SKIPPED, Outcome, Predictions, Recipe, Skipped,
    StepMetrics, TrainError, Trainer,
};
use serde_json::{Value, json};

use crate::args::{DataArgs, DatasetName, TrainArgs};
use crate::eval::Network;
use crate::signals::Signals;
use crate::{data, environment, eval, recipes, report};

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

/// What is to be said of a run should its GPU fail.
#[derive(Default)]
struct Stand {
    /// Its folder, once it can be resumed.
    run: Option<PathBuf>,
    /// Of the last checkpoint.
    step: usize,
    micro_batches: usize,
}

fn train(args: &TrainArgs, chosen: &Chosen, stand: &RefCell<Stand>) -> Result<ExitCode> {
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
    describe(&trainer, &data, &run, &screen);

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
            finish(&trainer, &data, &run, chosen, &screen, &signals, args)
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

/// Runs what a lost GPU or one out of memory may end with a panic, which is what wgpu and CUDA's runtime do: it is told
/// as an error. Anywhere else a panic stays one.
fn guarded<T>(is_queued: bool, work: impl FnOnce() -> T) -> Result<T, String> {
    if !is_queued {
        return Ok(work());
    }
    let first = Arc::new(Mutex::new(None));
    let seen = first.clone();
    // The first of several threads' panics is the cause, the others follow from it.
    let usual = panic::take_hook();
    panic::set_hook(Box::new(move |info| {
        crate::exit_without_reader(info);
        let told = info.payload_as_str().unwrap_or("no reason was given").to_owned();
        // Whose fault it was: the driver's, or one of this program.
        let place = info.location().map(|place| format!(" ({}:{})", place.file(), place.line())).unwrap_or_default();
        seen.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert((told, place));
    }));
    let result = panic::catch_unwind(AssertUnwindSafe(work));
    panic::set_hook(usual);
    result.map_err(|_| {
        let (told, place) = first.lock().unwrap_or_else(PoisonError::into_inner).take().unwrap_or_default();
        // Of a chain of causes the last is the one that says something.
        let idle = |line: &&str| !line.starts_with("No backtrace") && !line.ends_with(':') && !line.is_empty();
        told.lines().map(str::trim).rfind(idle).unwrap_or(&told).to_owned() + &place
    })
}

/// Saves a run now and then; a save that fails is made up for by the next.
struct Saver<'a> {
    run: &'a RunDir,
    stand: &'a RefCell<Stand>,
    /// The best epoch's checkpoint, while it is not on disk.
    best: Option<Checkpoint>,
    /// When the last save was tried, and whether it failed.
    tried: (Instant, bool),
}

impl<'a> Saver<'a> {
    /// Between two saves in the middle of an epoch.
    const EVERY: Duration = Duration::from_secs(300);
    /// Between two tries of one that fails.
    const AGAIN: Duration = Duration::from_secs(30);

    fn new(run: &'a RunDir, stand: &'a RefCell<Stand>) -> Self {
        Self { run, stand, best: None, tried: (Instant::now(), false) }
    }

    fn is_behind(&self) -> bool {
        self.tried.1
    }

    fn is_due(&self) -> bool {
        let (since, failed) = self.tried;
        since.elapsed() > if failed { Self::AGAIN } else { Self::EVERY }
    }

    fn save(&mut self, checkpoint: Checkpoint) -> Result<(), RunDirError> {
        self.tried = (Instant::now(), true);
        if let Some(best) = &self.best {
            self.run.save_best(best)?;
            self.best = None;
        }
        self.run.save(&checkpoint)?;
        let mut stand = self.stand.borrow_mut();
        (stand.run, stand.step) = (Some(self.run.path().to_owned()), checkpoint.header.step);
        self.tried.1 = false;
        Ok(())
    }

    /// Warns of what fails: a disk that is full for a while should not cost hours of training.
    fn try_save(&mut self, checkpoint: Checkpoint, progress: &Progress) {
        if let Err(error) = self.save(checkpoint) {
            let step = self.stand.borrow().step;
            progress.warn(&format!(
                "{error}; the checkpoint after step {step} is as it was, training goes on and saves again in {} seconds",
                Self::AGAIN.as_secs()
            ));
        }
    }
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

/// A new run, its length fitted to the budget if there is one.
fn start<'a>(
    recipe: Recipe,
    args: &TrainArgs,
    initial: Option<&(PathBuf, Bundle)>,
    data: &'a Dataset,
    chosen: &Chosen,
    screen: &Screen,
) -> Result<Trainer<'a>> {
    let mut trial = untrained(recipe.clone(), initial, data, None, chosen)?;
    if let Some((path, bundle)) = initial {
        let same_classes = bundle.metadata.classes == data.classes;
        screen.say(json!({"event": "init", "bundle": path, "same_classes": same_classes}), || {
            let head = if same_classes { "" } else { ", with a new head for other classes" };
            format!("init     weights of {}{head}", path.display())
        });
    }
    let seconds_per_step = step_seconds(&mut trial)?;
    let header = trial.header();
    // Scoring an image costs about a third of training on it.
    let steps_per_epoch = trial.steps_per_epoch() as f64;
    let scored = (trial.split().validation.len() / trial.batch_size()) as f64 / 3.0;
    let tested = data.test.as_ref().map_or(0, |test| test.len() / trial.batch_size()) as f64 / 3.0;
    let tested = tested * test_passes(&recipe);
    let seconds = |steps: f64| seconds_per_step * (steps * (1.0 + scored / steps_per_epoch) + tested);
    let total_steps = args.budget.map(|budget| {
        let spent = seconds(0.0) + 2.0;
        let steps = (budget.0.as_secs_f64() - spent) / (seconds(1.0) - seconds(0.0));
        (steps as usize).max(1)
    });
    let steps = total_steps.unwrap_or(header.total_steps);
    let (rate, minutes) = (trial.batch_size() as f64 / seconds_per_step, seconds(steps as f64) / 60.0);
    let epochs = steps as f64 / steps_per_epoch;
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
                "recipe   {} ({choice})\nplan     {epochs:.1} epochs, {steps} steps at about {rate:.0} images/s: {}",
                recipe.name,
                duration(minutes * 60.0)
            )
        },
    );
    untrained(recipe, initial, data, Some(steps), chosen)
}

/// A run at its beginning, with the weights of `initial` if there are any.
fn untrained<'a>(
    recipe: Recipe,
    initial: Option<&(PathBuf, Bundle)>,
    data: &'a Dataset,
    total_steps: Option<usize>,
    chosen: &Chosen,
) -> Result<Trainer<'a>> {
    let trainer = Trainer::new(recipe, data, total_steps, &chosen.device)?;
    let Some((path, Bundle { metadata, state })) = initial else { return Ok(trainer) };
    trainer.with_weights(state.clone(), metadata.classes == data.classes).with_context(|| {
        let architecture = &metadata.architecture;
        format!(
            "cannot start with the weights of {}, a {architecture}: give the recipe the same network, such as \
             --set model.width={}",
            path.display(),
            architecture.width()
        )
    })
}

/// What a step takes once the first ones, which compile and allocate, are over; of a run too short for
/// that, the mean of all. The trial's weights are thrown away.
fn step_seconds(trial: &mut Trainer) -> Result<f64, TrainError> {
    const WARM_UP: usize = 2;
    const TIMED: usize = 10;
    let started = Instant::now();
    let mut ends = vec![];
    let enough = Cell::new(false);
    trial.run(&mut || enough.get(), &mut |event| {
        match event {
            Event::Step { .. } | Event::Skipped(_) => ends.push(started.elapsed().as_secs_f64()),
            Event::Epoch { .. } => enough.set(true),
        }
        let timed = ends.len().saturating_sub(WARM_UP);
        enough.set(enough.get() || timed == TIMED || (timed > 0 && ends[ends.len() - 1] - ends[WARM_UP - 1] > 3.0));
        Ok(())
    })?;
    Ok(match ends[..] {
        [_, first, .., last] => (last - first) / (ends.len() - WARM_UP) as f64,
        _ => started.elapsed().as_secs_f64() / ends.len().max(1) as f64,
    })
}

fn describe(trainer: &Trainer, data: &Dataset, run: &RunDir, screen: &Screen) {
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

/// How often the test at the end may run over its images.
fn test_passes(recipe: &Recipe) -> f64 {
    let Training { ema_decay, flip_tta, .. } = recipe.training;
    let weights = if ema_decay > 0.0 { 3.0 } else { 2.0 };
    if flip_tta { 2.0 * weights } else { weights }
}

/// What some weights of the run say of the test images.
struct Tested {
    /// `best`, `last` or `last_before_averaging`.
    weights: &'static str,
    plain: Predictions,
    /// Averaged over mirror images, if the recipe asks for it.
    flip_tta: Option<Predictions>,
}

/// Scores the best epoch's weights by validation, which the bundle gets, on the test images; then, for
/// comparison, the last epoch's if they are others, and those before averaging if they are averaged.
/// Empty without test images; `None` when stopped.
fn test(
    best: &Checkpoint,
    trainer: &Trainer,
    data: &Dataset,
    chosen: &Chosen,
    signals: &Signals,
) -> Result<Option<Vec<Tested>>> {
    let Some(set) = &data.test else { return Ok(Some(vec![])) };
    let indices: Vec<u32> = (0..set.len() as u32).collect();
    let last = trainer.checkpoint();
    let mut weights = vec![("best", best.weights())];
    if best.header.step != last.header.step {
        weights.push(("last", last.weights()));
    }
    if !last.ema.is_empty() {
        weights.push(("last_before_averaging", &last.model));
    }
    let mut tested = vec![];
    for (weights, state) in weights {
        let network = best.header.architecture.init(0, &chosen.device)?.load_state_dict(state)?;
        let classifier = Classifier { network, ..trainer.classifier() };
        let stop = &mut || signals.stop();
        let with_flipped = best.header.recipe.training.flip_tta;
        // The report shows the best weights' features.
        let features = with_flipped || weights == "best";
        let Some(plain) = classifier.predict(set, &indices, features, stop) else { return Ok(None) };
        let flip_tta = match with_flipped {
            true => match classifier.predict_flipped(set, &indices, &plain, stop) {
                Some(predictions) => Some(predictions),
                None => return Ok(None),
            },
            false => None,
        };
        tested.push(Tested { weights, plain, flip_tta });
    }
    Ok(Some(tested))
}

/// Tests the weights, writes the bundle and says where everything is.
fn finish(
    trainer: &Trainer,
    data: &Dataset,
    run: &RunDir,
    chosen: &Chosen,
    screen: &Screen,
    signals: &Signals,
    args: &TrainArgs,
) -> Result<ExitCode> {
    let header = trainer.header();
    let best = RunDir::read(&run.best()).unwrap_or_else(|error| {
        eprintln!("warning: {error}; the bundle gets the last epoch's weights instead of the best one's");
        trainer.checkpoint()
    });
    let best_epoch = best.header.history.last().context("the best checkpoint has no epoch")?;
    let Some(tested) = test(&best, trainer, data, chosen, signals)? else { return Ok(signals.exit_code()) };
    let test = tested.first().map(|tested| tested.plain.evaluation());
    let bundle = bundle(&best, best_epoch, trainer.split(), test.as_ref());
    write_whole(&run.bundle(), &bundle.to_bytes()?)?;

    let tests: Vec<_> = tested
        .iter()
        .map(|tested| {
            json!({
                "weights": tested.weights,
                "accuracy": tested.plain.accuracy(),
                "loss": tested.plain.loss(),
                "flip_tta_accuracy": tested.flip_tta.as_ref().map(Predictions::accuracy),
            })
        })
        .collect();
    let event = json!({
        "event": "finished",
        "run": run.path(),
        "bundle": run.bundle(),
        "seconds": header.seconds,
        "best_epoch": best_epoch.epoch,
        "validation_accuracy": best_epoch.validation_accuracy,
        "last_validation_accuracy": header.history.last().and_then(|last| last.validation_accuracy),
        "test_accuracy": test.as_ref().map(|test| test.accuracy),
        "test_loss": test.as_ref().map(|test| test.loss),
        "test_samples": test.as_ref().map(|test| test.samples),
        "tests": tests,
    });
    screen.say(event, || {
        let Metadata { accuracy, accuracy_samples, accuracy_split, dataset, .. } = &bundle.metadata;
        let chosen_by = match best_epoch.validation_accuracy {
            Some(validation) => {
                format!(", the best of {} by validation ({:.2} %)", header.history.len(), 100.0 * validation)
            }
            None => String::new(),
        };
        let line = |accuracy: f64, of: &str, tested: Option<&Tested>| {
            let flipped = tested.and_then(|tested| tested.flip_tta.as_ref());
            let flipped = flipped.map(|flipped| format!("; {:.2} % over mirror images", 100.0 * flipped.accuracy()));
            format!("{:.2} % {of}{}", 100.0 * accuracy, flipped.unwrap_or_default())
        };
        let of = format!("on {accuracy_samples} {accuracy_split} images of {dataset}");
        let mut lines = vec![format!("accuracy {}", line(*accuracy, &of, tested.first()))];
        lines.extend(tested.iter().skip(1).map(|tested| {
            let of = if tested.weights == "last" { "with the last epoch's weights" } else { "before averaging" };
            format!("         {}", line(tested.plain.accuracy(), of, Some(tested)))
        }));
        lines.extend([
            format!("weights  of epoch {}{chosen_by}", best_epoch.epoch),
            format!("time     {}", duration(header.seconds)),
            format!("bundle   {}", run.bundle().display()),
            format!("metrics  {}", run.metrics().display()),
        ]);
        lines.join("\n")
    });
    if !args.no_report {
        let answers = tested.into_iter().next().map(|best| (best.plain, best.flip_tta));
        let made = Network::new(&bundle, data, trainer.batch_size(), &chosen.device)
            .and_then(|network| report::after_training(run, &network, data, answers));
        match made {
            Ok(path) => {
                screen.say(json!({"event": "report", "report": path}), || format!("report   {}", path.display()))
            }
            // Whatever it is, the network is trained and its bundle written.
            Err(error) => eprintln!(
                "warning: the report could not be made: {error:#}; try again with: {} report {}{}",
                program(),
                run.path().display(),
                data_arguments(&args.data)
            ),
        }
    }
    if !screen.json {
        println!("next     {} predict --model {} IMAGE..", program(), run.path().display());
    }
    Ok(if signals.stop() { signals.exit_code() } else { ExitCode::SUCCESS })
}

fn bundle(best: &Checkpoint, epoch: &EpochMetrics, split: &Split, test: Option<&Evaluation>) -> Bundle {
    let header = &best.header;
    let (accuracy, accuracy_split, samples) = match test {
        Some(test) => (test.accuracy, "test", test.samples),
        None => match epoch.validation_accuracy {
            Some(accuracy) => (accuracy, "validation", split.validation.len()),
            None => (epoch.train_accuracy, "train", split.train.len()),
        },
    };
    let metadata = Metadata {
        architecture: header.architecture.clone(),
        classes: header.classes.clone(),
        image_size: header.image_size,
        mean: header.mean,
        std: header.std,
        dataset: header.dataset.clone(),
        dataset_digest: header.dataset_digest.clone(),
        accuracy,
        accuracy_split: accuracy_split.to_owned(),
        accuracy_samples: samples,
        recipe: header.recipe.name.clone(),
        seed: header.recipe.training.seed,
        kiln_version: env!("CARGO_PKG_VERSION").to_owned(),
        quantisation: None,
    };
    Bundle { metadata, state: best.weights().clone() }
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

/// Where lines go: text or JSON on stdout.
struct Screen {
    json: bool,
}

impl Screen {
    fn new(json: bool) -> Self {
        Self { json }
    }

    fn say(&self, event: Value, text: impl FnOnce() -> String) {
        if self.json {
            println!("{event}");
        } else {
            println!("{}", text());
        }
    }
}

/// A bar on a terminal and a line an epoch everywhere.
struct Progress<'a> {
    bar: ProgressBar,
    screen: &'a Screen,
    batch_size: usize,
    rate: Cell<(usize, Instant, f64)>,
}

impl<'a> Progress<'a> {
    fn new(trainer: &Trainer, screen: &'a Screen) -> Self {
        let header = trainer.header();
        let bar = if !screen.json && std::io::stderr().is_terminal() {
            let bar = ProgressBar::new(header.total_steps as u64);
            let template = "epoch {prefix} {bar:24} {pos}/{len} {msg} ETA {eta}";
            bar.set_style(ProgressStyle::with_template(template).expect("a valid template"));
            bar.reset_eta();
            bar.set_position(header.step as u64);
            bar
        } else {
            ProgressBar::hidden()
        };
        let rate = Cell::new((header.step, Instant::now(), 0.0));
        Self { bar, screen, batch_size: trainer.batch_size(), rate }
    }

    fn step(&self, metrics: StepMetrics) {
        if self.bar.is_hidden() {
            return;
        }
        let (step, since, mut rate) = self.rate.get();
        if since.elapsed() > Duration::from_secs(1) {
            rate = ((metrics.step - step) * self.batch_size) as f64 / since.elapsed().as_secs_f64();
            self.rate.set((metrics.step, Instant::now(), rate));
        }
        let rate = if rate > 0.0 { format!("{rate:.0} images/s ") } else { String::new() };
        self.bar.set_prefix(metrics.epoch.to_string());
        self.bar.set_position(metrics.step as u64);
        self.bar.set_message(format!(
            "{rate}loss {:.3} accuracy {:.1} % lr {:.2e}",
            metrics.loss,
            100.0 * metrics.accuracy,
            metrics.learning_rate
        ));
    }

    fn warn(&self, text: &str) {
        self.bar.suspend(|| eprintln!("warning: {text}"));
    }

    fn skipped(&self, skipped: &Skipped) {
        let Skipped { step, loss, ref place, in_a_row, learning_rate } = *skipped;
        if self.screen.json {
            let event = json!({
                "event": "skipped", "step": step, "loss": loss, "place": place, "in_a_row": in_a_row,
                "learning_rate": learning_rate,
            });
            return println!("{event}");
        }
        self.warn(&format!(
            "step {step} left out, {in_a_row} in a row: the loss was {loss:?}, and {place} was not finite; going on at half \
             the rate, {learning_rate:.3e}, and giving up after {MAX_SKIPPED} in a row"
        ));
    }

    fn epoch(&self, metrics: &EpochMetrics, is_best: bool) {
        if self.screen.json {
            println!("{}", json!({"event": "epoch", "metrics": metrics, "is_best": is_best}));
            return;
        }
        let validation = match (metrics.validation_loss, metrics.validation_accuracy) {
            (Some(loss), Some(accuracy)) => {
                format!("   validation loss {loss:.3} accuracy {:>5.2} %", 100.0 * accuracy)
            }
            _ => String::new(),
        };
        let line = format!(
            "epoch {:>3}  {:>6.0} images/s  lr {:.2e}   train loss {:.3} accuracy {:>5.2} %{validation}{}   {}",
            metrics.epoch,
            metrics.images_per_second,
            metrics.learning_rate,
            metrics.train_loss,
            100.0 * metrics.train_accuracy,
            if is_best { " *" } else { "  " },
            duration(metrics.seconds)
        );
        self.bar.suspend(|| println!("{line}"));
    }
}
