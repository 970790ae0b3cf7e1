//! The archives of CIFAR-10 and CIFAR-100, read without trusting it.
//!
//! Only members of the names expected are looked at, only regular files, none larger than an honest
//! one. A member that tries to get out of its folder, or a link, condemns the archive.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{self, BufReader, Read},
    path::{Component, Path, PathBuf},
};

use flate2::read::GzDecoder;
use tar::{Archive, Entry, EntryType};

use crate::{
    cifar::{CIFAR10, CIFAR100, Cifar},
    dataset::Dataset,
    download::sync_folder,
    error::DataError,
    folder,
};

/// What an archive holds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum ArchiveKind {
    /// The binary files of one of these.
    Cifar(&'static Cifar),
    /// Images in folders named after their classes.
    Images,
}

type TarGz = Archive<GzDecoder<BufReader<File>>>;

fn open(path: &Path) -> Result<TarGz, DataError> {
    let file = File::open(path).map_err(DataError::io("open", path))?;
    Ok(Archive::new(GzDecoder::new(BufReader::new(file))))
}

/// Tells what an archive holds by the first member that shows it.
pub(crate) fn kind(path: &Path) -> Result<ArchiveKind, DataError> {
    for entry in open(path)?.entries().map_err(DataError::io("read", path))? {
        let entry = entry.map_err(DataError::io("read", path))?;
        let member = entry.path().map_err(DataError::io("read", path))?;
        if let Some(cifar) = [&CIFAR10, &CIFAR100].into_iter().find(|cifar| expected_name(cifar, &member).is_some()) {
            return Ok(ArchiveKind::Cifar(cifar));
        }
        if folder::is_archived_image(&member) {
            return Ok(ArchiveKind::Images);
        }
    }
    Err(DataError::NoImages { path: path.into() })
}

/// Reads a set out of its archive, in memory.
pub(crate) fn read_cifar(cifar: &Cifar, path: &Path) -> Result<Dataset, DataError> {
    let mut batches = BTreeMap::new();
    visit_members(cifar, path, |name, entry| {
        let mut bytes = Vec::new();
        entry.read_to_end(&mut bytes).map_err(DataError::io("read", path))?;
        batches.insert(name, bytes);
        Ok(())
    })?;
    cifar.dataset(|name| batches.remove(name).ok_or(DataError::MissingFile { path: path.into(), file: name }), path)
}

/// Unpacks a set's archive into `data_dir` and returns the folder made there, [`Cifar::folder`], with the
/// set's files.
///
/// The files are written beside their final place and moved there when all are complete: either the
/// whole folder appears or nothing.
///
/// # Errors
///
/// [`DataError::UnsafeArchive`] for a member with an absolute path, `..`, a link, a device, a size
/// beyond that of the official files, or a second one of the same name; [`DataError::MissingFile`] for
/// an incomplete archive; [`DataError::Io`] for an archive that is damaged, a disk that is full, or a
/// folder that is there already.
pub fn unpack_cifar(cifar: &Cifar, archive: &Path, data_dir: &Path) -> Result<PathBuf, DataError> {
    fs::create_dir_all(data_dir).map_err(DataError::io("create", data_dir))?;
    // Removed with all that is in it when this function ends early.
    let temporary = tempfile::Builder::new()
        .prefix(".cifar-")
        .tempdir_in(data_dir)
        .map_err(DataError::io("create a folder in", data_dir))?;
    let unpacked = temporary.path().join(cifar.folder);
    fs::create_dir(&unpacked).map_err(DataError::io("create", &unpacked))?;

    visit_members(cifar, archive, |name, entry| {
        let path = unpacked.join(name);
        let mut file = File::create_new(&path).map_err(DataError::io("create", &path))?;
        io::copy(entry, &mut file).map_err(DataError::io("unpack", archive))?;
        file.sync_all().map_err(DataError::io("write", &path))
    })?;

    let folder = data_dir.join(cifar.folder);
    sync_folder(&unpacked).map_err(DataError::io("write", &unpacked))?;
    fs::rename(&unpacked, &folder).map_err(DataError::io("create", &folder))?;
    sync_folder(data_dir).map_err(DataError::io("write", data_dir))?;
    Ok(folder)
}

/// Vets every member of an archive, and calls `visit` with name and contents of those expected.
fn visit_members(
    cifar: &Cifar,
    path: &Path,
    mut visit: impl FnMut(&'static str, &mut Entry<GzDecoder<BufReader<File>>>) -> Result<(), DataError>,
) -> Result<(), DataError> {
    let mut missing = [cifar.train, &[cifar.test]].concat();
    let most_bytes = (cifar.most_records * cifar.record_bytes()) as u64;
    let mut seen = Vec::new();
    for entry in open(path)?.entries().map_err(DataError::io("read", path))? {
        let mut entry = entry.map_err(DataError::io("read", path))?;
        let member = entry.path().map_err(DataError::io("read", path))?.into_owned();
        let refuse = |problem: String| DataError::UnsafeArchive {
            path: path.into(),
            member: member.display().to_string(),
            problem,
        };
        let stays_inside =
            member.components().all(|component| matches!(component, Component::Normal(_) | Component::CurDir));
        if !stays_inside {
            return Err(refuse("points outside of the folder".into()));
        }
        match entry.header().entry_type() {
            EntryType::Regular => {}
            // Remarks of the program that made the archive, such as git's.
            EntryType::Directory | EntryType::XGlobalHeader => continue,
            EntryType::Symlink | EntryType::Link => return Err(refuse("is a link".into())),
            other => return Err(refuse(format!("is no regular file (type {other:?})"))),
        }
        if entry.size() > most_bytes {
            let size = entry.size();
            return Err(refuse(format!("has {size} bytes, more than the {most_bytes} of the largest file")));
        }
        // Others, such as readme.html, are passed over.
        let Some(name) = expected_name(cifar, &member) else { continue };
        if seen.contains(&name) {
            return Err(refuse("is there twice".into()));
        }
        seen.push(name);
        missing.retain(|&batch| batch != name);
        visit(name, &mut entry)?;
    }
    match missing.first() {
        Some(file) => Err(DataError::MissingFile { path: path.into(), file }),
        None => Ok(()),
    }
}

/// The file's name, if `member` is the set's folder and a name that is expected there.
fn expected_name(cifar: &Cifar, member: &Path) -> Option<&'static str> {
    let name = member.strip_prefix("./").unwrap_or(member).strip_prefix(cifar.folder).ok()?;
    let expected = [cifar.train, &[cifar.test], cifar.names].concat();
    expected.into_iter().find(|&expected| name == Path::new(expected))
}
