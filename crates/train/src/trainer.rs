//! The training loop.

use burn::module::Module;
use burn::tensor::{Device, Int, Tensor, TensorData};
use kiln_data::{Augmentation, DataError, Dataset, Split, epoch_order, fill_batch, targets};
use kiln_kernels::Precision;
use kiln_kernels::device::multiplies;
use kiln_model::{ConfigError, ResNet, StateDict, StateError};
use web_time::Instant;

use crate::checkpoint::{Checkpoint, CheckpointError, EpochMetrics, Header, Running};
use crate::evaluate::{Evaluation, evaluate};
use crate::loss::{cross_entropy, mixed_targets};
use crate::predict::Scoring;
use crate::{Ema, ParameterGradients, Recipe, Sgd};

/// A run: network, optimiser, data and where it stands.
pub struct Trainer<'a> {
    data: &'a Dataset,
    split: Split,
    device: Device,
    model: ResNet,
    sgd: Sgd,
    ema: Option<Ema>,
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
        "this device does not multiply {0}: bf16 takes a CPU with AVX512-BF16, f16 a GPU whose matrix units wgpu \
         shows (`kiln devices`); set training.precision = \"f32\""
    )]
    Precision(Precision),
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
        let split = recipe.split(&data.train.labels)?;
        if split.train.is_empty() {
            return Err(TrainError::NoImages(data.train.len(), split.validation.len()));
        }
        let precision = recipe.training.precision;
        if !multiplies(device, precision) {
            return Err(TrainError::Precision(precision));
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
        let ema_decay = header.recipe.training.ema_decay;
        let ema = (ema_decay > 0.0).then(|| Ema::new(ema_decay));
        Ok(Self {
            data,
            split,
            device,
            model,
            sgd,
            ema,
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
        if let Some(ema) = &mut trainer.ema {
            ema.restore(checkpoint.ema, &trainer.device.clone().inner());
        }
        trainer.header = checkpoint.header;
        Ok(trainer)
    }

    /// Starts with the weights and running statistics of a network of the same architecture, which may
    /// tell other classes apart: without `with_head` the head stays as it was drawn.
    pub fn with_weights(mut self, mut weights: StateDict, with_head: bool) -> Result<Self, TrainError> {
        if !with_head {
            let is_head = |name: &str| name.starts_with("fc.");
            weights.retain(|name, _| !is_head(name));
            weights.extend(self.model.state_dict().into_iter().filter(|(name, _)| is_head(name)));
        }
        self.model = self.model.load_state_dict(&weights)?;
        Ok(self)
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

    /// The network for evaluation, as it stands: with the moving average of its weights if the recipe
    /// has one.
    pub fn model(&self) -> ResNet {
        let model = self.model.valid();
        match self.ema.as_ref().map(Ema::state).filter(|state| !state.is_empty()) {
            Some(state) => model.load_state_dict(&state).expect("an average of these very weights"),
            None => model,
        }
    }

    /// How this run scores its images.
    pub fn scoring(&self) -> Scoring {
        let Header { mean, std, .. } = self.header;
        Scoring { mean, std, batch_size: self.batch_size, flip_tta: false, features: false }
    }

    /// Everything to go on from here.
    pub fn checkpoint(&self) -> Checkpoint {
        Checkpoint {
            header: self.header.clone(),
            model: self.model.state_dict(),
            momentum: self.sgd.state(),
            ema: self.ema.as_ref().map(Ema::state).unwrap_or_default(),
        }
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
            self.step(self.learning_rate(self.header.step));
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
        let (data, device) = (&self.data.train, self.device.clone().inner());
        let (classes, indices) = (&self.header.classes, &self.split.validation);
        evaluate(&self.model(), classes, data, indices, &self.scoring(), &device, stop)
    }

    /// One step at a rate that is not the schedule's, and its loss, whatever that is.
    pub(crate) fn step_at(&mut self, learning_rate: f64) -> f64 {
        self.step(learning_rate);
        let (loss, _) = self.pending.pop().expect("a step leaves its numbers");
        loss.into_scalar::<f32>().into()
    }

    /// Forward, backward, update: one batch, in as many parts as the recipe says.
    fn step(&mut self, learning_rate: f64) {
        let Header { step, ref recipe, .. } = self.header;
        let (epoch, batch) = (step / self.steps_per_epoch, step % self.steps_per_epoch);
        if batch == 0 || self.order.is_empty() {
            self.order = epoch_order(&self.split.train, recipe.training.seed, epoch as u64);
        }
        let indices = &self.order[batch * self.batch_size..][..self.batch_size];
        let mut total: Option<(ParameterGradients, Tensor<1>, Tensor<1, Int>)> = None;
        for part in indices.chunks(self.batch_size.div_ceil(recipe.training.micro_batches)) {
            let (gradients, loss, correct) = self.forward_backward(part, epoch as u64);
            total = Some(match total {
                None => (gradients, loss, correct),
                Some(sum) => (sum.0.plus(gradients), sum.1 + loss, sum.2 + correct),
            });
        }
        let (mut gradients, loss, correct) = total.expect("a batch has images");
        if recipe.training.clip_norm > 0.0 {
            gradients = gradients.clip(recipe.training.clip_norm);
        }
        self.model = self.sgd.update(self.model.clone(), gradients, learning_rate);
        if let Some(ema) = &mut self.ema {
            ema.update(&self.model, step);
        }
        self.pending.push((loss, correct));
        self.header.step += 1;
    }

    /// Of some of a batch's images: their part in the gradients and in the loss `[1]`, both means over the
    /// batch, and how many of them scored highest for their class `[1]`, of two mixed ones the greater.
    fn forward_backward(&self, part: &[u32], epoch: u64) -> (ParameterGradients, Tensor<1>, Tensor<1, Int>) {
        let Header { step, total_steps, ref recipe, ref classes, mean, std, .. } = self.header;
        let (set, device) = (&self.data.train, &self.device);
        let augmentation = Augmentation {
            augment: &recipe.augment_at(step, total_steps),
            seed: recipe.training.seed,
            epoch,
            partners: &self.split.train,
        };
        let mut pixels = vec![];
        fill_batch(set, part, Some(&augmentation), mean, std, &mut pixels);
        let images = Tensor::from_data(TensorData::new(pixels, [part.len(), 3, set.height, set.width]), device);
        let targets = targets(set, part, Some(&augmentation));

        let logits = self.model.forward(images); // [n, classes]
        let distributions = mixed_targets(&targets, classes.len(), recipe.training.label_smoothing, device);
        let mut loss = cross_entropy(logits.clone(), distributions);
        if part.len() < self.batch_size {
            loss = loss * (part.len() as f64 / self.batch_size as f64);
        }
        let gradients = ParameterGradients::of(&self.model, &loss.backward());

        let labels: Vec<i32> = targets.iter().map(|target| target.main() as i32).collect();
        let labels = Tensor::<2, Int>::from_data(TensorData::new(labels, [part.len(), 1]), &device.clone().inner());
        let correct = logits.inner().argmax(1).equal(labels).int().sum();
        (gradients, loss.inner(), correct)
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

#[cfg(test)]
mod tests {
    use kiln_data::synthetic;

    use super::*;
    use crate::recipe::BUILT_IN;

    /// The network after `steps` steps of a small recipe with these changes.
    fn train(data: &Dataset, steps: usize, changes: &[&str]) -> Checkpoint {
        let network = ["model.width=4", "model.norm=group", "model.groups=2"];
        let small = [&network[..], &["training.batch_size=14", "training.ema_decay=0"]].concat();
        let overrides: Vec<_> = small.iter().chain(changes).map(|text| text.to_string()).collect();
        let recipe = Recipe::parse(BUILT_IN[0].1, &overrides).unwrap();
        let mut trainer = Trainer::new(recipe, data, Some(steps), &Device::flex()).unwrap();
        trainer.run(&mut || false, &mut |_| Ok(())).unwrap();
        trainer.checkpoint()
    }

    /// Largest difference of two networks' weights.
    fn difference(a: &Checkpoint, b: &Checkpoint) -> f32 {
        let pairs = a.model.iter().zip(&b.model).flat_map(|((_, a), (_, b))| a.values.iter().zip(&b.values));
        pairs.map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
    }

    #[test]
    fn without_batch_norm_micro_batches_change_nothing_but_rounding() {
        let data = synthetic(40, 0, 0);
        let rate = "optimizer.lr=0.01";
        let whole = train(&data, 3, &[rate]);
        // 14 images in two halves, and in parts of 5, 5 and 4.
        for parts in ["training.micro_batches=2", "training.micro_batches=3"] {
            let parted = train(&data, 3, &[rate, parts]);
            let difference = difference(&whole, &parted);
            assert!(difference < 1e-5, "{parts}: {difference}");
            let (whole, parted) = (&whole.header.history[0], &parted.header.history[0]);
            assert!((whole.train_loss - parted.train_loss).abs() < 1e-5, "{parts}");
            assert_eq!(whole.train_accuracy, parted.train_accuracy, "{parts}");
        }
    }

    #[test]
    fn each_trick_takes_part_in_training() {
        let data = synthetic(40, 0, 0);
        let plain = train(&data, 2, &[]);
        for change in ["training.clip_norm=0.01", "augment.cutout=8", "augment.mix.mixup_chance=1"] {
            assert!(difference(&plain, &train(&data, 2, &[change])) > 1e-4, "{change}");
        }
        let averaged = train(&data, 2, &["training.ema_decay=0.9"]);
        assert_eq!(difference(&plain, &averaged), 0.0, "averaging leaves the weights themselves alone");
        assert_ne!(averaged.ema, averaged.model);
        assert!(plain.ema.is_empty());
    }

    #[test]
    fn the_end_of_a_run_is_as_the_recipe_says() {
        let data = synthetic(40, 0, 0);
        let end = ["augment.cutout=8", "augment.final_share=1.0", "augment.final_keeps=crop_and_flip"];
        assert_eq!(difference(&train(&data, 2, &[]), &train(&data, 2, &end)), 0.0);
    }
}
