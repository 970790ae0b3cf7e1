//! The training loop.

use burn::module::Module;
use burn::tensor::{Device, Int, Tensor, TensorData};
use kiln_data::{Augment, Augmentation, DataError, Dataset, Split, epoch_order, fill_batch, targets};
use kiln_kernels::Precision;
use kiln_kernels::device::multiplies;
use kiln_model::{Architecture, ConfigError, Init, Network, ResNetConfig, StateDict, StateError};
use web_time::Instant;

use crate::checkpoint::{Checkpoint, CheckpointError, EpochMetrics, Header, Recovery, Running};
use crate::classifier::Classifier;
use crate::loss::{cross_entropy, mixed_targets};
use crate::predictions::Evaluation;
use crate::recipe::Training;
use crate::whitening::whitening;
use crate::{Ema, ParameterGradients, Recipe, Sgd};

/// A run: network, optimiser, data and where it stands.
pub struct Trainer<'a> {
    data: &'a Dataset,
    split: Split,
    device: Device,
    model: Network,
    sgd: Sgd,
    ema: Option<Ema>,
    header: Header,
    batch_size: usize,
    steps_per_epoch: usize,
    /// The current epoch's order of images.
    order: Vec<u32>,
    /// Numbers of steps that are still on the device, oldest first.
    pending: Vec<Numbers>,
    /// Steps whose numbers may stay on the device: reading them makes a GPU wait.
    max_pending: usize,
    /// The run before the pending steps, to go back to should one of them not be finite.
    before: Option<Before>,
    /// Up to this step the numbers of each are read before its update.
    careful_until: usize,
    /// Steps, from 0, whose loss is made not finite.
    #[cfg(test)]
    poisoned: Vec<usize>,
}

/// Steps in a row whose loss or gradient is not finite after which a run ends: each of them halves the learning rate.
pub const MAX_SKIPPED: usize = 10;
/// Good steps after which a halving is taken back.
const GOOD_STEPS: usize = 100;

/// What a step leaves on the device.
struct Numbers {
    /// `[1]`
    loss: Tensor<1>,
    /// Images whose class scored highest `[1]`.
    correct: Tensor<1, Int>,
    /// Sum of all gradients `[1]`, which is finite if they are.
    gradients: Tensor<1>,
}

/// A run at some step. Tensors are shared with it, not copied.
struct Before {
    model: Network,
    running_statistics: Vec<Tensor<1>>,
    sgd: Sgd,
    ema: Option<Ema>,
    header: Header,
}

/// What a run says while it goes on.
pub enum Event<'a> {
    /// The numbers of more steps have come; [`Trainer::checkpoint`] may be taken.
    Step { metrics: StepMetrics, checkpoint: &'a dyn Fn() -> Checkpoint },
    /// A step was left out.
    Skipped(Skipped),
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

/// A step whose loss or gradient was not finite: it changed nothing, and the next ones go at half the rate.
///
/// [`MAX_SKIPPED`] of them in a row end the run; after 100 good ones a halving is taken back.
#[derive(Clone, Debug, PartialEq)]
pub struct Skipped {
    /// From 1.
    pub step: usize,
    pub loss: f64,
    /// Where a value was not finite first, as in [`TrainError::Diverged`].
    pub place: String,
    /// How many there have been without a good step between them.
    pub in_a_row: usize,
    /// Rate of the next step.
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
        "training diverged at step {step} (epoch {epoch}, learning rate {learning_rate:.3e}): the loss was {loss:?}, and \
         {place} was not finite. Lower the rate, such as --set optimizer.lr={advice:.3}, warm up longer, or clip the \
         gradients, --set training.clip_norm=1; the checkpoints are as they were"
    )]
    Diverged {
        step: usize,
        epoch: usize,
        loss: f64,
        learning_rate: f64,
        /// Where a value was not finite first: the output of a layer, or the gradient of a parameter.
        place: String,
        advice: f64,
    },
    #[error("the run has done {done} steps, more than the {total} of {epochs} epochs: choose more epochs")]
    Past { done: usize, total: usize, epochs: usize },
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
        let architecture = recipe.architecture(data.classes.len(), data.train.height)?;
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
        let mut model = architecture.init(seed, &device)?.with_precision(precision);
        if matches!(architecture, Architecture::ResNet(ResNetConfig { init: Init::Whitening, .. })) {
            let mut state = model.state_dict();
            let conv1 = state.get_mut("conv1.weight").expect("a residual network has a first convolution");
            let (filters, kernel) = (conv1.shape[0], conv1.shape[3]);
            let filters = whitening(&data.train, &split.train, [data.mean, data.std], kernel, filters);
            // Channels beyond two for each direction stay as they were drawn.
            conv1.values[..filters.len()].copy_from_slice(&filters);
            model = model.load_state_dict(&state)?;
        }
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
            recovery: Recovery::default(),
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
            before: None,
            careful_until: 0,
            #[cfg(test)]
            poisoned: vec![],
        })
    }

    /// Goes on from a checkpoint of a run with the same recipe, data and architecture, but for the fields whose change
    /// is `allowed`: keys of the recipe, and `dataset`.
    ///
    /// With the same it goes on to the same bits as if it had never stopped, on devices that compute the same every time.
    pub fn resume(
        checkpoint: Checkpoint,
        recipe: Recipe,
        allowed: &[String],
        data: &'a Dataset,
        device: &Device,
    ) -> Result<Self, TrainError> {
        let Checkpoint { header: old, model, momentum, ema } = checkpoint;
        let epochs = recipe.training.epochs;
        let total_steps = (epochs == old.recipe.training.epochs).then_some(old.total_steps);
        let mut trainer = Self::new(recipe, data, total_steps, device)?;
        old.matches(&trainer.header, allowed)?;
        let total = trainer.header.total_steps;
        if old.step > total {
            return Err(TrainError::Past { done: old.step, total, epochs });
        }
        // Only data that was allowed to change can have epochs of another length.
        let epoch_steps = old.history.first().map(|epoch| epoch.step).filter(|&step| step < old.total_steps);
        if epoch_steps.is_some_and(|steps| steps != trainer.steps_per_epoch) {
            return Err(CheckpointError::Inconsistent("its epochs have another number of steps than this data gives"))?;
        }
        trainer.model = trainer.model.load_state_dict(&model)?;
        trainer.sgd.restore(momentum, &trainer.model);
        if let Some(average) = &mut trainer.ema {
            average.restore(ema, &trainer.device.clone().inner());
        }
        let Header { step, seconds, running, recovery, history, .. } = old;
        trainer.header = Header { step, seconds, running, recovery, history, ..trainer.header };
        Ok(trainer)
    }

    /// Starts with the weights and running statistics of a network of the same architecture, which may
    /// tell other classes apart: without `with_head` the head stays as it was drawn.
    pub fn with_weights(mut self, mut weights: StateDict, with_head: bool) -> Result<Self, TrainError> {
        if !with_head {
            let head = self.header.architecture.head();
            let is_head = |name: &str| head.contains(&name);
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
    pub fn model(&self) -> Network {
        let model = self.model.valid();
        match self.ema.as_ref().map(Ema::state).filter(|state| !state.is_empty()) {
            Some(state) => model.load_state_dict(&state).expect("an average of these very weights"),
            None => model,
        }
    }

    /// The network as [`Self::model`] gives it, to be asked about images.
    pub fn classifier(&self) -> Classifier {
        let Header { mean, std, ref classes, .. } = self.header;
        let (network, device, classes) = (self.model(), self.device.clone().inner(), classes.clone());
        Classifier { network, device, classes, mean, std, batch_size: self.batch_size }
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
                let Some(is_best) = self.end_epoch(stop)? else { return Ok(Outcome::Stopped) };
                let metrics = self.header.history.last().expect("an epoch was just added");
                let checkpoint = &|| self.checkpoint();
                event(Event::Epoch { metrics, is_best, checkpoint }).map_err(TrainError::Callback)?;
            }
            if self.header.step == self.header.total_steps {
                return Ok(Outcome::Finished);
            }
            if stop() {
                // Also where that means going back.
                self.read_pending();
                return Ok(Outcome::Stopped);
            }
            let started = Instant::now();
            let skipped = if self.max_pending == 0 || self.header.step < self.careful_until {
                self.careful_step()?
            } else {
                self.step(self.learning_rate(self.header.step));
                None
            };
            if self.pending.len() > self.max_pending || self.at_epoch_end() {
                self.read_pending();
            }
            let seconds = started.elapsed().as_secs_f64();
            self.header.seconds += seconds;
            self.header.running.seconds += seconds;
            if let Some(skipped) = skipped {
                event(Event::Skipped(skipped)).map_err(TrainError::Callback)?;
            } else if self.pending.is_empty() {
                let metrics = self.step_metrics();
                let checkpoint = &|| self.checkpoint();
                event(Event::Step { metrics, checkpoint }).map_err(TrainError::Callback)?;
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
        let predictions = self.classifier().predict(&self.data.train, &self.split.validation, false, stop)?;
        Some(predictions.evaluation())
    }

    /// One step at a rate that is not the schedule's, and its loss, whatever that is.
    pub(crate) fn step_at(&mut self, learning_rate: f64) -> f64 {
        self.step(learning_rate);
        let numbers = self.pending.pop().expect("a step leaves its numbers");
        numbers.loss.into_scalar::<f32>().into()
    }

    /// One step whose numbers stay on the device.
    fn step(&mut self, learning_rate: f64) {
        if self.pending.is_empty() && self.max_pending > 0 {
            self.before = Some(Before {
                model: self.model.clone(),
                running_statistics: self.model.running_statistics(),
                sgd: self.sgd.clone(),
                ema: self.ema.clone(),
                header: self.header.clone(),
            });
        }
        let (gradients, numbers) = self.batch();
        self.update(gradients, learning_rate);
        self.pending.push(numbers);
    }

    /// One step that is left out if its loss or gradient is not finite.
    fn careful_step(&mut self) -> Result<Option<Skipped>, TrainError> {
        let step = self.header.step;
        let learning_rate = self.learning_rate(step);
        let running_statistics = self.model.running_statistics();
        let (gradients, numbers) = self.batch();
        let Some((loss, correct)) = numbers.read() else {
            self.model.restore_running_statistics(running_statistics.clone());
            let loss = f64::from(numbers.loss.into_scalar::<f32>());
            let place = self.place(&gradients);
            self.model.restore_running_statistics(running_statistics);
            let recovery = &mut self.header.recovery;
            recovery.skip();
            let in_a_row = recovery.in_a_row;
            if in_a_row == MAX_SKIPPED {
                return Err(self.diverged(step, loss, place, learning_rate));
            }
            self.header.step += 1;
            return Ok(Some(Skipped {
                step: step + 1,
                loss,
                place,
                in_a_row,
                learning_rate: self.learning_rate(step),
            }));
        };
        self.update(gradients, learning_rate);
        self.count(loss, correct);
        Ok(None)
    }

    /// Where a value of the batch at hand was not finite first.
    fn place(&self, gradients: &ParameterGradients) -> String {
        match self.model.first_non_finite(self.images(self.batch_indices(), self.epoch())) {
            Some(layer) => format!("the output of {layer}"),
            None => format!("the gradient of {}", gradients.first_non_finite().unwrap_or("the loss")),
        }
    }

    fn diverged(&self, step: usize, loss: f64, place: String, learning_rate: f64) -> TrainError {
        let epoch = step / self.steps_per_epoch + 1;
        let advice = self.header.recipe.optimizer.lr / 4.0;
        TrainError::Diverged { step: step + 1, epoch, loss, learning_rate, place, advice }
    }

    /// Index of the epoch under way.
    fn epoch(&self) -> u64 {
        (self.header.step / self.steps_per_epoch) as u64
    }

    /// The current step's images.
    fn batch_indices(&self) -> &[u32] {
        &self.order[self.header.step % self.steps_per_epoch * self.batch_size..][..self.batch_size]
    }

    /// Forward and backward: one batch, in as many parts as the recipe says.
    fn batch(&mut self) -> (ParameterGradients, Numbers) {
        let Training { seed, micro_batches, clip_norm, .. } = self.header.recipe.training;
        if self.header.step.is_multiple_of(self.steps_per_epoch) || self.order.is_empty() {
            self.order = epoch_order(&self.split.train, seed, self.epoch());
        }
        let mut total: Option<(ParameterGradients, Tensor<1>, Tensor<1, Int>)> = None;
        for part in self.batch_indices().chunks(self.batch_size.div_ceil(micro_batches)) {
            let (gradients, loss, correct) = self.forward_backward(part, self.epoch());
            total = Some(match total {
                None => (gradients, loss, correct),
                Some(sum) => (sum.0.plus(gradients), sum.1 + loss, sum.2 + correct),
            });
        }
        let (mut gradients, loss, correct) = total.expect("a batch has images");
        let numbers = Numbers { gradients: gradients.sum().unwrap_or_else(|| loss.clone()), loss, correct };
        if clip_norm > 0.0 {
            gradients = gradients.clip(clip_norm);
        }
        (gradients, numbers)
    }

    fn update(&mut self, gradients: ParameterGradients, learning_rate: f64) {
        self.model = self.sgd.update(self.model.clone(), gradients, learning_rate);
        if let Some(ema) = &mut self.ema {
            ema.update(&self.model, self.header.step);
        }
        self.header.step += 1;
    }

    /// Takes a good step's numbers in.
    fn count(&mut self, loss: f64, correct: usize) {
        let running = &mut self.header.running;
        running.loss += loss * self.batch_size as f64;
        running.correct += correct;
        running.images += self.batch_size;
        self.header.recovery.good_step();
    }

    /// Of some of a batch's images: their part in the gradients and in the loss `[1]`, both means over the
    /// batch, and how many of them scored highest for their class `[1]`, of two mixed ones the greater.
    fn forward_backward(&self, part: &[u32], epoch: u64) -> (ParameterGradients, Tensor<1>, Tensor<1, Int>) {
        let Header { step, total_steps, ref recipe, ref classes, .. } = self.header;
        let (set, device) = (&self.data.train, &self.device);
        let augment = recipe.augment_at(step, total_steps);
        let augmentation = self.augmentation(&augment, epoch);
        let images = self.images(part, epoch);
        let targets = targets(set, part, Some(&augmentation));

        let logits = self.model.forward(images); // [n, classes]
        let distributions = mixed_targets(&targets, classes.len(), recipe.training.label_smoothing, device);
        let mut loss = cross_entropy(logits.clone(), distributions);
        if part.len() < self.batch_size {
            loss = loss * (part.len() as f64 / self.batch_size as f64);
        }
        #[cfg(test)]
        if self.poisoned.contains(&step) {
            loss = loss * f64::NAN;
        }
        let gradients = ParameterGradients::of(&self.model, &loss.backward());

        let labels: Vec<i32> = targets.iter().map(|target| target.main() as i32).collect();
        let labels = Tensor::<2, Int>::from_data(TensorData::new(labels, [part.len(), 1]), &device.clone().inner());
        let correct = logits.inner().argmax(1).equal(labels).int().sum();
        (gradients, loss.inner(), correct)
    }

    /// What becomes of the images at `indices` at the current step, `[n, 3, H, W]`.
    fn images(&self, indices: &[u32], epoch: u64) -> Tensor<4> {
        let Header { step, total_steps, ref recipe, mean, std, .. } = self.header;
        let set = &self.data.train;
        let augment = recipe.augment_at(step, total_steps);
        let mut pixels = vec![];
        fill_batch(set, indices, Some(&self.augmentation(&augment, epoch)), mean, std, &mut pixels);
        Tensor::from_data(TensorData::new(pixels, [indices.len(), 3, set.height, set.width]), &self.device)
    }

    fn augmentation<'b>(&'b self, augment: &'b Augment, epoch: u64) -> Augmentation<'b> {
        Augmentation { augment, seed: self.header.recipe.training.seed, epoch, partners: &self.split.train }
    }

    fn learning_rate(&self, step: usize) -> f64 {
        let Header { recipe, total_steps, recovery, .. } = &self.header;
        recipe.optimizer.lr * recipe.schedule.factor(step, *total_steps) * 0.5_f64.powi(recovery.halvings)
    }

    /// Waits for the numbers that are still on the device and takes them in. If those of a step are not finite, the run
    /// is afterwards where it was before them all, to do these steps one by one.
    fn read_pending(&mut self) {
        let pending = std::mem::take(&mut self.pending);
        let numbers: Option<Vec<_>> = pending.iter().map(Numbers::read).collect();
        let before = self.before.take();
        match (numbers, before) {
            (Some(numbers), _) => numbers.into_iter().for_each(|(loss, correct)| self.count(loss, correct)),
            (None, Some(before)) => {
                self.careful_until = self.header.step;
                self.model = before.model;
                self.model.restore_running_statistics(before.running_statistics);
                (self.sgd, self.ema) = (before.sgd, before.ema);
                let Header { seconds, running: Running { seconds: in_epoch, .. }, .. } = self.header;
                self.header = Header { seconds, ..before.header };
                self.header.running.seconds = in_epoch;
            }
            (None, None) => unreachable!("pending steps have a beginning"),
        }
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
            let place = "an output for the validation images".to_owned();
            return Err(self.diverged(step - 1, evaluation.loss, place, learning_rate));
        }
        if self.header.running.images == 0 {
            let place = "a value in every step of an epoch".to_owned();
            return Err(self.diverged(step - 1, f64::NAN, place, learning_rate));
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

impl Numbers {
    /// Loss and correct images, if loss and gradients are finite. Waits for the device.
    fn read(&self) -> Option<(f64, usize)> {
        let [loss, gradients] = [&self.loss, &self.gradients].map(|number| number.clone().into_scalar::<f32>());
        (loss.is_finite() && gradients.is_finite())
            .then(|| (loss.into(), self.correct.clone().into_scalar::<i32>() as usize))
    }
}

impl Recovery {
    fn skip(&mut self) {
        *self = Self { skipped: self.skipped + 1, in_a_row: self.in_a_row + 1, halvings: self.halvings + 1, good: 0 };
    }

    fn good_step(&mut self) {
        self.in_a_row = 0;
        self.good += 1;
        if self.good == GOOD_STEPS {
            self.halvings = (self.halvings - 1).max(0);
            self.good = 0;
        }
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
    fn the_first_convolution_starts_whitening_if_the_recipe_says_so() {
        let data = synthetic(40, 0, 0);
        let [plain, whitened] = [&[][..], &["model.init=whitening"]].map(|changes| {
            let recipe = everything(&[&["model.width=32"], changes].concat());
            Trainer::new(recipe, &data, None, &Device::flex()).unwrap().model.state_dict()
        });
        for (name, tensor) in &plain {
            assert_eq!(tensor == &whitened[name], name != "conv1.weight", "{name}");
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

    /// A small recipe with everything in it that a checkpoint has to keep.
    fn everything(changes: &[&str]) -> Recipe {
        let tricks = [
            "model.width=2",
            "training.batch_size=8",
            "training.validation=0.2",
            "training.ema_decay=0.9",
            "training.micro_batches=2",
            "augment.cutout=8",
            "augment.mix.mixup_chance=0.5",
            "augment.final_share=0.3",
        ];
        let overrides: Vec<_> = tricks.iter().chain(changes).map(|text| text.to_string()).collect();
        Recipe::parse(BUILT_IN[0].1, &overrides).unwrap()
    }

    /// All of a checkpoint but the times that were taken.
    fn without_times(mut checkpoint: Checkpoint) -> Checkpoint {
        let header = &mut checkpoint.header;
        (header.seconds, header.running.seconds) = (0.0, 0.0);
        for epoch in &mut header.history {
            (epoch.seconds, epoch.images_per_second) = (0.0, 0.0);
        }
        checkpoint
    }

    #[test]
    fn a_run_stopped_anywhere_goes_on_to_the_same_bits() {
        let (data, device, steps) = (synthetic(60, 0, 0), Device::flex(), Some(40));
        let ignore = &mut |_: Event| Ok(());
        let mut whole = Trainer::new(everything(&[]), &data, steps, &device).unwrap();
        // Every moment at which a run looks whether to stop: between steps, and between the batches of validation.
        let mut moments = 0;
        let count = &mut || {
            moments += 1;
            false
        };
        whole.run(count, ignore).unwrap();
        let whole = without_times(whole.checkpoint());
        assert!(moments > 50, "{moments}");
        assert_eq!(whole.header.history.len(), 7);
        for moment in 0..moments {
            let mut trainer = Trainer::new(everything(&[]), &data, steps, &device).unwrap();
            let mut looked = 0;
            let stop = &mut || {
                looked += 1;
                looked > moment
            };
            assert_eq!(trainer.run(stop, ignore).unwrap(), Outcome::Stopped);
            let checkpoint = Checkpoint::from_bytes(&trainer.checkpoint().to_bytes().unwrap()).unwrap();
            let recipe = checkpoint.header.recipe.clone();
            let mut resumed = Trainer::resume(checkpoint, recipe, &[], &data, &device).unwrap();
            resumed.run(&mut || false, ignore).unwrap();
            let resumed = without_times(resumed.checkpoint());
            assert_eq!(resumed.header, whole.header, "stopped at moment {moment} of {moments}");
            assert!(resumed == whole, "stopped at moment {moment} of {moments}");
        }
    }

    #[test]
    fn a_run_goes_on_with_another_recipe_only_where_that_is_allowed() {
        let data = synthetic(60, 0, 0);
        let mut trainer = Trainer::new(everything(&["training.epochs=2"]), &data, None, &Device::flex()).unwrap();
        trainer.run(&mut || false, &mut |_| Ok(())).unwrap();
        let checkpoint = trainer.checkpoint();
        let resume = |changes: &[&str], allowed: &[&str], data: &Dataset| {
            let allowed: Vec<_> = allowed.iter().map(|field| field.to_string()).collect();
            let recipe = everything(&[&["training.epochs=2"], changes].concat());
            match Trainer::resume(checkpoint.clone(), recipe, &allowed, data, &Device::flex()) {
                Ok(trainer) => Ok(trainer.header().total_steps),
                Err(error) => Err(error.to_string()),
            }
        };
        let longer = ["training.epochs=3", "optimizer.lr=0.01"];
        let error = resume(&longer, &["training.epochs"], &data).unwrap_err();
        assert!(error.contains("--allow-change optimizer.lr") && !error.contains("epochs is"), "{error}");
        assert_eq!(resume(&longer, &["training.epochs", "optimizer.lr"], &data), Ok(18));
        let error = resume(&["training.epochs=1"], &["training.epochs"], &data).unwrap_err();
        assert!(error.contains("12 steps, more than the 6 of 1 epochs"), "{error}");
        for fixed in ["training.batch_size=4", "training.seed=1", "model.width=4"] {
            let field = fixed.split_once('=').unwrap().0;
            let error = resume(&[fixed], &[field, "architecture"], &data).unwrap_err();
            assert!(error.contains(field) && error.contains("cannot change within a run"), "{error}");
        }
        let mut other = synthetic(60, 0, 0);
        other.train.images[0] ^= 1;
        assert!(resume(&[], &[], &other).unwrap_err().contains("--allow-change dataset"));
        assert_eq!(resume(&[], &["dataset"], &other), Ok(12));
        assert!(resume(&[], &["dataset"], &synthetic(80, 0, 0)).unwrap_err().contains("number of steps"));
    }

    #[test]
    fn a_step_that_is_not_finite_changes_nothing_but_the_rate() {
        let data = synthetic(60, 0, 0);
        // One by one as on a CPU, and several ahead as on a GPU, whose steps are then done again.
        let ends = [0, 4].map(|max_pending| {
            let trainer = Trainer::new(everything(&[]), &data, Some(20), &Device::flex()).unwrap();
            let mut trainer = trainer.with_max_pending(max_pending);
            trainer.poisoned = vec![2, 3, 10];
            let mut skipped = vec![];
            let outcome = trainer.run(&mut || false, &mut |event| {
                if let Event::Skipped(step) = event {
                    skipped.push((step.step, step.in_a_row, step.place));
                }
                Ok(())
            });
            assert_eq!(outcome.unwrap(), Outcome::Finished);
            // The network's outputs are finite, the loss made of them is not; the head comes first on the way back.
            let place = || "the gradient of fc.weight".to_owned();
            assert_eq!(skipped, [(3, 1, place()), (4, 2, place()), (11, 1, place())], "{max_pending} ahead");
            without_times(trainer.checkpoint())
        });
        assert!(ends[0] == ends[1]);
        let Recovery { skipped, in_a_row, halvings, good } = ends[0].header.recovery;
        assert_eq!((skipped, in_a_row, halvings, good), (3, 0, 3, 9));

        let mut plain = Trainer::new(everything(&[]), &data, Some(3), &Device::flex()).unwrap();
        let mut left_out = Trainer::new(everything(&[]), &data, Some(3), &Device::flex()).unwrap();
        left_out.poisoned = vec![1];
        for trainer in [&mut plain, &mut left_out] {
            trainer.run(&mut || false, &mut |_| Ok(())).unwrap();
        }
        assert!(difference(&plain.checkpoint(), &left_out.checkpoint()) > 0.0, "two steps are not three");
    }

    #[test]
    fn halvings_are_taken_back() {
        let mut recovery = Recovery::default();
        recovery.skip();
        recovery.skip();
        for (steps, halvings) in [(GOOD_STEPS - 1, 2), (1, 1), (GOOD_STEPS, 0), (GOOD_STEPS, 0)] {
            (0..steps).for_each(|_| recovery.good_step());
            assert_eq!(recovery.halvings, halvings);
        }
        assert_eq!((recovery.skipped, recovery.in_a_row), (2, 0));
    }

    #[test]
    fn too_many_bad_steps_end_a_run_which_stands_where_it_stood() {
        // An epoch of more steps than may be bad.
        let data = synthetic(200, 0, 0);
        for max_pending in [0, 4] {
            let trainer = Trainer::new(everything(&[]), &data, Some(40), &Device::flex()).unwrap();
            let mut trainer = trainer.with_max_pending(max_pending);
            trainer
                .run(&mut || false, &mut |event| match event {
                    Event::Step { metrics, .. } if metrics.step >= 4 => Err("enough".into()),
                    _ => Ok(()),
                })
                .unwrap_err();
            let good = trainer.checkpoint();
            trainer.poisoned = (0..40).collect();
            let error = trainer.run(&mut || false, &mut |_| Ok(())).unwrap_err();
            let TrainError::Diverged { place, .. } = &error else { panic!("{error}") };
            assert_eq!(place, "the gradient of fc.weight");
            assert!(error.to_string().contains("the loss was NaN"), "{error}");
            let left = trainer.checkpoint();
            assert!(left.model == good.model && left.momentum == good.momentum && left.ema == good.ema);
        }
    }

    #[test]
    fn the_layer_whose_output_is_not_finite_is_named() {
        let data = synthetic(200, 0, 0);
        let mut trainer = Trainer::new(everything(&[]), &data, Some(40), &Device::flex()).unwrap();
        let mut state = trainer.model.state_dict();
        state.get_mut("layer3.0.bn1.bias").unwrap().values[0] = f32::INFINITY;
        trainer = trainer.with_weights(state, true).unwrap();
        let error = trainer.run(&mut || false, &mut |_| Ok(())).unwrap_err().to_string();
        assert!(error.contains("the output of layer3.0 was not finite"), "{error}");
    }

    #[test]
    fn the_end_of_a_run_is_as_the_recipe_says() {
        let data = synthetic(40, 0, 0);
        let end = ["augment.cutout=8", "augment.final_share=1.0", "augment.final_keeps=crop_and_flip"];
        assert_eq!(difference(&train(&data, 2, &[]), &train(&data, 2, &end)), 0.0);
    }
}
