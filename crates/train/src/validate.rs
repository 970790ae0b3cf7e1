//! What a checkpoint says, checked before a run is made of it.

use kiln_model::validate::{self, ClaimError};
use kiln_model::{ConfigError, StateError};

use crate::{Checkpoint, Header, RecipeError};

/// A checkpoint with a right digest that no run of Kiln wrote.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointClaimError {
    #[error(transparent)]
    Claim(#[from] ClaimError),
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Recipe(#[from] RecipeError),
    #[error(transparent)]
    State(#[from] StateError),
    #[error("its recipe makes another network than its architecture")]
    Architecture,
    #[error("it says that {step} of {total_steps} steps are done")]
    Steps { step: usize, total_steps: usize },
    #[error("its epochs do not end one after the other, up to the step that it stands at")]
    Epochs,
    #[error("its {what} is {found}, which cannot be")]
    Number { what: &'static str, found: f64 },
}

/// Most steps of a run: a recipe's 100,000 epochs of as many steps.
const MOST_STEPS: u64 = 10_000_000_000;

impl Checkpoint {
    /// Refuses what no training writes, before anything is allocated by it.
    ///
    /// # Errors
    ///
    /// If the recipe, the architecture or a number is out of range, or a tensor does not belong to the network.
    pub fn check(&self) -> Result<(), CheckpointClaimError> {
        self.header.check()?;
        let architecture = &self.header.architecture;
        architecture.check_state(&self.model)?;
        if !self.ema.is_empty() {
            architecture.check_state(&self.ema)?;
        }
        // The optimizer keeps a flat buffer for each parameter that it has seen.
        for (name, buffer) in &self.momentum {
            let Some(parameter) = self.model.get(name) else {
                return Err(StateError::Unexpected(vec![name.clone()]).into());
            };
            let expected = vec![parameter.values.len()];
            if buffer.shape != expected {
                let (name, found) = (name.clone(), buffer.shape.clone());
                return Err(StateError::Shape { name, expected, found }.into());
            }
        }
        Ok(())
    }
}

impl Header {
    fn check(&self) -> Result<(), CheckpointClaimError> {
        self.architecture.validate()?;
        self.recipe.validate()?;
        validate::check_image_size(self.image_size)?;
        if self.recipe.architecture(self.architecture.classes(), self.image_size)? != self.architecture {
            return Err(CheckpointClaimError::Architecture);
        }
        validate::check_classes(&self.classes, &self.architecture)?;
        validate::check_normalization(self.mean, self.std)?;
        validate::check_preprocessing(self.preprocessing, self.image_size)?;
        validate::check_name("dataset", &self.dataset)?;
        validate::check_name("dataset digest", &self.dataset_digest)?;
        let (step, total_steps) = (self.step, self.total_steps);
        if step > total_steps || total_steps as u64 > MOST_STEPS {
            return Err(CheckpointClaimError::Steps { step, total_steps });
        }
        let ends: Vec<usize> = self.history.iter().map(|epoch| epoch.step).collect();
        if !ends.is_sorted_by(|a, b| a < b) || ends.last().is_some_and(|&end| end > step) {
            return Err(CheckpointClaimError::Epochs);
        }
        let running = [("running loss", self.running.loss), ("epoch's duration", self.running.seconds)];
        let halvings = ("number of halvings", f64::from(self.recovery.halvings));
        for (what, found) in running.into_iter().chain([("duration", self.seconds), halvings]) {
            if !(0.0..=1e15).contains(&found) {
                return Err(CheckpointClaimError::Number { what, found });
            }
        }
        Ok(())
    }
}
