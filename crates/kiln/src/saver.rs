//! When a run is saved, and what happens after a save that fails.

use std::time::{Duration, Instant};

use kiln_train::Checkpoint;
use kiln_train::run_dir::{RunDir, RunDirError};

/// Saves a run now and then; a save that fails is made up for by the next.
pub struct Saver {
    /// The best epoch's checkpoint, while it is not on disk.
    pub best: Option<Checkpoint>,
    /// Steps of the last checkpoint on disk.
    pub step: usize,
    /// When the last save was tried, and whether it failed.
    tried: (Instant, bool),
}

impl Saver {
    /// Between two saves in the middle of an epoch.
    const EVERY: Duration = Duration::from_secs(300);
    /// Between two tries of one that fails.
    const AGAIN: Duration = Duration::from_secs(30);

    pub fn new() -> Self {
        Self { best: None, step: 0, tried: (Instant::now(), false) }
    }

    /// Whether the last save failed.
    pub fn is_behind(&self) -> bool {
        self.tried.1
    }

    pub fn is_due(&self) -> bool {
        let (since, failed) = self.tried;
        since.elapsed() > if failed { Self::AGAIN } else { Self::EVERY }
    }

    pub fn save(&mut self, run: &RunDir, checkpoint: &Checkpoint) -> Result<(), RunDirError> {
        self.tried = (Instant::now(), true);
        if let Some(best) = &self.best {
            run.save_best(best)?;
            self.best = None;
        }
        run.save(checkpoint)?;
        self.step = checkpoint.header.step;
        self.tried.1 = false;
        Ok(())
    }

    /// A warning if it fails: a disk that is full for a while should not cost hours of training.
    pub fn try_save(&mut self, run: &RunDir, checkpoint: &Checkpoint) -> Option<String> {
        let error = self.save(run, checkpoint).err()?;
        Some(format!(
            "{error}; the checkpoint after step {} is still there, training continues and saves again in {} seconds",
            self.step,
            Self::AGAIN.as_secs()
        ))
    }
}
