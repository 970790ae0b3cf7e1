//! The archives of CIFAR-10 and CIFAR-100, read without trusting it.
//!
//! Only members of the names expected are looked at, only regular files, none larger than an honest
//! one. A member that tries to get out of its folder, or a link, condemns the archive.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{self, BufReader, Read},
    ops::ControlFlow,
    path::{Component, Path, PathBuf},
};

use flate2::read::GzDecoder;
use tar::{Archive, Entry, EntryType, PaxExtensions};

use crate::{cifar::Cifar, dataset::Dataset, download::sync_folder, error::DataError};

/// Longest name that a member may have.
const MAX_NAME: u64 = 4096;

/// A member's contents.
pub(crate) type Contents<'a> = Entry<'a, GzDecoder<BufReader<File>>>;

/// Calls `visit` with name and contents of every member until it breaks.
///
/// Long names are put together here: the `tar` crate takes as much memory for one as its header says.
///
/// # Errors
///
/// [`DataError::Io`] for an archive that is damaged, [`DataError::UnsafeArchive`] for one with members that
/// an honest one doesn't have: names beyond 4096 bytes, files with holes, and sizes that are said twice.
pub(crate) fn visit(
    path: &Path,
    mut visit: impl FnMut(PathBuf, &mut Contents) -> Result<ControlFlow<()>, DataError>,
) -> Result<(), DataError> {
    let file = File::open(path).map_err(DataError::io("open", path))?;
    let mut archive = Archive::new(GzDecoder::new(BufReader::new(file)));
    let mut long_name = None;
    for entry in archive.entries().map_err(DataError::io("read", path))?.raw(true) {
        let mut entry = entry.map_err(DataError::io("read", path))?;
        let name = long_name.take().unwrap_or_else(|| text(&entry.path_bytes()));
        let refuse = |problem: &str| Err(unsafe_member(path, &name, problem.into()));
        let kind = entry.header().entry_type();
        match kind {
            EntryType::GNULongName | EntryType::GNULongLink | EntryType::XHeader => {
                if entry.size() > MAX_NAME {
                    return refuse("has a name that is too long");
                }
                let mut bytes = vec![];
                entry.read_to_end(&mut bytes).map_err(DataError::io("read", path))?;
                long_name = match kind {
                    EntryType::GNULongName => Some(text(bytes.split(|&byte| byte == 0).next().unwrap_or_default())),
                    EntryType::XHeader => match extended_name(&bytes) {
                        Ok(name) => name,
                        Err(problem) => return refuse(problem),
                    },
                    _ => Some(name),
                };
            }
            // Remarks of the program that made the archive, such as git's.
            EntryType::XGlobalHeader => long_name = None,
            EntryType::GNUSparse => return refuse("is a file with holes"),
            _ => {
                if visit(name.into(), &mut entry)?.is_break() {
                    break;
                }
            }
        }
    }
    Ok(())
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// The name that a POSIX header gives to the next member, if it does.
fn extended_name(header: &[u8]) -> Result<Option<String>, &'static str> {
    let mut name = None;
    for record in PaxExtensions::new(header) {
        let record = record.map_err(|_| "has a header that cannot be read")?;
        match record.key_bytes() {
            b"path" => name = Some(text(record.value_bytes())),
            b"size" => return Err("says its size twice"),
            key if key.starts_with(b"GNU.sparse") => return Err("is a file with holes"),
            _ => {}
        }
    }
    Ok(name)
}

fn unsafe_member(path: &Path, member: &str, problem: String) -> DataError {
    DataError::UnsafeArchive { path: path.into(), member: member.chars().take(200).collect(), problem }
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

/// Vets every member of an archive, and calls `use_member` with name and contents of those expected.
fn visit_members(
    cifar: &Cifar,
    path: &Path,
    mut use_member: impl FnMut(&'static str, &mut Contents) -> Result<(), DataError>,
) -> Result<(), DataError> {
    let mut missing = [cifar.train, &[cifar.test]].concat();
    let most_bytes = (cifar.most_records * cifar.record_bytes()) as u64;
    let mut seen = Vec::new();
    visit(path, |member, entry| {
        let refuse = |problem: String| Err(unsafe_member(path, &member.to_string_lossy(), problem));
        let stays_inside =
            member.components().all(|component| matches!(component, Component::Normal(_) | Component::CurDir));
        if !stays_inside {
            return refuse("points outside of the folder".into());
        }
        match entry.header().entry_type() {
            EntryType::Regular => {}
            EntryType::Directory => return Ok(ControlFlow::Continue(())),
            EntryType::Symlink | EntryType::Link => return refuse("is a link".into()),
            other => return refuse(format!("is no regular file (type {other:?})")),
        }
        if entry.size() > most_bytes {
            let size = entry.size();
            return refuse(format!("has {size} bytes, more than the {most_bytes} of the largest file"));
        }
        // Others, such as readme.html, are passed over.
        let Some(name) = expected_name(cifar, &member) else { return Ok(ControlFlow::Continue(())) };
        if seen.contains(&name) {
            return refuse("is there twice".into());
        }
        seen.push(name);
        missing.retain(|&batch| batch != name);
        use_member(name, entry)?;
        Ok(ControlFlow::Continue(()))
    })?;
    match missing.first() {
        Some(file) => Err(DataError::MissingFile { path: path.into(), file }),
        None => Ok(()),
    }
}

/// The file's name, if `member` is the set's folder and a name that is expected there.
pub(crate) fn expected_name(cifar: &Cifar, member: &Path) -> Option<&'static str> {
    let name = member.strip_prefix("./").unwrap_or(member).strip_prefix(cifar.folder).ok()?;
    let expected = [cifar.train, &[cifar.test], cifar.names].concat();
    expected.into_iter().find(|&expected| name == Path::new(expected))
}
