//! A run's folder. Every file in it appears whole or not at all.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use crate::checkpoint::{Checkpoint, CheckpointError, Header};
use crate::files;

/// The folder that a run writes into.
#[derive(Clone, Debug)]
pub struct RunDir(PathBuf);

/// A run folder that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum RunDirError {
    #[error("cannot {action} {}: {source}", path.display())]
    Io { action: &'static str, path: PathBuf, source: io::Error },
    #[error("{path} holds a run already: go on with it with --resume {path}, or choose another --out", path = .0.display())]
    Occupied(PathBuf),
    #[error("{} cannot be resumed: {source}", path.display())]
    Checkpoint { path: PathBuf, source: CheckpointError },
}

pub(crate) fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> RunDirError {
    move |source| RunDirError::Io { action, path: path.to_owned(), source }
}

/// Writes a file so that whatever happens, `path` holds either its old contents or all of the new.
pub fn write_whole(path: &Path, bytes: &[u8]) -> Result<(), RunDirError> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let write = || {
        let mut builder = tempfile::Builder::new();
        // As any other file: what the user's umask leaves, not the owner alone.
        #[cfg(unix)]
        builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
        let mut file = builder.tempfile_in(folder)?;
        file.write_all(bytes)?;
        file.as_file().sync_all()?;
        file.persist(path)?;
        // The new name lasts only once the folder is on disk too; Windows opens no folders.
        if cfg!(unix) { File::open(folder)?.sync_all() } else { Ok(()) }
    };
    write().map_err(failed("write", path))
}

impl RunDir {
    /// Makes the folder for a new run.
    pub fn create(path: &Path) -> Result<Self, RunDirError> {
        let run = Self(path.to_owned());
        if run.last().exists() || run.bundle().exists() {
            return Err(RunDirError::Occupied(path.to_owned()));
        }
        fs::create_dir_all(path).map_err(failed("create", path))?;
        // Better to learn now than after the first epoch that nothing can be written here.
        write_whole(&run.metrics(), b"")?;
        Ok(run)
    }

    /// Makes `runs/<name>-<n>` with the first free n, from 1.
    pub fn create_numbered(runs: &Path, name: &str) -> Result<Self, RunDirError> {
        let free = (1..).map(|n| runs.join(format!("{name}-{n}"))).find(|path| !path.exists());
        Self::create(&free.expect("the numbers don't end"))
    }

    /// Opens the folder of an earlier run.
    pub fn open(path: &Path) -> Self {
        Self(path.to_owned())
    }

    pub fn path(&self) -> &Path {
        &self.0
    }

    /// The checkpoint after the last epoch, or where the run was stopped.
    pub fn last(&self) -> PathBuf {
        self.0.join("last.ckpt")
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
        let bytes = files::read(path, files::CHECKPOINT_BYTES).map_err(failed("read", path))?;
        Checkpoint::from_bytes(&bytes).map_err(|source| RunDirError::Checkpoint { path: path.to_owned(), source })
    }

    /// Saves a checkpoint as `last.ckpt`, and as `best.ckpt` too if it is the best, with the metrics
    /// up to it.
    pub fn save(&self, checkpoint: &Checkpoint, is_best: bool) -> Result<(), RunDirError> {
        let path = self.last();
        let bytes = checkpoint.to_bytes().map_err(|source| RunDirError::Checkpoint { path: path.clone(), source })?;
        if is_best {
            write_whole(&self.best(), &bytes)?;
        }
        write_whole(&path, &bytes)?;
        write_whole(&self.metrics(), metrics(&checkpoint.header).as_bytes())
    }
}

/// The finished epochs, one JSON object a line.
fn metrics(header: &Header) -> String {
    header.history.iter().map(|epoch| serde_json::to_string(epoch).expect("plain numbers") + "\n").collect()
}
