//! One run of training from its plan to its bundle.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use kiln_data::Dataset;
use kiln_kernels::device::{DeviceRequest, SelectedDevice, choose};
use kiln_model::Bundle;
use kiln_train::recipe::Recipe;
use kiln_train::run_dir::{Latest, RunDir, RunLock, write_whole};
use kiln_train::tensorboard::{self, EventFile};
use kiln_train::{Checkpoint, EpochMetrics, Event, Header, SkippedStep, StepMetrics, TrainError, Trainer};
use pollster::block_on;

use crate::evaluate::{Evaluator, evaluate, save_evaluation, test_images};
use crate::plan::{RunPlan, plan};
use crate::report::{gather_evidence, write_report};
use crate::saver::Saver;
use crate::testing::{Finished, Testing};
use crate::tuning::{Tuned, tune_for, use_first_forms};
use crate::{Error, work_in_the_pool};

/// Images that a report's map of the feature space shows.
const EMBEDDED: usize = 2000;

/// How a run is started. `RunOptions::default()` takes the fastest device and a folder under `runs/`.
#[derive(Clone, Debug, Default)]
pub struct RunOptions {
    pub device: DeviceRequest,
    /// The run's folder; `runs/<recipe>-<n>` if not given.
    pub folder: Option<PathBuf>,
    /// Fits training and the test at its end into this time.
    pub budget: Option<Duration>,
    /// Measures the rate before a new run starts ([`Run::plan`]), as a budget does too. Takes up to three seconds.
    pub measure: bool,
    /// Trained weights to start with, and the normalization that they were trained with. Where the classes are others, the head
    /// starts anew.
    pub initial: Option<Bundle>,
    /// Writes an event file for TensorBoard into the folder.
    pub tensorboard: bool,
    /// Takes the forms of Kiln's shaders that run untuned, instead of spending up to five seconds to find the fastest ones on
    /// a GPU that is new to Kiln.
    pub no_tune: bool,
}

/// How a run is resumed. `ResumeOptions::default()` takes the fastest device.
#[derive(Clone, Debug, Default)]
pub struct ResumeOptions {
    pub device: DeviceRequest,
    /// Keys of the recipe, or `dataset`, that may differ from how the run was started.
    pub allow_change: Vec<String>,
    /// Writes an event file for TensorBoard into the folder, if there is none yet.
    pub tensorboard: bool,
    /// As [`RunOptions::no_tune`].
    pub no_tune: bool,
}

/// What came of one piece of a run's work.
#[derive(Clone, Debug)]
pub enum RunEvent {
    /// A step was handed to a device that works ahead; its numbers come with a later event.
    Queued,
    /// A step is done.
    Step(StepMetrics),
    /// A step was left out, as its loss or gradient was not finite.
    Skipped(SkippedStep),
    /// Validation images were scored.
    Validating { images: usize, total: usize },
    /// An epoch has ended and is saved.
    Epoch { metrics: EpochMetrics, is_best: bool },
    /// The fastest forms of Kiln's shaders were found out on this GPU.
    Tuned(Tuned),
    /// Something went wrong that the run survives, such as a save that will be tried again.
    Warning(String),
    /// Test images were scored.
    Testing { images: usize, total: usize },
    /// The network is tested and its bundle written.
    Finished(Arc<Finished>),
}

/// A run: it trains, saves after every epoch and every five minutes, tests, and writes the bundle.
///
/// [`next`](Self::next) does a piece of work and says what came of it. To stop, call [`save`](Self::save) and drop it;
/// [`resume`](Self::resume) continues from there, or, had the process been killed, from the last save.
pub struct Run<'a> {
    data: &'a Dataset,
    device: SelectedDevice,
    folder: RunDir,
    _lock: RunLock,
    trainer: Trainer<'a>,
    plan: Option<RunPlan>,
    saver: Saver,
    events: Option<EventFile>,
    /// Events that wait to be handed out.
    waiting: Vec<RunEvent>,
    phase: Phase,
}

/// A run on disk, locked against other processes, before it is resumed.
pub struct SavedRun {
    folder: RunDir,
    lock: RunLock,
    checkpoint: Checkpoint,
    warning: Option<String>,
}

impl SavedRun {
    /// Opens a run's folder and reads its newest checkpoint that is whole.
    ///
    /// # Errors
    /// If there is none, or another process trains there.
    pub fn open(folder: impl AsRef<Path>) -> Result<Self, Error> {
        let folder = folder.as_ref();
        if !folder.is_dir() {
            return Err(Error::NoFolder(folder.to_owned()));
        }
        let folder = RunDir::open(folder);
        let lock = folder.lock()?;
        let Latest { checkpoint, passed_over } = folder.latest()?;
        let mut warning = None;
        if let Some(error) = passed_over {
            let step = checkpoint.header.step;
            warning = Some(format!("{error}; resuming from the checkpoint before it, after step {step}"));
            folder.set_aside()?;
        }
        Ok(Self { folder, lock, checkpoint, warning })
    }

    /// Recipe, data and progress of the run.
    pub fn header(&self) -> &Header {
        &self.checkpoint.header
    }

    /// What was wrong with the newest checkpoint, if that had to be passed over. Said once: whoever does not take it gets
    /// it as the resumed run's first event.
    pub fn take_warning(&mut self) -> Option<String> {
        self.warning.take()
    }

    /// Continues the run with a recipe that may differ from [`header`](Self::header)'s in what
    /// [`ResumeOptions::allow_change`] names.
    ///
    /// # Errors
    /// If something else differs from how the run was started.
    pub fn resume<'a>(self, recipe: Recipe, data: &'a Dataset, options: ResumeOptions) -> Result<Run<'a>, Error> {
        block_on(self.resume_async(recipe, data, options))
    }

    /// [`resume`](Self::resume) for callers that must not block.
    pub async fn resume_async(self, recipe: Recipe, data: &Dataset, options: ResumeOptions) -> Result<Run<'_>, Error> {
        let Self { folder, lock, checkpoint, warning } = self;
        work_in_the_pool();
        let device = choose(options.device)?;
        let trainer = Trainer::resume(checkpoint, recipe, &options.allow_change, data, &device.device)?;
        let events = choose_forms(&device, trainer.header(), options.no_tune);
        let mut run = Run::begin(data, device, folder, lock, trainer, None, options.tensorboard).await?;
        run.waiting.extend(warning.map(RunEvent::Warning).into_iter().chain(events));
        Ok(run)
    }
}

/// Settles which forms of Kiln's shaders the device takes, and says what that was.
fn choose_forms(device: &SelectedDevice, header: &Header, no_tune: bool) -> Vec<RunEvent> {
    if no_tune {
        use_first_forms(device);
        return vec![];
    }
    let (tuned, warnings) = tune_for(device, header);
    warnings.into_iter().map(RunEvent::Warning).chain(tuned.map(RunEvent::Tuned)).collect()
}

enum Phase {
    Training,
    Testing(Box<Testing>),
    /// Tested; the bundle is not written yet.
    Tested(Arc<Finished>),
    Finished(Arc<Finished>),
}

impl<'a> Run<'a> {
    /// Starts a new run and saves it, so that it can be resumed whatever happens.
    ///
    /// # Errors
    /// If the folder already contains a run or cannot be written, the images do not have the recipe's size, or the initial
    /// weights belong to another network.
    pub fn start(recipe: Recipe, data: &'a Dataset, options: RunOptions) -> Result<Self, Error> {
        block_on(Self::start_async(recipe, data, options))
    }

    /// [`start`](Self::start) for callers that must not block.
    pub async fn start_async(recipe: Recipe, data: &'a Dataset, options: RunOptions) -> Result<Self, Error> {
        work_in_the_pool();
        let device = choose(options.device)?;
        let mut trainer = Trainer::new(recipe, data, None, &device.device)?;
        if let Some(Bundle { metadata, state }) = &options.initial {
            let architecture = metadata.architecture.to_string();
            trainer = trainer
                .with_weights(state.clone(), metadata.classes == data.classes)
                .map_err(|source| Error::InitialWeights { architecture, source: Box::new(source) })?
                .with_normalization(metadata.mean, metadata.std);
        }
        let events = choose_forms(&device, trainer.header(), options.no_tune);
        let mut measured = None;
        // Where only the head trains, measuring would compute all features first, which takes longer than the steps.
        if options.budget.is_some() || options.measure && !trainer.keeps_features() {
            measured = Some(plan(&mut trainer, data, options.budget).await?);
        }
        // Only now, so that nothing that fails before leaves an empty folder.
        let folder = match &options.folder {
            Some(folder) => RunDir::create(folder)?,
            None => RunDir::create_numbered(Path::new("runs"), &trainer.header().recipe.name)?,
        };
        let lock = folder.lock()?;
        let mut run = Self::begin(data, device, folder, lock, trainer, measured, options.tensorboard).await?;
        run.waiting.extend(events);
        Ok(run)
    }

    /// Continues the run in a folder with the recipe it was started with, on the same data.
    ///
    /// # Errors
    /// If there is no run, another process trains in the folder, or the data differs from that of the start.
    pub fn resume(folder: impl AsRef<Path>, data: &'a Dataset, options: ResumeOptions) -> Result<Self, Error> {
        let saved = SavedRun::open(folder)?;
        let recipe = saved.header().recipe.clone();
        saved.resume(recipe, data, options)
    }

    async fn begin(
        data: &'a Dataset,
        device: SelectedDevice,
        folder: RunDir,
        lock: RunLock,
        mut trainer: Trainer<'a>,
        plan: Option<RunPlan>,
        tensorboard: bool,
    ) -> Result<Self, Error> {
        write_whole(&folder.recipe(), trainer.header().recipe.to_toml().as_bytes())?;
        let mut saver = Saver::new();
        // Better to learn now than after the first epoch that nothing can be written here.
        saver.save(&folder, &trainer.checkpoint().await)?;
        let Header { history, seconds, .. } = trainer.header();
        let with_events = tensorboard || tensorboard::path(folder.path()).exists();
        let events = with_events.then(|| EventFile::create(folder.path(), history, *seconds)).transpose()?;
        let (waiting, phase) = (vec![], Phase::Training);
        Ok(Self { data, device, folder, _lock: lock, trainer, plan, saver, events, waiting, phase })
    }

    /// Does the next piece of work: a step, a batch of validation or test images. `None` after
    /// [`RunEvent::Finished`].
    ///
    /// # Errors
    /// If training diverged, or what has to be on disk at the end cannot be written.
    #[expect(clippy::should_implement_trait, reason = "an iterator could not say that a run failed")]
    pub fn next(&mut self) -> Result<Option<RunEvent>, Error> {
        block_on(self.next_async())
    }

    /// [`next`](Self::next) for callers that must not block.
    pub async fn next_async(&mut self) -> Result<Option<RunEvent>, Error> {
        if !self.waiting.is_empty() {
            return Ok(Some(self.waiting.remove(0)));
        }
        match &mut self.phase {
            Phase::Training => self.train().await.map(Some),
            Phase::Testing(testing) => {
                if let Some([images, total]) = testing.advance(&self.trainer, self.data).await? {
                    return Ok(Some(RunEvent::Testing { images, total }));
                }
                let finished = Arc::new(testing.finish(self.trainer.split())?);
                self.phase = Phase::Tested(finished.clone());
                self.write_bundle(finished).map(Some)
            }
            Phase::Tested(finished) => {
                let finished = finished.clone();
                self.write_bundle(finished).map(Some)
            }
            Phase::Finished(_) => Ok(None),
        }
    }

    async fn train(&mut self) -> Result<RunEvent, Error> {
        let event = match self.trainer.next().await {
            // An image file is gone: with it back, the run continues from here.
            Err(error @ TrainError::Data(_)) => {
                self.save_async().await?;
                return Err(error.into());
            }
            event => event?,
        };
        Ok(match event {
            Some(Event::Step(metrics)) => {
                if self.saver.is_due() {
                    let checkpoint = self.trainer.checkpoint().await;
                    self.waiting.extend(self.saver.try_save(&self.folder, &checkpoint).map(RunEvent::Warning));
                }
                RunEvent::Step(metrics)
            }
            Some(Event::Epoch { metrics, is_best }) => {
                let checkpoint = self.trainer.checkpoint().await;
                if is_best {
                    self.saver.best = Some(checkpoint.clone());
                }
                self.waiting.extend(self.saver.try_save(&self.folder, &checkpoint).map(RunEvent::Warning));
                if let Some(Err(error)) = self.events.as_ref().map(|events| events.append(&metrics)) {
                    let warning = format!("{error}; TensorBoard will lack epoch {}", metrics.epoch);
                    self.waiting.push(RunEvent::Warning(warning));
                }
                RunEvent::Epoch { metrics, is_best }
            }
            Some(Event::Skipped(skipped)) => RunEvent::Skipped(skipped),
            Some(Event::Validating { images, total }) => RunEvent::Validating { images, total },
            Some(Event::Queued) => RunEvent::Queued,
            None => self.test().await?,
        })
    }

    /// Goes over to the test.
    async fn test(&mut self) -> Result<RunEvent, Error> {
        let last = self.trainer.checkpoint().await;
        // What could not be saved on the way has to be now.
        if self.saver.is_behind() {
            self.saver.save(&self.folder, &last)?;
        }
        let best = RunDir::read(&self.folder.best());
        let warning = best.as_ref().err().map(|error| {
            RunEvent::Warning(format!("{error}; the bundle gets the last epoch's weights instead of the best one's"))
        });
        let testing = Testing::new(best.unwrap_or_else(|_| last.clone()), &last, self.data);
        self.phase = Phase::Testing(Box::new(testing));
        let total = self.data.test.as_ref().map_or(0, |test| test.len());
        Ok(warning.unwrap_or(RunEvent::Testing { images: 0, total }))
    }

    /// The run's last act. Should it fail, the next call tries again.
    fn write_bundle(&mut self, finished: Arc<Finished>) -> Result<RunEvent, Error> {
        let bytes = finished.bundle.to_bytes().map_err(Error::Bundle)?;
        write_whole(&self.folder.bundle(), &bytes)?;
        self.phase = Phase::Finished(finished.clone());
        Ok(RunEvent::Finished(finished))
    }

    /// Saves a checkpoint now, before a stop, unless the last one on disk is of this very step.
    ///
    /// # Errors
    /// If it cannot be written; the checkpoint before it is still there.
    pub fn save(&mut self) -> Result<(), Error> {
        block_on(self.save_async())
    }

    /// [`save`](Self::save) for callers that must not block.
    pub async fn save_async(&mut self) -> Result<(), Error> {
        if self.saver.is_behind() || self.saver.step != self.header().step {
            let checkpoint = self.trainer.checkpoint().await;
            self.saver.save(&self.folder, &checkpoint)?;
        }
        Ok(())
    }

    /// Writes `report.html` with its figures and `evaluation.json`, after [`RunEvent::Finished`]; the page's path.
    ///
    /// # Errors
    /// If the run has not finished, or nothing can be written.
    pub fn report(&self) -> Result<PathBuf, Error> {
        let Phase::Finished(finished) = &self.phase else {
            return Err(Error::Unfinished(self.folder.path().to_owned()));
        };
        let evaluator = Evaluator::new(&finished.bundle, self.data, self.trainer.batch_size(), &self.device.device)?;
        let best = finished.tested.first();
        let predictions = match best {
            Some(tested) => tested.plain.clone(),
            None => evaluator.predict(&test_images(self.data).1, true)?,
        };
        let run = &self.folder;
        let mut evaluation = evaluate(&evaluator, Some(run), &run.bundle(), self.data, &predictions, 0)?;
        if let Some(flipped) = best.and_then(|tested| tested.flip_tta.as_ref()) {
            evaluation.flip_tta = Some(evaluator.metrics(flipped)?);
        }
        save_evaluation(run, &evaluation)?;
        write_report(run, &gather_evidence(run, &finished.bundle, self.data, predictions, EMBEDDED)?)
    }

    /// Everything needed to resume from here.
    pub fn checkpoint(&mut self) -> Checkpoint {
        block_on(self.trainer.checkpoint())
    }

    /// Where the run stands.
    pub fn header(&self) -> &Header {
        self.trainer.header()
    }

    /// The loop below: its split and its batches.
    pub fn trainer(&self) -> &Trainer<'a> {
        &self.trainer
    }

    /// What it runs on, and why.
    pub fn device(&self) -> &SelectedDevice {
        &self.device
    }

    /// Where it is saved.
    pub fn folder(&self) -> &RunDir {
        &self.folder
    }

    /// How long it will take, if that was measured.
    pub fn plan(&self) -> Option<&RunPlan> {
        self.plan.as_ref()
    }

    /// Steps of the last checkpoint on disk.
    pub fn saved_step(&self) -> usize {
        self.saver.step
    }
}
