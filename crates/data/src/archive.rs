//! Reads archives without trusting them: the members of any, and the files of CIFAR-10 and CIFAR-100.
//!
//! Of a CIFAR archive only regular files with the expected names are read, and only up to the size of the official ones. A link,
//! or a member that points outside its folder, makes the whole archive an error.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{self, BufRead, BufReader, Read},
    ops::ControlFlow,
    path::{Path, PathBuf},
};

use flate2::read::GzDecoder;
use tar::{Archive, EntryType, PaxExtensions};

use crate::{
    cifar::{Cifar, Form},
    dataset::Dataset,
    download::sync_folder,
    error::DataError,
    folder::text,
    zip,
};

/// Maximum length of a member's name in bytes.
pub(crate) const MAX_NAME: u64 = 4096;

/// A file or folder in an archive.
pub(crate) struct Member<'a> {
    /// Its name as the archive has it; what is not UTF-8 is written as `\xNN`.
    pub name: String,
    pub kind: MemberKind,
    /// Bytes of its contents.
    pub size: u64,
    pub contents: &'a mut dyn Read,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum MemberKind {
    File,
    Folder,
    Link,
    /// With what it is, in words.
    Other(String),
}

/// Endings of the names of archives that are read.
const ENDINGS: [&str; 4] = [".tar.gz", ".tgz", ".tar", ".zip"];

/// The name of an archive without its ending; `None` if it has none of a known archive.
pub(crate) fn stem(name: &str) -> Option<&str> {
    let ending = ENDINGS.iter().find(|ending| {
        let start = name.len().checked_sub(ending.len());
        start.and_then(|start| name.get(start..)).is_some_and(|end| end.eq_ignore_ascii_case(ending))
    })?;
    Some(&name[..name.len() - ending.len()])
}

/// Calls `visit` with every member until it breaks. Whether it is a zip, a tar or a tar packed with gzip is seen from the contents.
///
/// # Errors
///
/// [`DataError::Io`] for a damaged archive, [`DataError::UnsafeArchive`] for one with members that a genuine
/// archive does not have: names over 4096 bytes, sparse files, and sizes that are stated twice.
pub(crate) fn visit(
    path: &Path,
    mut visit: impl FnMut(&mut Member) -> Result<ControlFlow<()>, DataError>,
) -> Result<(), DataError> {
    let mut file = BufReader::new(File::open(path).map_err(DataError::io("open", path))?);
    let start = file.fill_buf().map_err(DataError::io("read", path))?;
    if start.starts_with(b"PK") {
        return zip::visit(path, &mut visit);
    }
    let tar: Box<dyn Read> =
        if start.starts_with(b"\x1f\x8b") { Box::new(GzDecoder::new(file)) } else { Box::new(file) };
    visit_tar(path, tar, &mut visit)
}

/// Long names are assembled here, because the `tar` crate allocates as much memory for one as its header claims.
fn visit_tar(
    path: &Path,
    tar: Box<dyn Read>,
    visit: &mut dyn FnMut(&mut Member) -> Result<ControlFlow<()>, DataError>,
) -> Result<(), DataError> {
    let mut archive = Archive::new(tar);
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
                let kind = match kind {
                    EntryType::Regular => MemberKind::File,
                    EntryType::Directory => MemberKind::Folder,
                    EntryType::Symlink | EntryType::Link => MemberKind::Link,
                    other => MemberKind::Other(format!("is not a regular file (type {other:?})")),
                };
                let size = entry.size();
                if visit(&mut Member { name, kind, size, contents: &mut entry })?.is_break() {
                    break;
                }
            }
        }
    }
    Ok(())
}

/// A member's name without `.` in it; `None` if it points outside the archive's folder.
pub(crate) fn inner_name(name: &str) -> Option<String> {
    let names: Vec<&str> = name.split('/').filter(|name| !["", "."].contains(name)).collect();
    let is_outside = name.starts_with('/') || names.contains(&"..") || names.first()?.ends_with(':');
    (!is_outside).then(|| names.join("/"))
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
pub(crate) fn read_cifar(cifar: &Cifar, form: Form, path: &Path) -> Result<Dataset, DataError> {
    let mut batches = BTreeMap::new();
    visit_members(cifar, form, path, |name, contents| {
        let mut bytes = Vec::new();
        contents.read_to_end(&mut bytes).map_err(DataError::io("read", path))?;
        batches.insert(name, bytes);
        Ok(())
    })?;
    let contents = |name| batches.remove(name).ok_or(DataError::MissingFile { path: path.into(), file: name });
    cifar.dataset(form, contents, path)
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

    visit_members(cifar, Form::Binary, archive, |name, contents| {
        let path = unpacked.join(name);
        let mut file = File::create_new(&path).map_err(DataError::io("create", &path))?;
        io::copy(contents, &mut file).map_err(DataError::io("unpack", archive))?;
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
    form: Form,
    path: &Path,
    mut use_member: impl FnMut(&'static str, &mut dyn Read) -> Result<(), DataError>,
) -> Result<(), DataError> {
    let mut missing = cifar.files(form);
    let most_bytes = cifar.most_bytes(form) as u64;
    let mut seen = Vec::new();
    visit(path, |member| {
        let refuse = |problem: String| Err(unsafe_member(path, &member.name, problem));
        let Some(inner) = inner_name(&member.name) else { return refuse("points outside the folder".into()) };
        match &member.kind {
            MemberKind::File => {}
            MemberKind::Folder => return Ok(ControlFlow::Continue(())),
            MemberKind::Link => return refuse("is a link".into()),
            MemberKind::Other(problem) => return refuse(problem.clone()),
        }
        if member.size > most_bytes {
            let size = member.size;
            return refuse(format!("has {size} bytes, more than the largest official file ({most_bytes})"));
        }
        // Other files, such as readme.html, are ignored.
        let Some(name) = expected_name(cifar, form, &inner) else { return Ok(ControlFlow::Continue(())) };
        if seen.contains(&name) {
            return refuse("appears twice".into());
        }
        seen.push(name);
        missing.retain(|&batch| batch != name);
        use_member(name, member.contents)?;
        Ok(ControlFlow::Continue(()))
    })?;
    match missing.first() {
        Some(file) => Err(DataError::MissingFile { path: path.into(), file }),
        None => Ok(()),
    }
}

/// The file's name if a member is an expected file in the set's folder.
pub(crate) fn expected_name(cifar: &Cifar, form: Form, member: &str) -> Option<&'static str> {
    let name = member.strip_prefix(cifar.folder(form))?.strip_prefix('/')?;
    let names = if form == Form::Binary { cifar.names } else { &[] };
    cifar.files(form).into_iter().chain(names.iter().copied()).find(|expected| name == *expected)
}
