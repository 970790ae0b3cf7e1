//! When a run is saved, and what becomes of a save that fails.

use std::cell::RefCell;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use kiln_train::Checkpoint;
use kiln_train::run_dir::{RunDir, RunDirError};

use super::screen::Progress;

/// What is to be said of a run should its GPU fail.
#[derive(Default)]
pub struct Stand {
    /// Its folder, once it can be resumed.
    pub run: Option<PathBuf>,
    /// Of the last checkpoint.
    pub step: usize,
    pub micro_batches: usize,
}

/// Saves a run now and then; a save that fails is made up for by the next.
pub struct Saver<'a> {
    run: &'a RunDir,
    stand: &'a RefCell<Stand>,
    /// The best epoch's checkpoint, while it is not on disk.
    pub best: Option<Checkpoint>,
    /// When the last save was tried, and whether it failed.
    tried: (Instant, bool),
}

impl<'a> Saver<'a> {
    /// Between two saves in the middle of an epoch.
    const EVERY: Duration = Duration::from_secs(300);
    /// Between two tries of one that fails.
    const AGAIN: Duration = Duration::from_secs(30);

    pub fn new(run: &'a RunDir, stand: &'a RefCell<Stand>) -> Self {
        Self { run, stand, best: None, tried: (Instant::now(), false) }
    }

    pub fn is_behind(&self) -> bool {
        self.tried.1
    }

    pub fn is_due(&self) -> bool {
        let (since, failed) = self.tried;
        since.elapsed() > if failed { Self::AGAIN } else { Self::EVERY }
    }

    pub fn save(&mut self, checkpoint: Checkpoint) -> Result<(), RunDirError> {
        self.tried = (Instant::now(), true);
        if let Some(best) = &self.best {
            self.run.save_best(best)?;
            self.best = None;
        }
        self.run.save(&checkpoint)?;
        let mut stand = self.stand.borrow_mut();
        (stand.run, stand.step) = (Some(self.run.path().to_owned()), checkpoint.header.step);
        self.tried.1 = false;
        Ok(())
    }

    /// Warns of what fails: a disk that is full for a while should not cost hours of training.
    pub fn try_save(&mut self, checkpoint: Checkpoint, progress: &Progress) {
        if let Err(error) = self.save(checkpoint) {
            let step = self.stand.borrow().step;
            progress.warn(&format!(
                "{error}; the checkpoint after step {step} is as it was, training goes on and saves again in {} seconds",
                Self::AGAIN.as_secs()
            ));
        }
    }
}
