//! What the head sees of the training images, computed once where it never changes: all but the head is frozen, and
//! images are not augmented.

use burn::module::Module;
use burn::tensor::{Int, Tensor, TensorData};
use kiln_data::DataError;
use kiln_model::Frozen;

use super::Trainer;
use crate::training::classifier::Pass;

/// The features of a run's training images.
pub enum FeatureCache {
    Empty,
    /// Being computed, a batch at a time.
    Filling(Box<Pass>),
    Full(Box<Features>),
}

/// What the head sees of each training image.
pub struct Features {
    /// `[N, F]`, on the run's device without autodiff.
    values: Tensor<2>,
    /// The row of each image of the set; of those not trained on, any.
    rows: Vec<i32>,
}

impl FeatureCache {
    pub fn is_full(&self) -> bool {
        matches!(self, Self::Full(_))
    }

    /// Those of the images at `indices`, `[n, F]`, if they are there.
    pub fn of(&self, indices: &[u32]) -> Option<Tensor<2>> {
        let Self::Full(features) = self else { return None };
        let rows: Vec<i32> = indices.iter().map(|index| features.rows[*index as usize]).collect();
        let rows = Tensor::<1, Int>::from_data(TensorData::new(rows, [indices.len()]), &features.values.device());
        Some(Tensor::from_inner(features.values.clone().select(0, rows)))
    }
}

impl Trainer<'_> {
    /// Whether a training image gives the head the same in every step, so that its features are computed once.
    pub fn keeps_features(&self) -> bool {
        let recipe = &self.header.recipe;
        recipe.training.freeze == Frozen::Backbone && recipe.augment.is_off()
    }

    /// Computes a batch of them.
    ///
    /// # Errors
    /// If an image cannot be read any more.
    pub(super) async fn compute_features(&mut self) -> Result<(), DataError> {
        let mut pass = match std::mem::replace(&mut self.features, FeatureCache::Empty) {
            FeatureCache::Empty => Box::new(self.classifier(self.model.valid()).pass(self.split.train.clone(), true)),
            FeatureCache::Filling(pass) => pass,
            full @ FeatureCache::Full(_) => {
                self.features = full;
                return Ok(());
            }
        };
        if !pass.advance(&self.data.train).await? {
            self.features = FeatureCache::Filling(pass);
            return Ok(());
        }
        let features = pass.finish(&self.data.train).await?.features;
        let shape = [self.split.train.len(), features.len() / self.split.train.len().max(1)];
        let values = Tensor::from_data(TensorData::new(features, shape), &self.device.clone().inner());
        let mut rows = vec![0; self.data.train.len()];
        for (row, index) in self.split.train.iter().enumerate() {
            rows[*index as usize] = row as i32;
        }
        self.features = FeatureCache::Full(Box::new(Features { values, rows }));
        Ok(())
    }
}
