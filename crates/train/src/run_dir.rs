//! A run's folder. Every file in it appears whole or not at all.

use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

use kiln_data::bounded_read;
use kiln_model::MAX_BUNDLE_BYTES;

use crate::atomic_write::{self, Staged};
use crate::checkpoint::{Checkpoint, CheckpointError, Header};

/// Largest checkpoint: model, momentum and a moving average.
const CHECKPOINT_BYTES: u64 = 3 * MAX_BUNDLE_BYTES + bounded_read::TEXT_BYTES;

/// The folder that a run writes into.
#[derive(Clone, Debug)]
pub struct RunDir(PathBuf);

/// A run folder that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum RunDirError {
    #[error("cannot {action} {}: {source}", path.display())]
    Io { action: &'static str, path: PathBuf, source: io::Error },
    #[error("{} already contains a run", .0.display())]
    Occupied(PathBuf),
    #[error("{} cannot be read: {source}", path.display())]
    Checkpoint { path: PathBuf, source: CheckpointError },
    #[error("{} contains no checkpoint to resume from: start the run anew", .0.display())]
    Empty(PathBuf),
    #[error("both checkpoints in {} are damaged: {last}; {previous}", folder.display())]
    Damaged { folder: PathBuf, last: Box<RunDirError>, previous: Box<RunDirError> },
    #[error("another process is training in {}", .0.display())]
    Locked(PathBuf),
}

pub(crate) fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> RunDirError {
    move |source| RunDirError::Io { action, path: path.to_owned(), source }
}

/// Writes a file so that whatever happens, `path` holds either its old contents or all of the new.
pub fn write_whole(path: &Path, bytes: &[u8]) -> Result<(), RunDirError> {
    atomic_write::write_whole(path, bytes).map_err(failed("write", path))
}

/// As [`write_whole`], with contents that `write` hands over piece by piece.
pub fn write_whole_with(path: &Path, write: impl FnOnce(&mut File) -> io::Result<()>) -> Result<(), RunDirError> {
    atomic_write::write_whole_with(path, write).map_err(failed("write", path))
}

/// That no other process trains in a folder for as long as this lives.
#[derive(Debug)]
pub struct RunLock(#[expect(dead_code, reason = "the system lets go of the lock when the file is closed")] File);

/// The checkpoint that a run resumes from.
#[derive(Debug)]
pub struct Latest {
    pub checkpoint: Checkpoint,
    /// Why it is the one before the last, if it is.
    pub passed_over: Option<RunDirError>,
}

impl RunDir {
    /// Makes the folder for a new run.
    pub fn create(path: &Path) -> Result<Self, RunDirError> {
        let run = Self(path.to_owned());
        if [run.last(), run.previous(), run.bundle()].iter().any(|path| path.exists()) {
            return Err(RunDirError::Occupied(path.to_owned()));
        }
        fs::create_dir_all(path).map_err(failed("create", path))?;
        Ok(run)
    }

    /// Makes `runs/<name>-<n>` with the first free n, from 1.
    pub fn create_numbered(runs: &Path, name: &str) -> Result<Self, RunDirError> {
        fs::create_dir_all(runs).map_err(failed("create", runs))?;
        let mut n = 1;
        loop {
            let path = runs.join(format!("{name}-{n}"));
            match fs::create_dir(&path) {
                Ok(()) => return Ok(Self(path)),
                // Looking first would let two runs that start at once take the same one.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => n += 1,
                Err(error) => return Err(failed("create", &path)(error)),
            }
        }
    }

    /// Keeps other processes from training here, and removes what an earlier one left half written.
    pub fn lock(&self) -> Result<RunLock, RunDirError> {
        let path = self.0.join("train.lock");
        let file = File::create(&path).map_err(failed("create", &path))?;
        match file.try_lock() {
            Err(TryLockError::WouldBlock) => return Err(RunDirError::Locked(self.0.clone())),
            // Some network file systems have no locks; better to train there without one than not at all.
            Ok(()) | Err(TryLockError::Error(_)) => {}
        }
        atomic_write::sweep(&self.0).map_err(failed("clean", &self.0))?;
        Ok(RunLock(file))
    }

    /// Opens the folder of an earlier run.
    pub fn open(path: &Path) -> Self {
        Self(path.to_owned())
    }

    pub fn path(&self) -> &Path {
        &self.0
    }

    /// The newest checkpoint.
    pub fn last(&self) -> PathBuf {
        self.0.join("last.ckpt")
    }

    /// The one that was last before it, in case that one is damaged.
    pub fn previous(&self) -> PathBuf {
        self.0.join("previous.ckpt")
    }

    /// The checkpoint after the best epoch by validation.
    pub fn best(&self) -> PathBuf {
        self.0.join("best.ckpt")
    }

    pub fn bundle(&self) -> PathBuf {
        self.0.join("model.safetensors")
    }

    pub fn metrics(&self) -> PathBuf {
        self.0.join("metrics.jsonl")
    }

    pub fn recipe(&self) -> PathBuf {
        self.0.join("recipe.toml")
    }

    /// Where and with which arguments it was started, and gone on with.
    pub fn environment(&self) -> PathBuf {
        self.0.join("environment.json")
    }

    /// What `kiln eval` found of the bundle.
    pub fn evaluation(&self) -> PathBuf {
        self.0.join("evaluation.json")
    }

    /// Pictures of the report.
    pub fn figures(&self) -> PathBuf {
        self.0.join("figures")
    }

    pub fn report(&self) -> PathBuf {
        self.0.join("report.html")
    }

    /// Reads a checkpoint and checks it against its digest.
    pub fn read(path: &Path) -> Result<Checkpoint, RunDirError> {
        let bytes = bounded_read::read(path, CHECKPOINT_BYTES).map_err(failed("read", path))?;
        Checkpoint::from_bytes(&bytes).map_err(|source| RunDirError::Checkpoint { path: path.to_owned(), source })
    }

    /// The newest checkpoint that is whole.
    ///
    /// # Errors
    /// If there is none, or neither of the two is whole.
    pub fn latest(&self) -> Result<Latest, RunDirError> {
        let (last, previous) = (self.last(), self.previous());
        let found = match Self::read(&last) {
            Ok(checkpoint) => return Ok(Latest { checkpoint, passed_over: None }),
            Err(error) => error,
        };
        match (last.exists(), previous.exists()) {
            (false, false) => Err(RunDirError::Empty(self.0.clone())),
            (true, false) => Err(found),
            // Without a last one, saving was cut between its two renames: there is nothing to tell.
            (is_damaged, true) => match Self::read(&previous) {
                Ok(checkpoint) => Ok(Latest { checkpoint, passed_over: is_damaged.then_some(found) }),
                Err(previous) => Err(RunDirError::Damaged {
                    folder: self.0.clone(),
                    last: Box::new(found),
                    previous: Box::new(previous),
                }),
            },
        }
    }

    /// Renames a damaged `last.ckpt` to `damaged.ckpt`, so that the next save does not make it the previous one.
    pub fn set_aside(&self) -> Result<(), RunDirError> {
        atomic_write::rename(&self.last(), &self.0.join("damaged.ckpt")).map_err(failed("rename", &self.last()))?;
        Ok(())
    }

    /// Saves a checkpoint as `best.ckpt`.
    pub fn save_best(&self, checkpoint: &Checkpoint) -> Result<(), RunDirError> {
        let path = self.best();
        write_whole(&path, &bytes(checkpoint, &path)?)
    }

    /// Saves a checkpoint as `last.ckpt`, with the metrics up to it, and keeps the one that was there as
    /// `previous.ckpt`. Cut or failing at any point, it leaves one or the other whole.
    pub fn save(&self, checkpoint: &Checkpoint) -> Result<(), RunDirError> {
        let path = self.last();
        let staged = Staged::new(&path, &bytes(checkpoint, &path)?).map_err(failed("write", &path))?;
        atomic_write::rename(&path, &self.previous()).map_err(failed("rename", &path))?;
        staged.commit().map_err(failed("write", &path))?;
        write_whole(&self.metrics(), metrics(&checkpoint.header).as_bytes())
    }
}

fn bytes(checkpoint: &Checkpoint, path: &Path) -> Result<Vec<u8>, RunDirError> {
    checkpoint.to_bytes().map_err(|source| RunDirError::Checkpoint { path: path.to_owned(), source })
}

/// The finished epochs, one JSON object a line.
fn metrics(header: &Header) -> String {
    header.history.iter().map(|epoch| serde_json::to_string(epoch).expect("plain numbers") + "\n").collect()
}

#[cfg(all(test, feature = "burn"))]
mod tests {
    use burn::tensor::Device;
    use kiln_data::synthetic;

    use super::*;
    use crate::atomic_write::{Fault, with_fault};
    use crate::recipe::BUILT_IN;
    use crate::{Recipe, Trainer};

    /// A checkpoint of a run that has done no step, which says that it has done so many.
    fn checkpoint(step: usize) -> Checkpoint {
        let overrides = ["model.width=2".to_owned(), "training.batch_size=8".to_owned()];
        let recipe = Recipe::parse(BUILT_IN[0].1, &overrides).unwrap();
        let data = synthetic(20, 0, 0);
        let mut trainer = Trainer::new(recipe, &data, None, &Device::flex()).unwrap();
        let mut checkpoint = pollster::block_on(trainer.checkpoint());
        checkpoint.header.step = step;
        checkpoint
    }

    fn run() -> (tempfile::TempDir, RunDir) {
        let folder = tempfile::tempdir().unwrap();
        let run = RunDir::create(folder.path()).unwrap();
        (folder, run)
    }

    fn step(run: &RunDir) -> usize {
        run.latest().unwrap().checkpoint.header.step
    }

    #[test]
    fn whatever_fails_in_a_save_leaves_a_checkpoint_that_loads() {
        let checkpoints = [1, 2, 3].map(checkpoint);
        for fault in [Fault::Once, Fault::FromThenOn] {
            // In a folder with one checkpoint, and in one with a generation before it.
            for saved in [1, 2] {
                let mut at = 0;
                loop {
                    let (_folder, run) = run();
                    checkpoints[..saved].iter().for_each(|checkpoint| run.save(checkpoint).unwrap());
                    let next = &checkpoints[saved];
                    let (result, steps) = with_fault(at, fault, || run.save(next));
                    if at == steps {
                        assert!(result.is_ok() && steps >= 12, "{steps} steps of a whole save");
                        break;
                    }
                    assert!(result.is_err(), "step {at}: {fault:?}");
                    let found = step(&run);
                    assert!([saved, saved + 1].contains(&found), "step {at}, {fault:?}: {found} of {saved}");
                    // As the next process finds it.
                    drop(run.lock().unwrap());
                    run.save(next).unwrap();
                    assert_eq!(step(&run), saved + 1);
                    let left: Vec<_> =
                        fs::read_dir(run.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
                    assert!(!left.iter().any(|name| name.to_string_lossy().ends_with(".tmp")), "{left:?}");
                    at += 1;
                }
            }
        }
    }

    #[test]
    fn a_damaged_checkpoint_falls_back_to_the_one_before() {
        let (_folder, run) = run();
        assert!(matches!(run.latest(), Err(RunDirError::Empty(_))));
        run.save(&checkpoint(1)).unwrap();
        let whole = fs::read(run.last()).unwrap();
        for damage in
            [&whole[..0], &whole[..whole.len() / 2], &[&whole[..whole.len() - 1], &[!whole[whole.len() - 1]]].concat()]
        {
            fs::write(run.last(), damage).unwrap();
            assert!(matches!(run.latest(), Err(RunDirError::Checkpoint { .. })), "there is no other");
        }
        fs::write(run.last(), &whole).unwrap();
        run.save(&checkpoint(2)).unwrap();
        fs::write(run.last(), &whole[..100]).unwrap();
        let latest = run.latest().unwrap();
        assert_eq!(latest.checkpoint.header.step, 1);
        assert!(latest.passed_over.unwrap().to_string().contains("last.ckpt"));

        run.set_aside().unwrap();
        run.save(&checkpoint(3)).unwrap();
        assert_eq!(step(&run), 3);
        assert_eq!(RunDir::read(&run.previous()).unwrap().header.step, 1, "the damaged one did not take its place");
        for path in [run.last(), run.previous()] {
            fs::write(path, "").unwrap();
        }
        assert!(matches!(run.latest(), Err(RunDirError::Damaged { .. })));
    }

    #[test]
    fn a_folder_is_one_runs_alone() {
        let (_folder, run) = run();
        let lock = run.lock().unwrap();
        assert!(matches!(run.lock(), Err(RunDirError::Locked(_))));
        drop(lock);
        run.lock().unwrap();
        run.save(&checkpoint(1)).unwrap();
        assert!(matches!(RunDir::create(run.path()), Err(RunDirError::Occupied(_))));
    }

    #[test]
    fn numbered_folders_are_made_once() {
        let folder = tempfile::tempdir().unwrap();
        let runs: Vec<_> = (0..3).map(|_| RunDir::create_numbered(folder.path(), "quick").unwrap()).collect();
        let names: Vec<_> = runs.iter().map(|run| run.path().file_name().unwrap().to_str().unwrap()).collect();
        assert_eq!(names, ["quick-1", "quick-2", "quick-3"]);
    }
}
