//! One step of training: forward, backward, update, and what becomes of steps that are not finite.

use burn::tensor::{Int, Tensor, TensorData};
use kiln_data::{Augment, Augmentation, DataError, balanced_order, epoch_order, fill_batch, prefetch, targets};
use kiln_model::Network;
use web_time::Instant;

use super::Trainer;
use super::event::{Event, SkippedStep, StepMetrics, TrainError};
use crate::checkpoint::{Header, Running};
use crate::recipe::{Sampling, Training};
use crate::recovery::MAX_SKIPPED;
use crate::training::gradients::scalar;
use crate::training::loss::{cross_entropy, mixed_targets};
use crate::{Ema, ParameterGradients, Sgd};

/// What a step leaves on the device.
pub struct Numbers {
    /// `[1]`
    loss: Tensor<1>,
    /// Images whose class scored highest `[1]`.
    correct: Tensor<1, Int>,
    /// Sum of all gradients `[1]`, which is finite if they are.
    gradients: Tensor<1>,
}

/// What a step starts from.
enum Seen {
    /// `[n, 3, H, W]`
    Images(Tensor<4>),
    /// What the head sees of them `[n, F]`, computed before.
    Features(Tensor<2>),
}

/// A run at some step. Tensors are shared with it, not copied.
pub struct Before {
    model: Network,
    running_statistics: Vec<Tensor<1>>,
    sgd: Sgd,
    ema: Option<Ema>,
    header: Header,
}

impl Trainer<'_> {
    /// Seconds of a step, measured by some of them, which are taken back: the run is afterwards where it was. The second
    /// half of 64 steps, or of as many as take three seconds: the first ones compile and allocate, and those after them
    /// still meet memory for the first time. Of a run of one step, all of it.
    ///
    /// # Errors
    /// As [`next`](Self::next).
    pub async fn measure_step_seconds(&mut self) -> Result<f64, TrainError> {
        const MOST_STEPS: usize = 64;
        const LONGEST: f64 = 3.0;
        let before = self.snapshot();
        let ahead = std::mem::take(&mut self.max_pending);
        let started = Instant::now();
        let mut ends = vec![];
        while let Some(event) = self.next().await? {
            match event {
                Event::Step(_) | Event::Skipped(_) => ends.push(started.elapsed().as_secs_f64()),
                Event::Epoch { .. } => break,
                Event::Queued | Event::Validating { .. } => {}
            }
            if ends.len() == MOST_STEPS || ends.len() > 2 && started.elapsed().as_secs_f64() > LONGEST {
                break;
            }
        }
        let whole = started.elapsed().as_secs_f64();
        self.max_pending = ahead;
        self.restore(before);
        let half = ends.len() / 2;
        Ok(match ends[half..] {
            [.., last] if half > 0 => (last - ends[half - 1]) / (ends.len() - half) as f64,
            _ => whole / ends.len().max(1) as f64,
        })
    }

    fn snapshot(&self) -> Before {
        Before {
            model: self.model.clone(),
            running_statistics: self.model.running_statistics(),
            sgd: self.sgd.clone(),
            ema: self.ema.clone(),
            header: self.header.clone(),
        }
    }

    fn restore(&mut self, before: Before) {
        self.model = before.model;
        self.model.restore_running_statistics(before.running_statistics);
        (self.sgd, self.ema, self.header) = (before.sgd, before.ema, before.header);
        (self.order, self.validation) = (vec![], None);
    }

    /// One step at a rate that is not the schedule's, and its loss, whatever that is.
    ///
    /// # Errors
    /// If an image cannot be read any more.
    pub(crate) async fn step_at(&mut self, learning_rate: f64) -> Result<f64, DataError> {
        self.step(learning_rate)?;
        let numbers = self.pending.pop().expect("a step leaves its numbers");
        Ok(scalar::<f32>(numbers.loss).await.into())
    }

    /// One step whose numbers stay on the device.
    pub(super) fn step(&mut self, learning_rate: f64) -> Result<(), DataError> {
        // Before the forward pass, which changes running statistics.
        if self.pending.is_empty() && self.max_pending > 0 {
            self.before = Some(self.snapshot());
        }
        let (gradients, numbers) = self.batch()?;
        self.update(gradients, learning_rate);
        self.pending.push(numbers);
        Ok(())
    }

    /// One step that is left out if its loss or gradient is not finite.
    pub(super) async fn careful_step(&mut self) -> Result<Option<SkippedStep>, TrainError> {
        let step = self.header.step;
        let learning_rate = self.learning_rate(step);
        let running_statistics = self.model.running_statistics();
        let (gradients, numbers) = self.batch()?;
        let Some((loss, correct)) = numbers.read().await else {
            self.model.restore_running_statistics(running_statistics.clone());
            let loss = f64::from(scalar::<f32>(numbers.loss).await);
            let place = self.place(&gradients).await?;
            self.model.restore_running_statistics(running_statistics);
            let recovery = &mut self.header.recovery;
            recovery.skip();
            let in_a_row = recovery.in_a_row;
            if in_a_row == MAX_SKIPPED {
                return Err(self.diverged(step, loss, place, learning_rate));
            }
            self.header.step += 1;
            return Ok(Some(SkippedStep {
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
    async fn place(&self, gradients: &ParameterGradients) -> Result<String, DataError> {
        Ok(match self.model.first_non_finite(self.images(self.batch_indices(), self.epoch())?).await {
            Some(layer) => format!("the output of {layer}"),
            None => format!("the gradient of {}", gradients.first_non_finite().await.unwrap_or("the loss")),
        })
    }

    pub(super) fn diverged(&self, step: usize, loss: f64, place: String, learning_rate: f64) -> TrainError {
        let epoch = step / self.steps_per_epoch + 1;
        let advice = two_digits(self.header.recipe.optimizer.lr / 4.0);
        TrainError::Diverged { step: step + 1, epoch, loss, learning_rate, place, advice }
    }

    /// Index of the epoch under way.
    fn epoch(&self) -> u64 {
        (self.header.step / self.steps_per_epoch) as u64
    }

    /// Starts to read the images of the step after this one, which then need not be waited for.
    fn prefetch_next(&self) {
        let Header { step, total_steps, ref recipe, .. } = self.header;
        let next = step + 1;
        if next % self.steps_per_epoch == 0 || next >= total_steps || self.features.is_full() {
            return;
        }
        let augment = recipe.augment_at(next, total_steps);
        let indices = &self.order[next % self.steps_per_epoch * self.batch_size..][..self.batch_size];
        prefetch(&self.data.train, indices, Some(&self.augmentation(&augment, self.epoch())));
    }

    /// The current step's images.
    fn batch_indices(&self) -> &[u32] {
        &self.order[self.header.step % self.steps_per_epoch * self.batch_size..][..self.batch_size]
    }

    /// Forward and backward: one batch, in as many parts as the recipe says.
    fn batch(&mut self) -> Result<(ParameterGradients, Numbers), DataError> {
        let Training { seed, micro_batches, clip_norm, sampling, .. } = self.header.recipe.training;
        if self.header.step.is_multiple_of(self.steps_per_epoch) || self.order.is_empty() {
            self.order = match sampling {
                Sampling::Shuffled => epoch_order(&self.split.train, seed, self.epoch()),
                Sampling::Balanced => balanced_order(&self.split.train, &self.data.train.labels, seed, self.epoch()),
            };
        }
        let mut total: Option<(ParameterGradients, Tensor<1>, Tensor<1, Int>)> = None;
        let mut parts = self.batch_indices().chunks(self.batch_size.div_ceil(micro_batches)).peekable();
        while let Some(part) = parts.next() {
            let seen = match self.features.of(part) {
                Some(features) => Seen::Features(features),
                None => Seen::Images(self.images(part, self.epoch())?),
            };
            if parts.peek().is_none() {
                self.prefetch_next();
            }
            let (gradients, loss, correct) = self.forward_backward(part, seen);
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
        Ok((gradients, numbers))
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
    fn forward_backward(&self, part: &[u32], seen: Seen) -> (ParameterGradients, Tensor<1>, Tensor<1, Int>) {
        let Header { step, total_steps, ref recipe, ref classes, .. } = self.header;
        let (set, device) = (&self.data.train, &self.device);
        let augment = recipe.augment_at(step, total_steps);
        let targets = targets(set, part, Some(&self.augmentation(&augment, self.epoch())));
        let features = match seen {
            Seen::Features(features) => features,
            Seen::Images(images) => self.model.features_beyond(images, recipe.training.freeze), // [n, F]
        };
        let logits = self.model.classify(features); // [n, classes]
        let mut distributions = mixed_targets(&targets, classes.len(), recipe.training.label_smoothing, device);
        if let Some(weights) = &self.class_weights {
            distributions = distributions * weights.clone();
        }
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
    fn images(&self, indices: &[u32], epoch: u64) -> Result<Tensor<4>, DataError> {
        let Header { step, total_steps, ref recipe, mean, std, .. } = self.header;
        let set = &self.data.train;
        let augment = recipe.augment_at(step, total_steps);
        let mut pixels = vec![];
        fill_batch(set, indices, Some(&self.augmentation(&augment, epoch)), mean, std, &mut pixels)?;
        Ok(Tensor::from_data(TensorData::new(pixels, [indices.len(), 3, set.height, set.width]), &self.device))
    }

    fn augmentation<'b>(&'b self, augment: &'b Augment, epoch: u64) -> Augmentation<'b> {
        Augmentation { augment, seed: self.header.recipe.training.seed, epoch, partners: &self.split.train }
    }

    pub(super) fn learning_rate(&self, step: usize) -> f64 {
        let Header { recipe, total_steps, recovery, .. } = &self.header;
        recipe.optimizer.lr * recipe.schedule.factor(step, *total_steps) * 0.5_f64.powi(recovery.halvings)
    }

    /// Waits for the numbers that are still on the device and takes them in. If those of a step are not finite, the run
    /// is afterwards where it was before them all, to do these steps one by one.
    pub(super) async fn read_pending(&mut self) {
        let pending = std::mem::take(&mut self.pending);
        if pending.is_empty() {
            return;
        }
        let mut numbers = Some(vec![]);
        for step in pending {
            let read = step.read().await;
            numbers = numbers.zip(read).map(|(mut all, one)| {
                all.push(one);
                all
            });
        }
        let before = self.before.take();
        match (numbers, before) {
            (Some(numbers), _) => numbers.into_iter().for_each(|(loss, correct)| self.count(loss, correct)),
            (None, Some(before)) => {
                self.careful_until = self.header.step;
                let Header { seconds, running: Running { seconds: in_epoch, .. }, .. } = self.header;
                self.restore(before);
                self.header.seconds = seconds;
                self.header.running.seconds = in_epoch;
            }
            (None, None) => unreachable!("pending steps have a beginning"),
        }
    }

    pub(super) fn step_metrics(&self) -> StepMetrics {
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
}

impl Numbers {
    /// Loss and correct images, if loss and gradients are finite. Waits for the device.
    async fn read(&self) -> Option<(f64, usize)> {
        let loss = scalar::<f32>(self.loss.clone()).await;
        let gradients = scalar::<f32>(self.gradients.clone()).await;
        if !loss.is_finite() || !gradients.is_finite() {
            return None;
        }
        let correct = self.correct.clone().into_scalar_async::<i32>().await;
        Some((loss.into(), correct.unwrap_or_else(|error| panic!("{error}")) as usize))
    }
}

/// Rounded to two significant digits, for a message.
fn two_digits(value: f64) -> f64 {
    format!("{value:.1e}").parse().unwrap_or(value)
}
