//! The training loop.

use burn::module::Module;
use burn::tensor::{Device, Int, Tensor, TensorData};
use kiln_data::{DataError, Dataset, Split, Validation, epoch_order, fill_batch, split};
use kiln_kernels::Precision;
use kiln_kernels::device::Path;
use kiln_model::{ConfigError, ResNet, StateError};
use web_time::Instant;

use crate::checkpoint::{Checkpoint, CheckpointError, EpochMetrics, Header, Running};
use crate::evaluate::{Evaluation, evaluate};
use crate::loss::{cross_entropy, soft_targets};
use crate::{Recipe, Sgd};

/// A run: network, optimiser, data and where it stands.
pub struct Trainer<'a> {
    data: &'a Dataset,
    split: Split,
    device: Device,
    model: ResNet,
    sgd: Sgd,
    header: Header,
    batch_size: usize,
    steps_per_epoch: usize,
    /// The current epoch's order of images.
    order: Vec<u32>,
    /// Losses `[1]` and numbers of correct images `[1]` still on the device, oldest first.
    pending: Vec<(Tensor<1>, Tensor<1, Int>)>,
    /// Steps whose numbers may stay on the device: reading them makes a GPU wait.
    max_pending: usize,
}

/// What a run says while it goes on.
pub enum Event<'a> {
    /// The numbers of more steps have come.
    Step(StepMetrics),
    /// An epoch has ended, validation included; a good moment to save [`Trainer::checkpoint`].
    Epoch {
        metrics: &'a EpochMetrics,
        /// Whether it is the best so far by validation.
        is_best: bool,
        checkpoint: &'a dyn Fn() -> Checkpoint,
    },
}

/// The run at some step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StepMetrics {
    /// Steps done.
    pub step: usize,
    pub total_steps: usize,
    /// Epoch under way, from 1.
    pub epoch: usize,
    /// Means over the epoch so far.
    pub loss: f64,
    pub accuracy: f64,
    pub learning_rate: f64,
}

/// What a handler of events fails with.
pub type HandlerError = Box<dyn std::error::Error + Send + Sync>;

/// How a call of [`Trainer::run`] ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    Finished,
    /// As the caller asked; [`Trainer::checkpoint`] has it all.
    Stopped,
}

/// Why a run cannot start or go on.
#[derive(Debug, thiserror::Error)]
pub enum TrainError {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Data(#[from] DataError),
    #[error(transparent)]
    State(#[from] StateError),
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    #[error(
        "this device does not multiply bf16, which takes the CPU, and one with AVX512-BF16: set \
         training.precision = \"f32\""
    )]
    Precision,
    #[error("there is no image to train on: {0} in all, and validation keeps {1} of them")]
    NoImages(usize, usize),
    #[error(
        "the loss was {loss} at step {step} (epoch {epoch}, learning rate {learning_rate:.3e}): training diverged. Lower \
         the rate, such as --set optimizer.lr={advice:.3}, or warm up longer; the last checkpoint is as it was"
    )]
    Diverged { step: usize, epoch: usize, loss: f64, learning_rate: f64, advice: f64 },
    /// What the caller's handler of events said.
    #[error("{0}")]
    Callback(HandlerError),
}

impl<'a> Trainer<'a> {
    /// Starts a run on `device` (without autodiff). `total_steps` is the recipe's unless given.
    pub fn new(
        recipe: Recipe,
        data: &'a Dataset,
        total_steps: Option<usize>,
        device: &Device,
    ) -> Result<Self, TrainError> {
        let architecture = recipe.architecture(data.classes.len())?;
        let seed = recipe.training.seed;
        let split = split(&data.train.labels, Validation::Fraction(recipe.training.validation), seed)?;
        if split.train.is_empty() {
            return Err(TrainError::NoImages(data.train.len(), split.validation.len()));
        }
        let precision = recipe.training.precision;
        if precision != Precision::F32 && !(Path::of(device) == Path::Cpu && precision.is_available()) {
            return Err(TrainError::Precision);
        }
        let device = device.clone().autodiff();
        let model = architecture.init(seed, &device)?.with_precision(precision);
        // A set smaller than a batch is one batch.
        let batch_size = recipe.training.batch_size.min(split.train.len());
        let steps_per_epoch = split.train.len() / batch_size;
        let header = Header {
            architecture,
            classes: data.classes.clone(),
            image_size: data.train.height,
            mean: data.mean,
            std: data.std,
            dataset: data.name.clone(),
            dataset_digest: data.digest(),
            step: 0,
            total_steps: total_steps.unwrap_or(recipe.training.epochs * steps_per_epoch),
            seconds: 0.0,
            running: Running::default(),
            history: vec![],
            recipe,
        };
        let sgd = Sgd::new(header.recipe.optimizer.clone());
        Ok(Self {
            data,
            split,
            device,
            model,
            sgd,
            header,
            batch_size,
            steps_per_epoch,
            order: vec![],
            pending: vec![],
            max_pending: 0,
        })
    }

    /// Goes on from a checkpoint of a run with the same recipe, data and architecture.
    pub fn resume(
        checkpoint: Checkpoint,
        recipe: Recipe,
        data: &'a Dataset,
        device: &Device,
    ) -> Result<Self, TrainError> {
        let mut trainer = Self::new(recipe, data, Some(checkpoint.header.total_steps), device)?;
        checkpoint.header.matches(&trainer.header)?;
        trainer.model = trainer.model.load_state_dict(&checkpoint.model)?;
        trainer.sgd.restore(checkpoint.momentum, &trainer.model);
        trainer.header = checkpoint.header;
        Ok(trainer)
    }

    /// Lets the numbers of so many steps stay on the device before they are read.
    pub fn with_max_pending(mut self, steps: usize) -> Self {
        self.max_pending = steps;
        self
    }

    /// Where the run stands.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// Images a step.
    pub fn batch_size(&self) -> usize {
        self.batch_size
    }

    pub fn steps_per_epoch(&self) -> usize {
        self.steps_per_epoch
    }

    /// Images trained on and validated on.
    pub fn split(&self) -> &Split {
        &self.split
    }

    /// The network for evaluation, as it stands.
    pub fn model(&self) -> ResNet {
        self.model.valid()
    }

    /// Everything to go on from here.
    pub fn checkpoint(&self) -> Checkpoint {
        Checkpoint { header: self.header.clone(), model: self.model.state_dict(), momentum: self.sgd.state() }
    }

    /// Trains until the run's end, or until `stop` says so between two steps.
    pub fn run(
        &mut self,
        stop: &mut dyn FnMut() -> bool,
        event: &mut dyn FnMut(Event) -> Result<(), HandlerError>,
    ) -> Result<Outcome, TrainError> {
        loop {
            if self.at_epoch_end() {
                self.read_pending()?;
                let Some(is_best) = self.end_epoch(stop)? else { return Ok(Outcome::Stopped) };
                let metrics = self.header.history.last().expect("an epoch was just added");
                let checkpoint = &|| self.checkpoint();
                event(Event::Epoch { metrics, is_best, checkpoint }).map_err(TrainError::Callback)?;
            }
            if self.header.step == self.header.total_steps {
                return Ok(Outcome::Finished);
            }
            if stop() {
                self.read_pending()?;
                return Ok(Outcome::Stopped);
            }
            let started = Instant::now();
            self.step();
            if self.pending.len() > self.max_pending || self.at_epoch_end() {
                self.read_pending()?;
            }
            let seconds = started.elapsed().as_secs_f64();
            self.header.seconds += seconds;
            self.header.running.seconds += seconds;
            if self.pending.is_empty() {
                event(Event::Step(self.step_metrics())).map_err(TrainError::Callback)?;
            }
        }
    }

    /// Whether an epoch's last step is done but its validation is not. The end of the run ends an
    /// epoch too, also in the middle of one.
    fn at_epoch_end(&self) -> bool {
        let Header { step, total_steps, ref history, .. } = self.header;
        let ended = step == total_steps || step % self.steps_per_epoch == 0;
        ended && step > history.last().map_or(0, |epoch| epoch.step)
    }

    /// Scores the current weights on the validation images; `None` if `stop` said so.
    pub fn validate(&self, stop: &mut dyn FnMut() -> bool) -> Option<Evaluation> {
        let data = &self.data.train;
        let normalisation = (self.header.mean, self.header.std);
        evaluate(
            &self.model(),
            data,
            &self.split.validation,
            normalisation,
            self.batch_size,
            &self.device.clone().inner(),
            stop,
        )
    }

    /// Forward, backward, update: one batch.
    fn step(&mut self) {
        let recipe = &self.header.recipe;
        let (epoch, batch) = (self.header.step / self.steps_per_epoch, self.header.step % self.steps_per_epoch);
        if batch == 0 || self.order.is_empty() {
            self.order = epoch_order(&self.split.train, recipe.training.seed, epoch as u64);
        }
        let indices = &self.order[batch * self.batch_size..][..self.batch_size];
        let (images, labels) = load_batch(self.data, indices, recipe, epoch as u64, &self.device);
        let lr = self.learning_rate(self.header.step);

        let logits = self.model.forward(images); // [N, classes]
        let targets = soft_targets(&labels, self.header.classes.len(), recipe.training.label_smoothing, &self.device);
        let loss = cross_entropy(logits.clone(), targets);
        let grads = loss.backward();
        self.model = self.sgd.step(self.model.clone(), &grads, lr);

        let labels: Vec<i32> = labels.iter().map(|label| *label as i32).collect();
        let n = labels.len();
        let device = self.device.clone().inner();
        let labels = Tensor::<2, Int>::from_data(TensorData::new(labels, [n, 1]), &device);
        let correct = logits.inner().argmax(1).equal(labels).int().sum();
        self.pending.push((loss.inner(), correct));
        self.header.step += 1;
    }

    fn learning_rate(&self, step: usize) -> f64 {
        let recipe = &self.header.recipe;
        recipe.optimizer.lr * recipe.schedule.factor(step, self.header.total_steps)
    }

    /// Waits for the numbers that are still on the device.
    fn read_pending(&mut self) -> Result<(), TrainError> {
        let first = self.header.step - self.pending.len();
        for (offset, (loss, correct)) in std::mem::take(&mut self.pending).into_iter().enumerate() {
            let loss: f64 = loss.into_scalar::<f32>().into();
            if !loss.is_finite() {
                let (step, learning_rate) = (first + offset, self.learning_rate(first + offset));
                let epoch = step / self.steps_per_epoch + 1;
                let advice = self.header.recipe.optimizer.lr / 4.0;
                return Err(TrainError::Diverged { step: step + 1, epoch, loss, learning_rate, advice });
            }
            let running = &mut self.header.running;
            running.loss += loss * self.batch_size as f64;
            running.correct += correct.into_scalar::<i32>() as usize;
            running.images += self.batch_size;
        }
        Ok(())
    }

    fn step_metrics(&self) -> StepMetrics {
        let Header { step, total_steps, running, .. } = self.header;
        let images = running.images.max(1) as f64;
        StepMetrics {
            step,
            total_steps,
            epoch: step.saturating_sub(1) / self.steps_per_epoch + 1,
            loss: running.loss / images,
            accuracy: running.correct as f64 / images,
            learning_rate: self.learning_rate(step.saturating_sub(1)),
        }
    }

    /// Validates and adds the epoch to the history. Whether it is the best; `None` if stopped.
    fn end_epoch(&mut self, stop: &mut dyn FnMut() -> bool) -> Result<Option<bool>, TrainError> {
        let started = Instant::now();
        let StepMetrics { step, epoch, loss, accuracy, learning_rate, .. } = self.step_metrics();
        let validation = match self.split.validation.is_empty() {
            true => None,
            false => match self.validate(stop) {
                Some(evaluation) => Some(evaluation),
                None => return Ok(None),
            },
        };
        if let Some(evaluation) = validation.as_ref().filter(|evaluation| !evaluation.loss.is_finite()) {
            let advice = self.header.recipe.optimizer.lr / 4.0;
            return Err(TrainError::Diverged { step, epoch, loss: evaluation.loss, learning_rate, advice });
        }
        self.header.seconds += started.elapsed().as_secs_f64();
        let running = std::mem::take(&mut self.header.running);
        self.header.history.push(EpochMetrics {
            epoch,
            step,
            learning_rate,
            train_loss: loss,
            train_accuracy: accuracy,
            validation_loss: validation.as_ref().map(|evaluation| evaluation.loss),
            validation_accuracy: validation.as_ref().map(|evaluation| evaluation.accuracy),
            seconds: self.header.seconds,
            images_per_second: running.images as f64 / running.seconds.max(1e-9),
        });
        Ok(Some(self.header.best().is_some_and(|best| best.epoch == epoch)))
    }
}

/// One augmented, normalised batch on `device` and its labels.
fn load_batch(data: &Dataset, indices: &[u32], recipe: &Recipe, epoch: u64, device: &Device) -> (Tensor<4>, Vec<u32>) {
    let set = &data.train;
    let mut pixels = vec![];
    fill_batch(set, indices, Some((&recipe.augment, recipe.training.seed, epoch)), data.mean, data.std, &mut pixels);
    let labels = indices.iter().map(|index| set.labels[*index as usize]).collect();
    let shape = [indices.len(), 3, set.height, set.width];
    (Tensor::from_data(TensorData::new(pixels, shape), device), labels)
}
