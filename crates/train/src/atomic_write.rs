//! Files that are there whole or not at all, whatever happens while they are written.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use tempfile::NamedTempFile;

/// Name of a file that is being written; what a killed process left of it is swept by these.
const PREFIX: &str = ".kiln-";
const SUFFIX: &str = ".tmp";

/// A file's new contents, on disk beside it: nothing is lost yet, and little can fail any more.
pub(crate) struct Staged {
    file: NamedTempFile,
    path: PathBuf,
}

impl Staged {
    /// Writes `bytes` beside `path` and waits until they are on disk.
    pub fn new(path: &Path, bytes: &[u8]) -> io::Result<Self> {
        Self::with(path, |file| file.write_all(bytes))
    }

    /// Has the contents written beside `path` and waits until they are on disk.
    pub fn with(path: &Path, write: impl FnOnce(&mut File) -> io::Result<()>) -> io::Result<Self> {
        let mut builder = tempfile::Builder::new();
        builder.prefix(PREFIX).suffix(SUFFIX);
        // As any other file: what the user's umask leaves, not the owner alone.
        #[cfg(unix)]
        builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
        attempt()?;
        let mut file = builder.tempfile_in(folder(path))?;
        attempt()?;
        write(file.as_file_mut())?;
        attempt()?;
        file.as_file().sync_all()?;
        Ok(Self { file, path: path.to_owned() })
    }

    /// Puts them in place of the file's old ones.
    pub fn commit(self) -> io::Result<()> {
        attempt()?;
        self.file.persist(&self.path)?;
        sync_folder(&self.path)
    }
}

/// Writes a file so that whatever happens, `path` holds either its old contents or all of the new.
pub(crate) fn write_whole(path: &Path, bytes: &[u8]) -> io::Result<()> {
    Staged::new(path, bytes)?.commit()
}

/// As [`write_whole`], with contents that are never in memory as a whole.
pub(crate) fn write_whole_with(path: &Path, write: impl FnOnce(&mut File) -> io::Result<()>) -> io::Result<()> {
    Staged::with(path, write)?.commit()
}

/// Gives a file another name in its folder, over a file that has it. `false` if there is no such file.
pub(crate) fn rename(from: &Path, to: &Path) -> io::Result<bool> {
    attempt()?;
    match fs::rename(from, to) {
        Ok(()) => sync_folder(to).map(|()| true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// Removes what killed processes left half written in a folder. No other process may be writing there.
pub(crate) fn sweep(folder: &Path) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name();
        if name.to_str().is_some_and(|name| name.starts_with(PREFIX) && name.ends_with(SUFFIX)) {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

fn folder(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// A new name lasts only once the folder is on disk too; Windows opens no folders.
fn sync_folder(path: &Path) -> io::Result<()> {
    attempt()?;
    if cfg!(unix) { File::open(folder(path))?.sync_all() } else { Ok(()) }
}

/// Every step that may fail passes here, so that a test can make it fail.
#[cfg(not(test))]
fn attempt() -> io::Result<()> {
    Ok(())
}

#[cfg(test)]
pub(crate) use faults::{Fault, attempt, with_fault};

#[cfg(test)]
mod faults {
    use std::cell::Cell;
    use std::io;

    /// What goes wrong at a step.
    #[derive(Clone, Copy, Debug, PartialEq)]
    pub enum Fault {
        /// It fails, and the next ones work again: a disk that was full for a moment.
        Once,
        /// It and all after it do nothing: the process was killed, or the power was cut.
        FromThenOn,
    }

    thread_local! {
        static FAULT: Cell<Option<(usize, Fault)>> = const { Cell::new(None) };
        static STEP: Cell<usize> = const { Cell::new(0) };
    }

    pub fn attempt() -> io::Result<()> {
        let step = STEP.replace(STEP.get() + 1);
        match FAULT.get() {
            Some((at, Fault::Once)) if step == at => Err(io::ErrorKind::StorageFull.into()),
            Some((at, Fault::FromThenOn)) if step >= at => Err(io::ErrorKind::Other.into()),
            _ => Ok(()),
        }
    }

    /// Runs `work` with a fault at one of its steps, from 0. Its result, and how many steps it took.
    pub fn with_fault<T>(at: usize, fault: Fault, work: impl FnOnce() -> T) -> (T, usize) {
        STEP.set(0);
        FAULT.set(Some((at, fault)));
        let result = work();
        FAULT.set(None);
        (result, STEP.get())
    }
}
