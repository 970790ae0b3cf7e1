//! The training loop.

mod event;
mod features;
mod steps;
#[cfg(test)]
mod tests;

use burn::module::Module;
use burn::tensor::{Device, Tensor, TensorData};
use kiln_data::{DataError, Dataset, Split, balanced_weights};
use kiln_kernels::device::{awake, is_queued, multiplies};
use kiln_model::{Architecture, Init, Network, ResNetConfig, StateDict};
use web_time::Instant;

pub use self::event::{Event, SkippedStep, StepMetrics, TrainError};
use self::features::FeatureCache;
use self::steps::{Before, Numbers};
use crate::checkpoint::{Checkpoint, CheckpointError, EpochMetrics, Header, Running};
use crate::recipe::ClassWeights;
use crate::recovery::Recovery;
use crate::training::classifier::{BatchClassifier, Pass};
use crate::training::whitening::whitening;
use crate::{Ema, Recipe, Sgd};

/// Steps that a GPU works ahead: reading their numbers makes it wait.
const MAX_PENDING: usize = 16;

/// A run: network, optimizer, data and where it stands.
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
    /// The validation under way.
    validation: Option<Pass>,
    /// The run before the pending steps, to go back to should one of them not be finite.
    before: Option<Before>,
    /// Up to this step the numbers of each are read before its update.
    careful_until: usize,
    /// Weights of the classes in the loss `[1, classes]`, unless all are 1.
    class_weights: Option<Tensor<2>>,
    /// What the head sees of the training images, where that never changes.
    features: FeatureCache,
    /// Steps, from 0, whose loss is made not finite.
    #[cfg(test)]
    poisoned: Vec<usize>,
}

impl<'a> Trainer<'a> {
    /// Starts a run on `device` (without autodiff). `total_steps` is the recipe's unless given.
    pub fn new(
        mut recipe: Recipe,
        data: &'a Dataset,
        total_steps: Option<usize>,
        device: &Device,
    ) -> Result<Self, TrainError> {
        if recipe.training.image_size == 0 {
            recipe.training.image_size = data.train.height;
        }
        let (found, expected) = ([data.train.height, data.train.width], recipe.training.image_size);
        if found != [expected; 2] {
            return Err(TrainError::ImageSize { found, expected });
        }
        // Batches of black images have next to no variance, by which a batch norm divides.
        let padding = recipe.augment.crop_padding;
        if padding >= data.train.height {
            return Err(TrainError::CropPadding { padding, size: data.train.height });
        }
        let architecture = recipe.architecture(data.classes.len(), data.train.height)?;
        let seed = recipe.training.seed;
        if data.train.is_empty() {
            return Err(DataError::NoTrainingImages { name: data.name.clone() }.into());
        }
        let split = recipe.split(data)?;
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
            let mut state = drawn(&architecture, seed)?;
            let conv1 = state.get_mut("conv1.weight").expect("a residual network has a first convolution");
            let (filters, kernel) = (conv1.shape[0], conv1.shape[3]);
            let filters = whitening(&data.train, &split.train, [data.mean, data.std], kernel, filters)?;
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
            preprocessing: data.preprocessing,
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
        let sgd = Sgd::new(header.recipe.optimizer.clone()).by_layer(header.architecture.clone());
        let ema_decay = header.recipe.training.ema_decay;
        let ema = (ema_decay > 0.0).then(|| Ema::new(ema_decay));
        let max_pending = if is_queued(&device) { MAX_PENDING } else { 0 };
        let class_weights = (header.recipe.training.class_weights == ClassWeights::Balanced).then(|| {
            let weights = balanced_weights(&split.train, &data.train.labels, data.classes.len());
            Tensor::from_data(TensorData::new(weights, [1, data.classes.len()]), &device)
        });
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
            max_pending,
            validation: None,
            before: None,
            careful_until: 0,
            class_weights,
            features: FeatureCache::Empty,
            #[cfg(test)]
            poisoned: vec![],
        })
    }

    /// Continues from a checkpoint of a run with the same recipe, data and architecture, but for the fields whose change
    /// is `allowed`: keys of the recipe, and `dataset`.
    ///
    /// With nothing changed it reaches the same bits as if it had never stopped, on devices that compute the same every time.
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
        // The same data in memory and streamed has other digests.
        if data.has_digest(&old.dataset_digest) {
            trainer.header.dataset_digest.clone_from(&old.dataset_digest);
        }
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
        let Header { mean, std, step, seconds, running, recovery, history, .. } = old;
        trainer.header = Header { mean, std, step, seconds, running, recovery, history, ..trainer.header };
        Ok(trainer)
    }

    /// Starts with the weights and running statistics of a network of the same architecture, which may
    /// tell other classes apart: without `with_head` the head stays as it was drawn.
    pub fn with_weights(mut self, mut weights: StateDict, with_head: bool) -> Result<Self, TrainError> {
        if !with_head {
            let head = self.header.architecture.head();
            let is_head = |name: &str| head.contains(&name);
            weights.retain(|name, _| !is_head(name));
            let drawn = drawn(&self.header.architecture, self.header.recipe.training.seed)?;
            weights.extend(drawn.into_iter().filter(|(name, _)| is_head(name)));
        }
        self.model = self.model.load_state_dict(&weights)?;
        self.features = FeatureCache::Empty;
        Ok(self)
    }

    /// Normalizes images by a mean and a deviation of each channel that are not the data's, such as those that the weights to
    /// start with were trained with.
    pub fn with_normalization(mut self, mean: [f32; 3], std: [f32; 3]) -> Self {
        (self.header.mean, self.header.std) = (mean, std);
        self.features = FeatureCache::Empty;
        self
    }

    /// Lets the numbers of so many steps stay on the device before they are read: 16 on a GPU, which works ahead, and
    /// none on a CPU, where they are there at once.
    pub fn with_max_pending(mut self, steps: usize) -> Self {
        self.max_pending = steps;
        self
    }

    /// Changes the length of a run that has not begun.
    pub fn set_total_steps(&mut self, steps: usize) {
        self.header.total_steps = steps;
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

    /// The network for evaluation at this step: with the moving average of its weights if the recipe
    /// has one.
    pub async fn model(&self) -> Network {
        let model = self.model.valid();
        let Some(ema) = &self.ema else { return model };
        let state = ema.state().await;
        if state.is_empty() { model } else { model.load_state_dict(&state).expect("an average of these very weights") }
    }

    /// `network`, such as [`Self::model`], to be asked about images like those of this run.
    pub fn classifier(&self, network: Network) -> BatchClassifier {
        let Header { mean, std, ref classes, .. } = self.header;
        let (device, classes) = (self.device.clone().inner(), classes.clone());
        BatchClassifier { network, device, classes, mean, std, batch_size: self.batch_size }
    }

    /// The network with other weights, such as those of another epoch, to be asked about images like those of this run.
    ///
    /// # Errors
    /// If they are those of another network.
    pub fn classifier_of(&self, weights: &StateDict) -> Result<BatchClassifier, TrainError> {
        let network = self.header.architecture.init(0, &self.device.clone().inner())?.load_state_dict(weights)?;
        Ok(self.classifier(network))
    }

    /// Everything needed to resume from here. Waits for the steps that are still on the device.
    pub async fn checkpoint(&mut self) -> Checkpoint {
        self.read_pending().await;
        let ema = match &self.ema {
            Some(ema) => ema.state().await,
            None => StateDict::new(),
        };
        let (model, momentum) = (self.model.state_dict_async().await, self.sgd.state().await);
        Checkpoint { header: self.header.clone(), model, momentum, ema }
    }

    /// Does the next piece of work, a step or a batch of validation images, and says what came of it; `None` at the
    /// end of the run. A caller that stops calling stops the run.
    ///
    /// # Errors
    /// [`TrainError::Diverged`] when nothing can be saved by leaving steps out.
    pub async fn next(&mut self) -> Result<Option<Event>, TrainError> {
        if self.at_epoch_end() {
            return self.end_epoch().await.map(Some);
        }
        if self.header.step == self.header.total_steps {
            return Ok(None);
        }
        let started = Instant::now();
        if self.keeps_features() && !self.features.is_full() {
            self.compute_features().await?;
            self.header.seconds += started.elapsed().as_secs_f64();
            return Ok(Some(Event::Queued));
        }
        let _awake = awake(&self.device);
        let skipped = if self.max_pending == 0 || self.header.step < self.careful_until {
            self.careful_step().await?
        } else {
            self.step(self.learning_rate(self.header.step))?;
            None
        };
        if self.pending.len() > self.max_pending || self.at_epoch_end() {
            self.read_pending().await;
        }
        let seconds = started.elapsed().as_secs_f64();
        self.header.seconds += seconds;
        self.header.running.seconds += seconds;
        Ok(Some(match skipped {
            Some(skipped) => Event::Skipped(skipped),
            None if self.pending.is_empty() => Event::Step(self.step_metrics()),
            None => Event::Queued,
        }))
    }

    /// Whether an epoch's last step is done but its validation is not. The end of the run ends an
    /// epoch too, also in the middle of one.
    fn at_epoch_end(&self) -> bool {
        let Header { step, total_steps, ref history, .. } = self.header;
        let ended = step == total_steps || step % self.steps_per_epoch == 0;
        ended && step > history.last().map_or(0, |epoch| epoch.step)
    }

    /// Scores a batch of validation images or, once all are scored, adds the epoch to the history.
    async fn end_epoch(&mut self) -> Result<Event, TrainError> {
        let started = Instant::now();
        let (mut validation, mut balanced) = (None, None);
        if !self.split.validation.is_empty() {
            let mut pass = match self.validation.take() {
                Some(pass) => pass,
                None => self.classifier(self.model().await).pass(self.split.validation.clone(), false),
            };
            if !pass.advance(&self.data.train).await? {
                let [images, total] = pass.progress();
                self.validation = Some(pass);
                self.header.seconds += started.elapsed().as_secs_f64();
                return Ok(Event::Validating { images, total });
            }
            let predictions = pass.finish(&self.data.train).await?;
            balanced = predictions.balanced_accuracy();
            validation = Some(predictions.evaluation());
        }
        let StepMetrics { step, epoch, loss, accuracy, learning_rate, .. } = self.step_metrics();
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
        let metrics = EpochMetrics {
            epoch,
            step,
            learning_rate,
            train_loss: loss,
            train_accuracy: accuracy,
            validation_loss: validation.as_ref().map(|evaluation| evaluation.loss),
            validation_accuracy: validation.as_ref().map(|evaluation| evaluation.accuracy),
            validation_balanced_accuracy: balanced,
            seconds: self.header.seconds,
            images_per_second: running.images as f64 / running.seconds.max(1e-9),
        };
        self.header.history.push(metrics.clone());
        let is_best = self.header.best().is_some_and(|best| best.epoch == epoch);
        Ok(Event::Epoch { metrics, is_best })
    }
}

/// The weights that a network of that description starts with, on the host.
fn drawn(architecture: &Architecture, seed: u64) -> Result<StateDict, TrainError> {
    Ok(architecture.init(seed, &Device::flex())?.state_dict())
}
