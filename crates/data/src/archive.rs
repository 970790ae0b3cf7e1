//! Reads the archives of CIFAR-10 and CIFAR-100 without trusting them.
//!
//! Only regular files with the expected names are read, and only up to the size of the official ones. A link,
//! or a member that points outside its folder, makes the whole archive an error.

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

/// Maximum length of a member's name in bytes.
const MAX_NAME: u64 = 4096;

/// A member's contents.
pub(crate) type Contents<'a> = Entry<'a, GzDecoder<BufReader<File>>>;

/// Calls `visit` with the name and contents of every member until it breaks.
///
/// Long names are assembled here, because the `tar` crate allocates as much memory for one as its header claims.
///
/// # Errors
///
/// [`DataError::Io`] for a damaged archive, [`DataError::UnsafeArchive`] for one with members that a genuine
/// archive does not have: names over 4096 bytes, sparse files, and sizes that are stated twice.
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
            // Comments of the program that made the archive, such as git's.
            EntryType::XGlobalHeader => long_name = None,
            EntryType::GNUSparse => return refuse("is a sparse file"),
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

/// The name of the next member if a POSIX extended header gives one.
fn extended_name(header: &[u8]) -> Result<Option<String>, &'static str> {
    let mut name = None;
    for record in PaxExtensions::new(header) {
        let record = record.map_err(|_| "has an unreadable header")?;
        match record.key_bytes() {
            b"path" => name = Some(text(record.value_bytes())),
            b"size" => return Err("states its size twice"),
            key if key.starts_with(b"GNU.sparse") => return Err("is a sparse file"),
            _ => {}
        }
    }
    Ok(name)
}

fn unsafe_member(path: &Path, member: &str, problem: String) -> DataError {
    DataError::UnsafeArchive { path: path.into(), member: member.chars().take(200).collect(), problem }
}

/// Reads a set from its archive, in memory.
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

/// Unpacks a set's archive into `data_dir` and returns the new folder, [`Cifar::folder`], with the set's files.
///
/// The files are written to a temporary folder, which is renamed when all of them are complete: either the
/// whole folder appears or nothing does.
///
/// # Errors
///
/// [`DataError::UnsafeArchive`] for a member with an absolute path or `..`, a link, a device, a file larger
/// than the official ones, or a second member of the same name; [`DataError::MissingFile`] for an incomplete
/// archive; [`DataError::Io`] for a damaged archive, a full disk, or a folder that already exists.
pub fn unpack_cifar(cifar: &Cifar, archive: &Path, data_dir: &Path) -> Result<PathBuf, DataError> {
    fs::create_dir_all(data_dir).map_err(DataError::io("create", data_dir))?;
    // Removed with its contents if this function returns early.
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

/// Checks every member of an archive, and calls `use_member` with the name and contents of the expected ones.
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
            return refuse("points outside the folder".into());
        }
        match entry.header().entry_type() {
            EntryType::Regular => {}
            EntryType::Directory => return Ok(ControlFlow::Continue(())),
            EntryType::Symlink | EntryType::Link => return refuse("is a link".into()),
            other => return refuse(format!("is not a regular file (type {other:?})")),
        }
        if entry.size() > most_bytes {
            let size = entry.size();
            return refuse(format!("has {size} bytes, more than the largest official file ({most_bytes})"));
        }
        // Other files, such as readme.html, are ignored.
        let Some(name) = expected_name(cifar, &member) else { return Ok(ControlFlow::Continue(())) };
        if seen.contains(&name) {
            return refuse("appears twice".into());
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

/// The file's name if `member` is an expected file in the set's folder.
pub(crate) fn expected_name(cifar: &Cifar, member: &Path) -> Option<&'static str> {
    let name = member.strip_prefix("./").unwrap_or(member).strip_prefix(cifar.folder).ok()?;
    let expected = [cifar.train, &[cifar.test], cifar.names].concat();
    expected.into_iter().find(|&expected| name == Path::new(expected))
}
