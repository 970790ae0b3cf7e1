//! The training loop.

mod event;
#[cfg(test)]
mod tests;

use burn::module::Module;
use burn::tensor::{Device, Int, Tensor, TensorData};
use kiln_data::{Augment, Augmentation, Dataset, Split, epoch_order, fill_batch, targets};
use kiln_kernels::device::{awake, multiplies};
use kiln_model::{Architecture, Init, Network, ResNetConfig, StateDict};
use web_time::Instant;

pub use self::event::{Event, HandlerError, Outcome, Skipped, StepMetrics, TrainError};
use crate::checkpoint::{Checkpoint, CheckpointError, EpochMetrics, Header, Running};
use crate::classifier::Classifier;
use crate::loss::{cross_entropy, mixed_targets};
use crate::predictions::Evaluation;
use crate::recipe::Training;
use crate::recovery::{MAX_SKIPPED, Recovery};
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

    /// `network`, such as [`Self::model`], to be asked about images like those of this run.
    pub fn classifier(&self, network: Network) -> Classifier {
        let Header { mean, std, ref classes, .. } = self.header;
        let (device, classes) = (self.device.clone().inner(), classes.clone());
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
            let _awake = awake(&self.device);
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
        let predictions =
            self.classifier(self.model()).predict(&self.data.train, &self.split.validation, false, stop)?;
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
