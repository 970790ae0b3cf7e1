//! The images that a user names: files, folders, patterns, and lists on standard input.

use std::io::{self, Read};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use kiln_data::image_files;

/// Longest list on standard input, in bytes.
const MOST_BYTES: u64 = 256 << 20;

/// Every image, in the order of the arguments; those of a folder or a pattern by their paths.
pub fn files(arguments: &[PathBuf]) -> Result<Vec<PathBuf>> {
    let mut files = vec![];
    for argument in arguments {
        if argument == Path::new("-") {
            files.extend(listed()?);
        } else {
            files.extend(named(argument)?);
        }
    }
    ensure!(!files.is_empty(), "the list on standard input is empty");
    Ok(files)
}

fn named(argument: &Path) -> Result<Vec<PathBuf>> {
    if argument.is_dir() {
        let files = image_files(argument)?;
        ensure!(!files.is_empty(), "there are no images in {}", argument.display());
        return Ok(files);
    }
    // A file may be called like a pattern.
    let is_pattern = |text: &str| text.contains(['*', '?', '[']);
    let Some(pattern) = argument.to_str().filter(|text| is_pattern(text) && !argument.exists()) else {
        return Ok(vec![argument.to_owned()]);
    };
    let paths = glob::glob(pattern).with_context(|| format!("{pattern} is not a pattern of file names"))?;
    let files: Vec<PathBuf> = paths.flatten().filter(|path| !path.is_dir()).collect();
    ensure!(!files.is_empty(), "no file has a name like {pattern}");
    Ok(files)
}

/// The files listed on standard input, a line each, or with zeros between them as `find -print0` writes them.
fn listed() -> Result<Vec<PathBuf>> {
    let mut bytes = vec![];
    io::stdin().take(MOST_BYTES + 1).read_to_end(&mut bytes).context("cannot read standard input")?;
    ensure!(bytes.len() as u64 <= MOST_BYTES, "the list on standard input is longer than {} MiB", MOST_BYTES >> 20);
    let separator = if bytes.contains(&0) { 0 } else { b'\n' };
    let names = bytes.split(|byte| *byte == separator).map(|name| name.strip_suffix(b"\r").unwrap_or(name));
    Ok(names.filter(|name| !name.is_empty()).map(path_of).collect())
}

#[cfg(unix)]
fn path_of(name: &[u8]) -> PathBuf {
    use std::os::unix::ffi::OsStrExt;

    std::ffi::OsStr::from_bytes(name).into()
}

#[cfg(not(unix))]
fn path_of(name: &[u8]) -> PathBuf {
    String::from_utf8_lossy(name).into_owned().into()
}
